"""Words that a shell can complete: commands, their options, and the values of these."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cradlevae.cli.options import Option, options_of
from cradlevae.cli.words import CONFIG, UsageError
from cradlevae.commands.registry import COMMANDS


def completion_of(shell: str) -> str:
    """The script that teaches a shell the commands; :class:`UsageError` for shells that are not known."""
    try:
        import shtab
    except ImportError:
        raise UsageError("completion needs the package shtab: pip install 'cradlevae[completion]'") from None

    if shell not in shtab.SUPPORTED_SHELLS:
        known = " or ".join(shtab.SUPPORTED_SHELLS)
        raise UsageError(f"a completion is printed for {known}, not for {shell!r}")
    parser = argparse.ArgumentParser("cradlevae")
    commands = parser.add_subparsers()
    for command in COMMANDS.values():
        one = commands.add_parser(command.name, help=command.summary)
        one.add_argument(f"--{CONFIG}").complete = shtab.FILE  # type: ignore[attr-defined]
        for option in options_of(command.function()).values():
            action = one.add_argument(*_flags(option), **_values(option))
            if Path in option.kinds:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def _flags(option: Option) -> tuple[str, ...]:
    if option.positional:
        return (option.name,)
    hyphened = option.name.replace("_", "-")
    return (f"--{hyphened}", f"--no-{hyphened}") if option.kinds == (bool,) else (f"--{hyphened}",)


def _values(option: Option) -> dict[str, Any]:
    if option.kinds == (bool,) and not option.positional:
        return {"action": "store_true"}
    several = {"nargs": "*"} if option.several else {}
    return {"choices": option.choices, **several} if option.choices else several

"""Run a command: overview, help, parsing, settings and errors."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cradlevae.cli.options import Option, arguments_of, options_of
from cradlevae.cli.words import UsageError, keyed
from cradlevae.commands.registry import COMMANDS, SETTINGS_FILE, Command

HELP = "-h", "--help"
PRINT_COMPLETION = "--print-completion"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status (0 well, 1 an error that the message explains, 2 wrong usage)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in HELP:
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"cradlevae {version('cradlevae')}")
        return 0
    name = arguments[0]
    if name == PRINT_COMPLETION:
        return _complete(arguments[1:])
    if name not in COMMANDS:
        from cradlevae.utils.names import closest

        print(f"cradlevae: unknown command {name!r}{closest(name, list(COMMANDS))}", file=sys.stderr)
        return 2
    if set(HELP) & set(arguments):
        from cradlevae.cli.usage import help_of

        print(help_of(COMMANDS[name]), end="")
        return 0
    return _run(COMMANDS[name], arguments[1:])


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = "\n".join(f"  {command.name:<{width}}{command.summary}" for command in COMMANDS.values())
    return (
        "usage: cradlevae COMMAND [options]\n\n"
        "Artifact-free predictions from Perturb-seq (CRADLE-VAE), QC-failed cells included.\n\n"
        f"commands:\n{lines}\n\n"
        "`cradlevae COMMAND --help` lists a command's options; each can also stand in a YAML file (--config FILE).\n"
        f"`cradlevae {PRINT_COMPLETION} bash` (or zsh, fish) prints what completes all of them.\n"
        "First steps: `cradlevae demo`, then `cradlevae train data.h5ad --output run/`."
    )


def _complete(arguments: Sequence[str]) -> int:
    from cradlevae.cli.completion import completion_of

    try:
        print(completion_of(" ".join(arguments)))
    except UsageError as error:
        print(f"cradlevae: {error}", file=sys.stderr)
        return 2
    return 0


def _run(command: Command, arguments: Sequence[str]) -> int:
    from cradlevae.errors import CradleError

    try:
        function = command.function()
        options = options_of(function)
        parser, values = parse(command, options, arguments)
        _show_warnings()
        function(**arguments_of(function, values.as_dict()))
        _record(parser, values)
    except UsageError as error:
        print(f"cradlevae {command.name}: {error} (`cradlevae {command.name} --help` lists all)", file=sys.stderr)
        return 2
    except CradleError as error:
        print(f"cradlevae {command.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"cradlevae {command.name}: interrupted", file=sys.stderr)
        return 130
    return 0


def parse(command: Command, options: Mapping[str, Option], arguments: Sequence[str]) -> tuple[Any, Any]:
    """A parser of a command's options, and their values; :class:`UsageError` if a value does not fit."""
    from argparse import ArgumentError

    from jsonargparse import ActionConfigFile, ArgumentParser

    parser = ArgumentParser(prog=f"cradlevae {command.name}", exit_on_error=False)
    parser.add_argument("--config", action=ActionConfigFile)
    for option in options.values():
        default = {"required": True} if option.required else {"default": option.default}
        parser.add_argument(f"--{option.name}", type=option.hint, **default)
    try:
        return parser, parser.parse_args(keyed(arguments, options))
    except ArgumentError as error:
        from cradlevae.cli.usage import explained

        raise UsageError(explained(str(error), options)) from None


def _record(parser: Any, values: Any) -> None:
    """Write what the command used beside what it wrote; it can be given back with ``--config``."""
    from cradlevae.utils.atomic import write_text

    output = Path(values.output)
    path = output / SETTINGS_FILE if output.is_dir() else output.with_name(f"{output.name}.{SETTINGS_FILE}")
    write_text(path, parser.dump(values.clone(with_meta=False)))


def _show_warnings() -> None:
    """Show warnings as lines of text, once each, without the code that raised them."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, UserWarning):
            print(f"warning: {message}", file=sys.stderr)

    warnings.simplefilter("once", UserWarning)
    warnings.showwarning = show

"""What a command's ``--help`` says, and what it says of values that do not fit."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cradlevae.cli.options import Option, options_of
from cradlevae.cli.words import CONFIG, PRINT_CONFIG
from cradlevae.commands.registry import Command
from cradlevae.utils.docs import PREAMBLE, parameter_texts, plain, sections

KINDS: dict[Any, tuple[str, str]] = {
    int: ("N", "a whole number"),
    float: ("X", "a number"),
    str: ("WORD", "a word"),
    Path: ("PATH", "a path"),
    bool: ("{true,false}", "true or false"),
}
"""How each type is shown: as a place-holder, and in a sentence."""

OTHER = "VALUE", "a value of its type"
"""How any other type is shown."""


def help_of(command: Command) -> str:
    """Usage, summary, and every option with its text and default."""
    function = command.function()
    options = options_of(function)
    texts = parameter_texts(*command.described_by(), *_groups(function))
    words = " ".join(
        f"{option.shown}..." if option.several else option.shown for option in options.values() if option.positional
    )
    needed = " ".join(f"--{o.name} {_metavar(o)}" for o in options.values() if o.required and not o.positional)
    parser = argparse.ArgumentParser(
        usage=" ".join(f"cradlevae {command.name} {words} {needed} [options]".split()),
        description=plain(sections(function.__doc__)[PREAMBLE]),
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=110),
        add_help=False,
    )
    arguments, others = parser.add_argument_group("arguments"), parser.add_argument_group("options")
    advanced = parser.add_argument_group("advanced options") if command.everyday else others
    first = [options[name] for name in command.everyday]
    for option in [*first, *(option for option in options.values() if option not in first)]:
        text = _text(option, texts).replace("%", "%%")
        group = others if option in first else advanced
        if option.positional:
            arguments.add_argument(option.shown, help=text)
        elif option.kinds == (bool,):
            group.add_argument(f"--{option.name}", f"--no_{option.name}", action="store_true", help=text)
        else:
            several = "?" if option.switch and not option.several else None
            group.add_argument(f"--{option.name}", metavar=_metavar(option), nargs=several, help=text)
    others.add_argument(f"--{CONFIG}", metavar="FILE", help="YAML file with any of these options.")
    others.add_argument(f"--{PRINT_CONFIG}", action="store_true", help="Print the configuration as YAML and stop.")
    others.add_argument("-h", "--help", action="store_true", help="Show this help and stop.")
    return parser.format_help()


def explained(message: str, options: Mapping[str, Option]) -> str:
    """What the parser says about a value, in one line."""
    named = re.match(r'Parser key "(?P<name>[^"]+)":', message)
    given = re.search(r"(?:Given|Got) value: (?P<value>.*)", message)
    if named and given and named["name"] in options:
        option = options[named["name"]]
        return f"{option.shown} is {given['value'].strip()!r}; it must be {_expected(option)}"
    return " ".join(message.split())


def _groups(function: Any) -> tuple[Any, ...]:
    """The dataclasses whose fields are options of a function."""
    groups = {option.group for option in options_of(function).values() if option.group}
    return tuple(kind for name, kind in get_type_hints(function).items() if name in groups)


def _text(option: Option, texts: Mapping[str, str]) -> str:
    nothing = "leaving it out" if option.default is None else "null"
    text = plain(texts.get(option.name, "").replace("``None``", nothing))
    if option.positional and option.choices:
        text = f"{text.removesuffix('.')}: {', '.join(option.choices)}."
    text = text.replace(". leaving", ". Leaving")
    if option.required or option.default is None:
        return text
    default = option.default
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    if isinstance(default, bool):
        default = str(default).lower()
    return f"{text} (default: {default})"


def _metavar(option: Option) -> str:
    """A place-holder for the value of an option."""
    shown = []
    for kind in option.kinds:
        if get_origin(kind) is Literal:
            shown.append("{" + ",".join(map(str, get_args(kind))) + "}")
        elif get_origin(kind) in (list, tuple):
            shown.append("WORD ...")
        else:
            shown.append(KINDS.get(kind, OTHER)[0])
    if "WORD ..." in shown and "WORD" in shown:
        shown.remove("WORD")
    return "|".join(shown)


def _expected(option: Option) -> str:
    """The values that an option takes, in words."""
    expected = []
    for kind in option.kinds:
        if get_origin(kind) is Literal:
            expected.append("one of " + ", ".join(map(str, get_args(kind))))
        elif get_origin(kind) in (list, tuple):
            expected.append("a list of words")
        else:
            expected.append(KINDS.get(kind, OTHER)[1])
    return " or ".join(expected)

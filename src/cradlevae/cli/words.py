"""The words of a command line, sorted to the options that they belong to.

Options are written ``--max_epochs 3``, ``--max-epochs 3`` or ``--max_epochs=3``. A switch needs no value
(``--resume``, ``--no-progress``). An option of several values takes the words up to the next option
(``--criteria umi genes``), except for those at the end that the command itself still lacks (``qc --criteria umi genes
data.h5ad``); where that can be read in two ways, it is an error. Values may be separated by commas as well
(``--criteria umi,genes``), or stand in brackets with quotes around a value that contains a comma (``'["a,b", c]'``).
``null``, ``none`` and ``None`` mean no value where an option may have none (``--separator none``), on the command line
and in YAML files, whose options may be written with hyphens as well (``n-cells: 2``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cradlevae.cli.options import NO, NULL, YES, Option

CONFIG = "config"
PRINT_CONFIG = "print_config"


class UsageError(Exception):
    """A command line that cannot be understood; the message is one line."""


@dataclass
class _Words:
    """Words by what they belong to.

    Attributes
    ----------
    values
        The words of each option; an empty list is a switch without a word.
    open
        Places of the words that follow an option of several values, which may belong to the command instead.
    loose
        Words that follow no option, by their place in the command line.
    configs
        YAML files.
    print_config
        Whether the configuration is to be printed, and how: ``None``, or what follows ``--print_config``.
    """

    values: dict[str, list[str]] = field(default_factory=dict)
    open: dict[str, list[int]] = field(default_factory=dict)
    loose: dict[int, str] = field(default_factory=dict)
    configs: list[str] = field(default_factory=list)
    print_config: str | None = None


def keyed(arguments: Sequence[str], options: Mapping[str, Option]) -> list[str]:
    """A command line in which every value has its name: ``--name=value``; YAML files come first.

    Raises
    ------
    UsageError
        If an option is unknown, a value is missing or superfluous, or it is unclear what a word belongs to.
    """
    words = _read(arguments, options)
    configs = [_read_config(path, options) for path in words.configs]
    known = set(words.values).union(*(keys for keys, _ in configs))
    lacking = [option for option in options.values() if option.positional and option.name not in known]
    _close(words, lacking, options)
    _place(words, lacking)
    missing = [one.shown for one in options.values() if one.required and one.name not in known | set(words.values)]
    if missing and words.print_config is None:
        raise UsageError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    printed = [] if words.print_config is None else [f"--{PRINT_CONFIG}{words.print_config}"]
    values = [f"--{name}={_value(options[name], content)}" for name, content in words.values.items()]
    return [*(f"--{CONFIG}={content}" for _, content in configs), *printed, *values]


def _read(arguments: Sequence[str], options: Mapping[str, Option]) -> _Words:
    words = _Words()
    place = 0
    while place < len(arguments):
        word = arguments[place]
        if not _is_option(word):
            words.loose[place] = word
            place += 1
            continue
        place += 1
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        following = [] if equals else _following(arguments, place)
        if name == PRINT_CONFIG:
            words.print_config = equals + value
            continue
        if name.startswith("no_") and name[3:] in options and options[name[3:]].switch and not equals:
            words.values[name[3:]] = [NO[0]]
            continue
        if name == CONFIG:
            if not (equals or following):
                raise UsageError("--config needs a file")
            words.configs.append(value if equals else following[0])
            place += not equals
            continue
        option = _known(name, options)
        taken = [value] if equals else _own(option, following)
        if not (taken or option.switch):
            raise UsageError(f"--{option.name} needs a value")
        earlier = words.values.get(name, []) if option.several else []
        words.values[name] = earlier + taken
        if option.several and not equals:
            words.open[name] = [place + i for i in range(len(taken))]
        place += 0 if equals else len(taken)
    return words


def _is_option(word: str) -> bool:
    return word.startswith("--") and len(word) > 2


def _following(arguments: Sequence[str], place: int) -> list[str]:
    """Words from a place on, up to the next option."""
    until = next((i for i in range(place, len(arguments)) if _is_option(arguments[i])), len(arguments))
    return list(arguments[place:until])


def _known(name: str, options: Mapping[str, Option]) -> Option:
    if name not in options:
        from cradlevae.utils.names import closest

        raise UsageError(f"unknown option --{name}{closest(name, list(options))}")
    return options[name]


def _own(option: Option, following: list[str]) -> list[str]:
    """Those of the following words that an option takes."""
    if option.several:
        return following
    free = str in option.kinds  # any word may be its value
    if option.switch and not free and following and following[0].lower() not in (*YES, *NO, *option.choices):
        return []
    return following[:1]


def _read_config(path: str, options: Mapping[str, Option]) -> tuple[set[str], str]:
    """Options that a YAML file sets, and the file as the parser reads it: its path, or its text where that is altered.

    In the text, names have underscores in place of hyphens, and words that mean ``None`` are ``null``.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        content, tree = yaml.safe_load(text), yaml.compose(text)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(tree, yaml.MappingNode):
        raise UsageError(f"{path} holds no options, which are lines such as `max_epochs: 3`")
    names = [str(name).replace("-", "_") for name in content]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{path} has {twice} twice, with a hyphen and with an underscore; give it once")
    altered = text
    for key, value in reversed(tree.value):  # from the end, so that the places before stay where they are
        name = key.value.replace("-", "_")
        none = name in options and options[name].optional and isinstance(value, yaml.ScalarNode) and not value.style
        if none and value.value.lower() in NULL:
            altered = altered[: value.start_mark.index] + NULL[0] + altered[value.end_mark.index :]
        if name in options and name != key.value:
            altered = altered[: key.start_mark.index] + name + altered[key.end_mark.index :]
    return {name if name in options else str(given) for name, given in zip(names, content, strict=True)}, (
        path if altered == text else altered
    )


def _close(words: _Words, lacking: Sequence[Option], options: Mapping[str, Option]) -> None:
    """Give the command the words that it lacks, from the end of the one option of several values that has some left."""
    n_lacking = len(lacking) - len(words.loose)
    spare = {name: len(words.values[name]) - (not options[name].switch) for name in words.open}
    spare = {name: min(n, len(words.open[name])) for name, n in spare.items() if n > 0}
    if n_lacking <= 0 or not spare:
        return
    if len(spare) > 1 or any(option.several for option in lacking):
        ends = " and ".join(f"--{name}" for name in spare)
        first = " ".join(option.shown for option in lacking)
        raise UsageError(f"it is unclear where the values of {ends} end; write {first} before them")
    [(name, n_spare)] = spare.items()
    for _ in range(min(n_lacking, n_spare)):
        words.loose[words.open[name].pop()] = words.values[name].pop()


def _place(words: _Words, lacking: Sequence[Option]) -> None:
    """Give the words that follow no option to what the command lacks, in their order."""
    loose = [words.loose[place] for place in sorted(words.loose)]
    for option in lacking:
        taken = loose if option.several else loose[:1]
        loose = loose[len(taken) :]
        if taken:
            words.values[option.name] = list(taken)
    if loose:
        raise UsageError(f"{loose[0]!r} belongs to no option")


def _value(option: Option, words: list[str]) -> str:
    """The value of an option in the form that the parser reads."""
    if option.switch and not words:
        return YES[0]
    if option.switch and len(words) == 1 and words[0].lower() in (*YES, *NO):
        return YES[0] if words[0].lower() in YES else NO[0]
    if option.optional and len(words) == 1 and words[0].strip().lower() in NULL:
        return NULL[0]
    if not option.several:
        return words[0]
    values = [value for word in words for value in _split(option, word)]
    one = len(values) == 1 and str in option.kinds and not words[0].startswith("[")
    return values[0] if one else json.dumps(values, ensure_ascii=False)


def _split(option: Option, word: str) -> list[str]:
    """The values that a word of an option of several values holds."""
    if word.startswith("[") and word.endswith("]"):
        return _bracketed(option, word)
    values = [value.strip() for value in word.split(",")]
    if "" in values:
        raise UsageError(f"{option.shown} has an empty value in {word!r}")
    return values


def _bracketed(option: Option, word: str) -> list[str]:
    import yaml

    try:
        values: Any = yaml.load(word, Loader=yaml.BaseLoader)  # every value stays the text that it is
    except yaml.YAMLError:
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise UsageError(f"{option.shown} has {word!r}, which is no list of words such as '[\"a,b\", c]'")
    return values

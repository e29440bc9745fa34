"""Docstrings whose texts stand once: a method shows the parameter texts of the function that it calls."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])

PREAMBLE = ""
"""Key of the text that stands before the first section of a docstring."""

COPIED = ("Returns", "Raises", "Warns")
"""Sections that a docstring takes over whole where it has none of its own."""

_HEADING = re.compile(r"^(?P<title>[A-Z][A-Za-z ]*)\n-{3,}\n", re.MULTILINE)
_ROLE = re.compile(r":[a-z]+:`(?P<short>[~.]?)(?P<name>[^`]+)`")

_ASIDE = re.compile(r" \((?:see )?:\w+:`[^`]+`\)")
"""A reference to the code, which says nothing on a terminal."""


def documented_by(*sources: Any) -> Callable[[T], T]:
    """Complete the docstring of a function or class by those of the functions or classes that it passes on to.

    The signature stays the target's own, so that editors, type checkers and :func:`inspect.signature` see it as it is
    written. Its docstring needs a summary and whatever it says differently: the text of each other parameter, a longer
    description, and the sections in :data:`COPIED` come from the first source that has them. Of several sources, one
    that describes a parameter alone precedes one that describes it together with others.

    Parameters
    ----------
    *sources
        Functions or classes with numpydoc docstrings.

    Raises
    ------
    TypeError
        If a parameter is described nowhere.
    """

    def complete(target: T) -> T:
        if target.__doc__ is not None:  # python -OO leaves docstrings out
            target.__doc__ = _completed(target, sources)
        return target

    return complete


def sections(docstring: str | None) -> dict[str, str]:
    """Text of each section of a numpydoc docstring by its title; :data:`PREAMBLE` is what stands before them."""
    text = inspect.cleandoc(docstring or "")
    headings = list(_HEADING.finditer(text))
    starts = [0, *(heading.end() for heading in headings)]
    ends = [*(heading.start() for heading in headings), len(text)]
    titles = [PREAMBLE, *(heading["title"] for heading in headings)]
    return {title: text[start:end].strip("\n") for title, start, end in zip(titles, starts, ends, strict=True)}


def parameter_texts(*sources: Any) -> dict[str, str]:
    """Text of every parameter that functions or classes describe, the first that describes it alone preceding."""
    alone: dict[str, str] = {}
    together: dict[str, str] = {}
    for source in sources:
        described = sections(source.__doc__).get("Parameters", "")
        for entry in re.split(r"\n(?=\S)", described):
            head, _, body = entry.partition("\n")
            names = [name.strip() for name in head.split(" : ")[0].split(",")]
            for name in names:
                (alone if len(names) == 1 else together).setdefault(name, inspect.cleandoc(body))
    return {name: text for name, text in (together | alone).items() if name}


def plain(text: str) -> str:
    """A text of a docstring in one line without markup, for a terminal."""

    def last(role: re.Match[str]) -> str:
        return role["name"].rpartition(".")[2] if role["short"] else role["name"].removeprefix("cradlevae.")

    text = _ASIDE.sub("", " ".join(text.split()))
    return " ".join(_ROLE.sub(last, text).replace("``", "").split())


def _completed(target: Any, sources: tuple[Any, ...]) -> str:
    own, others = sections(target.__doc__), [sections(source.__doc__) for source in sources]
    texts = parameter_texts(*sources) | parameter_texts(target)
    parts = [_description(own[PREAMBLE], others[0][PREAMBLE] if inspect.isroutine(target) else "")]
    names = _parameter_names(target)
    if missing := [name for name in names if name not in texts]:
        raise TypeError(f"no docstring describes {', '.join(missing)} of {target.__qualname__}")
    if names:
        entries = "\n".join(f"{name}\n{_indented(texts[name])}" for name in names)
        parts.append(_section("Parameters", entries))
    copied = {title: next((text[title] for text in [own, *others] if title in text), "") for title in COPIED}
    own_only = {title: text for title, text in own.items() if title not in (PREAMBLE, "Parameters", *COPIED)}
    parts += [_section(title, text) for title, text in (copied | own_only).items() if text]
    return "\n\n".join(parts) + "\n"


def _description(own: str, other: str) -> str:
    """The target's summary with its own further paragraphs, or else with those of the source."""
    _, _, further = other.partition("\n\n")
    return own if "\n\n" in own or not further else f"{own}\n\n{further}"


def _parameter_names(target: Any) -> list[str]:
    prefix: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(target).parameters.values()
    return [prefix.get(one.kind, "") + one.name for one in parameters if one.name not in ("self", "cls")]


def _section(title: str, text: str) -> str:
    return f"{title}\n{'-' * len(title)}\n{text}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())

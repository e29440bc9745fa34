"""Names in messages: the closest ones to a name that is unknown, and the first few of many."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def closest(name: str, known: Sequence[str]) -> str:
    """End of an error message that gives the names most like ``name``."""
    lowered = {candidate.casefold(): candidate for candidate in known}
    matches = [lowered[key] for key in difflib.get_close_matches(name.casefold(), lowered, n=3, cutoff=0.5)]
    if matches:
        return "; did you mean " + " or ".join(map(repr, matches)) + "?"
    return f"; known: {listed(known, 8)}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first few names, quoted, for a message; an ellipsis stands for the others."""
    return ", ".join(map(repr, list(names)[:most])) + (", …" if len(names) > most else "")

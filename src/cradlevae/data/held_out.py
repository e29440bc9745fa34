"""Perturbations that are held out in contexts, from what a user may write."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from cradlevae.data.fields import DataFields
from cradlevae.data.labels import requested_conditions, singles_of
from cradlevae.errors import DataError
from cradlevae.utils.checks import shown
from cradlevae.utils.fields import plain


def canonical_pairs(
    held_out: Sequence[tuple[str, str]], fields: DataFields, known: Collection[str]
) -> tuple[tuple[str, str], ...]:
    """Pairs with the canonical names of their conditions."""
    singles = {single for name in known for single in singles_of(name)}
    canonical = []
    for label, context in held_out:
        condition = requested_conditions(
            label, separator=fields.separator, control_labels=fields.control_labels, perturbations=singles,
            guides=fields.guides_key is not None,
        )[label]  # fmt: skip
        if not condition.singles:
            raise DataError("held_out names the controls, which no effect could be measured without; leave them out")
        canonical.append((str(condition), context))
    return tuple(canonical)


def held_out_pairs(held_out: Any) -> tuple[tuple[str, str], ...]:
    """Pairs of perturbation and context from what a user may write."""
    if isinstance(held_out, str):
        held_out = [held_out]
    if not isinstance(held_out, Iterable):
        raise DataError(f"held_out is {shown(held_out)}; give pairs such as ('A', 'D1')")
    pairs = []
    for pair in held_out:
        parts = tuple(pair.rpartition(":")[::2]) if isinstance(pair, str) else pair
        whole = isinstance(parts, list | tuple) and len(parts) == 2
        words = tuple(str(plain(word)) if isinstance(plain(word), str | int) else "" for word in parts) if whole else ()
        if len(words) != 2 or not all(words):
            raise DataError(
                f"held_out has {shown(pair)}; give pairs of a perturbation and a context, such as ('A', 'D1') or 'A:D1'"
            )
        pairs.append((words[0], words[1]))
    return tuple(pairs)

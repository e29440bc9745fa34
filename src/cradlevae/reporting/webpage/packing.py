"""Arrays of numbers as short texts, which the page turns into arrays again."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import numpy as np

from cradlevae.errors import DataError

MISSING = {2: -(2**15), 4: -(2**31)}
"""Whole number that stands for a missing value, by bytes of a number."""


def packed(values: Any, step: float = 1.0, *, delta: bool = False) -> dict[str, Any]:
    """Numbers as multiples of a step, compressed.

    The multiples are whole numbers of two bytes, of four where two do not hold them. Their first bytes come first, then
    their second ones, and so on, which compresses better: those of higher order are nearly all alike.

    Parameters
    ----------
    values
        Numbers, (n,); missing ones are NaN.
    step
        What the numbers are rounded to.
    delta
        Keep the difference of each known number to the one before it, which is shorter for numbers in order.

    Returns
    -------
    dict
        ``data`` (gzip, base64), ``bytes`` of a number, ``step`` and ``delta``.

    Raises
    ------
    DataError
        If a number is infinite, or too large for its step.

    Examples
    --------
    >>> from cradlevae.reporting.webpage.packing import packed, unpacked
    >>> unpacked(packed([0.5, 0.123, -2.0], step=0.01)).round(2)
    array([ 0.5 ,  0.12, -2.  ])
    """
    multiples = np.rint(np.asarray(values, dtype=np.float64).ravel() / step)
    known = ~np.isnan(multiples)
    limit = MISSING[4] + 1
    if (np.abs(multiples[known]) > -limit).any():
        raise DataError(f"numbers up to {np.abs(multiples[known]).max() * step:g} cannot be kept in steps of {step:g}")
    whole = np.zeros(len(multiples), dtype=np.int64)
    whole[known] = multiples[known].astype(np.int64)
    if delta:
        whole[known] = np.diff(whole[known], prepend=0)
    size = 2 if np.abs(whole).max(initial=0) < -MISSING[2] else 4
    whole[~known] = MISSING[size]
    planes = whole.astype(f"<i{size}").view(np.uint8).reshape(-1, size).T
    return {"data": compressed(planes.tobytes()), "bytes": size, "step": step, "delta": delta}


def unpacked(array: dict[str, Any]) -> Any:
    """The numbers of :func:`packed`, as the page reads them; float64, (n,)."""
    planes = np.frombuffer(gzip.decompress(base64.b64decode(array["data"])), dtype=np.uint8)
    size = array["bytes"]
    whole = planes.reshape(size, -1).T.copy().view(f"<i{size}").ravel().astype(np.int64)
    missing = whole == MISSING[size]
    values = np.where(missing, 0, whole)
    values = np.cumsum(values) if array["delta"] else values
    return np.where(missing, np.nan, values * array["step"])


def compressed(content: bytes) -> str:
    """Bytes as a text: gzip, then base64; the same bytes give the same text."""
    return base64.b64encode(gzip.compress(content, compresslevel=9, mtime=0)).decode("ascii")

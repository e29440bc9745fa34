"""Checks of arguments: a value comes back as Python's own, or an error names the argument, the value and the mend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.errors import DataError
from cradlevae.utils.fields import plain
from cradlevae.utils.outputs import refuse_store

LARGEST_SEED = 2**63 - 1
"""Largest seed that all random generators take."""

PARTS_OF_ANNDATA = ("X", "var", "uns", "layers", "obsm", "obs_names", "var_names", "shape")
"""What is read of an AnnData beside ``obs``."""


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise :class:`DataError` unless a value is one of those allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise DataError(f"{name} is {shown(value)}; choose one of {', '.join(allowed)}")


def check_at_least(least: float, **values: float) -> None:
    """Raise :class:`DataError` unless every value is a finite number and not below ``least``."""
    for name, value in values.items():
        if not least <= value < float("inf"):
            raise DataError(f"{name} is {value}; it must be at least {least}")


def whole_number(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """Return a whole number between two bounds; :class:`DataError` where it is none."""
    number = plain(value)
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    if not isinstance(number, int) or isinstance(number, bool):
        raise DataError(f"{name} is {shown(value)}; it must be a whole number, {bounds}")
    if number < least or (most is not None and number > most):
        raise DataError(f"{name} is {number}; it must be {bounds}")
    return number


def seed_number(seed: Any) -> int:
    """Return a seed; :class:`DataError` where it is no whole number, or is below 0."""
    number = whole_number("seed", seed)
    if number > LARGEST_SEED:
        raise DataError(f"seed is {number}; it must be below 2**63")
    return number


def real_number(
    name: str, value: Any, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> float:
    """Return a finite number between bounds, of which ``above`` is not itself allowed; :class:`DataError` else."""
    number = plain(value)
    if most is not None:
        rule = f"lie between {above if least is None else least:g} and {most:g}"
    elif above == 0:
        rule = "be a positive number"
    else:
        rule = "be a number" + (f", at least {least:g}" if least is not None else "")
    if (
        not isinstance(number, int | float)
        or isinstance(number, bool)
        or not np.isfinite(number)
        or (least is not None and number < least)
        or (above is not None and number <= above)
        or (most is not None and number > most)
    ):
        raise DataError(f"{name} must {rule}, not {shown(value)}")
    return float(number)


def probability(name: str, value: Any, example: float = 0.9) -> float:
    """Return a probability between 0 and 1, both excluded; :class:`DataError` where it is none."""
    number = plain(value)
    if not isinstance(number, int | float) or isinstance(number, bool) or not 0 < number < 1:
        raise DataError(f"{name} is {shown(value)}; it must lie between 0 and 1, e.g. {example}")
    return float(number)


def flag(name: str, value: Any) -> bool:
    """Return true or false; :class:`DataError` for anything else, numbers too."""
    truth = plain(value)
    if not isinstance(truth, bool):
        raise DataError(f"{name} is {shown(value)}; it must be true or false")
    return truth


def text(name: str, value: Any, *, empty: bool = False) -> str:
    """Return a text; :class:`DataError` where it is none, or is empty but must not be."""
    word = plain(value)
    if not isinstance(word, str) or not (word or empty):
        raise DataError(f"{name} is {shown(value)}; it must be a text")
    return word


def optional_text(name: str, value: Any) -> str | None:
    """Return a text or ``None``; :class:`DataError` for anything else."""
    return None if value is None else text(name, value)


def texts(name: str, value: Any, *, empty: bool = False) -> tuple[str, ...]:
    """Return one text or several as a tuple; :class:`DataError` where something else is among them."""
    if isinstance(value, str):
        return (text(name, value, empty=empty),)
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes | pd.DataFrame):
        raise DataError(f"{name} is {shown(value)}; it must be a text or a list of texts")
    return tuple(text(name, item, empty=empty) for item in value)


def path_of(name: str, value: Any) -> Path:
    """Return a path from a text or a path; :class:`DataError` for anything else."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise DataError(f"{name} is {shown(value)}; it must be the path of a file or folder")
    return Path(value)


def output_file(name: str, value: Any) -> Path:
    """Return the path of a file to write; :class:`DataError` where it is none, or the path of a folder."""
    path = path_of(name, value)
    if path.is_dir():
        raise DataError(f"{name} is {str(path)!r}, which is a folder; name a file in it")
    return path


def optional_output(name: str, value: Any) -> Path | None:
    """Return the path of a file to write, or ``None``; :class:`DataError` for anything else, folders too."""
    return None if value is None else output_file(name, value)


def output_folder(name: str, value: Any) -> Path:
    """Return the path of a folder to write into; :class:`DataError` where it is none, or a file or a zarr store."""
    path = path_of(name, value)
    refuse_store(path)
    if path.exists() and not path.is_dir():
        raise DataError(f"{name} is {str(path)!r}, which is a file; name a folder")
    return path


def check_anndata(adata: Any, name: str = "adata") -> None:
    """Raise :class:`DataError` unless this is an AnnData, or cells that :func:`cradlevae.open_cells` has opened."""
    if isinstance(adata, str | os.PathLike):
        raise DataError(
            f"{name} is the path {str(adata)!r}; open the file first: cradlevae.open_cells(path) leaves the counts on "
            "disk, anndata.read_h5ad(path) reads them into memory"
        )
    obs = getattr(adata, "obs", None)
    known = {*dir(type(adata)), *getattr(adata, "__dict__", {})}
    if not isinstance(obs, pd.DataFrame) or not known.issuperset(PARTS_OF_ANNDATA):
        raise DataError(
            f"{name} is {shown(adata)}; it must be an AnnData, or what cradlevae.open_cells gives for a file"
        )
    check_columns(obs, f"{name}.obs")


def check_columns(table: pd.DataFrame, where: str) -> None:
    """Raise :class:`DataError` where a table has two columns of one name."""
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise DataError(f"{where} has several columns {twice!r}; rename or drop all but one of them")


def shown(value: Any) -> str:
    """Return a value as a message shows it: short ones as they are, others by their type."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | os.PathLike | np.generic):
        written = repr(plain(value))
    elif isinstance(value, list | tuple | set | dict):
        written = repr(value)
    else:
        written = ""
    return written if 0 < len(written) <= 60 else f"of the type {type(value).__name__}"

"""The table of guide RNAs: the target of each, as a file or a mapping says it, or else by its name."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cradlevae.data.guides.names import is_control_name, targets_of_names
from cradlevae.data.labels import CONTROL, DEFAULT_CONTROLS, MISSING, TARGET
from cradlevae.errors import DataError
from cradlevae.utils.checks import path_of, shown
from cradlevae.utils.names import listed

GUIDES = "guides"
"""Key of ``obsm`` with the counts of guide RNAs, and of ``uns`` with the table of guide RNAs."""

GUIDE_HEADERS = ("guide", "guide_id", "guide_name", "guide_rna", "grna", "sgrna", "sgrna_id", "grna_id", "id", "name")
"""Headers of columns with guide RNAs in a file of targets, the likeliest first; case does not matter."""

TARGET_HEADERS = (
    "target", "target_gene_name", "target_gene", "target_name", "gene", "gene_symbol", "gene_name", "target_gene_id"
)  # fmt: skip
"""Headers of columns with their targets."""

SEPARATORS = ",", "\t", ";", "|"
"""What may stand between the columns of a file of targets."""

EXAMPLES = 4
"""Number of guide RNAs that a message shows with their targets."""

GuideTargets = str | Path | Mapping[str, str] | None
"""A file of targets, a mapping from guide RNA to target, or neither."""


def guide_table(
    names: Sequence[str],
    ids: Sequence[str],
    genes: Sequence[str],
    guide_targets: GuideTargets,
    declared: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return the table of guide RNAs: index ``guide``, columns ``target`` and ``id``.

    Parameters
    ----------
    names, ids
        Names of the guide RNAs, and their other names, (guide RNAs,); the first are unique.
    genes
        Names of the genes of the data.
    guide_targets
        The target of each guide RNA, or ``None`` where the names tell it.
    declared
        The targets that the file of counts holds, (guide RNAs,), empty where it says nothing of one.

    Raises
    ------
    DataError
        If a guide RNA has no target in ``guide_targets``, or the file cannot be read.

    Warns
    -----
    UserWarning
        Where targets are read from names, with examples; of targets that are no gene of the data.
    """
    own_targets = list(zip(names, declared or [""] * len(names), strict=True))
    if guide_targets is None:
        read = targets_of_names(names, genes)
        known = {str(gene) for gene in genes}
        targets = [read[name] if _absent(own) else _target(name, own, known, "the file") for name, own in own_targets]
        by_name = [name for name, own in own_targets if _absent(own)]
        if by_name:
            _warn_of_names(by_name, [read[name] for name in by_name], genes)
    else:
        targets = _given_targets(names, ids, genes, guide_targets)
    return pd.DataFrame({TARGET: targets, "id": list(ids)}, index=pd.Index(list(names), name="guide"))


def target_examples(table: pd.DataFrame) -> str:
    """Return a few guide RNAs with their targets, controls among them, for a message."""
    own = table[TARGET].astype(str)
    control = own == CONTROL
    first = own[~control].drop_duplicates().iloc[: EXAMPLES - 1]
    chosen = pd.concat([first, own[control].iloc[:1]])
    return ", ".join(f"{guide} → {target}" for guide, target in chosen.items()) + (
        ", …" if len(own) > len(chosen) else ""
    )


def _warn_of_names(names: Sequence[str], targets: Sequence[str], genes: Sequence[str]) -> None:
    table = pd.DataFrame({TARGET: targets}, index=pd.Index(list(names)))
    known = {str(gene).casefold() for gene in genes}
    unknown = sorted({target for target in targets if target != CONTROL and target.casefold() not in known})
    more = f"; {len(unknown)} targets are no gene of the data: {listed(unknown, 3)}" if unknown else ""
    n_controls = sum(target == CONTROL for target in targets)
    warnings.warn(
        f"the targets of {len(names):,} guide RNAs are read from their names: {target_examples(table)} "
        f"({n_controls:,} controls){more}; say the targets with guide_targets= where this is wrong",
        stacklevel=4,
    )


def _given_targets(
    names: Sequence[str], ids: Sequence[str], genes: Sequence[str], guide_targets: str | Path | Mapping[str, str]
) -> list[str]:
    if isinstance(guide_targets, Mapping):
        given, where = {str(guide): target for guide, target in guide_targets.items()}, "guide_targets"
    else:
        path = path_of("guide_targets", guide_targets)
        given, where = _read(path), str(path)
    rows = [given.get(name, given.get(other)) for name, other in zip(names, ids, strict=True)]
    absent = [name for name, target in zip(names, rows, strict=True) if target is None]
    if absent:
        raise DataError(
            f"{where} has no target for {len(absent):,} of {len(names):,} guide RNAs: {listed(absent)}; add a row for "
            "each, with the target 'control' for those that target no gene"
        )
    known = {str(gene) for gene in genes}
    return [_target(name, target, known, where) for name, target in zip(names, rows, strict=True)]


def _target(guide: str, target: object, genes: set[str], where: str) -> str:
    if not isinstance(target, str) or _absent(target):
        raise DataError(
            f"{where}: the target of guide RNA {guide!r} is {shown(target)}; name a gene, or 'control' for a guide RNA "
            "that targets none"
        )
    target = target.strip()
    if target.casefold() in DEFAULT_CONTROLS or (target not in genes and is_control_name(target)):
        return CONTROL
    return target


def _absent(target: str) -> bool:
    return str(target).strip().casefold() in MISSING


def _read(path: Path) -> dict[str, str]:
    """Read a file of targets, by whatever stands between its columns: guide RNA (name and id) to target."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"guide_targets is {str(path)!r}, and there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"guide_targets: {path} cannot be read as a table ({error})") from None
    try:
        readings = [_rows(text, separator) for separator in SEPARATORS]
    except csv.Error as error:
        raise DataError(f"guide_targets: {path} cannot be read as a table ({error})") from None
    rows = next((rows for rows in readings if None not in _columns(rows)), max(readings, key=_width))
    guide_columns, target_column = _columns(rows)
    if guide_columns is None or target_column is None:
        raise DataError(
            f"guide_targets: the first line of {path} names no columns for guide RNAs and targets (there: "
            f"{', '.join(map(repr, rows[0])) if rows else 'nothing'}); name them 'guide' and 'target'"
        )
    targets: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) <= max(*guide_columns, target_column):
            raise DataError(f"guide_targets: row {number} of {path} has {len(row)} columns, its first {len(rows[0])}")
        for guide in {row[column] for column in guide_columns} - {""}:
            if targets.setdefault(guide, row[target_column]) != row[target_column]:
                raise DataError(
                    f"guide_targets: {path} names two targets of guide RNA {guide!r}, {targets[guide]!r} and "
                    f"{row[target_column]!r}"
                )
    return targets


def _rows(text: str, separator: str) -> list[list[str]]:
    """Rows of a table that are not empty."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return [[value.strip() for value in row] for row in rows if any(row)]


def _width(rows: list[list[str]]) -> int:
    return len(rows[0]) if rows else 0


def _columns(rows: list[list[str]]) -> tuple[list[int] | None, int | None]:
    """Positions of the columns of guide RNAs and of targets, by the first row; ``None`` where it names none."""
    first = list(enumerate(rows[0] if rows else []))
    columns = {re.sub("[-. ]+", "_", name.casefold()): column for column, name in reversed(first)}
    guides = [columns[name] for name in GUIDE_HEADERS if name in columns]
    return guides or None, next((columns[name] for name in TARGET_HEADERS if name in columns), None)

"""Which cells hold which guide RNA, and what it targets, read from a column of ``obs``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cradlevae.data.artifact_columns import artifact_indicators
from cradlevae.data.factors import keys_of, read_factors, strata_codes
from cradlevae.data.fields import DataFields, obs_column
from cradlevae.data.guides.assignment import ASSIGNMENT_KEY
from cradlevae.data.labels import MISSING, UNASSIGNED, Condition
from cradlevae.data.naming.cell_labels import CellLabels, read_labels
from cradlevae.data.strata import has_strata
from cradlevae.errors import DataError
from cradlevae.utils.names import listed
from cradlevae.utils.types import AnnDataLike, AnyIntArray, BoolArray, IntArray


@dataclass(frozen=True)
class GuideCells:
    """The cells of each guide RNA.

    Attributes
    ----------
    guides
        Names of the guide RNAs, controls first, else sorted by target and name, (guide RNAs,).
    targets
        Their targets: canonical conditions, ``control`` among them, (guide RNAs,).
    code
        Position of each passing cell's guide RNA in ``guides``; −1 for cells of none and for failed ones, (cells,).
    control
        Whether each cell is a passing control, with or without a guide RNA, (cells,).
    n_cells
        Cells of each guide RNA beside controls of their stratum, (guide RNAs,).
    told
        Whether these cells are enough, (guide RNAs,).
    strata
        Stratum (batch, covariates, context) of each cell, (cells,); ``None`` where all are of one.
    """

    guides: tuple[str, ...]
    targets: tuple[Condition, ...]
    code: IntArray
    control: BoolArray
    n_cells: IntArray
    told: BoolArray
    strata: IntArray | None

    @property
    def target_code(self) -> IntArray:
        """Number of each guide RNA's target, counted in the order of the guide RNAs, (guide RNAs,)."""
        return np.asarray(pd.factorize(np.array(self.targets, dtype=object))[0], dtype=np.int64)

    @property
    def of_control(self) -> BoolArray:
        """Whether each guide RNA targets no gene, (guide RNAs,)."""
        return np.array([not target.singles for target in self.targets], dtype=bool)

    def measurable(self) -> GuideCells:
        """The guide RNAs that can be compared with controls, and their cells beside controls."""
        kept = np.flatnonzero(self.told)
        position = np.append(np.where(self.told, np.cumsum(self.told) - 1, -1), -1)  # the last is that of cells of none
        return replace(
            self,
            guides=tuple(self.guides[index] for index in kept),
            targets=tuple(self.targets[index] for index in kept),
            code=position[self.code],
            n_cells=self.n_cells[kept],
            told=self.told[kept],
        )


def read_guide_cells(adata: AnnDataLike, guide_key: str, fields: DataFields, min_cells: int) -> GuideCells:
    """Read the guide RNA, the condition and the stratum of every passing cell.

    A cell of a stratum without controls is no cell of its guide RNA: there is nothing to compare it with. Where
    ``obs`` has no artifact column and none is named, all cells count as passing.

    Raises
    ------
    DataError
        If a column is absent, cells of one guide RNA have different perturbations, or no guide RNA has enough cells.

    Warns
    -----
    UserWarning
        Of guide RNAs with fewer than ``min_cells`` passing cells, or so few beside controls of their stratum, and of
        cells with more guide RNAs than targets.
    """
    column = obs_column(adata, guide_key, "name the guide RNAs' column with guide_key=, or run cradlevae.assign_guides")
    labels = read_labels(adata, fields)
    passing = ~_failed(adata, fields)
    known = np.array([condition is not None for condition in labels.conditions], dtype=bool)[labels.codes]
    code, unique = pd.factorize(column.astype(str))
    names = [str(name) for name in unique]
    named = np.array([name != UNASSIGNED and name.strip().casefold() not in MISSING for name in names], dtype=bool)
    used = passing & known & ~column.isna().to_numpy() & named[code]
    n_cells = np.bincount(code[used], minlength=len(names))
    targets = _targets(code[used], names, labels, np.flatnonzero(used))
    n_guides = _guides_of(names, adata)
    crowded = [index for index in targets if n_guides[index] > max(1, len(targets[index].singles))]
    rare = [index for index in targets if n_cells[index] < min_cells and index not in set(crowded)]
    _warn([names[index] for index in rare], min_cells, int(n_cells[crowded].sum()))
    kept = sorted(set(targets) - set(rare) - set(crowded), key=lambda index: (targets[index].singles, names[index]))
    if not kept:
        raise DataError(
            f"no guide RNA in obs[{guide_key!r}] has {min_cells} passing cells with a perturbation; lower min_cells, "
            "or name another column with guide_key="
        )
    position = np.full(len(names), -1, dtype=np.int64)
    position[kept] = np.arange(len(kept))
    is_control = np.array([condition is not None and not condition.singles for condition in labels.conditions])
    control = is_control[labels.codes] & passing
    code = np.where(used, position[code], -1)
    strata = _strata(adata, fields, (code >= 0) | control)
    if strata is not None and control.any():
        code = np.where(np.isin(strata, np.unique(strata[control])), code, -1)
    n_told = np.bincount(code[code >= 0], minlength=len(kept))
    told = n_told >= min_cells
    untold = [names[index] for index, own in zip(kept, told, strict=True) if not own]
    if untold:
        _warn_of_strata(untold, min_cells, fields, none=not told.any())
    return GuideCells(
        guides=tuple(names[index] for index in kept),
        targets=tuple(targets[index] for index in kept),
        code=code,
        control=control,
        n_cells=n_told,
        told=told,
        strata=strata,
    )


def _strata(adata: AnnDataLike, fields: DataFields, used: BoolArray) -> IntArray | None:
    """Stratum of each cell; ``None`` where all that are used are of one."""
    strata = strata_codes(read_factors(adata, fields, usable=used), adata.n_obs)
    return strata if has_strata(np.where(used, 0, -1), strata) else None


def _warn_of_strata(untold: Sequence[str], min_cells: int, fields: DataFields, *, none: bool) -> None:
    """Name the guide RNAs without controls in their strata; :class:`DataError` if that is all of them."""
    columns = " × ".join(f"obs[{key!r}]" for _, key in keys_of(fields))
    if none:
        raise DataError(
            f"no guide RNA has {min_cells} passing cells where there are controls in the same stratum of {columns}; "
            "compare across strata by leaving these columns out, if what differs between them is no nuisance"
        )
    warnings.warn(
        f"{len(untold):,} guide RNAs have fewer than {min_cells} passing cells where there are controls in the same "
        f"stratum of {columns}, so that their effects are missing: {listed(untold)}",
        stacklevel=4,
    )


def _failed(adata: AnnDataLike, fields: DataFields) -> BoolArray:
    """Whether each cell failed quality control; none where the default artifact column is absent."""
    if fields.artifact_key == DataFields().artifact_key and fields.artifact_key not in adata.obs:
        return np.zeros(adata.n_obs, dtype=bool)
    return np.asarray(artifact_indicators(adata, fields).any(axis=1))


def _targets(code: AnyIntArray, names: Sequence[str], labels: CellLabels, rows: AnyIntArray) -> dict[int, Condition]:
    """The condition of the cells of each guide RNA that has cells, by its position in ``names``."""
    targets: dict[int, Condition] = {}
    pairs = np.unique(np.stack([code, labels.codes[rows]], axis=1), axis=0)
    for index, own in pairs:
        condition = labels.conditions[own]
        assert condition is not None  # the rows are those of cells with a condition
        if targets.setdefault(int(index), condition) != condition:
            raise DataError(
                f"cells of guide RNA {names[index]!r} have different perturbations ({targets[int(index)]!r} and "
                f"{str(condition)!r}); a guide RNA has one target"
            )
    return targets


def _guides_of(names: Sequence[str], adata: AnnDataLike) -> list[int]:
    """Number of guide RNAs that each label names: several where known ones are joined with ``+``."""
    assignment = adata.uns.get(ASSIGNMENT_KEY)
    known = set(names)
    if isinstance(assignment, dict) and assignment.get("guides_key") in adata.uns:
        known |= {str(name) for name in adata.uns[assignment["guides_key"]].index}
    return [len(parts) if len(parts := name.split("+")) > 1 and set(parts) <= known else 1 for name in names]


def _warn(rare: Sequence[str], min_cells: int, n_crowded: int) -> None:
    if n_crowded:
        warnings.warn(
            f"{n_crowded:,} cells with more guide RNAs than targets are left out: no guide RNA alone has their effect",
            stacklevel=4,
        )
    if rare:
        warnings.warn(
            f"{len(rare):,} guide RNAs with fewer than {min_cells} passing cells are left out: {listed(rare)}",
            stacklevel=4,
        )

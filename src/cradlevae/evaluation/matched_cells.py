"""Real reference cells beside generated ones of the same conditions and library sizes, for scores that compare them.

Where the data have several batches, generated cells have the batches of the real ones; where they have several
contexts, there are generated controls of every context. Cells that agree in both are a *group*, in which real and
generated cells are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.factors import Factor
from cradlevae.data.labels import CONTROL, context_of
from cradlevae.data.moments import condition_codes
from cradlevae.data.strata import told_by_controls
from cradlevae.evaluation.predictor import Predictor
from cradlevae.utils.types import AnyIntArray, IndexArray, IntArray


@dataclass(frozen=True)
class CellPair:
    """Real cells, and at least as many generated ones of each condition.

    Attributes
    ----------
    names
        Conditions, the control first.
    real, generated
        Counts, (cells, genes).
    real_codes, generated_codes
        Position of each cell's condition in ``names``, (cells,); negative for a real cell of none of them.
    real_groups, generated_groups
        Group of each cell, (cells,): cells of one group agree in batch and context; by default all are of one.
    real_strata
        Stratum of each real cell, (cells,): they agree in covariates, too.
    """

    names: tuple[str, ...]
    real: sp.csr_matrix
    real_codes: IntArray
    generated: sp.csr_matrix
    generated_codes: IntArray
    real_groups: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    generated_groups: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    real_strata: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        for name, codes in (
            ("real_groups", self.real_codes), ("generated_groups", self.generated_codes),
            ("real_strata", self.real_codes),
        ):  # fmt: skip
            if len(getattr(self, name)) != len(codes):
                object.__setattr__(self, name, np.zeros(len(codes), dtype=np.int64))

    @property
    def sizes(self) -> IntArray:
        """Real cells of each condition, (conditions,)."""
        return np.bincount(self.real_codes[self.real_codes >= 0], minlength=len(self.names))

    def matched(self) -> IndexArray:
        """Rows of as many generated cells of each condition as there are real ones."""
        rows = [np.flatnonzero(self.generated_codes == code)[:size] for code, size in enumerate(self.sizes)]
        return np.concatenate(rows)


def generate_alike(
    predictor: Predictor, data: Experiment, rows: IndexArray, conditions: Sequence[str], *, seed: int
) -> CellPair | None:
    """Generate cells, artifact off and with library sizes and batches of the real cells that they are compared with.

    As many of each condition as there are real cells of the most frequent one; :meth:`CellPair.matched` takes as many
    as there are real ones. Real cells without controls in their stratum do not count; conditions of fewer than two real
    cells are left out; ``None`` where all are, or fewer than two controls are there.

    Parameters
    ----------
    predictor
        The predictor that generates cells.
    data, rows
        The experiment and its reference cells (passing ones).
    conditions
        Perturbed conditions; the control is added.
    seed
        Seed of the draws.
    """
    strata = data.strata[rows]
    codes = condition_codes(data, rows, (CONTROL, *conditions))
    told = told_by_controls(codes, strata)
    n_cells = np.bincount(codes[(codes >= 0) & told], minlength=1 + len(conditions))
    names = tuple(name for name, n in zip((CONTROL, *conditions), n_cells, strict=True) if n >= 2)
    if CONTROL not in names or len(names) == 1:
        return None
    codes = np.where(told, condition_codes(data, rows, names), -1)
    alike = _AlikeCells(predictor, data, rows, codes, int(np.bincount(codes[codes >= 0]).max()), seed)
    generated, generated_codes, generated_groups = alike.of(names)
    return CellPair(
        names, sp.csr_matrix(data.counts[rows]), codes, generated, generated_codes, alike.groups, generated_groups,
        strata,
    )  # fmt: skip


@dataclass(frozen=True)
class _AlikeCells:
    """Generation of cells like some real ones.

    Attributes
    ----------
    predictor
        The predictor that generates cells.
    data, rows
        The experiment and its reference cells.
    codes
        Condition of each of these cells.
    most
        Generated cells of each condition.
    seed
        Seed of the draws.
    """

    predictor: Predictor
    data: Experiment
    rows: IndexArray
    codes: IntArray
    most: int
    seed: int

    @property
    def batch(self) -> Factor | None:
        """The batches, where there are several."""
        return self.data.varied_by("batch")

    @property
    def context(self) -> Factor | None:
        """The contexts, where there are several."""
        return self.data.varied_by("context")

    @property
    def groups(self) -> IntArray:
        """Group of each real cell."""
        factors = [factor.of(self.rows) for factor in (self.batch, self.context) if factor is not None]
        return _group(factors, len(self.rows))

    def of(self, names: tuple[str, ...]) -> tuple[sp.csr_matrix, IntArray, IntArray]:
        """Counts, conditions and groups of generated cells."""
        if self.context is None:
            return self._predicted(names, np.arange(len(names)), self.most, None)
        parts = [self._predicted(names[1:], np.arange(1, len(names)), self.most, None)]
        for level, context in enumerate(self.context.levels):
            real = (self.codes == 0) & (self.context.codes[self.rows] == level)
            if real.any():  # controls are one condition: those of each context are asked for one by one
                parts.append(self._predicted(names[:1], np.zeros(1, dtype=np.int64), int(real.sum()), context))
        counts, codes, groups = zip(*parts, strict=True)
        return sp.csr_matrix(sp.vstack(counts)), np.concatenate(codes), np.concatenate(groups)

    def _predicted(
        self, names: tuple[str, ...], codes: IntArray, n_cells: int, context: str | None
    ) -> tuple[sp.csr_matrix, IntArray, IntArray]:
        """Cells of some conditions; of the control, those of a context."""
        alike = {name: self._real(code, context) for name, code in zip(names, codes, strict=True)}
        sizes = {name: np.maximum(self.data.library_size[rows], 1) for name, rows in alike.items()}
        options: dict[str, Any] = {} if context is None else {"context": context}
        if self.batch is not None:
            levels = np.array(self.batch.levels, dtype=object)
            options["batch"] = {name: list(levels[self.batch.codes[rows]]) for name, rows in alike.items()}
        cells = self.predictor.predict(names, n_cells, library_size=sizes, seed=self.seed, **options)
        factors = []
        if self.batch is not None:
            place = {level: code for code, level in enumerate(self.batch.levels)}
            factors.append(_factor(self.batch, np.array([place[str(level)] for level in cells.obs[self.batch.key]])))
        if self.context is not None:
            contexts = [self.context.levels.index(context or str(context_of(name))) for name in names]
            factors.append(_factor(self.context, np.repeat(contexts, n_cells)))
        return sp.csr_matrix(cells.X), np.repeat(codes, n_cells), _group(factors, n_cells * len(names))

    def _real(self, code: int, context: str | None) -> IndexArray:
        """Real cells of a condition; of the control, those of a context."""
        chosen = self.codes == code
        if context is not None and self.context is not None:
            chosen &= self.context.codes[self.rows] == self.context.levels.index(context)
        return np.asarray(self.rows[chosen])


def _factor(factor: Factor, codes: AnyIntArray) -> Factor:
    """The same categories of other cells."""
    return Factor(factor.role, factor.key, factor.levels, np.asarray(codes, dtype=np.int64))


def _group(factors: Sequence[Factor], n_cells: int) -> IntArray:
    """Group of each cell, whichever cells are asked beside it."""
    group = np.zeros(n_cells, dtype=np.int64)
    for factor in factors:
        group = group * len(factor.levels) + factor.codes
    return group

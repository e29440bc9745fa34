"""Real reference cells beside generated ones of the same conditions and library sizes, for scores that compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.labels import CONTROL
from cradlevae.data.moments import condition_codes
from cradlevae.evaluation.predictor import Predictor
from cradlevae.utils.types import IndexArray, IntArray


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
    """

    names: tuple[str, ...]
    real: sp.csr_matrix
    real_codes: IntArray
    generated: sp.csr_matrix
    generated_codes: IntArray

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
    """Generate cells, artifact off and at the library sizes of the real cells that they are compared with.

    As many of each condition as there are real cells of the most frequent one; :meth:`CellPair.matched` takes as many
    as there are real ones. Conditions of fewer than two real cells are left out; ``None`` where all are, or fewer than
    two controls are there.

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
    n_cells = dict(zip(data.conditions, np.bincount(data.condition[rows], minlength=len(data.conditions)), strict=True))
    names = tuple(name for name in (CONTROL, *conditions) if n_cells[name] >= 2)
    if CONTROL not in names or len(names) == 1:
        return None
    codes = condition_codes(data, rows, names)
    most = int(np.bincount(codes[codes >= 0]).max())
    sizes = {name: np.maximum(data.library_size[rows[codes == code]], 1) for code, name in enumerate(names)}
    generated = predictor.predict(names, most, library_size=sizes, seed=seed)
    each = np.repeat(np.arange(len(names)), most)
    return CellPair(names, sp.csr_matrix(data.counts[rows]), codes, sp.csr_matrix(generated.X), each)

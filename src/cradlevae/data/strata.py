"""Contrasts within strata: how the cells of a condition are weighed against the controls of their own batch.

A condition t is compared with the controls in each stratum b that holds both; the comparisons are averaged with the
weights w_tb ∝ n_tb n_cb / (n_tb + n_cb), which are those of smallest variance where cells vary alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cradlevae.utils.types import AnyIntArray, BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class StratumWeights:
    """How cells count in comparisons within strata.

    Attributes
    ----------
    codes
        Stratum of each cell, from 0 on without gaps, (cells,); −1 for a cell of no condition.
    n_cells
        Cells of each condition in each stratum that has controls, (conditions, strata); 0 in the others.
    share
        w_tb: weight of each stratum in the effect of a condition, (conditions, strata); a row sums to 1, or to 0 where
        no stratum has both. That of the controls is their own share of the cells.
    n_effective
        Number of cells that a condition's mean is worth, (conditions,): with it, σ²/n_t + σ²/n_control is the variance
        of the effect, as if there were one stratum.
    base
        Row of the controls.
    """

    codes: IntArray
    n_cells: IntArray
    share: FloatArray
    n_effective: FloatArray
    base: int

    @property
    def n_controls(self) -> IntArray:
        """Controls of each stratum, (strata,)."""
        controls: IntArray = self.n_cells[self.base]
        return controls

    def of_cells(self, condition: AnyIntArray) -> FloatArray:
        """Weight of each cell in the mean of its condition, (cells,); 0 for cells that tell nothing."""
        each = np.divide(self.share, self.n_cells, out=np.zeros_like(self.share), where=self.n_cells > 0)
        weight = each[condition, self.codes]
        return np.asarray(np.where((condition >= 0) & (self.codes >= 0), weight, 0.0))


def has_strata(condition: AnyIntArray, strata: AnyIntArray | None) -> bool:
    """Whether cells that have a condition are of more than one stratum."""
    if strata is None or not len(strata):
        return False
    present = np.asarray(strata)[np.asarray(condition) >= 0]
    return bool(len(present) and (present != present[0]).any())


def stratum_weights(condition: AnyIntArray, strata: AnyIntArray, n_conditions: int, base: int) -> StratumWeights:
    """Weigh cells within strata.

    Parameters
    ----------
    condition
        Condition of each cell, (cells,); a negative code leaves the cell out.
    strata
        Stratum of each cell, (cells,).
    n_conditions
        Number of conditions.
    base
        Code of the controls.
    """
    included = (condition >= 0) & (strata >= 0)
    names, place = np.unique(strata[included], return_inverse=True)
    codes = np.full(len(condition), -1, dtype=np.int64)
    codes[included] = place
    n_strata = len(names)
    n_cells = np.bincount(condition[included] * n_strata + place, minlength=n_conditions * n_strata)
    n_cells = n_cells.reshape(n_conditions, n_strata)
    n_cells = n_cells * (n_cells[base] > 0)
    n, controls = n_cells.astype(np.float64), n_cells[base].astype(np.float64)
    share = np.divide(n * controls, n + controls, out=np.zeros_like(n), where=n > 0)
    share[base] = controls
    total = share.sum(axis=1, keepdims=True)
    share = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
    inverse, of_control = (
        np.divide(share**2, cells, out=np.zeros_like(share), where=cells > 0).sum(axis=1)
        for cells in (n, np.broadcast_to(controls, n.shape))
    )
    spread = inverse + of_control - 1 / max(float(controls.sum()), 1.0)
    n_effective = np.divide(1.0, spread, out=np.zeros_like(spread), where=n_cells.sum(axis=1) > 0)
    n_effective[base] = controls.sum()
    return StratumWeights(codes, n_cells, share, n_effective, base)


def told_by_controls(condition: AnyIntArray, strata: AnyIntArray, base: int = 0) -> BoolArray:
    """Whether there are controls in the stratum of each cell, (cells,)."""
    return np.isin(strata, np.unique(strata[condition == base]))

"""Empirical Bayes of a table of effects by all that is known of it: classes of cells, perturbations and genes alike.

Classes of cells (passing and failed ones) are brought to one table first: each class is compared with its own controls,
which have the same damage, and its differences are divided by its slope. The table is then shrunk twice: with a
covariance between conditions and one between genes (:mod:`cradlevae.nn.multivariate`), and by a scale of the condition
and one of the gene (:mod:`cradlevae.nn.hierarchy`). The first tells more where conditions or genes move alike, the
second needs fewer of them, and knows better what does nothing at all; the posterior is a mixture of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cradlevae.nn.hierarchy import LEAST_VARIANCE, Evidence, gene_blocks, hierarchical_shrink
from cradlevae.nn.multivariate import multivariate_shrink
from cradlevae.utils.types import BoolArray, Float32Array, FloatArray

TO_DIAGONAL = 0.03
"""How far the covariance between conditions is shrunk towards its diagonal in each iteration."""

LEAST_SLOPE = 1e-3
"""Smallest slope of a class that is evidence of what varies together."""

SCARCE = 0.01
"""A condition that is worth less than this share of the median condition's cells has the second posterior alone: what
varies together is learned in units of each condition's noise, beside which the effects of such a condition vanish."""


@dataclass(frozen=True)
class PooledEvidence:
    """Effects that several classes of cells tell together, as one class of cells would.

    Attributes
    ----------
    value
        Effects, (conditions, genes).
    n_cells, n_controls
        Cells of the pool that each condition and the controls are worth, (conditions,), and one number.
    within
        Variance of a gene between these cells, (genes,).
    """

    value: Float32Array
    n_cells: FloatArray
    n_controls: float
    within: FloatArray


def pooled_evidence(evidence: Sequence[Evidence], control: BoolArray, rows: BoolArray) -> PooledEvidence:
    """Bring classes of cells to one table.

    Parameters
    ----------
    evidence
        The conditions' means in each class of cells; each has a slope above 0, and controls.
    control
        Which conditions are controls, (conditions,).
    rows
        Conditions whose effects are asked for, (conditions,), each measured in some class.

    Notes
    -----
    A class tells a difference to its controls with the variance (own + controls') / slope², whose inverse is its
    weight: where a class has few controls, its many treated cells do not tell much. The noise that all conditions share
    is that of all controls together; what a condition has beyond it is its own. As a table the precision is brought to
    the form cells × genes by its geometric means over conditions and over genes (but those that no cell shows, whose
    precision has nothing to do with cells).
    """
    n_rows, n_genes = int(rows.sum()), evidence[0].mean.shape[1]
    value = np.empty((n_rows, n_genes), dtype=np.float32)
    of_controls, of_genes = np.zeros((2, n_genes))
    of_rows, of_shown, shown = np.zeros(n_rows), np.zeros(n_rows), np.zeros(n_genes, dtype=bool)
    for part in gene_blocks(len(rows), n_genes):
        effect, precision, at_controls = _pooled(evidence, control, rows, part)
        value[:, part], of_controls[part] = effect, at_controls
        shown[part] = (precision < 0.1 / LEAST_VARIANCE).all(axis=0)
        log_precision = np.log(precision)
        of_genes[part] = log_precision.mean(axis=0)
        of_rows += log_precision.sum(axis=1)
        of_shown += log_precision[:, shown[part]].sum(axis=1)
    n_cells = np.exp(of_shown / shown.sum() if shown.any() else of_rows / n_genes)
    shown = shown if shown.any() else np.ones_like(shown)
    within = np.exp(np.log(n_cells).mean() - of_genes)
    n_controls = float(np.exp(np.log(of_controls * within)[shown].mean()))
    return PooledEvidence(value, n_cells, n_controls, within)


def _pooled(
    evidence: Sequence[Evidence], control: BoolArray, rows: BoolArray, part: slice
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of some genes: effects and their precision, (conditions, genes), and that of the controls, (genes,)."""
    weighted, weights = np.zeros((2, int(rows.sum()), len(evidence[0].within[part])))
    of_controls = np.zeros(weights.shape[1])
    for one in evidence:
        own, mean = one.slope**2 * one.precision_of(part).astype(np.float64), one.mean[:, part].astype(np.float64)
        at_base = own[control].sum(axis=0)
        base = _where_told(own[control], mean[control]).sum(axis=0) / at_base
        weight = own[rows] / (1 + own[rows] / at_base)
        weights += weight
        weighted += _where_told(weight, mean[rows] - base) / one.slope
        of_controls += at_base
    return weighted / weights, 1 / (1 / weights - 1 / of_controls), of_controls


def _where_told(weight: FloatArray, value: FloatArray) -> FloatArray:
    """Weighted values, 0 where nothing is told."""
    return np.where(weight > 0, weight * value, 0.0)


@dataclass(frozen=True)
class JointPosterior:
    """How far conditions are from what is expected, (conditions, genes) each, by two priors.

    Attributes
    ----------
    together, together_variance
        Mean and variance where conditions, and genes, vary together.
    apart, apart_variance
        The same where each has a scale of its own.
    n_cells, n_controls, within
        Cells that each condition and the controls were measured with, (conditions,) and one number, and the variance
        between these, (genes,), as of :class:`PooledEvidence`; no cells where no class has controls.
    """

    together: Float32Array
    together_variance: Float32Array
    apart: Float32Array
    apart_variance: Float32Array
    n_cells: FloatArray
    n_controls: float
    within: FloatArray

    def mixed(self, weight: float) -> tuple[Float32Array, Float32Array]:
        """Mean and variance of the mixture in which ``apart`` has this weight."""
        part = np.float32(weight)
        mean, variance = np.empty_like(self.apart), np.empty_like(self.apart)
        for genes in gene_blocks(*mean.shape):
            together = self.together[:, genes]
            away = self.apart[:, genes] - together
            mean[:, genes] = together + part * away
            of_both = part * self.apart_variance[:, genes] + (1 - part) * self.together_variance[:, genes]
            variance[:, genes] = of_both + part * (1 - part) * away**2
        return mean, variance


def joint_shrink(
    evidence: Sequence[Evidence],
    expected: npt.NDArray[np.floating],
    control: BoolArray,
    loadings: FloatArray | None = None,
) -> JointPosterior:
    """How far conditions are from what is expected, by both priors.

    Parameters
    ----------
    evidence, expected, control
        As of :func:`cradlevae.nn.hierarchy.hierarchical_shrink`, which answers alone where no class has controls.
    loadings
        Of genes that vary together; see :func:`cradlevae.nn.multivariate.multivariate_shrink`.
    """
    mean, variance = hierarchical_shrink(evidence, expected, control)
    together, left = mean.copy(), variance.copy()
    usable = [one for one in evidence if one.slope > LEAST_SLOPE and (control & one.measured).any()]
    rows = ~control & np.any([one.measured for one in usable], axis=0) if usable else np.zeros_like(control)
    n_cells, n_controls, within = np.zeros(len(control)), 1.0, np.zeros(mean.shape[1])
    if rows.any():
        pool = pooled_evidence(usable, control, rows)
        n_cells[rows], n_controls, within = pool.n_cells, pool.n_controls, pool.within
        told = pool.n_cells > SCARCE * np.median(pool.n_cells)
        rows[rows] = told
        value, of_told = pool.value[told] - expected[rows], pool.n_cells[told]
        del pool  # as large as the effects
        together[rows], left[rows] = multivariate_shrink(
            value, of_told, n_controls, within, loadings=loadings, to_diagonal=TO_DIAGONAL
        )
    return JointPosterior(together, left, mean, variance, n_cells, n_controls, within)

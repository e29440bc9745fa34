"""Differentially expressed genes from cells, and how well two sets of them agree.

Wilcoxon rank-sum test of every perturbation against the controls, gene by gene, with tie correction and
without continuity correction, Benjamini-Hochberg within each perturbation. Where cells come from several
strata (batches), cells are ranked among those of their own stratum (van Elteren's test). Ranks are those of
log-normalised expression; since the logarithm keeps the order they are computed on count / library size,
where equal shares are exactly equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cradlevae.data.labels import CONTROL
from cradlevae.data.moments import check_codes, library_share
from cradlevae.errors import DataError
from cradlevae.evaluation.metrics.rank_sums import standardised_rank_sums
from cradlevae.evaluation.metrics.registry import metric
from cradlevae.utils.types import AnyIntArray, BoolArray, FloatArray


@dataclass(frozen=True)
class DETest:
    """Rank-sum tests of perturbations against control.

    Attributes
    ----------
    names
        Canonical names of the perturbed conditions, (conditions,).
    z
        Standardised rank sum, positive where the gene is higher than in controls, (conditions, genes); 0
        where there is nothing to test (no cells, no controls in their strata, or one value throughout).
    p_value, q_value
        Two-sided p and its Benjamini-Hochberg adjustment over the genes of a condition, (conditions, genes).
    """

    names: tuple[str, ...]
    z: FloatArray
    p_value: FloatArray
    q_value: FloatArray

    def significant(self, fdr: float = 0.05) -> BoolArray:
        """Which genes are differentially expressed, (conditions, genes)."""
        return np.asarray(self.q_value < fdr)


def rank_sum_tests(
    counts: sp.csr_matrix,
    condition: AnyIntArray,
    names: Sequence[str],
    *,
    strata: AnyIntArray | None = None,
    control: str = CONTROL,
) -> DETest:
    """Wilcoxon rank-sum test of every condition against the controls, within strata where they are given.

    Parameters
    ----------
    counts
        Raw counts, (cells, genes), sparse.
    condition
        Position of each cell's condition in ``names``, (cells,); a negative code leaves the cell out.
    names
        Canonical names of the conditions, the control among them.
    strata
        Code of each cell's stratum (batch), any whole numbers, (cells,): cells are compared with controls of the same
        stratum. ``None`` compares all cells.
    control
        Name of the control condition.

    Notes
    -----
    With one stratum, agrees with ``scipy.stats.mannwhitneyu(..., method="asymptotic", use_continuity=False)``. With
    several, z is van Elteren's (1960): rank sums of the strata, each minus its expectation, are added with the locally
    best weights 1/(N + 1), where N are the stratum's cells of the condition and of the control, and divided by the
    standard deviation of this sum, with tie correction in each stratum. A stratum without controls, or without cells
    of the condition, tells nothing. The work is a sort of the non-zero counts of each gene, whatever the numbers of
    conditions and strata.

    Raises
    ------
    DataError
        If there are no control cells, or codes and cells do not fit.
    """
    from scipy.special import erfc
    from scipy.stats import false_discovery_control

    matrix = sp.csr_matrix(counts)
    condition = np.asarray(condition)
    check_codes(matrix, condition, names)
    if control not in names or not (condition == list(names).index(control)).any():
        raise DataError(f"no {control!r} cells: differential expression is tested against control cells")
    base = list(names).index(control)
    shares = _shares_by_gene(matrix, condition)
    assigned = condition[condition >= 0]
    stratum = _strata_of_assigned(strata, condition)
    n_cells = np.zeros((int(stratum.max()) + 1, len(names)))
    np.add.at(n_cells, (stratum, assigned), 1.0)
    z = np.zeros((len(names), matrix.shape[1]))
    for gene in range(matrix.shape[1]):
        stored = slice(shares.indptr[gene], shares.indptr[gene + 1])
        expressed = shares.data[stored] > 0
        values, cells = shares.data[stored][expressed], shares.indices[stored][expressed]
        z[:, gene] = standardised_rank_sums(values, assigned[cells], stratum[cells], n_cells, base)
    perturbed = [row for row in range(len(names)) if row != base]
    z = z[perturbed]
    p_value = np.asarray(erfc(np.abs(z) / np.sqrt(2.0)))
    q_value = false_discovery_control(p_value, axis=1) if p_value.size else p_value
    return DETest(tuple(names[row] for row in perturbed), z, p_value, q_value)


def _strata_of_assigned(strata: AnyIntArray | None, condition: AnyIntArray) -> AnyIntArray:
    """Number of the stratum, from 0, of each cell that has a condition."""
    if strata is None:
        return np.zeros(int((condition >= 0).sum()), dtype=np.int64)
    if np.shape(strata) != condition.shape:
        raise DataError(f"{np.shape(strata)} strata and {condition.shape} condition codes; give one of each per cell")
    return np.unique(np.asarray(strata)[condition >= 0], return_inverse=True)[1]


def _shares_by_gene(matrix: sp.csr_matrix, condition: AnyIntArray) -> sp.csc_matrix:
    """Count / library size of the cells that have a condition, by column."""
    shares = sp.csr_matrix(matrix[np.flatnonzero(condition >= 0)], dtype=np.float64)
    shares.sum_duplicates()
    shares.data = library_share(shares)
    return sp.csc_matrix(shares)


@metric(
    "de_overlap",
    kind="de",
    best=1.0,
    description="share of the real DE genes among as many predicted ones, mean over perturbations",
)
def de_overlap(real: DETest, predicted: DETest, *, fdr: float = 0.05) -> float:
    """Share of a perturbation's real DE genes that the prediction finds, mean over perturbations.

    Where the prediction has more DE genes than there are real ones, only as many of its strongest (by |z|)
    count, so that calling every gene earns nothing. Perturbations without real DE genes are left out; NaN
    if all are.

    Parameters
    ----------
    real, predicted
        Tests of the same perturbations and genes, from real and from generated cells.
    fdr
        False discovery rate below which a gene is differentially expressed.

    Raises
    ------
    DataError
        If the perturbations or genes of the two do not agree.
    """
    _check_same(real, predicted)
    shares = []
    for truth, called, strength in zip(
        real.significant(fdr), predicted.significant(fdr), np.abs(predicted.z), strict=True
    ):
        if truth.any():
            ranked = np.argsort(-np.where(called, strength, -1.0), kind="stable")
            chosen = ranked[: min(int(called.sum()), int(truth.sum()))]
            shares.append(truth[chosen].sum() / truth.sum())
    return float(np.mean(shares)) if shares else float("nan")


@metric(
    "de_direction",
    kind="de",
    best=1.0,
    description="share of the real DE genes predicted to move the right way, mean over perturbations",
)
def de_direction(real: DETest, predicted: DETest, *, fdr: float = 0.05) -> float:
    """Share of a perturbation's real DE genes predicted to move the right way, mean over perturbations.

    The predicted change need not be significant; no change at all is wrong. Perturbations without real DE
    genes are left out; NaN if all are. Parameters and errors as :func:`de_overlap`.
    """
    _check_same(real, predicted)
    agree = np.sign(real.z) == np.sign(predicted.z)
    shares = [
        float(right[truth].mean()) for right, truth in zip(agree, real.significant(fdr), strict=True) if truth.any()
    ]
    return float(np.mean(shares)) if shares else float("nan")


def _check_same(real: DETest, predicted: DETest) -> None:
    if real.names != predicted.names or real.z.shape != predicted.z.shape:
        raise DataError(
            "the two sets of tests must be of the same perturbations and genes, in the same order "
            f"(real {real.z.shape}, predicted {predicted.z.shape})"
        )

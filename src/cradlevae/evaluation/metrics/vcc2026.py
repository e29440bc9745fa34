"""The six metrics of the 2026 Virtual Cell Challenge, as the package ``cell-eval2`` computes them (preset ``vcc2026``).

They are given raw counts: real and predicted cells of the same perturbations, both with the *real* controls. They know
no batches, and leave out the gene that a perturbation targets where its name is that of the perturbation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cradlevae.evaluation.metrics.registry import metric
from cradlevae.utils.types import BoolArray, FloatArray, IntArray

ALPHA = 0.05
"""False discovery rate, within a perturbation, below which a gene is differentially expressed."""

PURITY = 0.9
"""Share of right directions that a ranking has to keep."""

FEWEST_GENES = 10
"""Differentially expressed genes that a perturbation needs for the error of its fold changes to be scored."""


@dataclass(frozen=True)
class CountGroups:
    """Cells of some perturbations and of the real controls, one side of a comparison.

    Attributes
    ----------
    expression
        ln(1 + 5e4·c/Σc) of the summed counts c of each group, (1 + perturbations, genes), the controls first.
    variance
        Sampling variance of a row of ``expression``, summed over genes, by the jackknife, (1 + perturbations,).
    own
        Column of the gene that each perturbation targets, (perturbations,); −1 where it is none.
    tested
        Which genes are tested: those with more than 5 counts per million in controls, on average, (genes,).
    log2_fold_change
        Of mean counts per million against controls, (perturbations, tested genes).
    p_value, q_value
        Rank-sum test against controls, and its Benjamini-Hochberg adjustment over the tested genes of the perturbation,
        (perturbations, tested genes).
    name_order
        Place of each tested gene's name in alphabetical order, (tested genes,).
    """

    expression: FloatArray
    variance: FloatArray
    own: IntArray
    tested: BoolArray
    log2_fold_change: FloatArray
    p_value: FloatArray
    q_value: FloatArray
    name_order: IntArray

    @property
    def significant(self) -> BoolArray:
        """Differentially expressed genes without the perturbation's own one, (perturbations, tested genes)."""
        columns = np.flatnonzero(self.tested)
        return np.asarray((self.q_value < ALPHA) & (columns[None] != self.own[:, None]))


@metric("pds_cosine", kind="counts", best=1.0, description="discrimination of perturbations by cosine (vcc2026)")
def pds_cosine(real: CountGroups, predicted: CountGroups) -> float:
    """1 − rank/(N − 1) of the own real effect by cosine distance among all N; ties count half, targets are left out."""
    others = np.setdiff1d(np.arange(real.expression.shape[1]), real.own)
    truth = (real.expression[1:] - real.expression[0])[:, others]
    guess = (predicted.expression[1:] - real.expression[0])[:, others]
    norms = np.linalg.norm(guess, axis=1)[:, None] * np.linalg.norm(truth, axis=1)
    distance = np.clip(1.0 - np.divide(guess @ truth.T, norms, out=np.zeros_like(norms), where=norms > 0), 0.0, 2.0)
    own = np.diag(distance)[:, None]
    rank = (distance < own).sum(axis=1) + ((distance == own).sum(axis=1) - 1) / 2.0
    return float(np.mean(1.0 - rank / max(len(truth) - 1, 1)))


@metric(
    "expr_mse_unbiased_capped_norm",
    kind="counts",
    best=0.0,
    description="squared error of expression without sampling noise, as a share of that of the controls (vcc2026)",
)
def expression_error(real: CountGroups, predicted: CountGroups) -> float:
    """Σ_p (‖predicted − real‖² − noise) / Σ_p (‖control − real‖² − noise), each over the genes that are not targeted.

    Of the prediction's noise no more is taken off than the real cells have, and over all perturbations no more than the
    predictions differ from each other.
    """
    n = len(real.own)
    genes = np.arange(real.expression.shape[1])
    scored = genes[None] != real.own[:, None]
    weight = 1.0 / scored.sum(axis=1)
    truth, guess = real.expression[1:], predicted.expression[1:]
    allowed = np.minimum(predicted.variance[1:], real.variance[1:])
    claimed = float(weight @ allowed)
    if claimed > 0:
        allowed = allowed * min(1.0, _spread(guess, scored, weight) / claimed)
    error = (scored * (guess - truth) ** 2).sum(axis=1) - allowed - real.variance[1:]
    of_controls = (scored * (truth - real.expression[0]) ** 2).sum(axis=1) - real.variance[1:] - real.variance[0]
    whole = float(weight @ of_controls)
    return float(weight @ error) / whole if n and whole > 0 else float("nan")


def _spread(values: FloatArray, scored: BoolArray, weight: FloatArray) -> float:
    """Weighted sum of squares between perturbations, over the genes that two or more of them are scored on."""
    weights = scored * weight[:, None]
    total = weights.sum(axis=0)
    centred = values - np.divide((weights * values).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
    return float((weights * centred**2).sum(axis=0)[scored.sum(axis=0) >= 2].sum())


@metric(
    "de_wilcoxon_direction_fidelity_yield_raw",
    kind="counts",
    best=1.0,
    description="DE genes called in the right direction, of the real or the predicted ones (vcc2026)",
)
def direction_fidelity(real: CountGroups, predicted: CountGroups) -> float:
    """Genes that are called in the real direction / the greater number of calls, mean over perturbations with any."""
    directed = real.log2_fold_change != 0
    called = predicted.significant & directed
    right = (called & _same_direction(real, predicted)).sum(axis=1)
    most = np.maximum(called.sum(axis=1), real.significant.sum(axis=1))
    return _mean(list(right[most > 0] / most[most > 0]))


@metric(
    "de_wilcoxon_direction_reach_raw",
    kind="counts",
    best=1.0,
    description="share of the real DE genes down to which 90 % of the predicted directions are right (vcc2026)",
)
def direction_reach(real: CountGroups, predicted: CountGroups) -> float:
    """Deepest place, in the prediction's ranking of the real DE genes, with 90 % right directions / number of these."""
    shares = []
    same, directed = _same_direction(real, predicted), real.log2_fold_change != 0
    for row, significant in _with_genes(real.significant):
        columns = significant[_order(predicted, row, significant)]
        right, n = np.cumsum(same[row, columns]), np.cumsum(directed[row, columns])
        reached = n[(n > 0) & (right >= PURITY * n)]
        shares.append(reached.max(initial=0) / len(significant))
    return _mean(shares)


def _order(predicted: CountGroups, row: int, columns: IntArray) -> IntArray:
    """The prediction's ranking of some genes: by q, p, size of the fold change and name."""
    size = np.abs(predicted.log2_fold_change[row, columns])
    q, p = predicted.q_value[row, columns], predicted.p_value[row, columns]
    return np.lexsort((predicted.name_order[columns], -size, p, q))


@metric(
    "de_wilcoxon_sig_jaccard", kind="counts", best=1.0, description="overlap of predicted and real DE genes (vcc2026)"
)
def de_jaccard(real: CountGroups, predicted: CountGroups) -> float:
    """|A ∩ B| / |A ∪ B| of the DE genes, mean over perturbations; two empty sets agree."""
    both = (real.significant & predicted.significant).sum(axis=1)
    either = (real.significant | predicted.significant).sum(axis=1)
    return float(np.mean(np.divide(both, either, out=np.ones(len(both)), where=either > 0)))


@metric(
    "de_wilcoxon_lfc_nmae",
    kind="counts",
    best=0.0,
    description="error of log2 fold changes of the real DE genes, relative to their size (vcc2026)",
)
def fold_change_error(real: CountGroups, predicted: CountGroups) -> float:
    """Σ|predicted − real| / Σ|real| over the real DE genes, mean over perturbations with ten of them or more."""
    errors = []
    for row, columns in _with_genes(real.significant):
        size = np.abs(real.log2_fold_change[row, columns]).sum()
        if len(columns) >= FEWEST_GENES and size > 0:
            difference = predicted.log2_fold_change[row, columns] - real.log2_fold_change[row, columns]
            errors.append(np.abs(difference).sum() / size)
    return _mean(errors)


def _same_direction(real: CountGroups, predicted: CountGroups) -> BoolArray:
    signs = np.sign(real.log2_fold_change), np.sign(predicted.log2_fold_change)
    return np.asarray((signs[0] == signs[1]) & (signs[0] != 0))


def _with_genes(chosen: BoolArray) -> Iterator[tuple[int, IntArray]]:
    """Each perturbation with chosen genes, and their columns."""
    for row in np.flatnonzero(chosen.any(axis=1)):
        yield int(row), np.flatnonzero(chosen[row])


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")

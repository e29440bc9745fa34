"""The ceiling: how well even the true effects would score against a reference measured from few cells.

The held-out cells are split in halves, controls too; the correlation r of the two effect matrices shows how
much of a half is noise. All cells together are less noisy than a half, R = 2r/(1+r) (Spearman-Brown), and
the truth correlates with a measurement of reliability R at √R, the attainable ρ. Half against half, r
itself, is not a ceiling: good shrinkage beats it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cradlevae.data.labels import CONTROL
from cradlevae.data.moments import Scale, check_codes, expression_blocks, indicator
from cradlevae.data.strata import has_strata, stratum_weights
from cradlevae.errors import DataError
from cradlevae.evaluation.metrics.effects import effect_scores
from cradlevae.utils.types import AnyIntArray, FloatArray, IntArray


@dataclass(frozen=True)
class Ceiling:
    """The best scores that can be expected against a noisy reference.

    Attributes
    ----------
    split_half_rho
        Correlation of the effects of two random halves, mean over splits.
    reliability
        R = 2r/(1+r), at least 0.
    attainable_rho
        √R: expected ATE-ρ of the true effects against this reference.
    low, high
        95 % bootstrap interval of ``attainable_rho`` over perturbations.
    """

    split_half_rho: float
    reliability: float
    attainable_rho: float
    low: float
    high: float


def ceiling(
    counts: sp.csr_matrix,
    condition: AnyIntArray,
    names: Sequence[str],
    *,
    n_splits: int = 20,
    n_bootstrap: int = 1000,
    seed: int = 0,
    scale: Scale = "perturbseq",
    strata: AnyIntArray | None = None,
    control: str = CONTROL,
) -> Ceiling:
    """Attainable ATE-ρ against the effects measured in these cells.

    Parameters
    ----------
    counts
        Raw counts of the held-out cells that make up the reference, held-out controls included, (cells,
        genes).
    condition
        Position of each cell's condition in ``names``, (cells,); a negative code leaves the cell out.
    names
        Canonical names of the conditions, the control among them.
    n_splits
        Random halvings to average over.
    n_bootstrap
        Bootstrap samples of the interval.
    seed
        Seed of the halvings and of the bootstrap.
    scale
        Scale of the effects, see :func:`~cradlevae.data.moments.condition_moments`.
    strata
        Stratum (experimental batch, context) of each cell, (cells,): effects are then measured within strata
        (:mod:`cradlevae.data.strata`). ``None``, or one stratum, compares all cells of a condition with all controls.
    control
        Name of the control condition.

    Notes
    -----
    The bootstrap draws perturbations, not cells: a cell drawn twice would fall into both halves and pass
    for reproducibility. The interval is therefore about other perturbations of the same kind, measured
    with as many cells; with one perturbation it has no width. Conditions of fewer than two cells, or without
    controls beside them in both halves, cannot be halved and are left out.

    Raises
    ------
    DataError
        If fewer than two control cells, or no perturbation with two cells, are there.
    """
    sums = np.array(
        [
            _sums_over_genes(first, second)
            for first, second in split_half_effects(
                counts, condition, names, n_splits=n_splits, seed=seed, scale=scale, strata=strata, control=control
            )
        ]
    )  # (splits, perturbations, 6)
    rho, reliability, attainable = _attainable(sums.sum(axis=1))
    n_perturbations = sums.shape[1]
    random = np.random.default_rng([seed, 1])
    drawn = random.multinomial(n_perturbations, np.full(n_perturbations, 1 / n_perturbations), n_bootstrap)
    samples = [_attainable(np.einsum("p,spk->sk", weights, sums))[2] for weights in drawn]
    low, high = np.quantile(samples, [0.025, 0.975])
    return Ceiling(rho, reliability, attainable, float(low), float(high))


def split_half_scores(
    counts: sp.csr_matrix,
    condition: AnyIntArray,
    names: Sequence[str],
    genes: Sequence[str],
    metric: str,
    *,
    n_splits: int = 20,
    seed: int = 0,
    scale: Scale = "perturbseq",
    strata: AnyIntArray | None = None,
    control: str = CONTROL,
    symbols: Sequence[str] | None = None,
) -> FloatArray:
    """Score one half of the cells against the other by any registered effect metric, (splits,).

    Other packages print this as a ceiling. It is none: each half has twice the noise of all cells together, so a good
    prediction can score better. Parameters and errors are those of :func:`ceiling`; ``metric`` is a name in the metric
    registry, ``symbols`` are those of the genes where their names are others.
    """
    halvable = [names[row] for row in _halvable(np.asarray(condition), names, control, strata)]
    scores = [
        effect_scores(first, second, perturbations=halvable, genes=genes, symbols=symbols, names=[metric])[metric]
        for first, second in split_half_effects(
            counts, condition, names, n_splits=n_splits, seed=seed, scale=scale, strata=strata, control=control
        )
    ]
    return np.array(scores)


def split_half_effects(
    counts: sp.csr_matrix,
    condition: AnyIntArray,
    names: Sequence[str],
    *,
    n_splits: int,
    seed: int = 0,
    scale: Scale = "perturbseq",
    strata: AnyIntArray | None = None,
    control: str = CONTROL,
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield the effects in two random halves of the cells, each (perturbations that can be halved, genes).

    Every condition, and the controls, are halved, in every stratum if there are several; rows are in the order of
    ``names``.
    """
    matrix = sp.csr_matrix(counts)
    condition = np.asarray(condition)
    check_codes(matrix, condition, names)
    rows = _halvable(condition, names, control, strata)
    base = list(names).index(control)
    within = np.asarray(strata) if strata is not None and has_strata(condition, strata) else None
    expression = sp.csr_matrix(sp.vstack([block for _, block in expression_blocks(matrix, scale)]))
    random = np.random.default_rng([seed, 0])
    for _ in range(n_splits):
        half = random_halves(condition, random, within)
        if within is None:
            first, second = _means_of_halves(expression, condition, half, len(names))
            yield first[rows] - first[base], second[rows] - second[base]
        else:
            first, second = (
                _effects_within(expression, np.where(half == part, condition, -1), within, len(names), base)
                for part in (0, 1)
            )
            yield first[rows], second[rows]


def _means_of_halves(
    expression: sp.csr_matrix, condition: AnyIntArray, half: IntArray, n_groups: int
) -> tuple[FloatArray, FloatArray]:
    """Mean of every condition in each half, (conditions, genes) each."""
    halves = np.where(condition >= 0, condition + n_groups * half, -1)
    n_cells = np.bincount(halves[halves >= 0], minlength=2 * n_groups)
    mean = (indicator(halves, 2 * n_groups) @ expression).toarray() / np.maximum(n_cells, 1)[:, None]
    return mean[:n_groups], mean[n_groups:]


def _effects_within(
    expression: sp.csr_matrix, condition: AnyIntArray, strata: AnyIntArray, n_groups: int, base: int
) -> FloatArray:
    """Effect of every condition within strata, (conditions, genes); that of the controls is 0."""
    weights = stratum_weights(condition, strata, n_groups, base)
    weighted = sp.csr_matrix(indicator(condition, n_groups).multiply(weights.of_cells(condition)))
    of_controls = indicator(np.where(condition == base, weights.codes, -1), weights.n_cells.shape[1])
    level = (of_controls @ expression).toarray() / np.maximum(weights.n_controls, 1)[:, None]
    return np.asarray((weighted @ expression).toarray() - weights.share @ level)


def _halvable(
    condition: AnyIntArray, names: Sequence[str], control: str, strata: AnyIntArray | None = None
) -> list[int]:
    """Rows of the perturbations with at least two cells, beside controls of their stratum in either half."""
    n_cells = np.bincount(condition[condition >= 0], minlength=len(names))
    if control not in names or n_cells[list(names).index(control)] < 2:
        raise DataError(f"fewer than two {control!r} cells are held out: they cannot be halved")
    base = list(names).index(control)
    if strata is not None and has_strata(condition, strata):
        # How many cells of a stratum fall into a half does not depend on chance: any halving shows it.
        half = random_halves(condition, np.random.default_rng(0), strata)
        of_halves = [
            stratum_weights(np.where(half == part, condition, -1), np.asarray(strata), len(names), base)
            for part in (0, 1)
        ]
        n_cells = 2 * np.minimum(*(weights.n_cells.sum(axis=1) for weights in of_halves))
    rows = [row for row, name in enumerate(names) if name != control and n_cells[row] >= 2]
    if not rows:
        raise DataError("no perturbation has two held-out cells: there is nothing to halve")
    return rows


def random_halves(condition: AnyIntArray, random: np.random.Generator, strata: AnyIntArray | None = None) -> IntArray:
    """0 or 1 for every cell, at random and in equal numbers (± 1) within each condition, and each of its strata."""
    keys = (condition,) if strata is None else (strata, condition)
    order = np.lexsort((random.random(len(condition)), *keys))
    ordered = condition[order]
    start = np.searchsorted(ordered, ordered, side="left")
    halves = np.empty(len(condition), dtype=np.int64)
    halves[order] = (np.arange(len(condition)) - start) % 2
    return halves


def _sums_over_genes(first: FloatArray, second: FloatArray) -> FloatArray:
    """Sum what a correlation needs of each perturbation, (perturbations, 6): n, Σa, Σb, Σa², Σb², Σab."""
    n = np.full(len(first), float(first.shape[1]))
    products = (first**2, second**2, first * second)
    return np.column_stack([n, first.sum(axis=1), second.sum(axis=1), *(product.sum(axis=1) for product in products)])


def _attainable(sums: FloatArray) -> tuple[float, float, float]:
    """Split-half ρ (mean over splits), reliability and attainable ρ from sums of shape (splits, 6)."""
    n, a, b, aa, bb, ab = sums.T
    spread = np.maximum(aa - a * a / n, 0.0) * np.maximum(bb - b * b / n, 0.0)
    rho = np.divide(ab - a * b / n, np.sqrt(spread), out=np.zeros_like(ab), where=spread > 0)
    mean = float(rho.mean())
    # Halves that do not agree at all, or worse, leave nothing to attain.
    reliability = 2.0 * mean / (1.0 + mean) if mean > 0 else 0.0
    return mean, reliability, float(np.sqrt(reliability))

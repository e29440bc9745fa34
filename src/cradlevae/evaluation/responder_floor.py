"""A floor of responders: perturbation signatures, projected onto one direction, in two groups of cells.

The idea is that of Mixscape (Papalexi et al. 2021, Nature Genetics 53, 322–331), written anew from its description:

1. A cell's *signature* is its log-normalised expression minus the mean of its nearest controls in a space of principal
   components, so that what varies between cells anyway is taken out.
2. Each perturbation has its differentially expressed genes, in which its cells are projected onto a direction: the mean
   shift of the signatures from controls to perturbed cells, or that of a linear discriminant analysis (LDA).
3. The projections are a mixture of two normal distributions, of which that of the escaping cells is the controls' own.
   Steps 2 and 3 are repeated with the cells that respond, until these no longer change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import expit

from cradlevae.data.experiment import Experiment, read_experiment
from cradlevae.data.fields import DataFields, fields_of
from cradlevae.errors import DataError
from cradlevae.evaluation.metrics.de import rank_sum_tests
from cradlevae.evaluation.metrics.pca_space import log_normalised, nearest_others
from cradlevae.query.responders.result import Responders, responders_of
from cradlevae.query.responders.shares import fit_shares
from cradlevae.utils.checks import check_choice, probability, seed_number, whole_number
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import AnnDataLike, BoolArray, FloatArray, IndexArray

SIGNIFICANCE, LEAST_CHANGE, FEWEST_GENES = 0.05, 0.25, 5
"""Differentially expressed genes: p after Bonferroni, change of the mean natural log expression; with fewer such genes,
the :data:`MOST_TELLING` with the lowest p are taken."""

MOST_TELLING = 20
ROUNDS, STEPS = 10, 100
"""Rounds of direction and mixture, and steps of EM in each."""

MIN_SPREAD = 0.1
"""Least standard deviation of the responders' component, in that of the controls."""

FEWEST_CELLS = 5
"""Fewest cells of a perturbation that a direction is looked for with."""

Direction = Callable[[FloatArray, FloatArray], FloatArray]
"""Takes signatures of responding cells and of controls, (cells, genes); returns a direction, (genes,)."""


def _mean_shift(perturbed: FloatArray, controls: FloatArray) -> FloatArray:
    shift: FloatArray = perturbed.mean(axis=0) - controls.mean(axis=0)
    return shift


def _discriminant(perturbed: FloatArray, controls: FloatArray) -> FloatArray:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    both = np.concatenate([perturbed, controls])
    responds = np.arange(len(both)) < len(perturbed)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(both, responds)
    return np.asarray(lda.coef_[0], dtype=np.float64)


RESPONDER_FLOORS: dict[str, Direction] = {"lda": _discriminant, "shift": _mean_shift}
"""Floors of responders by the direction that cells are projected onto."""


def responder_floor(
    adata: AnnDataLike | Experiment,
    direction: str = "lda",
    *,
    n_neighbours: int = 20,
    n_components: int = 15,
    credible: float = 0.9,
    seed: int = 0,
    fields: DataFields | None = None,
    **field_options: Any,
) -> Responders:
    """Responders by perturbation signatures and a mixture of two normal distributions (as Mixscape does).

    Directions and mixtures are fitted to passing cells; failed cells are projected as all others.

    Parameters
    ----------
    adata
        Raw counts with perturbation labels.
    direction
        A key of :data:`RESPONDER_FLOORS`: ``"lda"`` or ``"shift"``.
    n_neighbours
        Nearest controls that a cell is compared with; they are of its stratum (batch, covariates, context) where there
        are as many.
    n_components
        Principal components in which they are near.
    credible
        Probability of the intervals of the shares.
    seed
        Seed of the principal components.
    fields, **field_options
        Where labels, counts and artifact columns are, as for :func:`cradlevae.guide_effects`.

    Returns
    -------
    Responders
        As from ``model.responders``; all cells count as seen. A perturbation with fewer than
        :data:`FEWEST_CELLS` passing cells has missing values.

    Raises
    ------
    DataError
        If columns are absent, or there are fewer passing controls than neighbours.
    """
    check_choice("direction", direction, tuple(RESPONDER_FLOORS))
    n_neighbours = whole_number("n_neighbours", n_neighbours, 1)
    n_components = whole_number("n_components", n_components, 1)
    credible, seed = probability("credible", credible), seed_number(seed)
    data = adata if isinstance(adata, Experiment) else read_experiment(adata, fields_of(fields, field_options))
    counts = sp.csr_matrix(data.counts[np.arange(data.n_cells)])
    signature = _signatures(data, counts, n_neighbours, n_components, seed)
    condition, names = data.plain
    controls = data.is_control & ~data.failed
    tests = rank_sum_tests(counts, np.where(data.failed, -1, condition), names, strata=data.strata)
    of_perturbation = {}
    for code in track_slow(range(1, len(names)), len(names) - 1, "projecting cells"):
        own = condition == code
        passing = own & ~data.failed
        if passing.sum() < FEWEST_CELLS:
            continue
        p_value = tests.p_value[tests.names.index(names[code])]
        genes = _telling_genes(signature, passing, controls, p_value)
        log_odds = _projected(signature[:, genes], passing, controls, RESPONDER_FLOORS[direction])
        of_perturbation[str(names[code])] = log_odds[own, None]
    fits = fit_shares(of_perturbation, np.ones(1), credible=credible)
    return responders_of(data, fits, np.zeros(data.n_cells, dtype=bool), credible)


def _signatures(data: Experiment, counts: sp.csr_matrix, n_neighbours: int, n_components: int, seed: int) -> FloatArray:
    """Log-normalised expression minus the mean of the nearest controls, (cells, genes)."""
    from sklearn.decomposition import PCA

    logged = log_normalised(counts).toarray()
    n_components = min(n_components, *logged.shape)
    space = PCA(n_components, random_state=seed).fit(logged[~data.failed]).transform(logged)
    signature = np.empty_like(logged)
    controls = data.is_control & ~data.failed
    for stratum in np.unique(data.strata):
        rows = np.flatnonzero(data.strata == stratum)
        near = np.flatnonzero(controls & (data.strata == stratum))
        near = near if len(near) > n_neighbours else np.flatnonzero(controls)
        if len(near) <= n_neighbours:
            raise DataError(
                f"{len(near)} passing controls, but {n_neighbours} neighbours of each cell: lower n_neighbours"
            )
        for row, chosen in zip(rows, nearest_others(space, rows, near, n_neighbours), strict=True):
            signature[row] = logged[row] - logged[chosen].mean(axis=0)
    return np.asarray(signature)


def _telling_genes(signature: FloatArray, perturbed: BoolArray, controls: BoolArray, p_value: FloatArray) -> IndexArray:
    """Genes in which cells are projected."""
    change = np.abs(signature[perturbed].mean(axis=0) - signature[controls].mean(axis=0))
    genes = np.flatnonzero((p_value * len(p_value) < SIGNIFICANCE) & (change > LEAST_CHANGE))
    return genes if len(genes) >= FEWEST_GENES else np.argsort(p_value, kind="stable")[:MOST_TELLING]


def _projected(signature: FloatArray, passing: BoolArray, controls: BoolArray, direction: Direction) -> FloatArray:
    """Log density of the projection of each cell among responders minus that among controls, (cells,)."""
    responds = passing
    for _ in range(ROUNDS):
        projection = signature @ direction(signature[responds], signature[controls])
        log_odds, share = _mixture(projection, projection[controls], passing)
        now = passing & (log_odds + np.log(share / (1 - share)) > 0)
        if now.sum() < FEWEST_CELLS or (now == responds).all():
            break
        responds = now
    return log_odds


def _mixture(projection: FloatArray, base: FloatArray, passing: BoolArray) -> tuple[FloatArray, float]:
    """Log density ratio of each cell, (cells,), and the share of responders, by EM over a perturbation's passing cells.

    The escaping cells' component is that of the controls, whose projections are ``base``.
    """
    mean, sd = base.mean(), base.std()
    values = projection[passing]
    own_mean, own_sd, share = values.mean(), max(values.std(), MIN_SPREAD * sd), 0.5
    for _ in range(STEPS):
        log_odds = _log_normal(values, own_mean, own_sd) - _log_normal(values, mean, sd)
        weight = expit(log_odds + np.log(share / (1 - share)))
        share = float(np.clip(weight.mean(), 0.01, 0.99))
        own_mean = weight @ values / weight.sum()
        own_sd = max(np.sqrt(weight @ (values - own_mean) ** 2 / weight.sum()), MIN_SPREAD * sd)
    return _log_normal(projection, own_mean, own_sd) - _log_normal(projection, mean, sd), share


def _log_normal(value: FloatArray, mean: float, sd: float) -> FloatArray:
    return np.asarray(-0.5 * ((value - mean) / sd) ** 2 - np.log(sd))

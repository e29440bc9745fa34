"""Rows of generated cells against real ones: E-distance, MMD and mean expression, with what they could be at best.

One design for all of them. The real reference cells of a perturbation are halved at random; from one half, the distance
of as many generated cells is the model's, that of as many reference controls the score of a generator for which nothing
happens, and that of the other half what real cells themselves reach. All samples have one size; many halvings are
averaged.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cradlevae.data.moments import expression_blocks
from cradlevae.evaluation.matched_cells import CellPair
from cradlevae.evaluation.metrics.distances import gaussian_kernel, pairwise_distances, unbiased_gap
from cradlevae.evaluation.metrics.pca_space import CellSpace
from cradlevae.evaluation.metrics.registry import REGISTRY, metric
from cradlevae.evaluation.reference_effects import MIN_CELLS, left_out
from cradlevae.evaluation.score_table import MODEL, Scores, drawn_interval, fraction_of
from cradlevae.utils.types import FloatArray

MAX_CELLS = 500
"""At most so many cells of each kind are looked at for a perturbation; halves have at most half as many."""

POOL = 200
"""Generated cells and controls that samples are drawn from even where there are fewer real cells."""

HALVINGS = 20
CONTROLS = "controls"
REAL = "real cells"
REFERENCE = "reference"
"""The half of the real cells from which all distances are taken."""

PREDICTORS = (MODEL, CONTROLS, REAL)
METRICS = ("e_distance", "mmd2", "mse_mean", "mae_mean")

NOTES = {
    MODEL: "",
    CONTROLS: "real controls in the place of generated cells",
    REAL: f"half against half; low and high: single ones of {HALVINGS} random halvings",
}


@metric("mse_mean", kind="cells", best=0.0, description="mean squared error of mean expression of generated cells")
def mse_mean(real: npt.ArrayLike, generated: npt.ArrayLike) -> float:
    """Mean squared difference of mean log2 expression, (genes,) each."""
    return float(((np.asarray(real, dtype=np.float64) - np.asarray(generated, dtype=np.float64)) ** 2).mean())


@metric("mae_mean", kind="cells", best=0.0, description="mean absolute error of mean expression of generated cells")
def mae_mean(real: npt.ArrayLike, generated: npt.ArrayLike) -> float:
    """Mean absolute difference of mean log2 expression, (genes,) each."""
    return float(np.abs(np.asarray(real, dtype=np.float64) - np.asarray(generated, dtype=np.float64)).mean())


def score_cells(scores: Scores, pair: CellPair, space: CellSpace, *, seed: int) -> None:
    """Add the rows of cells against cells: means over the perturbations that have enough of them.

    Parameters
    ----------
    scores
        Table to add to.
    pair
        Real reference cells and as many generated ones.
    space
        Where distances are taken, made of training cells.
    seed
        Seed of which cells are looked at, of the halvings and of the bootstrap.
    """
    sizes = pair.sizes
    enough = [code for code in range(1, len(pair.names)) if min(sizes[code], sizes[0]) >= MIN_CELLS]
    note = left_out([name for code, name in enumerate(pair.names) if code > 0 and code not in enough])
    reference = scores.label("passing cells")
    if not enough:
        for name in METRICS:
            scores.add(reference, name, MODEL, float("nan"), note=note)
        return
    found = np.stack([compare_cells(pair, code, space, seed=seed) for code in enough])
    for place, name in enumerate(METRICS):
        of_metric = found[:, place]  # (perturbations, predictors, halvings)
        value = dict(zip(PREDICTORS, of_metric.mean(axis=(0, 2)), strict=True))
        for which, predictor in enumerate(PREDICTORS):
            if predictor == REAL:
                low, high = np.quantile(of_metric[:, which].mean(axis=0), [0.025, 0.975])
            else:
                low, high = drawn_interval(of_metric[:, which].mean(axis=1), seed)
            fraction, why = fraction_of(name, value[predictor], value[CONTROLS], value[REAL])
            scores.add(
                reference, name, predictor, value[predictor], low=low, high=high, floor=value[CONTROLS],
                best_floor=CONTROLS, ceiling=value[REAL], fraction=fraction,
                note="; ".join(text for text in (NOTES[predictor], why, note if predictor == MODEL else "") if text),
            )  # fmt: skip


def compare_cells(pair: CellPair, code: int, space: CellSpace, *, seed: int) -> FloatArray:
    """Scores of one perturbation, (metrics, predictors, halvings), in the order of METRICS and PREDICTORS."""
    random = np.random.default_rng([seed, code])
    kinds = [
        pair.generated[np.flatnonzero(pair.generated_codes == code)],
        pair.real[np.flatnonzero(pair.real_codes == 0)],
        pair.real[np.flatnonzero(pair.real_codes == code)],
    ]
    half = min(MAX_CELLS, *(cells.shape[0] for cells in kinds)) // 2
    most = (max(2 * half, POOL), max(2 * half, POOL), 2 * half)
    kinds = [cells[np.sort(random.permutation(cells.shape[0])[:n])] for cells, n in zip(kinds, most, strict=True)]
    counts = sp.csr_matrix(sp.vstack(kinds))
    start = np.cumsum([0, *(cells.shape[0] for cells in kinds)])
    samples = (*PREDICTORS, REFERENCE)
    members = {name: np.zeros((HALVINGS, counts.shape[0])) for name in samples}  # 1 for the cells of a sample
    for halving in range(HALVINGS):
        for place, predictor in enumerate(PREDICTORS):
            shuffled = random.permutation(np.arange(start[place], start[place + 1]))
            members[predictor][halving, shuffled[:half]] = 1.0
        members[REFERENCE][halving, shuffled[half:]] = 1.0  # real cells come last: the half that is left
    distances = pairwise_distances(space.project(counts))
    kernel = gaussian_kernel(distances, space.precisions)
    expression = sp.csr_matrix(sp.vstack([block for _, block in expression_blocks(counts)]))
    mean = {name: (expression.T @ member.T).T / half for name, member in members.items()}  # (halvings, genes)
    base = members[REFERENCE]
    return np.array(
        [
            [unbiased_gap(distances, base, members[name]) for name in PREDICTORS],
            [-unbiased_gap(kernel, base, members[name]) for name in PREDICTORS],
            *(
                [
                    [REGISTRY[which].function(a, b) for a, b in zip(mean[REFERENCE], mean[name], strict=True)]
                    for name in PREDICTORS
                ]
                for which in METRICS[2:]
            ),
        ]
    )

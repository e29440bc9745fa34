"""Rows of generated cells against real ones, with what they could be at best.

One design for all metrics of kind "cells". The real reference cells of a perturbation are halved at random; from one
half, the distance of as many generated cells is the model's score, that of as many reference controls the score of a
generator for which nothing happens, and that of the other half what real cells themselves reach. All samples have one
size; many halvings are averaged.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from cradlevae.evaluation.matched_cells import CellPair
from cradlevae.evaluation.metrics.pca_space import CellSpace
from cradlevae.evaluation.metrics.registry import Metric, metrics_of
from cradlevae.evaluation.metrics.samples import CellPool, SampleSeries
from cradlevae.evaluation.reference_effects import MIN_CELLS, left_out
from cradlevae.evaluation.score_table import MODEL, REAL, Scores, drawn_interval, fraction_of, join_notes
from cradlevae.utils.types import FloatArray

MAX_CELLS = 500
"""At most so many cells of each kind are looked at for a perturbation; halves have at most half as many."""

POOL = 200
"""Generated cells and controls that samples are drawn from even where there are fewer real cells."""

HALVINGS = 20
CONTROLS = "controls"
REFERENCE = "reference"
"""The half of the real cells from which all distances are taken."""

PREDICTORS = (MODEL, CONTROLS, REAL)

NOTES = {
    MODEL: "",
    CONTROLS: "real controls in the place of generated cells",
    REAL: f"half against half; low and high: single ones of {HALVINGS} random halvings",
}


def score_cells(scores: Scores, pair: CellPair, space: CellSpace, *, seed: int) -> None:
    """Add the rows of metrics of kind ``"cells"``: means over the perturbations that have enough cells.

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
    sizes, metrics = pair.sizes, metrics_of("cells")
    enough = [code for code in range(1, len(pair.names)) if min(sizes[code], sizes[0]) >= MIN_CELLS]
    note = left_out([name for code, name in enumerate(pair.names) if code > 0 and code not in enough])
    if not enough:
        for entry in metrics:
            scores.add(scores.label("passing cells"), entry.name, MODEL, float("nan"), note=note)
        return
    values = np.stack([compare_cells(pair, code, space, seed=seed) for code in enough])
    for place, entry in enumerate(metrics):
        _add_rows(scores, entry, values[:, place], note, seed)


def _add_rows(scores: Scores, entry: Metric, values: FloatArray, note: str, seed: int) -> None:
    """Add a row for each predictor from all scores, (perturbations, predictors, halvings)."""
    means = dict(zip(PREDICTORS, values.mean(axis=(0, 2)), strict=True))
    for place, predictor in enumerate(PREDICTORS):
        of_all = values[:, place]
        if predictor == REAL:
            low, high = np.quantile(of_all.mean(axis=0), [0.025, 0.975])
        else:
            low, high = drawn_interval(of_all.mean(axis=1), seed)
        fraction, why = fraction_of(entry.name, means[predictor], means[CONTROLS], means[REAL])
        scores.add(
            scores.label("passing cells"), entry.name, predictor, means[predictor], low=low, high=high,
            floor=means[CONTROLS], best_floor=CONTROLS, ceiling=means[REAL], fraction=fraction,
            note=join_notes(NOTES[predictor], why, note if predictor == MODEL else "", entry.note),
        )  # fmt: skip


def compare_cells(pair: CellPair, code: int, space: CellSpace, *, seed: int) -> FloatArray:
    """Scores of one perturbation, (metrics of kind "cells", predictors, halvings), in the order of PREDICTORS.

    Parameters
    ----------
    pair
        Real and generated cells.
    code
        Position of the perturbation among their conditions.
    space
        Where distances are taken.
    seed
        Seed of which cells are looked at, and of the halvings.
    """
    samples = _samples(pair, code, space, np.random.default_rng([seed, code]))
    reference = samples[REFERENCE]
    return np.array(
        [
            [
                [entry.value(reference[halving], samples[predictor][halving]) for halving in range(HALVINGS)]
                for predictor in PREDICTORS
            ]
            for entry in metrics_of("cells")
        ]
    )


def _samples(pair: CellPair, code: int, space: CellSpace, random: np.random.Generator) -> dict[str, SampleSeries]:
    """Samples of one size, one per halving: of each predictor, and of the real cells they are compared with."""
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
    membership = {name: np.zeros((HALVINGS, counts.shape[0])) for name in (*PREDICTORS, REFERENCE)}
    for halving in range(HALVINGS):
        for place, predictor in enumerate(PREDICTORS):
            shuffled = random.permutation(np.arange(start[place], start[place + 1]))
            membership[predictor][halving, shuffled[:half]] = 1.0
        membership[REFERENCE][halving, shuffled[half:]] = 1.0  # real cells come last: the half that is left
    pool = CellPool(counts, space)
    return {name: SampleSeries(pool, of_halvings) for name, of_halvings in membership.items()}

"""Rows of generated cells against real ones, with what they could be at best.

One design for all metrics of kind "cells". The real reference cells of a perturbation are halved at random; from one
half, the distance of as many generated cells is the model's score, that of as many reference controls the score of a
generator for which nothing happens, and that of the other half what real cells themselves reach. All samples have one
size; many halvings are averaged.

Where there are several batches or contexts, all samples also have as many cells of each: halves are halves of every
group, and generated cells and controls are of the same groups. A group is left out where a half of it has fewer than
two cells of a kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cradlevae.evaluation.matched_cells import CellPair
from cradlevae.evaluation.metrics.pca_space import CellSpace
from cradlevae.evaluation.metrics.registry import Metric, metrics_of
from cradlevae.evaluation.metrics.samples import CellPool, SampleSeries
from cradlevae.evaluation.reference_effects import MIN_CELLS, left_out
from cradlevae.evaluation.score_table import MODEL, REAL, Scores, drawn_interval, fraction_of, join_notes
from cradlevae.utils.types import FloatArray, IndexArray

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
    metrics = metrics_of("cells")
    enough = [code for code in range(1, len(pair.names)) if sum(2 * g.half for g in _groups(pair, code)) >= MIN_CELLS]
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
    samples = _samples(_groups(pair, code), pair, space, np.random.default_rng([seed, code]))
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


@dataclass(frozen=True)
class _Group:
    """Cells of one batch and context that are compared for a perturbation.

    Attributes
    ----------
    generated, controls, treated
        Rows of generated cells of the perturbation, of real controls, and of real cells of the perturbation.
    half
        Number of cells of a sample.
    share
        Share of the perturbation's cells that are in the group.
    """

    generated: IndexArray
    controls: IndexArray
    treated: IndexArray
    half: int
    share: float


def _groups(pair: CellPair, code: int) -> list[_Group]:
    """The groups in which a perturbation's cells can be halved, beside controls and generated cells."""
    groups = []
    for group in np.unique(pair.real_groups[pair.real_codes == code]):
        of_group = pair.real_groups == group
        generated = np.flatnonzero((pair.generated_codes == code) & (pair.generated_groups == group))
        controls = np.flatnonzero((pair.real_codes == 0) & of_group)
        treated = np.flatnonzero((pair.real_codes == code) & of_group)
        share = len(treated) / pair.sizes[code]
        half = min(round(MAX_CELLS * share), len(generated), len(controls), len(treated)) // 2
        if half >= 2:
            groups.append(_Group(generated, controls, treated, half, share))
    return groups


def _samples(
    groups: Sequence[_Group], pair: CellPair, space: CellSpace, random: np.random.Generator
) -> dict[str, SampleSeries]:
    """Samples of one size, one per halving: of each predictor, and of the real cells they are compared with."""
    kinds, memberships = [], []
    for group in groups:
        pool = max(2 * group.half, round(POOL * group.share))
        chosen = [
            rows[np.sort(random.permutation(len(rows))[:n])]
            for rows, n in ((group.generated, pool), (group.controls, pool), (group.treated, 2 * group.half))
        ]
        kinds += [pair.generated[chosen[0]], pair.real[chosen[1]], pair.real[chosen[2]]]
        memberships.append(_halvings([len(rows) for rows in chosen], group.half, random))
    sizes = [next(iter(membership.values())).shape[1] for membership in memberships]
    cells = CellPool(sp.csr_matrix(sp.vstack(kinds)), space, np.repeat(np.arange(len(groups)), sizes))
    return {
        name: SampleSeries(cells, np.concatenate([membership[name] for membership in memberships], axis=1))
        for name in (*PREDICTORS, REFERENCE)
    }


def _halvings(sizes: Sequence[int], half: int, random: np.random.Generator) -> dict[str, FloatArray]:
    """Which cells of a group are in each sample, (halvings, cells) each: so many of each kind, real cells last."""
    start = np.cumsum([0, *sizes])
    membership = {name: np.zeros((HALVINGS, start[-1])) for name in (*PREDICTORS, REFERENCE)}
    for halving in range(HALVINGS):
        for place, predictor in enumerate(PREDICTORS):
            shuffled = random.permutation(np.arange(start[place], start[place + 1]))
            membership[predictor][halving, shuffled[:half]] = 1.0
        membership[REFERENCE][halving, shuffled[half:]] = 1.0  # the half that is left of the real cells
    return membership

"""What happened to cells, by the guide of damage of a trained model: kinds, severities and second parents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch

from cradlevae.data.damage.operators import damage_of, damage_shares
from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.minibatch import make_minibatch
from cradlevae.model.damage.guide import Evidence
from cradlevae.model.estimation.latent_draws import draw_globals
from cradlevae.model.estimation.streams import padding, seeded
from cradlevae.model.module import sparse_counts
from cradlevae.model.trained import TrainedModel, training_rows
from cradlevae.utils.constants import ENCODED_CELLS
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import FloatArray, IndexArray, IntArray

DRAWS = 16
"""Draws of masks and embeddings whose mean z^p the guide sees."""

PRIOR_CELLS = 20.0
"""Failed cells that the shares of the kinds among damaged copies are worth, beside those of the experiment."""

SWEEPS = 50


@dataclass(frozen=True)
class Diagnosis:
    """What happened to some cells.

    Attributes
    ----------
    kinds
        Keys of the kinds of damage, D.
    probability
        Probability of each, (cells, D).
    severity
        Mean and standard deviation of the log odds of the severity, given each kind, (2, cells, D).
    parent
        Number of the most probable condition of a second cell, (cells,).
    parent_probability
        Its probability, given that there is a second cell, (cells,).
    """

    kinds: tuple[str, ...]
    probability: FloatArray
    severity: FloatArray
    parent: IntArray
    parent_probability: FloatArray

    @property
    def most_probable(self) -> IntArray:
        """Number of the most probable kind of each cell, (cells,)."""
        return np.asarray(self.probability.argmax(axis=1), dtype=np.int64)

    def severity_of(self, kind: IntArray, quantile: float) -> FloatArray:
        """A quantile of the severity of each cell, given a kind of each, (cells,)."""
        mean, sd = (np.take_along_axis(part, kind[:, None], axis=1)[:, 0] for part in self.severity)
        odds = mean + NormalDist().inv_cdf(quantile) * sd
        none = np.array([damage_of(key).harmless for key in self.kinds])[kind]
        return np.where(none, 0.0, 1 / (1 + np.exp(-odds)))


def diagnosed(model: TrainedModel, data: Experiment, rows: IndexArray, seed: int = 0) -> Diagnosis:
    """What happened to failed cells, as far as their counts tell; a cell's answer does not depend on the others.

    Parameters
    ----------
    model
        A trained model with a guide of damage.
    data
        The experiment.
    rows
        Cells.
    seed
        Seed of the draws of masks and embeddings.
    """
    guide, kinds = model.module.damage_guide, model.config.damages
    assert guide is not None
    assert kinds is not None
    two = torch.tensor([damage_of(key).by_another_cell for key in kinds])
    parts: list[tuple[torch.Tensor, ...]] = []
    with seeded(seed):
        for some, evidence, probability in _evidence_of(model, data, rows):
            every = torch.arange(len(probability))
            told = [guide.of_damage(evidence, torch.full_like(every, kind)) for kind in range(guide.n_kinds)]
            mean, log_sd = (torch.stack([severity[part] for severity, _ in told], dim=-1) for part in (0, 1))
            doublet = (probability * two).argmax(-1)
            second = torch.stack([torch.softmax(parent, -1) for _, parent in told])[doublet, every]
            of_parent, parent = second.max(dim=-1)
            answer = probability, mean, log_sd.exp(), parent, of_parent
            parts.append(tuple(one[: len(some)] for one in answer))
    chance, middle, spread, second_parent, of_second = (torch.cat(one).numpy() for one in zip(*parts, strict=True))
    return Diagnosis(
        kinds=kinds,
        probability=chance.astype(np.float64),
        severity=np.stack([middle, spread]).astype(np.float64),
        parent=second_parent.astype(np.int64),
        parent_probability=of_second.astype(np.float64),
    )


def _probability(model: TrainedModel, data: Experiment, rows: IndexArray) -> FloatArray:
    """Probability of each kind of damage of failed cells, (cells, D)."""
    with seeded(0):
        parts = [probability[: len(some)] for some, _, probability in _evidence_of(model, data, rows)]
    return torch.cat(parts).numpy().astype(np.float64)


def _evidence_of(
    model: TrainedModel, data: Experiment, rows: IndexArray
) -> Iterator[tuple[IndexArray, Evidence, torch.Tensor]]:
    """Cells, some at a time, what their counts say before the kind of damage is known, and how likely each kind is.

    The last two have rows that pad.
    """
    guide = model.module.damage_guide
    assert guide is not None
    shift = draw_globals(model, DRAWS).shift.mean(0, keepdim=True)
    starts = range(0, len(rows), ENCODED_CELLS)
    for start in track_slow(starts, len(starts), "diagnosing cells"):
        some = rows[start : start + ENCODED_CELLS]
        evidence = _evidence(model, data, some[padding(len(some), ENCODED_CELLS)], shift)
        yield some, evidence, torch.softmax(evidence.kind + guide.kind_odds, dim=-1)


def _evidence(model: TrainedModel, data: Experiment, rows: IndexArray, shift: torch.Tensor) -> Evidence:
    module, minibatch = model.module, make_minibatch(data, rows)
    effect = (minibatch.dosage @ shift).index_select(1, minibatch.condition)[0]
    offset = module.offset_of_cells(minibatch.dosage, minibatch.condition)
    return module.damage_evidence(sparse_counts(minibatch).dense(), effect, offset, minibatch.levels)


def with_kinds(model: TrainedModel, data: Experiment) -> TrainedModel:
    """The model, told how often failed training cells suffer each kind of damage: expectation maximisation.

    A guide that has learned on copies of other shares is right for the experiment when its odds are multiplied by the
    ratio of the shares (Saerens et al., Neural Computation 2002).
    """
    guide = model.module.damage_guide
    train = training_rows(data, model.split, model.config)
    failed = train[data.failed[train]]
    if guide is None or not len(failed):
        return model
    with torch.no_grad():
        guide.kind_odds.zero_()
    known = _probability(model, data, failed)
    assert model.config.damages is not None
    prior = damage_shares(model.config.damages)
    share = prior.copy()
    for _ in range(SWEEPS):
        likely = known * (share / prior)
        likely /= likely.sum(axis=1, keepdims=True)
        share = (likely.sum(axis=0) + PRIOR_CELLS * prior) / (len(failed) + PRIOR_CELLS)
    with torch.no_grad():
        guide.kind_odds.copy_(torch.from_numpy(np.log(share / prior)).float())
    return model

"""Log probability of each cell's counts if its perturbation took, against that if it did not, by a trained model.

Both integrate over the same draws of the cell's latent states, which come half from the guide's posterior under the
cell's label and half from that under the control, and are weighted by prior over proposal (multiple importance
sampling). What the draws have in common then cancels in the ratio, and neither hypothesis is worse off for a proposal
that was made for the other. A failed cell has its artifact in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.minibatch import make_minibatch
from cradlevae.model.estimation.latent_draws import draw_globals
from cradlevae.model.estimation.streams import CellStreams, padding, seeded
from cradlevae.model.globals import Globals, artifact_state, perturbation_state
from cradlevae.model.module import failed_cells, sparse_counts
from cradlevae.model.trained import TrainedModel
from cradlevae.nn.likelihood import Likelihood
from cradlevae.nn.mlp import Gaussian, standard_log_prob
from cradlevae.utils.constants import BLOCK_VALUES
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import FloatArray, IndexArray

FACTORS = np.array([1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0])
"""How much larger the effect of the responders may be than that of all cells with the label, which the model has
learned: it is diluted by those that escape."""

CELLS = 256
"""At most so many cells are worked on together."""

LEAST_SHARE = 1e-30
"""Shares of genes are at least so large before their logarithm is taken."""


@dataclass(frozen=True)
class StateDraws:
    """Draws of the latent states of some cells, and what the decoder makes of them: P particles, N cells, G genes.

    Attributes
    ----------
    log_share
        Log share of each gene in the unperturbed cell, (P, N, G).
    log_effect
        What the cell's perturbation adds to it, for all cells with that label, (P, N, G).
    log_weight
        Log prior over proposal of each draw, (P, N).
    counts, library_size
        Of the cells, (N, G) and (N, 1).
    """

    log_share: Tensor
    log_effect: Tensor
    log_weight: Tensor
    counts: Tensor
    library_size: Tensor

    def log_evidence(self, likelihood: Likelihood, factor: float) -> FloatArray:
        """Log probability of the counts if the cells show their perturbation's effect times a factor, (N,)."""
        log_share = torch.add(self.log_share, self.log_effect, alpha=factor)
        mean = torch.softmax(log_share, dim=-1).mul_(self.library_size)
        log_prob = likelihood.log_prob(self.counts, mean).sum(-1).add_(self.log_weight)
        evidence: FloatArray = torch.logsumexp(log_prob, dim=0).double().numpy()
        return evidence


def log_odds(model: TrainedModel, data: Experiment, rows: IndexArray, *, n_draws: int, seed: int) -> FloatArray:
    """Log probability of cells' counts if they respond minus that if they do not, for each of :data:`FACTORS`.

    Parameters
    ----------
    model, data
        A trained model, and cells as it reads them.
    rows
        The cells; none is a control.
    n_draws
        Draws of the globals; each has a draw of the cell's own states under either hypothesis.
    seed
        Seed; a cell has the same draws in any company.

    Returns
    -------
    FloatArray
        In nats, (cells, F).
    """
    table, done = np.empty((len(rows), len(FACTORS))), 0
    with seeded(seed):
        for draws in _state_draws(model, data, rows, n_draws, seed):
            unmoved = draws.log_evidence(model.module.likelihood, 0.0)
            for column, factor in enumerate(FACTORS):
                evidence = draws.log_evidence(model.module.likelihood, float(factor))
                table[done : done + len(unmoved), column] = evidence - unmoved
            done += len(unmoved)
    return table


def own_influence(model: TrainedModel, data: Experiment) -> FloatArray:
    """How much a training cell's log odds owe to the cell itself, in nats at factor 1, by condition, (conditions,).

    The gene effects of a treatment are fitted to its training cells, and so to the noise of each. By Akaike's argument,
    a training cell is more probable under effects that were fitted to n cells than under those of the other cells, by
    as many nats as effects have degrees of freedom, over n; shrinkage leaves a gene with information J and prior
    variance v the share v J / (1 + v J) of one. (The networks, which all conditions share, are not accounted for.)
    """
    effects = model.module.gene_effects
    if effects is None:
        return np.zeros(len(data.conditions))
    with torch.no_grad():
        treatments = torch.arange(len(effects.n_cells))
        information = model.module.likelihood.information(effects.mean_count)
        left = effects.deviation(treatments, information).square() / effects.prior_variance(treatments)
        by_treatment = (1 - left).sum(1) / effects.n_cells.clamp_min(1)
    return np.asarray((data.dosage != 0) @ by_treatment.double().numpy())


def _state_draws(
    model: TrainedModel, data: Experiment, rows: IndexArray, n_draws: int, seed: int
) -> Iterator[StateDraws]:
    """Draw the latent states of cells, block by block."""
    draw = draw_globals(model, n_draws)
    step = max(1, min(CELLS, BLOCK_VALUES // (2 * n_draws * data.n_genes)))
    starts = range(0, len(rows), step)
    for start in track_slow(starts, len(starts), "comparing cells with controls"):
        part = rows[start : start + step]
        noise = CellStreams(data, part, seed).normal(4 * n_draws, model.module.n_latent)
        yield _block(model, data, part, draw, noise, step)


def _block(
    model: TrainedModel, data: Experiment, rows: IndexArray, draw: Globals, noise: Tensor, size: int
) -> StateDraws:
    """Some cells; ``noise`` is standard normal, (4 D, N, K), and ``size`` the rows that go through the networks."""
    module, n, n_draws = model.module, len(rows), len(noise) // 4
    pad = padding(n, size)
    minibatch, noise = make_minibatch(data, rows[pad]), noise[:, pad]
    counts = sparse_counts(minibatch)
    encoded = module.encode_counts(counts)[0]
    z_p = perturbation_state(draw, minibatch.dosage, minibatch.condition)
    z_a = artifact_state(draw, minibatch.artifact)
    offset = module.offset_of_cells(minibatch.dosage, minibatch.condition)
    as_control = module.encode(encoded, None, z_a, None, minibatch.levels)
    as_labelled = module.encode(encoded, z_p, z_a, offset, minibatch.levels)
    z_b, log_weight = _mixed(as_control[0], as_labelled[0], noise[: 2 * n_draws])
    z_p, z_a = _twice(z_p, n_draws), None if z_a is None else _twice(z_a, n_draws)
    if z_a is not None and as_control[1] is not None and as_labelled[1] is not None:
        own, of_own = _mixed(as_control[1], as_labelled[1], noise[2 * n_draws :])
        failed = failed_cells(minibatch.artifact)
        z_a = z_a + failed.unsqueeze(1) * own
        log_weight = log_weight + failed * of_own
    level = module.of_levels(minibatch.levels)
    log_share = module.decode_share(z_b, None, z_a, None, level).clamp_min_(LEAST_SHARE).log_()
    log_effect = module.decode_share(z_b, z_p, z_a, offset, level).clamp_min_(LEAST_SHARE).log_().sub_(log_share)
    return StateDraws(
        log_share[:, :n], log_effect[:, :n], log_weight[:, :n], counts.dense()[:n],
        minibatch.library_size.unsqueeze(1)[:n],
    )  # fmt: skip


def _twice(state: Tensor, n_draws: int) -> Tensor:
    """A state of each draw of the globals, (D or 1, N, K), for both draws of the cells' own states, (2 D, N, K)."""
    return state.expand(n_draws, -1, -1).repeat(2, 1, 1)


def _mixed(first: Gaussian, second: Gaussian, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draws of which half come of either posterior, (2 D, N, K), and their log prior over mixed proposal, (2 D, N)."""
    half = len(noise) // 2
    draws = first.sample(noise[:half]), second.sample(noise[half:])
    proposal = [
        torch.logaddexp(first.log_prob(one).sum(-1), second.log_prob(one).sum(-1)) - math.log(2) for one in draws
    ]
    states = torch.cat(draws)
    return states, standard_log_prob(states).sum(-1) - torch.cat(proposal)

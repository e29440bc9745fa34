"""Batches of particles, pairs (draw of a perturbation's shift, basal state), laid out so that few tell much.

A batch is a Latin hypercube of draws and another of control states, crossed incompletely: every draw meets three
states, every state three draws, and any two draws have one state in common, so that what belongs to the draws can be
told from what belongs to the states (balanced incomplete blocks, fitted per gene by one small matrix). Batches are
independent of each other, so their spread is the Monte-Carlo error of what they give on average, however their
particles depend on each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from cradlevae.model.estimation.latent_draws import Basal
from cradlevae.model.globals import GlobalNoise
from cradlevae.model.trained import TrainedModel
from cradlevae.utils.types import Float32Array, FloatArray, IndexArray

DRAWS = 7
"""Draws, and as many states, in a batch."""

OFFSETS = (0, 1, 3)
"""State s meets the draws s − offset (mod 7). Their differences are 1, …, 6, each once: a perfect difference set."""

PARTICLES = DRAWS * len(OFFSETS)


@dataclass(frozen=True)
class States:
    """The basal states of a batch, or of several one after the other, spread evenly over the controls' library sizes.

    Attributes
    ----------
    basal
        z^b, (batches × 7, K).
    library_size
        ℓ, (batches × 7,).
    levels
        Levels of the controls in the columns that cells differ in, (batches × 7, columns).
    """

    basal: Tensor
    library_size: Tensor
    levels: Tensor


def draw_states(model: TrainedModel, basal: Basal, seed: int, batches: range, context: str | None = None) -> States:
    """The states of batches: in each, of one passing control from each seventh of the library sizes.

    They are those of controls of a context, or of all contexts (``None``).
    """
    drawn = [_draw_states(model, basal, seed, batch, context) for batch in batches]
    return States(
        torch.cat([states.basal for states in drawn]),
        torch.cat([states.library_size for states in drawn]),
        torch.cat([states.levels for states in drawn]),
    )


def _draw_states(model: TrainedModel, basal: Basal, seed: int, batch: int, context: str | None) -> States:
    bank = model.bank(context)
    rng = np.random.default_rng([seed, batch])
    ranked = np.argsort(bank.library_size, kind="stable")
    uniform = latin_hypercube(rng, DRAWS, 1 + model.module.n_latent)
    chosen = ranked[(uniform[:, 0] * len(ranked)).astype(np.intp)]
    state = _normal(uniform[:, 1:])
    if basal == "controls":
        state = bank.loc[chosen] + bank.scale[chosen] * state
    return States(
        torch.from_numpy(state), torch.from_numpy(bank.library_size[chosen]), torch.from_numpy(bank.levels[chosen])
    )


def draw_shifts(model: TrainedModel, dosage: Tensor, seed: int, batches: range) -> Tensor:
    """Draws of z^p in each of some batches, of conditions of dosages (conditions, T): (batches, 7, conditions, W).

    Each treatment has the same draws in every condition.
    """
    treatments = torch.nonzero(dosage.any(0)).squeeze(1)
    shape = len(batches) * DRAWS, len(treatments), 2 * model.module.n_latent
    uniform = np.empty(shape)
    for place, treatment in enumerate(treatments.tolist()):
        for position, batch in enumerate(batches):
            rng = np.random.default_rng([seed, batch, 1 + treatment])
            rows = slice(position * DRAWS, (position + 1) * DRAWS)
            uniform[rows, place] = latin_hypercube(rng, DRAWS, shape[2])
    on, value = np.split(uniform, 2, axis=2)
    unused = torch.zeros(shape[0], model.module.n_classes, model.module.n_latent)
    mask = torch.from_numpy((np.log(on) - np.log1p(-on)).astype(np.float32))
    noise = GlobalNoise(mask, torch.from_numpy(_normal(value)), unused)  # (batches × 7, treatments, K)
    shift: Tensor = dosage[:, treatments] @ model.module.sample_globals(noise, treatments).shift
    return shift.expand(shape[0], -1, -1).reshape(len(batches), DRAWS, len(dosage), -1)


def met(draws: Tensor) -> Tensor:
    """Which draw each state meets: (batches, 7, ·) → (batches × 7, 3, ·)."""
    return draws[:, _partners()].flatten(0, 1)


class OffsetPosterior:
    """What gene effects add to the log rates, as far as it is known; what all conditions share is worked out once."""

    def __init__(self, model: TrainedModel, seed: int) -> None:
        effects = model.module.gene_effects
        assert effects is not None
        self._model, self._effects, self._seed = model, effects, seed
        self._information = model.module.likelihood.information(effects.mean_count)
        levels = model.module.level_effects
        self._of_strata = None if levels is None else levels.stratum_variance()
        self._base = effects.known_base(self._information, self._of_strata)
        self._of_base: dict[int, Tensor] = {}

    def draws(self, dosage: Tensor, batches: range, n_unseen: int = 0) -> Tensor:
        """Draws in each of these batches, (batches, 7, genes).

        The draws of a batch are around their mean, so that they add to the spread and not to the error of an effect.

        Parameters
        ----------
        dosage, batches
            As of :func:`draw_shifts`.
        n_unseen
            Number of perturbations that are not measured in the context: each may deviate there as others do.
        """
        effects, information = self._effects, self._information
        treatments = torch.nonzero(dosage).squeeze(1)
        centre = effects.of_conditions(dosage[treatments].unsqueeze(0), treatments)  # (1, genes)
        coefficients = effects.coefficients(dosage, treatments, information)
        deviation = coefficients * effects.deviation(treatments, information)
        of_base = coefficients * effects.base_deviation(treatments, information, self._of_strata, self._base)
        of_base = of_base.sum(0)  # one error for all, so no squares
        streams, scales = (1 + treatments).tolist(), list(deviation)
        if n_unseen and self._model.pairs:
            pairs = torch.arange(len(self._model.treatments) - len(self._model.pairs), len(self._model.treatments))
            streams.append(1 + len(self._model.treatments))
            scales.append((n_unseen * effects.prior_variance(pairs).mean(0)).sqrt())
        drawn = []
        for batch in batches:
            of_batch = centre + of_base * self._noise_of_base(batch, len(of_base))
            for stream, scale in zip(streams, scales, strict=True):
                of_batch.addcmul_(scale, _centred_normal([self._seed, batch, stream, 1], len(scale)))
            drawn.append(of_batch)
        return torch.stack(drawn)

    def _noise_of_base(self, batch: int, n_genes: int) -> Tensor:
        if batch not in self._of_base:
            self._of_base[batch] = _centred_normal([self._seed, batch, 0, 1], n_genes)
        return self._of_base[batch]


def _centred_normal(seed: list[int], n_genes: int) -> Tensor:
    """Standard normal draws about their mean, (7, genes)."""
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((DRAWS, n_genes), dtype=np.float32))
    return (noise - noise.mean(0)).mul_((DRAWS / (DRAWS - 1)) ** 0.5)


def draw_effects(particles: Tensor) -> tuple[Tensor, Tensor]:
    """What belongs to each draw of a batch: deviations from the batch's mean, and the residual sum of squares.

    Parameters
    ----------
    particles
        A value of each particle, (7 states × 3, genes).

    Returns
    -------
    deviations
        Deviations of the draws, (7, genes); see :func:`deviation_noise`.
    residual
        Σ of squares that neither draws nor states explain, (genes,), of :func:`residual_freedom` degrees of
        freedom.
    """
    deviation, explained, _ = _layout()
    centred = particles - particles.mean(0)
    residual = (centred * centred).sum(0) - (explained @ centred).square().sum(0)
    return deviation @ centred, residual.clamp_min(0)


def residual_freedom() -> int:
    """Degrees of freedom of the residual sum of squares of a batch."""
    return PARTICLES - 2 * DRAWS + 1


def deviation_noise() -> float:
    """Sum over the draws of a batch of the noise variance of their deviations, in units of a particle's."""
    return _layout()[2]


def latin_hypercube(rng: np.random.Generator, n: int, n_dimensions: int) -> FloatArray:
    """Uniform numbers in (0, 1), (n, dimensions): one of each dimension in each n-th of the interval."""
    cells = rng.permuted(np.tile(np.arange(n)[:, None], (1, n_dimensions)), axis=0)
    uniform: FloatArray = (cells + rng.random((n, n_dimensions))) / n
    return uniform.clip(1e-12, 1 - 1e-12)


def _normal(uniform: FloatArray) -> Float32Array:
    from scipy.special import ndtri

    normal: Float32Array = ndtri(uniform).astype(np.float32)
    return normal


def _partners() -> IndexArray:
    """Draws that each state meets, (7, 3)."""
    partners: IndexArray = (np.arange(DRAWS)[:, None] - np.array(OFFSETS)) % DRAWS
    return partners


@cache
def _layout() -> tuple[Tensor, Tensor, float]:
    """Operators on the centred particles: the draws' deviations; an orthonormal basis of what the layout explains."""
    states = np.repeat(np.eye(DRAWS), len(OFFSETS), axis=0)
    draws = np.eye(DRAWS)[_partners().ravel()]
    design = np.hstack([draws, states])
    estimate = np.linalg.pinv(design)[:DRAWS]
    deviation = estimate - estimate.mean(axis=0)
    basis, sizes, _ = np.linalg.svd(design, full_matrices=False)
    explained = basis[:, sizes > 1e-9].T
    noise = float((deviation**2).sum())
    return torch.from_numpy(deviation).float(), torch.from_numpy(explained).float(), noise

"""What is known of the effect of one condition, or of a contrast, on each gene: draws about a mean."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cradlevae.model.estimation.integration_design import DRAWS, deviation_noise, residual_freedom
from cradlevae.model.estimation.two_groups import ALIKE, TwoGroups
from cradlevae.utils.types import Float32Array

COVERED = 0.99
"""Share of the genes whose Monte-Carlo error meets the target."""

LAYERS = "X", "low", "high", "sd", "mc_error", "lfsr"
"""Mean effect, ends of its interval, standard deviation, Monte-Carlo error of the mean, local false sign rate."""


@dataclass(frozen=True)
class EffectPosterior:
    """The posterior of an effect, as far as the networks know it, by draws about their mean.

    Attributes
    ----------
    mean
        Mean effect, (genes,).
    error
        Its Monte-Carlo standard error, (genes,).
    sd
        Standard deviation of the posterior, without what the few states add to the draws, (genes,).
    deviations
        Draws about their mean, (draws, genes); their spread is more than ``sd`` where states add to it.
    n_blocks
        Blocks of particles that they are from.
    """

    mean: Tensor
    error: Tensor
    sd: Tensor
    deviations: Tensor
    n_blocks: int

    @classmethod
    def of_blocks(cls, means: Tensor, centres: Tensor, deviations: Tensor, residual: Tensor) -> EffectPosterior:
        """The posterior from blocks of particles.

        Parameters
        ----------
        means
            Mean effect in each block, (blocks, genes); blocks are independent.
        centres, deviations
            Mean of the draws of each block, (blocks, genes), and their deviations from it, (draws, genes).
        residual
            Sum of squares that neither draws nor states explain, (genes,).
        """
        noise = deviation_noise() * residual / residual_freedom()
        within = (deviations.square().sum(0) - noise).clamp_min(0) / len(deviations)  # without what the few states add
        # a block's draws deviate from its mean, whose own variance is at most that of independent draws, often less
        variance = within + torch.minimum(within / (DRAWS - 1), centres.var(0))
        return cls(means.mean(0), means.std(0) / len(means) ** 0.5, variance.sqrt(), deviations, len(means))

    @property
    def worst(self) -> float:
        """The Monte-Carlo error that :data:`COVERED` of the genes keep below."""
        return float(self.error.kthvalue(max(1, int(COVERED * len(self.error)))).values)

    def shrunk(self) -> Tensor:
        """The draws about their mean with the spread of the posterior, (draws, genes)."""
        spread = self.deviations.square().mean(0).sqrt()
        return self.deviations * torch.where(spread > 0, self.sd / spread, 0.0)

    def layers(
        self,
        credible: float = 0.9,
        wanted: Collection[str] = LAYERS,
        *,
        moved: Float32Array | float = 0.0,
        variance: Float32Array | float = 0.0,
        widening: float = 1.0,
        groups: TwoGroups = ALIKE,
    ) -> dict[str, Float32Array]:
        """Those of :data:`LAYERS` that are asked for, (genes,) each.

        Parameters
        ----------
        credible
            Probability of the intervals.
        wanted
            Which layers.
        moved, variance
            Mean and variance of what is added to the effect: normal, and independent of the draws; (genes,).
        widening
            Factor by which effects are further from the mean than that says.
        groups
            How many effects are hardly any, which the local false sign rate knows of.
        """
        effect = self.mean.numpy() + np.float32(moved)
        spread = np.sqrt(self.sd.numpy() ** 2 + variance) * widening
        layers: dict[str, npt.NDArray[np.floating]] = {"X": effect, "sd": spread, "mc_error": self.error.numpy()}
        if not {"low", "high", "lfsr"}.isdisjoint(wanted):
            draws = self.shrunk()
            reach = NormalDist().inv_cdf((1 + credible) / 2) ** 2 * variance
            for name, side, away in zip(("low", "high"), (-1, 1), _quantiles(draws, (1 - credible) / 2), strict=True):
                layers[name] = effect + side * widening * np.sqrt(away.numpy() ** 2 + reach)
            error = np.hypot(spread, layers["mc_error"])
            none = groups.probability(effect / np.where(error > 0, error, 1))
            layers["lfsr"] = none / 2 + (1 - none) * self._false_sign_rate(draws, effect, variance, widening)
        return {name: np.asarray(layers[name], dtype=np.float32) for name in wanted}

    def _false_sign_rate(
        self, draws: Tensor, effect: Float32Array, variance: Float32Array | float, widening: float
    ) -> Float32Array:
        """Probability that the effect has not the sign of its estimate, (genes,).

        A normal distribution is laid about each draw, which has the variance of what is added to the draws, that of
        the Monte-Carlo error, and a share of the draws' own that makes up for their number (Silverman's rule); they
        are drawn together by as much, so that the variance of the whole is the posterior's.
        """
        share = (4 / (3 * len(draws))) ** 0.4
        estimate, sign = torch.from_numpy(effect), torch.from_numpy(np.sign(effect))
        width = (widening**2 * (torch.as_tensor(variance) + share * self.sd.square()) + self.error.square()).sqrt()
        centres = draws.mul_((1 - share) ** 0.5 * widening).add_(estimate).mul_(-sign / width)
        rate = torch.special.ndtr(centres).mean(0)
        return torch.where(width > 0, rate, 0.5).clamp(0, 0.5).numpy()


def _quantiles(draws: Tensor, tail: float) -> tuple[Tensor, Tensor]:
    """The quantiles ``tail`` and 1 − ``tail`` of each gene, (draws, genes) → two (genes,)."""
    last = len(draws) - 1
    place = tail * last
    below = min(int(place), last - 1)
    part = place - below
    ranked = draws.T.contiguous()
    least, most = (ranked.topk(below + 2, dim=1, largest=largest).values for largest in (False, True))
    return least[:, below].lerp(least[:, below + 1], part), most[:, below].lerp(most[:, below + 1], part)

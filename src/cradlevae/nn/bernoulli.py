"""Bernoulli masks sampled straight-through, so that gradients reach their logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def straight_through(logits: Tensor, noise: Tensor) -> Tensor:
    """A 0/1 draw from Bernoulli(sigmoid(logits)) whose gradient is that of the relaxed draw.

    Parameters
    ----------
    logits
        Log odds.
    noise
        Standard logistic noise of the shape of the draw.
    """
    soft = torch.sigmoid(logits + noise)
    hard = (soft > 0.5).to(soft.dtype)
    return hard + (soft - soft.detach())


def logistic_noise(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Standard logistic noise on the device and of the dtype of ``like``."""
    tiny = torch.finfo(like.dtype).tiny
    uniform = torch.rand(shape, dtype=like.dtype, device=like.device).clamp(tiny, 1 - 1e-7)
    return torch.logit(uniform)


def bernoulli_score(draw: Tensor, logits: Tensor, prior: float) -> Tensor:
    """Log p − log q of a draw, p = Bernoulli(prior), q = Bernoulli(sigmoid(logits)), element by element."""
    log_prior, log_rest = _log_odds(prior)
    return draw * log_prior + (1 - draw) * log_rest - draw * F.logsigmoid(logits) - (1 - draw) * F.logsigmoid(-logits)


def bernoulli_kl(logits: Tensor, prior: float) -> Tensor:
    """KL(Bernoulli(sigmoid(logits)) ‖ Bernoulli(prior)), element by element."""
    return -bernoulli_score(torch.sigmoid(logits), logits, prior)


def _log_odds(prior: float) -> tuple[float, float]:
    return math.log(prior), math.log1p(-prior)

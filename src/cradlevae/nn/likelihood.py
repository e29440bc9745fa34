"""The Gamma-Poisson likelihood of counts, direct and fast.

Counts are Gamma-Poisson (negative binomial) with concentration θ per gene and rate θ / (μ + 1e-4), floored at 1e-6;
μ = library size × softmax over genes. With m = θ / rate:

    log p(x) = θ log(θ/(θ+m)) + x log(m/(θ+m)) + lgamma(θ+x) − lgamma(θ) − lgamma(x+1)

Only the first term is there for every gene; the others are sums over the positive counts, of which single cells have
few, and the lgamma terms do not depend on the particle. :func:`linear_gamma_poisson` uses that, goes through the cells
in blocks and computes the gradient with the value, so that no cells × genes × particles array outlives its block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MEAN_OFFSET = 1e-4
MIN_RATE = 1e-6

BLOCK_VALUES = 4_000_000
"""How many particles × cells × genes values are worked on at a time (16 MB in float32)."""


@dataclass(frozen=True)
class SparseCounts:
    """Counts of a batch of cells, CSR: values and genes of the positive counts, cell after cell.

    Attributes
    ----------
    values
        Positive counts, (positives,), float.
    genes
        Their genes, (positives,), int64.
    starts
        Where each cell's positives start, (cells + 1,), int64, on the CPU.
    n_genes
        Number of genes.
    """

    values: Tensor
    genes: Tensor
    starts: Tensor
    n_genes: int

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.starts) - 1

    def cells(self) -> Tensor:
        """Cell of each positive count, (positives,)."""
        lengths = self.starts.diff().to(self.genes.device)
        return torch.repeat_interleave(
            torch.arange(self.n_cells, device=self.genes.device), lengths, output_size=len(self.genes)
        )

    def dense(self) -> Tensor:
        """The counts as (cells, genes)."""
        out = self.values.new_zeros(self.n_cells * self.n_genes)
        out[self.cells() * self.n_genes + self.genes] = self.values
        return out.view(self.n_cells, self.n_genes)

    def to(self, device: Any, non_blocking: bool = False) -> SparseCounts:
        """The same counts on another device."""
        return SparseCounts(
            self.values.to(device, non_blocking=non_blocking),
            self.genes.to(device, non_blocking=non_blocking),
            self.starts,
            self.n_genes,
        )


def gamma_poisson_rate(mean: Tensor, concentration: Tensor) -> Tensor:
    """Rate of the Gamma-Poisson with this mean: θ / (μ + 1e-4), floored at 1e-6."""
    return (concentration / (mean + MEAN_OFFSET)).clamp_min(MIN_RATE)


def gamma_poisson_log_prob(counts: Tensor, concentration: Tensor, rate: Tensor) -> Tensor:
    """Log probability of counts, element by element (the direct formulation)."""
    return (
        concentration * (rate.log() - rate.log1p())
        - counts * rate.log1p()
        + torch.lgamma(concentration + counts)
        - torch.lgamma(concentration)
        - torch.lgamma(counts + 1)
    )


def linear_gamma_poisson(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    log_concentration: Tensor,
    counts: SparseCounts,
    library_size: Tensor,
    cell_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log probability of sparse counts under a linear softmax decoder.

    Parameters
    ----------
    hidden
        Last hidden layer, (particles, cells, width).
    weight, bias
        The gene Linear, (genes, width) and (genes,).
    log_concentration
        log θ, (genes,).
    counts
        Counts of the cells.
    library_size
        Library sizes, (cells,).
    cell_weight
        Weight of each cell in the sum, (cells,); ``None`` is one each.

    Returns
    -------
    total
        Σ over cells of weight × mean over particles of log p(x); gradients flow through it.
    per_cell
        log p(x) of each particle and cell, (particles, cells), detached.
    """
    weights = torch.ones_like(library_size) if cell_weight is None else cell_weight
    concentration = log_concentration.exp()
    constant = _positive_constant(counts, concentration)  # (cells,)
    parameters = (hidden, weight, bias, log_concentration)
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in parameters)
    total, per_cell = _LinearGammaPoisson.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, concentration, counts, library_size, weights, needs_grad
    )
    return total + (weights * constant).sum(), per_cell + constant.detach()


def _positive_constant(counts: SparseCounts, concentration: Tensor) -> Tensor:
    """Σ over positive counts of lgamma(θ+x) − lgamma(θ) − lgamma(x+1), per cell; the same for every particle."""
    theta = concentration.index_select(0, counts.genes)
    terms = torch.lgamma(theta + counts.values)
    terms = terms - torch.lgamma(concentration).index_select(0, counts.genes) - torch.lgamma(counts.values + 1)
    return terms.new_zeros(counts.n_cells).index_add(0, counts.cells(), terms)


class _LinearGammaPoisson(torch.autograd.Function):
    """The part of :func:`linear_gamma_poisson` that depends on the mean; value and gradient in one pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        concentration: Tensor,
        counts: SparseCounts,
        library_size: Tensor,
        cell_weight: Tensor,
        needs_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        n_particles, n_cells, _ = hidden.shape
        per_cell = hidden.new_empty(n_particles, n_cells)
        gradients = (
            (
                torch.empty_like(hidden),
                torch.zeros_like(weight),
                torch.zeros_like(bias),
                torch.zeros_like(concentration),
            )
            if needs_grad
            else None
        )
        step = max(1, BLOCK_VALUES // (n_particles * counts.n_genes))
        for start in range(0, n_cells, step):
            stop = min(start + step, n_cells)
            _block(
                slice(start, stop), hidden, weight, bias, concentration, counts, library_size,
                cell_weight / n_particles, per_cell, gradients,
            )  # fmt: skip
        if gradients is not None:
            ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(per_cell)
        return (per_cell.mean(0) * cell_weight).sum(), per_cell

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        return *(gradient * scale for gradient in ctx.saved_tensors), None, None, None, None


def _block(
    cells: slice,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    concentration: Tensor,
    counts: SparseCounts,
    library_size: Tensor,
    row_weight: Tensor,
    per_cell: Tensor,
    gradients: tuple[Tensor, Tensor, Tensor, Tensor] | None,
) -> None:
    """Log probabilities, and gradients where asked for, of a block of cells over all particles."""
    n_particles, n_genes = hidden.shape[0], counts.n_genes
    n = cells.stop - cells.start
    first, last = int(counts.starts[cells.start]), int(counts.starts[cells.stop])
    values, genes = counts.values[first:last], counts.genes[first:last]
    rows = torch.repeat_interleave(
        torch.arange(n, device=genes.device),
        counts.starts[cells.start : cells.stop + 1].diff().to(genes.device),
        output_size=last - first,
    )
    flat = rows * n_genes + genes  # positives within one particle's (cells, genes)
    library = library_size[cells].repeat(n_particles).unsqueeze(1)  # (rows, 1), rows = particles × cells
    block = hidden[:, cells].reshape(n_particles * n, -1)

    share = torch.softmax(torch.addmm(bias, block, weight.T), dim=1)
    scaled = share.mul_(library)  # μ, (rows, genes)
    mean = scaled.view(n_particles, n * n_genes).index_select(1, flat) + MEAN_OFFSET  # (particles, positives)
    theta = concentration.index_select(0, genes)
    floored = bool((scaled.max() + MEAN_OFFSET) * MIN_RATE > concentration.min())
    clipped = None
    if floored:  # the rate floor is the mean's ceiling
        ceiling = concentration / MIN_RATE - MEAN_OFFSET
        clipped = scaled > ceiling
        scaled = torch.minimum(scaled, ceiling)
        mean = torch.minimum(mean, theta / MIN_RATE)
    denominator = scaled + (concentration + MEAN_OFFSET)  # θ + m
    positive = mean.log() - (mean + theta).log()  # log(m / (θ+m)) at the positives
    log_denominator = denominator.log()
    log_prob = (concentration * concentration.log()).sum() - log_denominator @ concentration
    log_prob = log_prob.view(n_particles, n)
    log_prob.index_add_(1, rows, positive * values)
    per_cell[:, cells] = log_prob
    if gradients is None:
        return

    grad_hidden, grad_weight, grad_bias, grad_concentration = gradients
    weights = row_weight[cells].repeat(n_particles)  # (rows,)
    ratio = denominator.reciprocal_().mul_(concentration)  # θ / (θ+m) = −d(log p)/dm where x = 0
    # d(log p)/dθ = log θ + 1 − log(θ+m) − θ/(θ+m) − x/(θ+m)
    grad_concentration += weights.sum() * (concentration.log() + 1) - weights @ log_denominator - weights @ ratio
    at_positives = values / (mean + theta)  # (particles, positives)
    weights_at_positives = row_weight[cells].index_select(0, rows)
    grad_concentration.index_add_(0, genes, -(at_positives.sum(0) * weights_at_positives))
    grad_mean = ratio.neg_()
    view = grad_mean.view(n_particles, n * n_genes)
    view.index_add_(1, flat, values / mean - at_positives)
    if clipped is not None:  # there the mean follows θ: dm/dθ = 1e6, and the share has no say
        grad_concentration += weights @ torch.where(clipped, grad_mean, 0.0) / MIN_RATE
        grad_mean.masked_fill_(clipped, 0.0)
        # softmax needs the unclipped μ
        scaled = torch.softmax(torch.addmm(bias, block, weight.T), dim=1).mul_(library)
    grad_logits = grad_mean.mul_(scaled)
    inner = grad_logits.sum(1, keepdim=True).div_(library.clamp_min(torch.finfo(library.dtype).tiny))
    grad_logits.addcmul_(scaled, inner, value=-1.0).mul_(weights.unsqueeze(1))
    grad_hidden[:, cells] = (grad_logits @ weight).view(n_particles, n, -1)
    grad_weight.addmm_(grad_logits.T, block)
    grad_bias += grad_logits.sum(0)


def decoded_share(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each gene's expected share of the counts, ρ: (..., width) → (..., genes)."""
    return torch.softmax(F.linear(hidden, weight, bias), dim=-1)


def sample_gamma_poisson(mean: Tensor, concentration: Tensor) -> Tensor:
    """Draw counts with these means, (..., genes)."""
    rate = gamma_poisson_rate(mean, concentration)
    gamma = torch._standard_gamma(concentration.expand_as(mean).contiguous())
    return torch.poisson(gamma / rate)

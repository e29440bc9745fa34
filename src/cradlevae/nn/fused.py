"""The count likelihood of a linear softmax decoder, value and gradient in one pass.

With m = θ / rate, the log probability of a count is

    log p(x) = θ log(θ/(θ+m)) + x log(m/(θ+m)) + lgamma(θ+x) − lgamma(θ) − lgamma(x+1)

Only the first term is there for every gene; the others are sums over the positive counts, of which single cells have
few, and the lgamma terms do not depend on the particle. :func:`linear_gamma_poisson` uses that, goes through the cells
in blocks and computes the gradient with the value, so that no cells × genes × particles array outlives its block.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cradlevae.nn.constants import MEAN_OFFSET, MIN_RATE
from cradlevae.nn.counts import AddedRates, SparseCounts
from cradlevae.nn.matmul import reduced

PRODUCT_VALUES = 8_000_000
"""How many particles × cells × genes values go through a matrix product at a time (32 MB in float32)."""

CHUNK_VALUES = 500_000
"""How many of them are worked on, value by value, at a time; a few such arrays stay in a processor's cache."""


def linear_gamma_poisson(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    log_concentration: Tensor,
    counts: SparseCounts,
    library_size: Tensor,
    cell_weight: Tensor | None = None,
    added: AddedRates | None = None,
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
    added
        What is added to the log rates of the cells; ``None`` is nothing.

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
    table, row, scale = (None, None, None) if added is None else (added.table, added.row, added.scale)
    parameters = [one for one in (hidden, weight, bias, log_concentration, table, scale) if one is not None]
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in parameters)
    total, per_cell = _LinearGammaPoisson.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, concentration, table, scale, row, counts, library_size, weights, needs_grad
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
        table: Tensor | None,
        scale: Tensor | None,
        row: Tensor | None,
        counts: SparseCounts,
        library_size: Tensor,
        cell_weight: Tensor,
        needs_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        added = None
        if table is not None and row is not None and scale is not None:
            added = AddedRates(table, row, scale)
        likelihood = _Pass(hidden, concentration, counts, library_size, cell_weight, needs_grad, added)
        gradients = likelihood.run(weight, bias)
        ctx.gradients = gradients
        ctx.mark_non_differentiable(likelihood.per_cell)
        return (likelihood.per_cell.mean(0) * cell_weight).sum(), likelihood.per_cell

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the count likelihood can be differentiated once only")
        gradients, ctx.gradients = ctx.gradients, None  # scaled in place: they are as large as the weights
        scaled = (None if gradient is None else gradient.mul_(grad_outputs[0]) for gradient in gradients)
        return *scaled, None, None, None, None, None


class _Pass:
    """One pass over all particles and cells, value and gradient together.

    Rows are particles × cells. The matrix products take many rows at a time, since each of them reads or writes a
    matrix of the size of the weights; what is done value by value between them takes few rows at a time, so that they
    stay in the processor's cache. With the share ρ of a gene, its mean μ = ℓρ and r = θ/(θ+m), the log probability of a
    zero is θ log r and its derivative by the logits is −ℓ ρ (r − Σ ρ r); the positives' own are put in sparsely.
    """

    def __init__(
        self,
        hidden: Tensor,
        concentration: Tensor,
        counts: SparseCounts,
        library_size: Tensor,
        cell_weight: Tensor,
        needs_grad: bool,
        added: AddedRates | None,
    ) -> None:
        self.added = None if added is None else _Added(added, len(hidden), needs_grad)
        self.n_particles, self.n_cells, _ = hidden.shape
        self.n_genes = counts.n_genes
        self.hidden = hidden
        self.concentration = concentration
        self.offset = hidden.new_tensor(MEAN_OFFSET)
        self.counts = counts
        self.library = library_size.unsqueeze(1)
        self.needs_grad = needs_grad
        self.row_weight = cell_weight / self.n_particles
        self.per_cell = hidden.new_empty(self.n_particles, self.n_cells)
        self.theta = concentration.index_select(0, counts.genes)  # (positives,)
        self.cell = counts.cells()  # (positives,)
        self.place = self.cell * self.n_genes + counts.genes  # (positives,)
        self.can_clip = bool((library_size.max() + MEAN_OFFSET) * MIN_RATE > concentration.min())
        if needs_grad:
            self.of_zeros = torch.zeros_like(concentration)  # Σ of weighted d(log p)/dθ as if all counts were zero
            self.of_positives = torch.zeros_like(self.theta)

    def run(self, weight: Tensor, bias: Tensor) -> tuple[Tensor | None, ...] | None:
        """Fill ``per_cell``; where asked for, give gradients by hidden, weight, bias, θ and what is added."""
        chunks = self._chunks()
        together = max(1, PRODUCT_VALUES // (self.n_genes * _rows(chunks[0])))
        blocks = [chunks[start : start + together] for start in range(0, len(chunks), together)]
        products = _Products(self.hidden, weight, max(sum(map(_rows, block)) for block in blocks), reduced())
        work = self.hidden.new_empty(3, max(map(_rows, chunks)), self.n_genes)
        scale = -(self.row_weight * self.library.squeeze(1)).repeat(self.n_particles)  # (rows,)
        if self.needs_grad:
            products.prepare_gradients(scale)
            grad_bias = torch.zeros_like(bias)
        start = 0
        for block in blocks:
            product = products.forward(start, start + sum(map(_rows, block)))
            position = 0
            for chunk in block:
                n = _rows(chunk)
                piece = product[position : position + n]
                logits = piece if piece.dtype == bias.dtype else work[2, :n]
                torch.add(piece, bias, out=logits)
                if self.added is not None:
                    self.added.put_in(logits, chunk, work[0, :n])
                self._chunk(logits, chunk, work[0, :n], work[1, :n])
                if self.needs_grad:
                    if self.added is not None:
                        self.added.take_up(
                            logits, chunk, scale[start + position : start + position + n], work[0, :n], work[1, :n]
                        )
                    grad_bias.addmv_(logits.T, scale[start + position : start + position + n])
                    if logits is not piece:
                        piece.copy_(logits)
                position += n
            if self.needs_grad:
                products.backward(product, start, start + position)
            start += position
        if not self.needs_grad:
            return None
        grad_concentration = self.of_zeros.index_add_(0, self.counts.genes, self.of_positives)
        grad_hidden, grad_weight = products.gradients()
        of_added = (None, None) if self.added is None else self.added.gradients()
        return grad_hidden.view_as(self.hidden), grad_weight, grad_bias, grad_concentration, *of_added

    def _chunks(self) -> list[tuple[range, range]]:
        """Particles and cells that are worked on at a time: whole particles, or a part of the cells of one."""
        values = CHUNK_VALUES if self.hidden.device.type == "cpu" else PRODUCT_VALUES
        rows = max(1, values // self.n_genes)
        if rows >= self.n_cells:
            step = rows // self.n_cells
            return [
                (range(p, min(p + step, self.n_particles)), range(self.n_cells))
                for p in range(0, self.n_particles, step)
            ]
        return [
            (range(p, p + 1), range(cell, min(cell + rows, self.n_cells)))
            for p in range(self.n_particles)
            for cell in range(0, self.n_cells, rows)
        ]

    def _chunk(self, logits: Tensor, chunk: tuple[range, range], ratio: Tensor, log_odds: Tensor) -> None:
        """Log probabilities of a chunk; turns logits into their gradient by −ℓ × weight where gradients are needed."""
        particles, cells = chunk
        n = len(cells)
        span = slice(cells.start, cells.stop)
        first, last = int(self.counts.starts[cells.start]), int(self.counts.starts[cells.stop])
        place = self.place[first:last] - cells.start * self.n_genes
        values, theta = self.counts.values[first:last], self.theta[first:last]
        library = self.library[span].repeat(len(particles), 1)  # (rows, 1)

        share = torch.softmax(logits, dim=1, out=logits)
        offsets = self.counts.starts[cells.start : cells.stop + 1].to(values.device) - first
        cell = self.cell[first:last] - cells.start
        mean = share.view(len(particles), -1).index_select(1, place)
        mean.mul_(self.library[span, 0].index_select(0, cell)).add_(MEAN_OFFSET)  # m, (particles, positives)
        odds = torch.addcmul(self.offset, share, library, out=ratio).div_(self.concentration)  # m / θ
        clipped = self._clip(odds, mean, theta) if self.can_clip else None
        torch.log1p(odds, out=log_odds)  # −log r; as a difference of logs it would lose precision where θ is large
        log_prob = torch.mv(log_odds, self.concentration).neg_().view(len(particles), n)
        ratio.add_(1).reciprocal_()  # r = θ / (θ+m)
        rate = mean / (mean + theta)  # 1 − r
        terms = rate.log().mul_(values)
        if values.device.type in ("cpu", "cuda"):
            for particle in range(len(particles)):
                log_prob[particle] += torch.segment_reduce(terms[particle], "sum", offsets=offsets)
        else:  # slower, but every device has it
            log_prob.index_add_(1, cell, terms)
        self.per_cell[particles.start : particles.stop, span] = log_prob
        if not self.needs_grad:
            return

        weights = self.row_weight[span].repeat(len(particles))
        at_positives = values / (mean + theta)
        slope = 1 - rate - values / mean + at_positives  # what stands for r where counts are positive
        of_ratio = ratio
        if clipped is not None:  # there the mean follows θ: r does not depend on it, and the share has no say
            of_ratio = ratio.masked_fill(clipped, 1.0)
            hit = clipped.view(len(particles), -1).index_select(1, place)
            at_positives, slope = at_positives.masked_fill_(hit, 0.0), slope.masked_fill_(hit, 0.0)
        self.of_zeros += weights.sum() - weights @ log_odds - weights @ of_ratio
        self.of_positives[first:last] -= at_positives.sum(0) * self.row_weight[span].index_select(0, cell)
        if clipped is not None:
            ratio.masked_fill_(clipped, 0.0)
        ratio.view(len(particles), -1).scatter_(1, place.expand(len(particles), -1), slope)
        ratio.sub_(torch.linalg.vecdot(share, ratio).unsqueeze(1))
        share.mul_(ratio)

    def _clip(self, odds: Tensor, mean: Tensor, theta: Tensor) -> Tensor | None:
        """Floor the rate, which puts a ceiling on the mean; where that changed it, if anywhere."""
        clipped = odds > 1 / MIN_RATE
        if not clipped.any():
            return None
        odds.clamp_max_(1 / MIN_RATE)
        torch.minimum(mean, theta / MIN_RATE, out=mean)
        return clipped


class _Added:
    """What is added to the log rates of cells, chunk by chunk, and its gradients."""

    def __init__(self, added: AddedRates, n_particles: int, needs_grad: bool) -> None:
        self.table, self.row = added.table, added.row
        self.shared = len(added.scale) == 1 < n_particles
        self.scale = added.scale.expand(n_particles, -1)
        if needs_grad:
            self.grad_table = torch.zeros_like(added.table)
            self.grad_scale = torch.empty_like(self.scale, memory_format=torch.contiguous_format)

    def put_in(self, logits: Tensor, chunk: tuple[range, range], work: Tensor) -> None:
        """Add it to the logits of a chunk, (rows, genes)."""
        particles, cells = (slice(part.start, part.stop) for part in chunk)
        rows = torch.index_select(self.table, 0, self.row[cells], out=work[: len(chunk[1])])
        scale = self.scale[particles, cells].unsqueeze(2)
        logits.view(len(chunk[0]), len(chunk[1]), -1).addcmul_(scale, rows)

    def take_up(
        self, grad: Tensor, chunk: tuple[range, range], row_scale: Tensor, work: Tensor, product: Tensor
    ) -> None:
        """Take up the gradient by the logits of a chunk, whose rows are meant times ``row_scale``."""
        particles, cells = (slice(part.start, part.stop) for part in chunk)
        shape = len(chunk[0]), len(chunk[1])
        row = self.row[cells]
        rows = torch.index_select(self.table, 0, row, out=work[: shape[1]])
        of_scale = torch.einsum("png,ng->pn", grad.view(*shape, -1), rows)
        self.grad_scale[particles, cells] = of_scale * row_scale.view(shape)
        weighted = row_scale * self.scale[particles, cells].reshape(-1)
        torch.mul(grad, weighted.unsqueeze(1), out=product)
        for of_particle in product.view(*shape, -1):
            self.grad_table.index_add_(0, row, of_particle)

    def gradients(self) -> tuple[Tensor, Tensor]:
        """By the table and by the scale."""
        return self.grad_table, self.grad_scale.sum(0, keepdim=True) if self.shared else self.grad_scale


class _Products:
    """The products of a pass with the genes × width matrix, of float32 or of bfloat16 values."""

    def __init__(self, hidden: Tensor, weight: Tensor, most_rows: int, reduced: bool) -> None:
        dtype = torch.bfloat16 if reduced and hidden.dtype == torch.float32 else hidden.dtype
        self.full = hidden.reshape(-1, hidden.shape[-1])
        self.hidden, self.weight = self.full.to(dtype), weight.to(dtype)
        self.buffer = hidden.new_empty(most_rows, len(weight), dtype=dtype)

    def forward(self, start: int, stop: int) -> Tensor:
        """Logits without bias of these rows, (rows, genes); the array is used again by the next call."""
        return torch.mm(self.hidden[start:stop], self.weight.T, out=self.buffer[: stop - start])

    def prepare_gradients(self, scale: Tensor) -> None:
        """Get ready for :meth:`backward`; row ``i`` of its gradients is meant times ``scale[i]``."""
        self.scale = scale.unsqueeze(1)
        self.scaled = (self.full * self.scale).to(self.hidden.dtype)
        self.grad_hidden = torch.empty_like(self.full)
        self.grad_weight: Tensor | None = None

    def backward(self, grad: Tensor, start: int, stop: int) -> None:
        """Take up the gradient by the logits of these rows."""
        rows = grad.T, self.scaled[start:stop]
        if self.full.dtype == self.hidden.dtype:
            torch.mm(grad, self.weight, out=self.grad_hidden[start:stop])
            self.grad_weight = torch.mm(*rows) if self.grad_weight is None else self.grad_weight.addmm_(*rows)
        else:
            self.grad_hidden[start:stop] = grad @ self.weight
            added = torch.mm(*rows)
            self.grad_weight = added.float() if self.grad_weight is None else self.grad_weight.add_(added)

    def gradients(self) -> tuple[Tensor, Tensor]:
        """By the hidden layer, (rows, width), and by the weight."""
        assert self.grad_weight is not None
        return self.grad_hidden.mul_(self.scale), self.grad_weight


def _rows(chunk: tuple[range, range]) -> int:
    return len(chunk[0]) * len(chunk[1])

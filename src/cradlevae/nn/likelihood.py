"""What a likelihood of counts has to say, and the register of those that are known.

A likelihood is the distribution of a count given its mean μ = library size × expected share of the gene. A model names
one (``ModelConfig.likelihood``), and nothing else in the package knows which it is. A new one is a class with a ``key``
under :func:`register_likelihood`: it must give :meth:`Likelihood.log_prob`, :meth:`Likelihood.sample`,
:meth:`Likelihood.generating` and :meth:`Likelihood.information`; everything else has a default.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from cradlevae.errors import DataError
from cradlevae.nn.counts import AddedRates, SparseCounts, decoded_share
from cradlevae.utils.constants import BLOCK_VALUES


@dataclass(frozen=True)
class GeneratingFunction:
    """The probability generating function of counts of given means, G(z) = E[zˣ].

    Attributes
    ----------
    reach
        How large counts get, about: the largest mean plus its ratio to the dispersion.
    log
        ``log(decay, out)`` puts log G(1 − decay) of every count into ``out`` and returns it; ``decay``, between 0 and
        1, broadcasts against the means.
    """

    reach: float
    log: Callable[[Tensor, Tensor], Tensor]


class Likelihood(nn.Module, ABC):
    """Distribution of a count given its mean. Shapes: P particles, N cells, G genes.

    Parameters
    ----------
    n_genes
        G.
    """

    key: ClassVar[str]
    """Name in settings and files."""

    description: ClassVar[str]
    """One line."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.n_genes = n_genes

    @abstractmethod
    def log_prob(self, counts: Tensor, mean: Tensor) -> Tensor:
        """Log probability of counts, element by element; gradients flow through ``mean`` and the parameters."""

    @abstractmethod
    def sample(self, mean: Tensor) -> Tensor:
        """Draw counts of these means, (..., G)."""

    @abstractmethod
    def generating(self, mean: Tensor) -> GeneratingFunction:
        """The probability generating function of counts of these means, (..., G); effects are integrated with it."""

    @abstractmethod
    def information(self, mean: Tensor) -> Tensor:
        """Fisher information that a count of this mean holds about the logarithm of its mean, (..., G)."""

    def of_genes(self, genes: Tensor) -> Likelihood:
        """The distribution of counts of some genes, without gradients; parameters and buffers (..., G) are theirs."""
        some = copy.deepcopy(self).requires_grad_(False)
        for module in some.modules():
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if tensor.dim() and tensor.shape[-1] == self.n_genes:
                    tensor.data = tensor.data.index_select(-1, genes)
        some.n_genes = len(genes)
        return some

    def start(self, concentration: Tensor) -> None:
        """Start parameters at what the training cells show; does nothing by default.

        Parameters
        ----------
        concentration
            Concentration of a Gamma-Poisson distribution fitted to each gene, (G,).
        """

    def linear_log_prob(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        counts: SparseCounts,
        library_size: Tensor,
        cell_weight: Tensor | None = None,
        added: AddedRates | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log probability of sparse counts under a linear softmax decoder, by :meth:`log_prob` of dense blocks.

        Parameters
        ----------
        hidden
            Last hidden layer, (P, N, width).
        weight, bias
            The gene Linear, (G, width) and (G,).
        counts
            Counts of the cells.
        library_size
            Library sizes, (N,).
        cell_weight
            Weight of each cell in the sum, (N,); ``None`` is one each.
        added
            What is added to the log rates of the cells; ``None`` is nothing.

        Returns
        -------
        total
            Σ over cells of weight × mean over particles of log p(x); gradients flow through it.
        per_cell
            log p(x) of each particle and cell, (P, N), detached.
        """
        dense = counts.dense()
        weights = torch.ones_like(library_size) if cell_weight is None else cell_weight
        step = max(1, BLOCK_VALUES // (len(hidden) * counts.n_genes))
        total, per_cell = library_size.new_zeros(()), []
        for start in range(0, counts.n_cells, step):
            part = slice(start, start + step)
            mean = library_size[part].unsqueeze(1) * decoded_share(
                hidden[:, part], weight, bias, None if added is None else added.of(part)
            )
            log_prob = self.log_prob(dense[part], mean).sum(-1)
            total = total + (weights[part] * log_prob.mean(0)).sum()
            per_cell.append(log_prob.detach())
        return total, torch.cat(per_cell, dim=1)

    def own_factors(self, counts: Tensor, mean: Tensor) -> Tensor:
        """What is the cell's own beside its latent states: the factors on the means of its genes that it keeps.

        Parameters
        ----------
        counts
            Counts of the cells, (N, G).
        mean
            Expected counts, (P, N, G); may be overwritten.

        Returns
        -------
        Tensor
            Factors, (P, N, G); 1 for a likelihood without such factors.
        """
        return torch.ones_like(mean)

    def sample_twin(self, mean: Tensor, counts: Tensor) -> Tensor:
        """Draw counts of the twin of a cell with these counts, whose expected counts hold the cell's own factors."""
        return self.sample(mean)


LIKELIHOODS: dict[str, type[Likelihood]] = {}
"""Every likelihood by its key."""

Kind = TypeVar("Kind", bound=type[Likelihood])


def register_likelihood(kind: Kind) -> Kind:
    """Make a likelihood known by its key; a class decorator.

    Raises
    ------
    DataError
        If the key is taken.
    """
    if kind.key in LIKELIHOODS:
        raise DataError(f"a likelihood {kind.key!r} is already registered; choose another key")
    LIKELIHOODS[kind.key] = kind
    return kind

"""What a treatment adds to the log rate of each gene, past the latents, shrunk as far as its evidence asks for.

V_tg ~ Normal(0, σ_t² τ_g²): τ_g says how much gene g moves at all, σ_t how much treatment t moves genes. Both are
learned, so a treatment without effect is silenced whatever its genes, and a gene that nothing moves whatever the
treatment. V is at its most probable value; its posterior is Gaussian around it (Laplace), which gives the cost of σ and
τ (their evidence) and the intervals of effects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from cradlevae.data.experiment import Experiment
from cradlevae.data.rates import ConditionRates
from cradlevae.nn.rate_effects import rate_effects
from cradlevae.nn.rows import dosed_rows, rows_of
from cradlevae.utils.progress import track_slow

SWEEPS = 40
"""Sweeps of the first estimate, which changes little after twenty."""

SMALLEST_STRENGTH, SMALLEST_SPREAD = 0.05, 0.01
"""Smallest σ and τ that training starts with, from which it can still move."""

ROWS = 256
"""Treatments that are worked on together."""

SPREAD = 0.1, 1.0
"""Median of τ a priori, and standard deviation of its logarithm: a gene of few counts tells nothing of its own."""


class ShrunkEffects(nn.Module):
    """Effects of rows (treatments, batches) on the log rates of genes: Normal(0, σ_row² τ_gene²), at their mode.

    Parameters
    ----------
    n_rows, n_genes
        Number of rows and G.
    family
        Families of rows have scales of genes τ of their own: the family of each row, (rows,) int64. ``None`` is one
        family.
    tied
        Rows that share a scale σ: the scale of each row, (rows,) int64. ``None`` gives each row its own.
    """

    mean_count: Tensor
    n_cells: Tensor
    family: Tensor | None
    tied: Tensor | None

    def __init__(self, n_rows: int, n_genes: int, family: Tensor | None = None, tied: Tensor | None = None) -> None:
        super().__init__()
        shape = (n_genes,) if family is None else (int(family.max()) + 1, n_genes)
        self.value = nn.Parameter(torch.zeros(n_rows, n_genes))
        self.log_spread = nn.Parameter(torch.full(shape, math.log(0.1)))
        self.log_strength = nn.Parameter(torch.zeros(n_rows if tied is None else int(tied.max()) + 1))
        self.register_buffer("mean_count", torch.ones(n_genes))
        self.register_buffer("n_cells", torch.ones(n_rows))
        self.register_buffer("family", family, persistent=False)
        self.register_buffer("tied", tied, persistent=False)

    def cost(self, rows: Tensor, n_cells: Tensor, information: Tensor) -> Tensor:
        """Minus the log evidence of the effects of each row, by Laplace, up to a constant, (rows,).

        Parameters
        ----------
        rows
            The rows, int64.
        n_cells
            Cells that tell of each, (rows,).
        information
            What a cell's count tells about its log rate, (G,); see :meth:`.Likelihood.information`.
        """
        strength = self._strength(rows)
        variance = self.prior_variance(rows)
        total_information = n_cells.unsqueeze(1) * information
        values = rows_of(self.value, rows)
        cost = values.square() / (2 * variance) + 0.5 * torch.log1p(variance * total_information)
        return cost.sum(1) + 0.5 * strength.square()

    def prior_cost(self) -> Tensor:
        """Minus the log prior of τ, up to a constant: it would grow without bound in genes that have no evidence."""
        median, sd = SPREAD
        return ((self.log_spread - math.log(median)) / sd).square().sum() / 2

    def expected_log(self) -> Tensor:
        """How far a change of a gene's log rate moves its log(1 + count), on average, (G,)."""
        return self.mean_count / (self.mean_count + 1 / math.log(2))

    def prior_variance(self, rows: Tensor) -> Tensor:
        """σ²τ² of rows, (rows, G)."""
        strength = self._strength(rows)
        spread = self.log_spread if self.family is None else self.log_spread.index_select(0, self.family[rows])
        return (2 * (strength.unsqueeze(1) + spread)).exp()

    def _strength(self, rows: Tensor) -> Tensor:
        return self.log_strength.index_select(0, rows if self.tied is None else self.tied[rows])


class GeneEffects(ShrunkEffects):
    """V (T, G) and its prior.

    Parameters
    ----------
    n_treatments, n_genes
        T, G.
    n_strata
        Strata of the training cells: combinations of batch, covariates and context.
    paired
        Treatment of each pair of a treatment and a context, (pairs,); the pairs are the last of the T. How far effects
        deviate in contexts has scales of genes of its own, and one scale for all contexts of a treatment: contexts are
        alike beforehand, so that what they share is the treatment's.
    """

    n_controls: Tensor
    stratum_cells: Tensor
    stratum_controls: Tensor
    paired: Tensor

    def __init__(self, n_treatments: int, n_genes: int, n_strata: int = 1, paired: Sequence[int] = ()) -> None:
        family, tied = None, None
        if len(paired):
            own = n_treatments - len(paired)
            family = (torch.arange(n_treatments) >= own).long()
            tied = torch.cat(
                [torch.arange(own), own + torch.unique(torch.tensor(list(paired)), return_inverse=True)[1]]
            )
        super().__init__(n_treatments, n_genes, family, tied)
        self.register_buffer("n_controls", torch.ones(()))
        if n_strata > 1:
            self.register_buffer("stratum_cells", torch.ones(n_treatments, n_strata))
            self.register_buffer("stratum_controls", torch.ones(n_strata))
        self.n_strata = n_strata
        self.register_buffer("paired", torch.tensor(list(paired), dtype=torch.int64), persistent=False)

    def of_conditions(self, dosage: Tensor, treatments: Tensor | None = None) -> Tensor:
        """What conditions of dosages (conditions, treatments) add to the log rates, (conditions, G)."""
        return dosed_rows(dosage, rows_of(self.value, treatments))

    def deviation(self, treatments: Tensor, information: Tensor) -> Tensor:
        """Posterior standard deviation of V given the base, (treatments, G); ``information`` as in :meth:`cost`.

        That of a treatment is for whatever its pairs may be, that of a pair for a known V of its treatment.
        """
        return (1 / self.prior_variance(treatments) + self._told(treatments, information)).rsqrt()

    def coefficients(self, dosage: Tensor, treatments: Tensor, information: Tensor) -> Tensor:
        """How far an error of each V moves a condition of dosages (T,), (treatments, G).

        Cells in a context tell of the sum of a treatment and a pair: where one is less, the other is taken for more, so
        that an error of V is made up for in the pairs as far as their cells tell of them.
        """
        each = dosage.index_select(0, treatments).unsqueeze(1).repeat(1, len(information))
        of_pairs = dosage[len(dosage) - len(self.paired) :]
        chosen = torch.nonzero(of_pairs).squeeze(1)
        if len(chosen):
            pairs = chosen + len(dosage) - len(self.paired)
            moved = self.prior_variance(pairs) * self.n_cells[pairs].unsqueeze(1) * information
            self._add_to_treatments(each, treatments, chosen, -of_pairs[chosen].unsqueeze(1) * moved / (1 + moved))
        return each

    def _told(self, treatments: Tensor, information: Tensor) -> Tensor:
        """What cells tell of V, (treatments, G): with pairs, what is left where a treatment's may be anything."""
        told = self.n_cells[treatments].unsqueeze(1) * information
        chosen = torch.nonzero(torch.isin(self.paired, treatments)).squeeze(1)
        if len(chosen):
            pairs = chosen + len(self.n_cells) - len(self.paired)
            of_pairs = self.n_cells[pairs].unsqueeze(1) * information
            lost = of_pairs - of_pairs / (1 + self.prior_variance(pairs) * of_pairs)
            self._add_to_treatments(told, treatments, chosen, -lost)
            told = told.clamp_min(0)
        return told

    def _add_to_treatments(self, table: Tensor, treatments: Tensor, pairs: Tensor, added: Tensor) -> None:
        """Add what pairs (numbers among the pairs) have to the rows of their treatments, where those are rows."""
        place = torch.full((len(self.n_cells),), -1, device=table.device)
        place[treatments] = torch.arange(len(treatments), device=table.device)
        row = place[self.paired[pairs]]
        table.index_add_(0, row[row >= 0], added[row >= 0])

    def known_base(self, information: Tensor, of_strata: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What all cells tell of the base, (G,), or of that of each stratum, (strata, G), and what that leaves open.

        The controls tell of the base, and other cells as far as their own effects leave them free to.

        Parameters
        ----------
        information
            As in :meth:`cost`.
        of_strata
            Prior variance of what each stratum adds to the base, (strata, G); the base of a treatment is then that of
            the strata which its cells are in. ``None`` where all cells have one base.
        """
        n_own = len(self.n_cells) - len(self.paired)  # cells of pairs are among those of their treatments
        by_stratum = of_strata is not None and self.n_strata > 1
        controls = self.stratum_controls.unsqueeze(1) if by_stratum else self.n_controls
        known = controls * information
        for start in range(0, n_own, ROWS):
            rows = torch.arange(start, min(start + ROWS, n_own), device=information.device)
            own = self._told(rows, information)
            free = own / (1 + self.prior_variance(rows) * own)
            if by_stratum:  # what a cell tells of the base, for the cells in each stratum
                known = known + self.stratum_cells[rows].T @ (free / self.n_cells[rows].clamp_min(1).unsqueeze(1))
            else:
                known = known + free.sum(0)
        known = known.clamp_min(1e-12)
        return known, 1 / (1 + of_strata * known) if by_stratum and of_strata is not None else None

    def base_deviation(
        self,
        treatments: Tensor,
        information: Tensor,
        of_strata: Tensor | None = None,
        base: tuple[Tensor, Tensor | None] | None = None,
    ) -> Tensor:
        """What the standard deviation of the base adds to that of V, (treatments, G); one error, which all V share.

        Parameters
        ----------
        treatments, information, of_strata
            As in :meth:`cost` and :meth:`known_base`.
        base
            What :meth:`known_base` says; ``None`` asks it.
        """
        known, left = self.known_base(information, of_strata) if base is None else base
        moved = self.prior_variance(treatments) * self._told(treatments, information)
        shrinkage = moved / (1 + moved)
        if left is None or of_strata is None:
            return shrinkage * known.rsqrt()
        cells = self.stratum_cells.index_select(0, treatments)
        share = cells / cells.sum(1, keepdim=True).clamp_min(1)
        variance = share.square() @ (of_strata * left) + (share @ left).square() / (known * left).sum(0)
        return shrinkage * variance.sqrt()

    @torch.no_grad()
    def start(
        self, data: Experiment, rates: ConditionRates, mean_count: Tensor, n_cells: Tensor, n_controls: int
    ) -> None:
        """Start at the estimate from the counts of conditions with one treatment; the others start at 0."""
        self.mean_count.copy_(mean_count)
        self.n_cells.copy_(n_cells)
        self.n_controls.fill_(n_controls)
        single = np.flatnonzero((data.dosage != 0).sum(axis=1) == 1)
        control = np.flatnonzero(~data.dosage.any(axis=1))
        rows = np.concatenate([control, single])
        cells = rates.n_cells[rows].astype(np.float64)
        sweeps = track_slow(range(SWEEPS), SWEEPS, "first estimate of gene effects")
        found = rate_effects(
            rates.total[rows], cells * rates.library_size, rates.dispersion, len(control), SPREAD, sweeps
        )
        treatments = torch.from_numpy((data.dosage[single] != 0).argmax(axis=1))
        self.value[treatments] = torch.from_numpy(found.value[len(control) :])
        strength = np.log(np.maximum(found.strength[len(control) :], SMALLEST_STRENGTH))
        self.log_strength[treatments] = torch.from_numpy(strength).float()
        self.log_spread.copy_(torch.from_numpy(np.log(np.maximum(found.spread, SMALLEST_SPREAD))))

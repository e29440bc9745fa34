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
from cradlevae.model.effect import rows_of
from cradlevae.nn.hierarchy import fit_scales
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import BoolArray, Float32Array, FloatArray, IndexArray

SWEEPS = 40
"""Sweeps of the first estimate, which changes little after twenty."""

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
        values = self.value.index_select(0, rows)
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
        return dosage @ rows_of(self.value, treatments)

    def deviation(self, treatments: Tensor, information: Tensor) -> Tensor:
        """Posterior standard deviation of V given the base, (treatments, G); ``information`` as in :meth:`cost`.

        That of a treatment is for whatever its pairs may be, that of a pair for a known V of its treatment.
        """
        told = self._told(information).index_select(0, treatments)
        return (1 / self.prior_variance(treatments) + told).rsqrt()

    def coefficients(self, dosage: Tensor, treatments: Tensor, information: Tensor) -> Tensor:
        """How far an error of each V moves a condition of dosages (T,), (treatments, G).

        Cells in a context tell of the sum of a treatment and a pair: where one is less, the other is taken for more, so
        that an error of V is made up for in the pairs as far as their cells tell of them.
        """
        everywhere = dosage.unsqueeze(1).repeat(1, len(information))
        if len(self.paired):
            pairs = torch.arange(len(dosage) - len(self.paired), len(dosage), device=dosage.device)
            moved = self.prior_variance(pairs) * self.n_cells[pairs].unsqueeze(1) * information
            everywhere.index_add_(0, self.paired, -dosage[pairs].unsqueeze(1) * moved / (1 + moved))
        return everywhere.index_select(0, treatments)

    def _told(self, information: Tensor) -> Tensor:
        """What cells tell of V, (T, G): of a treatment with pairs, what is left where its pairs may be anything."""
        told = self.n_cells.unsqueeze(1) * information
        if len(self.paired):
            pairs = torch.arange(len(told) - len(self.paired), len(told), device=told.device)
            lost = told[pairs] - told[pairs] / (1 + self.prior_variance(pairs) * told[pairs])
            told = told.index_add(0, self.paired, -lost).clamp_min(0)
        return told

    def base_deviation(self, treatments: Tensor, information: Tensor, of_strata: Tensor | None = None) -> Tensor:
        """What the standard deviation of the base adds to that of V, (treatments, G); one error, which all V share.

        The controls tell of the base, and other cells as far as their own effects leave them free to.

        Parameters
        ----------
        treatments, information
            As in :meth:`cost`.
        of_strata
            Prior variance of what each stratum adds to the base, (strata, G); the base of a treatment is then that of
            the strata which its cells are in. ``None`` where all cells have one base.
        """
        everything = torch.arange(len(self.n_cells), device=self.n_cells.device)
        own = self._told(information)
        moved = self.prior_variance(everything) * own  # information about V beside that of its prior
        shrinkage = (moved / (1 + moved)).index_select(0, treatments)
        alone = slice(0, len(own) - len(self.paired))  # cells of pairs are among those of their treatments
        if of_strata is None or self.n_strata == 1:
            of_base = self.n_controls * information + (own / (1 + moved))[alone].sum(0)
            return shrinkage * of_base.clamp_min(1e-12).rsqrt()
        each = (own / (self.n_cells.clamp_min(1).unsqueeze(1) * (1 + moved)))[alone]  # what a cell tells of the base
        controls = self.stratum_controls.unsqueeze(1) * information
        known = (controls + self.stratum_cells[alone].T @ each).clamp_min(1e-12)  # (strata, G)
        left = 1 / (1 + of_strata * known)  # of a stratum's own part, what its cells leave open
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
        value, spread, strength = shrunk_rates(rates, rows, n_controls=len(control))
        for position, row in enumerate(single.tolist(), start=len(control)):
            treatment = int(np.flatnonzero(data.dosage[row])[0])
            self.value[treatment] = torch.from_numpy(value[position])
            self.log_strength[treatment] = math.log(max(float(strength[position]), 0.05))
        self.log_spread.copy_(torch.from_numpy(np.log(np.maximum(spread, 0.01))))


def shrunk_rates(
    rates: ConditionRates, rows: IndexArray, n_controls: int
) -> tuple[Float32Array, FloatArray, FloatArray]:
    """Empirical Bayes from counts alone: V of conditions, τ of genes and σ of conditions.

    The log rate is base + V with V ~ Normal(0, σ²τ²), 0 for controls; the base is shared by all conditions, so those
    that do nothing serve as controls, too. Alternates Newton steps for V and the base with the most probable σ and τ.

    Parameters
    ----------
    rates
        Counts of the conditions.
    rows
        Conditions to look at: first the controls, then the others.
    n_controls
        How many of them are controls.

    Returns
    -------
    V (rows, genes), τ (genes,), σ (rows,).
    """
    total, n_cells = rates.total[rows], rates.n_cells[rows]
    library: FloatArray = n_cells.astype(np.float64) * rates.library_size
    n_rows, n_genes = total.shape
    informative = (np.arange(n_rows) >= n_controls) & (n_cells > 0)
    value = np.zeros((n_rows, n_genes), dtype=np.float32)
    pooled = total.sum(axis=0) + 0.5
    base: FloatArray = np.log(pooled / pooled.sum()).astype(np.float64)

    def update(part: slice, prior: FloatArray) -> FloatArray:
        value[:, part], base[part], square = _swept(
            total[:, part],
            library[:, None],
            rates.dispersion[part],
            value[:, part],
            base[part],
            prior + 1e-10,
            informative,
        )
        return square

    sweeps = track_slow(range(SWEEPS), SWEEPS, "first estimate of gene effects") if informative.any() else ()
    spread, strength = fit_scales(informative, n_genes, update, sweeps, smallest=1e-6, spread_prior=SPREAD)
    return value, np.sqrt(spread), np.sqrt(strength)


def _swept(
    total: FloatArray,
    library: FloatArray,
    dispersion: FloatArray,
    value: Float32Array,
    base: FloatArray,
    prior: FloatArray,
    informative: BoolArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One sweep over some genes: V, base and E[V²], to which the error of the base adds."""
    w = value.astype(np.float64)
    for _ in range(3):
        expected = library * np.exp(base + w)
        step = ((total - expected) / dispersion - w / prior) / (expected / dispersion + 1 / prior)
        w = np.where(informative[:, None], np.clip(w + np.clip(step, -1, 1), -8, 8), 0.0)
    expected = library * np.exp(base + w)
    information = expected / dispersion
    # about the base, a condition tells what is left when its own V may be anything that the prior allows
    weight = np.where(informative[:, None], information / (1 + prior * information), information)
    residual = np.clip((total - expected) / np.maximum(expected, 1e-9) + w, -2, 2)
    of_base = np.maximum(weight.sum(axis=0), 1e-9)
    moved: FloatArray = np.clip((weight * residual).sum(axis=0) / of_base, -0.5, 0.5)
    shrinkage = prior * information / (1 + prior * information)
    return w, base + moved, w**2 + prior * (1 - shrinkage) + shrinkage**2 / of_base

"""What a treatment adds to the log rate of each gene, past the latents, shrunk as far as its evidence asks for.

V_tg ~ Normal(0, σ_t² τ_g²): τ_g says how much gene g moves at all, σ_t how much treatment t moves genes. Both are
learned, so a treatment without effect is silenced whatever its genes, and a gene that nothing moves whatever the
treatment. V is at its most probable value; its posterior is Gaussian around it (Laplace), which gives the cost of σ and
τ (their evidence) and the intervals of effects.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from cradlevae.data.experiment import Experiment
from cradlevae.data.rates import ConditionRates, condition_rates
from cradlevae.model.effect import rows_of
from cradlevae.nn.hierarchy import fit_scales
from cradlevae.nn.likelihood import Likelihood
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import BoolArray, Float32Array, FloatArray, IndexArray

SWEEPS = 40
"""Sweeps of the first estimate, which changes little after twenty."""

SPREAD = 0.1, 1.0
"""Median of τ a priori, and standard deviation of its logarithm: a gene of few counts tells nothing of its own."""


class GeneEffects(nn.Module):
    """V (T, G) and its prior.

    Parameters
    ----------
    n_treatments, n_genes
        T, G.
    """

    mean_count: Tensor
    n_cells: Tensor
    n_controls: Tensor

    def __init__(self, n_treatments: int, n_genes: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(n_treatments, n_genes))
        self.log_spread = nn.Parameter(torch.full((n_genes,), math.log(0.1)))
        self.log_strength = nn.Parameter(torch.zeros(n_treatments))
        self.register_buffer("mean_count", torch.ones(n_genes))
        self.register_buffer("n_cells", torch.ones(n_treatments))
        self.register_buffer("n_controls", torch.ones(()))

    def of_conditions(self, dosage: Tensor, treatments: Tensor | None = None) -> Tensor:
        """What conditions of dosages (conditions, treatments) add to the log rates, (conditions, G)."""
        return dosage @ rows_of(self.value, treatments)

    def cost(self, treatments: Tensor, n_cells: Tensor, information: Tensor) -> Tensor:
        """Minus the log evidence of each treatment's effects, by Laplace, up to a constant, (treatments,).

        Parameters
        ----------
        treatments
            The treatments, int64.
        n_cells
            Cells that tell of each, (treatments,).
        information
            What a cell's count tells about its log rate, (G,); see :meth:`.Likelihood.information`.
        """
        strength = self.log_strength.index_select(0, treatments)
        variance = self._prior_variance(treatments)
        total_information = n_cells.unsqueeze(1) * information
        values = self.value.index_select(0, treatments)
        cost = values.square() / (2 * variance) + 0.5 * torch.log1p(variance * total_information)
        return cost.sum(1) + 0.5 * strength.square()

    def prior_cost(self) -> Tensor:
        """Minus the log prior of τ, up to a constant: it would grow without bound in genes that have no evidence."""
        median, sd = SPREAD
        return ((self.log_spread - math.log(median)) / sd).square().sum() / 2

    def deviation(self, treatments: Tensor, information: Tensor) -> Tensor:
        """Posterior standard deviation of V given the base, (treatments, G); ``information`` as in :meth:`cost`."""
        total_information = self.n_cells.index_select(0, treatments).unsqueeze(1) * information
        return (1 / self._prior_variance(treatments) + total_information).rsqrt()

    def base_deviation(self, treatments: Tensor, information: Tensor) -> Tensor:
        """What the standard deviation of the base adds to that of V, (treatments, G); one error, which all V share.

        The controls tell of the base, and other cells as far as their own effects leave them free to.
        """
        everything = torch.arange(len(self.n_cells), device=self.n_cells.device)
        own = self.n_cells.unsqueeze(1) * information
        moved = self._prior_variance(everything) * own  # information about V beside that of its prior
        of_base = self.n_controls * information + (own / (1 + moved)).sum(0)
        shrinkage = (moved / (1 + moved)).index_select(0, treatments)
        return shrinkage * of_base.clamp_min(1e-12).rsqrt()

    def expected_log(self) -> Tensor:
        """How far a change of a gene's log rate moves its log(1 + count), on average, (G,)."""
        return self.mean_count / (self.mean_count + 1 / math.log(2))

    def _prior_variance(self, treatments: Tensor) -> Tensor:
        strength = self.log_strength.index_select(0, treatments)
        return (2 * (strength.unsqueeze(1) + self.log_spread)).exp()

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


def start_at_rates(effects: GeneEffects, likelihood: Likelihood, data: Experiment, rows: IndexArray) -> None:
    """Start gene effects and concentrations at what the counts of the training cells ``rows`` tell.

    Passing cells only, where there are such: damage dilutes effects.
    """
    passing = rows[~data.failed[rows]]
    rates = condition_rates(data, passing if len(passing) else rows)
    mean_count = rates.total.sum(axis=0) / max(1, rates.n_cells.sum())
    n_cells = np.bincount(data.condition[rows], minlength=len(data.conditions)) @ (data.dosage != 0)
    effects.start(
        data,
        rates,
        torch.from_numpy(mean_count).float(),
        torch.from_numpy(np.asarray(n_cells, dtype=np.float32)),
        int(data.is_control[rows].sum()),
    )
    likelihood.start(torch.from_numpy(rates.concentration))

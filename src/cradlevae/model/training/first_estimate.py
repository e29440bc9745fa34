"""Where training starts: effects and scales as the counts of the training cells tell them, by empirical Bayes.

Counts of a condition t in a stratum s are taken to have the mean library × exp(base + V_t + L_s), where L_s adds up
what the levels of the stratum add. Such a model is fitted from the sums over conditions and over levels alone, so that
no table of conditions × strata × genes is needed. V is then a contrast within strata: what differs between batches is
theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cradlevae.data.experiment import Experiment
from cradlevae.data.moments import indicator
from cradlevae.data.rates import ConditionRates, condition_rates
from cradlevae.model.gene_effects import SMALLEST_SPREAD, SMALLEST_STRENGTH, SPREAD, SWEEPS, GeneEffects
from cradlevae.model.level_effects import LevelEffects
from cradlevae.model.module import CradleModule
from cradlevae.nn.hierarchy import SOME_VALUES, ScaleFit, gene_blocks
from cradlevae.nn.rate_effects import FIRST_STEPS, TOLERANCE
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import AnyIntArray, BoolArray, Float32Array, FloatArray, IndexArray, IntArray


def start_at_rates(module: CradleModule, data: Experiment, rows: IndexArray) -> None:
    """Start effects of treatments and of levels, and concentrations, at what the counts of cells ``rows`` tell.

    Passing cells only, where there are such: damage dilutes effects.
    """
    if module.gene_effects is None and module.level_effects is None:
        return
    passing = rows[~data.failed[rows]]
    rates = condition_rates(data, passing if len(passing) else rows)
    mean_count = torch.from_numpy(rates.total.sum(axis=0) / max(1, rates.n_cells.sum())).float()
    present = data.dosage != 0
    n_cells = np.bincount(data.condition[rows], minlength=len(data.conditions)) @ present
    n_controls = int(data.is_control[rows].sum())
    effects, levels = module.gene_effects, module.level_effects
    if effects is not None:
        told = torch.from_numpy(np.asarray(n_cells, dtype=np.float32))
        if levels is None and not data.pairs:
            effects.start(data, rates, mean_count, told, n_controls)
        else:
            effects.mean_count.copy_(mean_count)
            effects.n_cells.copy_(told)
            effects.n_controls.fill_(n_controls)
        module.likelihood.start(torch.from_numpy(rates.concentration))
    if levels is not None:
        _know_strata(effects, levels, data, rows, mean_count)
    if levels is not None or data.pairs:
        _start(effects, levels, data, rates)


@torch.no_grad()
def _know_strata(
    effects: GeneEffects | None, levels: LevelEffects, data: Experiment, rows: IndexArray, mean_count: torch.Tensor
) -> None:
    """Tell the effects how many cells of each level, and of each treatment in each stratum, there are."""
    of_strata, strata = np.unique(data.levels[rows], axis=0, return_inverse=True)
    n_strata = len(of_strata)
    levels.mean_count.copy_(mean_count)
    levels.stratum_levels.copy_(torch.from_numpy(of_strata))
    levels.n_cells.copy_(torch.from_numpy(np.bincount(data.levels[rows].ravel(), minlength=len(levels.value))))
    if effects is None or effects.n_strata == 1:  # the levels may all differ in cells of other parts of the split
        return
    cell = data.condition[rows] * n_strata + strata.ravel()
    design = np.bincount(cell, minlength=len(data.conditions) * n_strata).reshape(-1, n_strata)
    effects.stratum_cells.copy_(torch.from_numpy((data.dosage != 0).T.astype(np.float32) @ design))
    effects.stratum_controls.copy_(torch.from_numpy(design[0]))


@torch.no_grad()
def _start(effects: GeneEffects | None, levels: LevelEffects | None, data: Experiment, rates: ConditionRates) -> None:
    estimate = estimate_together(_design_of(data, rates), rates)
    if effects is not None:
        _set(effects, estimate.value, estimate.spread, estimate.strength, np.flatnonzero(estimate.informative))
    if levels is not None:
        rows = np.arange(len(levels.value))
        _set(levels, estimate.level_value, estimate.level_spread, estimate.level_strength, rows)


def _set(
    table: GeneEffects | LevelEffects, value: Float32Array, spread: FloatArray, strength: FloatArray, rows: IndexArray
) -> None:
    scales = torch.from_numpy(rows) if table.tied is None else table.tied[rows]
    table.value[rows] = torch.from_numpy(value[rows])
    table.log_strength[scales] = torch.from_numpy(np.log(np.maximum(strength[rows], SMALLEST_STRENGTH))).float()
    table.log_spread.copy_(torch.from_numpy(np.log(np.maximum(spread, SMALLEST_SPREAD))))


@dataclass(frozen=True)
class EffectDesign:
    """Which effects the conditions of an estimate share.

    Attributes
    ----------
    conditions
        Rows of the rates that are looked at: controls and conditions of one treatment, (rows,).
    treatment
        Treatment of each, −1 for the controls, (rows,).
    pair
        Its pair of treatment and context among all treatments, −1 where it has none, (rows,).
    n_treatments
        Number of treatments, pairs included.
    paired
        Treatment of each pair, (pairs,); the pairs are the last treatments.
    families
        The factor that each level belongs to, (levels,).
    """

    conditions: IntArray
    treatment: IntArray
    pair: IntArray
    n_treatments: int
    paired: IntArray
    families: IntArray


def _design_of(data: Experiment, rates: ConditionRates) -> EffectDesign:
    """The controls and the conditions of a single treatment."""
    n_own = data.dosage.shape[1] - len(data.pairs)
    own = data.dosage[:, :n_own] != 0
    rows = np.flatnonzero((own.sum(axis=1) <= 1) & (rates.n_cells > 0))
    treatment = np.where(own[rows].any(axis=1), own[rows].argmax(axis=1), -1)
    in_pair = data.dosage[rows, n_own:] != 0
    pair = np.where(in_pair.any(axis=1), n_own + in_pair.argmax(axis=1) if in_pair.shape[1] else -1, -1)
    sizes = [len(factor.levels) for factor in data.varied]
    names = list(data.own_treatments)
    paired = np.array([names.index(name) for name, _ in data.pairs], dtype=np.int64)
    return EffectDesign(rows, treatment, pair, data.dosage.shape[1], paired, np.repeat(np.arange(len(sizes)), sizes))


@dataclass(frozen=True)
class JointEstimate:
    """Effects of treatments and of levels, estimated together.

    Attributes
    ----------
    value
        V of treatments and pairs, (T, genes); 0 where nothing tells of one.
    spread, strength
        τ of genes, (genes,), or for treatments and for pairs, (2, genes); and σ of treatments, (T,).
    informative
        Treatments that conditions tell of, (T,).
    level_value
        Effects of levels, (levels, genes).
    level_spread, level_strength
        τ of genes for each factor, (factors, genes), and σ of levels, (levels,).
    """

    value: Float32Array
    spread: FloatArray
    strength: FloatArray
    informative: BoolArray
    level_value: Float32Array
    level_spread: FloatArray
    level_strength: FloatArray


def estimate_together(design: EffectDesign, rates: ConditionRates) -> JointEstimate:
    """Estimate effects of treatments, pairs and levels by empirical Bayes: Newton steps in turn, and EM for the scales.

    Parameters
    ----------
    design
        Which effects the conditions share.
    rates
        Sums of counts by condition and by level.
    """
    total = rates.total[design.conditions]
    cells = rates.design[design.conditions].astype(np.float64) * rates.library_size
    n_genes, n_levels = total.shape[1], len(design.families)
    informative = np.zeros(design.n_treatments, dtype=bool)
    for index in (design.treatment, design.pair):
        informative[index[index >= 0]] = True
    value = np.zeros((design.n_treatments, n_genes))
    level_value = np.zeros((n_levels, n_genes))
    pooled = total.sum(axis=0) + 0.5
    base: FloatArray = np.log(pooled / pooled.sum()).astype(np.float64)
    left_out = np.setdiff1d(np.arange(len(rates.total)), design.conditions)
    of_level = _level_totals(rates, left_out)
    scales = _Scales(design, informative, n_genes)
    factors = [np.flatnonzero(design.families == factor) for factor in range(rates.stratum_levels.shape[1])]
    of_factors = [
        ScaleFit(of_level[rows].sum(axis=1) > 0, n_genes, smallest=1e-6, spread_prior=SPREAD) for rows in factors
    ]
    all_scales = [*scales.families, *of_factors]
    for sweep in track_slow(range(SWEEPS), SWEEPS, "first estimate of effects"):
        n_steps = FIRST_STEPS if sweep == 0 else 1
        for part in gene_blocks(max(len(total), cells.shape[1], design.n_treatments), n_genes):
            fit = _Part(design, rates, cells, total[:, part], of_level[:, part], rates.dispersion[part], n_steps)
            fit.move(value[:, part], level_value[:, part], base[part], scales, of_factors, factors, part)
        for scale in all_scales:
            scale.end_sweep()
        if total.size > SOME_VALUES and all(scale.change < TOLERANCE for scale in all_scales):
            break
    return JointEstimate(
        value.astype(np.float32),
        np.sqrt(scales.spread),
        np.sqrt(np.concatenate([scale.strength for scale in scales.families])),
        informative,
        level_value.astype(np.float32),
        np.sqrt(np.array([scale.spread for scale in of_factors])).reshape(len(factors), n_genes),
        np.sqrt(np.concatenate([scale.strength for scale in of_factors])) if of_factors else np.zeros(0),
    )


class _Scales:
    """The scales of treatments and, apart from them, of pairs."""

    def __init__(self, design: EffectDesign, informative: BoolArray, n_genes: int) -> None:
        own = design.n_treatments - len(design.paired)
        self._rows = [slice(0, own)]
        self.families = [ScaleFit(informative[:own], n_genes, smallest=1e-6, spread_prior=SPREAD)]
        if len(design.paired):
            tied = np.unique(design.paired, return_inverse=True)[1]
            self._rows.append(slice(own, design.n_treatments))
            self.families.append(ScaleFit(informative[own:], n_genes, smallest=1e-6, spread_prior=SPREAD, tied=tied))

    @property
    def spread(self) -> FloatArray:
        """τ², (genes,), or (families, genes) where there are two."""
        spreads = [scale.spread for scale in self.families]
        return spreads[0] if len(spreads) == 1 else np.array(spreads)

    def prior(self, part: slice) -> FloatArray:
        """Prior variance of the effects on some genes, (T, genes)."""
        return np.concatenate([scale.prior(part) for scale in self.families])

    def take(self, part: slice, square: FloatArray) -> None:
        """Take in the expected squares of the effects on some genes, (T, genes)."""
        for rows, scale in zip(self._rows, self.families, strict=True):
            scale.take(part, square[rows])


def _level_totals(rates: ConditionRates, left_out: AnyIntArray) -> FloatArray:
    """Counts by level without those of conditions that are left out, which are spread as their cells are."""
    share = np.zeros((len(rates.level_total), len(left_out)))
    each = rates.design[left_out] / np.maximum(rates.design[left_out].sum(axis=1, keepdims=True), 1)
    for factor in rates.stratum_levels.T:
        np.add.at(share, factor, each.T)
    return np.asarray(np.maximum(rates.level_total - share @ rates.total[left_out], 0.0))


@dataclass(frozen=True)
class _Part:
    """The estimate of some genes; its steps move what they are given, in place."""

    design: EffectDesign
    rates: ConditionRates
    cells: FloatArray  # library of each condition in each stratum, (rows, strata)
    total: FloatArray  # (rows, genes)
    of_level: FloatArray  # (levels, genes)
    dispersion: FloatArray  # (genes,)
    n_steps: int  # Newton steps in a sweep

    def move(
        self,
        value: FloatArray,
        level_value: FloatArray,
        base: FloatArray,
        scales: _Scales,
        of_factors: list[ScaleFit],
        factors: list[IndexArray],
        part: slice,
    ) -> None:
        """A sweep: treatments, pairs, the levels of each factor, the base."""
        prior = scales.prior(part) + 1e-10
        self._move_treatments(value, level_value, base, prior, scales, part)
        for factor, (rows, scale) in enumerate(zip(factors, of_factors, strict=True)):
            self._move_levels(factor, rows, value, level_value, base, scale, part)

    def _added(self, value: FloatArray) -> FloatArray:
        """What treatment and pair add to each condition, (rows, genes)."""
        padded = np.concatenate([value, np.zeros((1, value.shape[1]))])  # −1 is the row of zeros
        return np.asarray(padded[self.design.treatment] + padded[self.design.pair])

    def _of_strata(self, level_value: FloatArray, base: FloatArray) -> FloatArray:
        return np.asarray(np.exp(base + level_value[self.rates.stratum_levels].sum(axis=1)))

    def _move_treatments(
        self,
        value: FloatArray,
        level_value: FloatArray,
        base: FloatArray,
        prior: FloatArray,
        scales: _Scales,
        part: slice,
    ) -> None:
        design = self.design
        library = self.cells @ self._of_strata(level_value, base)  # expected counts without effects, (rows, genes)
        information = np.zeros_like(value)
        for index in (design.treatment, design.pair):
            has = index >= 0
            if not has.any():
                continue
            rows = np.unique(index[has])
            own = _sums(index, design.n_treatments, self.total)[rows]
            without = library * np.exp(self._added(value) - np.where(has[:, None], value[index], 0.0))
            expected = _sums(index, design.n_treatments, without)[rows]
            value[rows], information[rows] = _newton(
                value[rows], own, expected, prior[rows], self.dispersion, self.n_steps
            )
        of_base = self._move_base(value, library, base, prior)
        shrinkage = prior * information / (1 + prior * information)
        scales.take(part, value**2 + prior * (1 - shrinkage) + shrinkage**2 / of_base)

    def _move_base(self, value: FloatArray, library: FloatArray, base: FloatArray, prior: FloatArray) -> FloatArray:
        """Move the base on, and return what is known of it, (genes,)."""
        design = self.design
        added = self._added(value)
        expected = library * np.exp(added)
        information = expected / self.dispersion
        padded = np.concatenate([prior, np.zeros((1, prior.shape[1]))])
        free = padded[design.treatment] + padded[design.pair]
        weight = information / (1 + free * information)
        residual = np.clip((self.total - expected) / np.maximum(expected, 1e-9) + added, -2, 2)
        of_base = np.maximum(weight.sum(axis=0), 1e-9)
        base += np.clip((weight * residual).sum(axis=0) / of_base, -0.5, 0.5)
        return np.asarray(of_base)

    def _move_levels(
        self,
        factor: int,
        rows: IndexArray,
        value: FloatArray,
        level_value: FloatArray,
        base: FloatArray,
        scale: ScaleFit,
        part: slice,
    ) -> None:
        of_strata = self.rates.stratum_levels[:, factor]
        treated = self.cells.T @ np.exp(self._added(value))  # (strata, genes)
        without = treated * self._of_strata(level_value, base) / np.exp(level_value[of_strata])
        expected = _sums(of_strata, len(level_value), without)[rows]
        prior = scale.prior(part) + 1e-10
        moved, information = _newton(
            level_value[rows], self.of_level[rows], expected, prior, self.dispersion, self.n_steps
        )
        # Each cell is of one level, so counts cannot tell the base from what all levels share: it is the base's.
        # Steps in turn would take thousands of sweeps to say so.
        told = self.of_level[rows].any(axis=1)
        shared = _precise_mean(moved[told], prior[told])
        moved[told] -= shared
        base += shared
        level_value[rows] = moved
        scale.take(part, moved**2 + prior / (1 + prior * information))


def _sums(index: AnyIntArray, n: int, table: FloatArray) -> FloatArray:
    """Sums of rows by an index, of which −1 is none, (n, genes)."""
    return np.asarray(indicator(index, n) @ table)


def _precise_mean(value: FloatArray, variance: FloatArray) -> FloatArray:
    """Mean of rows weighed by their precision, (genes,); 0 without rows."""
    weight = 1 / variance
    return np.asarray((weight * value).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-12))


def _newton(
    value: FloatArray,
    total: FloatArray,
    without: FloatArray,
    prior: FloatArray,
    dispersion: FloatArray,
    n_steps: int,
) -> tuple[FloatArray, FloatArray]:
    """Effects moved to their mode, and what the counts tell of them, (rows, genes).

    Parameters
    ----------
    value
        Where they are.
    total, without
        Counts, and those that are expected without the effects.
    prior
        Prior variance.
    dispersion
        Variance of counts in units of their mean, (genes,).
    n_steps
        Newton steps.
    """
    for _ in range(n_steps):
        expected = without * np.exp(value)
        step = ((total - expected) / dispersion - value / prior) / (expected / dispersion + 1 / prior)
        value = np.clip(value + np.clip(step, -1, 1), -8, 8)
    return value, without * np.exp(value) / dispersion

"""What the decoder leaves of the measured effects: fitted when training ends, shrunk, and added by ``effects``.

A decoder is a smooth map that all conditions share. What single genes of single perturbations do beside it, on the
scale that effects are measured on, is in the training cells all the same: their mean log expression minus what the
decoder expects. This is shrunk by :func:`cradlevae.nn.joint.joint_shrink`, which knows that perturbations move alike,
and so do genes; failed cells are evidence, too, as far as they still show effects. Validation cells say how much of it
holds, and how much wider than the posterior says effects spread about their prediction. They choose, but are no
evidence of effects themselves: what is judged on validation cells must not have learned from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.gene_loadings import gene_loadings
from cradlevae.data.labels import CONTROL
from cradlevae.data.moments import (
    PRIOR_CELLS,
    ConditionMoments,
    condition_codes,
    condition_moments,
    pooled_variance,
    steadied_variance,
)
from cradlevae.data.storage.stored_matrix import subset_rows
from cradlevae.model.estimation.effect_estimator import effects_of, estimate_effects, mean_effects
from cradlevae.model.estimation.effect_residual import EffectResidual, MeasurementNoise
from cradlevae.model.estimation.two_groups import TwoGroups
from cradlevae.model.trained import TrainedModel, training_rows
from cradlevae.model.training.residual_choices import distance_of, share_that_holds, weight_apart, widening
from cradlevae.nn.hierarchy import LEAST_VARIANCE, Evidence, hierarchical_shrink, some_genes
from cradlevae.nn.joint import joint_shrink
from cradlevae.nn.multivariate import PRIOR_CONDITIONS
from cradlevae.utils.constants import TARGET_SUM
from cradlevae.utils.types import BoolArray, Float32Array, FloatArray, IndexArray

ERROR = 0.05
"""Monte-Carlo error of the decoder's effects, in log2 units."""

MANY_CONDITIONS = 50
"""Conditions whose spread is worked out; of more, every so many."""

PARTS = 1.0, 0.5, 0.0
"""Parts of the expected effects that evidence may be shrunk towards."""

MIN_CONDITIONS = 5
"""Conditions with other cells that it takes to choose a part."""


def with_residual(model: TrainedModel, data: Experiment) -> TrainedModel:
    """The model with its :class:`.EffectResidual`, from its training cells, by settings that validation cells choose.

    A model without gene effects keeps its own effects; their intervals alone take the residual up.

    Parameters
    ----------
    model, data
        The model, and the cells that it was trained on.
    """
    condition, conditions = data.plain
    measured = _measure(model, replace(data, condition=condition, conditions=conditions))
    if measured is None:
        return model
    of_contexts = _measure(model, data) if model.pairs else None
    told = [(one, _expected(model, one.names)) for one in (measured, of_contexts) if one is not None]
    return replace(model, residual=_residual(model, told))


@dataclass(frozen=True)
class _Measured:
    """What cells tell of the conditions that were trained on, the control first: each class, and other cells.

    With the loadings of genes that vary together between passing cells; ``None`` where effects are shrunk one by one.
    """

    names: tuple[str, ...]
    classes: list[Evidence]
    held_out: Evidence
    loadings: FloatArray | None = None


def _measure(model: TrainedModel, data: Experiment) -> _Measured | None:
    """What training cells (passing ones first) and passing validation cells tell; ``None`` if there is nothing."""
    train = training_rows(data, model.split, model.config)
    names = model.answerable([data.conditions[code] for code in np.unique(data.condition[train]) if code > 0])
    if not names:
        return None
    evidence: list[Evidence] = []
    within = np.zeros(0)
    for failed in (False, True):  # tables of moments may be large: one class at a time
        moments = _moments(data, train[data.failed[train] == failed], names)
        if moments.n_cells[0] <= 1:
            continue
        if not evidence:
            one_count = np.log2(1 + TARGET_SUM / np.median(data.library_size[train]))
            unseen = one_count**2 / moments.n_cells.sum()  # what no cell shows is not impossible
            within = np.maximum(steadied_variance(moments), unseen)
        evidence.append(Evidence.of_cells(moments.mean, moments.n_effective, _steadied_variance(moments, within)))
        del moments
    if not evidence:
        return None
    val = training_rows(data, model.split, model.config, "val")
    held_out = _moments(data, val[~data.failed[val]], names)
    told = Evidence.of_cells(held_out.mean, held_out.n_effective, within)
    return _Measured(tuple(names), evidence, told, _loadings(data, train))


def _loadings(data: Experiment, train: IndexArray) -> FloatArray:
    """Of genes that vary together between passing cells (all, where there are none) of a condition and stratum."""
    passing = train[~data.failed[train]]
    rows = passing if len(passing) else train
    group = np.unique(np.stack([data.condition[rows], data.strata[rows]]), axis=1, return_inverse=True)[1]
    return gene_loadings(data.counts, rows, group.ravel())


@dataclass(frozen=True)
class _Expected:
    """What the decoder expects of conditions, the control first.

    Attributes
    ----------
    effect
        (conditions, genes).
    dosage
        Their dosages, (conditions, T).
    rows
        Conditions whose spread is known: all of them, or some of many; ascending.
    spread, error
        Posterior standard deviation and Monte-Carlo error of their effects, (rows, genes).
    """

    effect: Float32Array
    dosage: Float32Array
    rows: IndexArray
    spread: Float32Array
    error: Float32Array


def _expected(model: TrainedModel, names: Sequence[str]) -> _Expected:
    dosage = model.dosage(tuple(names))
    step = -(-len(names) // MANY_CONDITIONS)
    wanted = ("X", "sd", "mc_error") if step == 1 else ("sd", "mc_error")
    contrasts = effects_of(names[::step], dosage[::step])
    some = estimate_effects(model, contrasts, lambda _, one: one.layers(wanted=wanted), error=ERROR).layers
    if step > 1:  # beside what the few cells of each measure, their mean need not be exact
        some["X"] = mean_effects(model, names, dosage)
    rows = np.concatenate([[0], np.arange(len(names))[::step] + 1])
    effect, spread, error = (_below_control(some.pop(name)) for name in ("X", "sd", "mc_error"))
    return _Expected(effect, _below_control(dosage.numpy()), rows, spread, error)


def _residual(model: TrainedModel, told: Sequence[tuple[_Measured, _Expected]]) -> EffectResidual:
    """The residual of single treatments first; a combination has the sum of its treatments', and what that leaves.

    Where there are several contexts, these are residuals over all contexts; what they leave in a context comes last.

    Parameters
    ----------
    model
        The model.
    told
        What cells tell, and the decoder expects, of conditions, and of conditions in contexts where there are several.
    """
    measured, decoded = told[0]
    expected, dosage = decoded.effect, decoded.dosage
    n_pairs = len(model.pairs)
    own = dosage.shape[1] - n_pairs
    n_treatments = (dosage[:, :own] != 0).sum(axis=1)
    single, combined = (np.flatnonzero((n_treatments == 0) | kind) for kind in (n_treatments == 1, n_treatments > 1))

    of_single = _fitted(measured, expected, single)
    mean, variance = np.zeros((2, dosage.shape[1], expected.shape[1]), dtype=np.float32)
    part, n_cells = np.ones(dosage.shape[1], dtype=np.float32), np.zeros(dosage.shape[1])
    treatment = dosage[single[1:], :own].argmax(axis=1)
    mean[treatment], variance[treatment], part[treatment] = of_single.mean[1:], of_single.variance[1:], of_single.part
    n_cells[treatment] = of_single.n_cells[1:]

    moved = sp.csr_matrix(dosage) @ mean
    of_combined = _fitted(measured, expected + moved, combined)
    combined = combined[1:]
    moved, left = moved[combined] + of_combined.mean[1:], of_combined.variance[1:]
    unmeasured = _unmeasured_variance(of_combined, sp.csr_matrix(dosage[combined]).power(2) @ variance)
    combined_part = of_combined.part
    if model.module.gene_effects is None:  # a member that is a latent model alone: its answers stay its own
        variance, mean = variance + mean**2, np.zeros_like(mean)
        left, moved = left + moved**2, np.zeros_like(moved)
        part, combined_part = np.ones_like(part), 1.0
    residual = EffectResidual(
        mean,
        np.sqrt(variance),
        part,
        tuple(measured.names[row - 1] for row in combined),
        moved,
        np.sqrt(left),
        combined_part,
        np.sqrt(unmeasured),
        MeasurementNoise(n_cells, of_combined.n_cells[1:], of_single.n_controls, of_single.within),
        measured.classes[0].mean[0],
        n_pairs=n_pairs,
    )
    return _widened(residual, *told[0]) if len(told) == 1 else _with_contexts(model, residual, *told[1])


def _unmeasured_variance(combined: _Fitted, of_sums: Float32Array) -> Float32Array:
    """Variance, (genes,), of what combinations leave of sums whose errors have the variance ``of_sums``."""
    if len(combined.mean) == 1:
        return np.zeros_like(combined.mean[0])
    squares = (combined.mean[1:] ** 2 + combined.variance[1:] - of_sums).mean(axis=0)
    n_combined = len(combined.mean) - 1
    steadied = (n_combined * squares + PRIOR_CONDITIONS * squares.mean()) / (n_combined + PRIOR_CONDITIONS)
    return np.asarray(np.maximum(steadied, np.float32(0)))


def _with_contexts(
    model: TrainedModel, residual: EffectResidual, measured: _Measured, decoded: _Expected
) -> EffectResidual:
    """The residual with what it leaves of single treatments in single contexts."""
    own = decoded.dosage.shape[1] - residual.n_pairs
    names = (CONTROL, *measured.names)
    moved, _ = residual.of(names, decoded.dosage)
    of_pairs = decoded.dosage[:, own:] != 0
    rows = np.flatnonzero(((decoded.dosage[:, :own] != 0).sum(axis=1) == 1) & of_pairs.any(axis=1))
    mean, sd = residual.mean.copy(), residual.sd.copy()
    if len(rows):
        fitted = _fitted(measured, decoded.effect + moved, np.concatenate([[0], rows]))
        pair = own + of_pairs[rows].argmax(axis=1)
        mean[pair], sd[pair] = fitted.mean[1:], np.sqrt(fitted.variance[1:])
        if model.module.gene_effects is None:
            mean[pair], sd[pair] = 0, np.hypot(mean[pair], sd[pair])
    return _widened(replace(residual, mean=mean, sd=sd), measured, decoded)


@dataclass(frozen=True)
class _Fitted:
    """What some conditions leave of what is expected: mean and variance, (rows, genes), with a part of it taken.

    With the cells that they and the controls were measured with, (rows,) and one number, and the variance between
    cells, (genes,).
    """

    mean: Float32Array
    variance: Float32Array
    part: float
    n_cells: FloatArray
    n_controls: float
    within: Float32Array


def _fitted(measured: _Measured, expected: Float32Array, rows: IndexArray) -> _Fitted:
    """What some conditions, the control first, leave of what is expected.

    Evidence is shrunk towards what is expected, or, where other cells are nearer to that by more than a standard error,
    towards a part of it.
    """
    classes, held_out, expected = [one.of(rows) for one in measured.classes], measured.held_out.of(rows), expected[rows]
    control = np.arange(len(rows)) == 0
    genes = some_genes(*expected.shape)
    loadings = None if measured.loadings is None else measured.loadings[genes]
    some = [one.of_genes(genes) for one in classes], held_out.of_genes(genes), loadings
    best, lost, slopes = None, np.zeros(len(rows)), [1.0] * len(classes)
    for part in PARTS:
        prior = np.float32(part) * expected[:, genes]
        of_classes = _slopes(some[0], prior, control)
        fitted = _shrunk(*some, of_classes, prior, control)
        off = distance_of(some[1], prior + fitted.mean)
        gain = (lost - off)[held_out.measured & ~control]
        if best is None or gain.mean() > gain.std(ddof=1) / len(gain) ** 0.5:
            best, lost, slopes = replace(fitted, part=part), off, of_classes
        if len(gain) < MIN_CONDITIONS:
            break
    assert best is not None
    prior = np.float32(best.part) * expected
    if genes.step > 1:
        best = replace(_shrunk(classes, held_out, measured.loadings, slopes, prior, control), part=best.part)
    return replace(best, mean=best.mean + prior - expected)


def _shrunk(
    classes: Sequence[Evidence],
    held_out: Evidence,
    loadings: FloatArray | None,
    slopes: Sequence[float],
    prior: Float32Array,
    control: BoolArray,
) -> _Fitted:
    """How far conditions are from ``prior``, as far as other cells bear it out."""
    shown = [replace(one, slope=slope) for one, slope in zip(classes, slopes, strict=True)]
    posterior = joint_shrink(shown, prior, control, loadings)
    mean, variance = posterior.mixed(weight_apart(held_out, prior, posterior))
    mean *= np.float32(share_that_holds(held_out, prior, mean))
    within = posterior.within.astype(np.float32)
    return _Fitted(mean, variance, 1.0, posterior.n_cells, posterior.n_controls, within)


def _below_control(table: Float32Array) -> Float32Array:
    """Rows of conditions below one of the control, which has no effect."""
    return np.concatenate([np.zeros_like(table[:1]), table])


def _moments(data: Experiment, rows: IndexArray, names: Sequence[str]) -> ConditionMoments:
    """Moments of the controls (first) and of conditions among some cells."""
    conditions = [data.conditions[0], *names]
    codes = condition_codes(data, rows, conditions)
    return condition_moments(subset_rows(data.counts, rows), codes, conditions, strata=data.strata[rows])


def _steadied_variance(moments: ConditionMoments, within: FloatArray) -> FloatArray:
    """Pooled variance of cells of which there may be few: in those, a gene without counts has none of its own."""
    free = float(np.maximum(moments.n_cells - 1, 0).sum())
    return np.asarray((free * pooled_variance(moments) + PRIOR_CELLS * within) / (free + PRIOR_CELLS))


def _slopes(classes: Sequence[Evidence], expected: Float32Array, control: BoolArray) -> list[float]:
    """The slope of each class: regression of its effects on those that the first one (passing cells) tells."""
    if len(classes) == 1:
        return [1.0]
    deviation, _ = hierarchical_shrink(classes[:1], expected, control)
    effect = expected + deviation
    return [1.0, *(_slope_of(one, effect, control) for one in classes[1:])]


def _slope_of(one: Evidence, effect: Float32Array, control: BoolArray) -> float:
    rows = one.measured & ~control
    shown, effect = one.mean[rows] - one.mean[0], effect[rows]
    weighted = one.precision_of(slice(None))[rows] * effect
    return float(np.clip(np.vdot(weighted, shown) / max(float(np.vdot(weighted, effect)), 1e-12), 0.0, 1.0))


def _widened(residual: EffectResidual, measured: _Measured, decoded: _Expected) -> EffectResidual:
    """The residual with intervals as wide as they have to be, by conditions whose spread is known, and some genes."""
    rows = decoded.rows
    genes = some_genes(*decoded.spread.shape)
    names = [(CONTROL, *measured.names)[row] for row in rows]
    moved, variance = (table[:, genes] for table in residual.of(names, decoded.dosage[rows]))
    predicted = decoded.effect[rows][:, genes] + moved
    spread, error = decoded.spread[:, genes], decoded.error[:, genes]
    for row, part in enumerate(residual.parts(names, decoded.dosage[rows])):
        variance[row] += (np.broadcast_to(part, residual.mean.shape[1:])[genes] * spread[row]) ** 2
    factor = widening(measured.held_out.of(rows).of_genes(genes), predicted, variance, error)
    surety = predicted / np.sqrt(np.maximum(factor**2 * variance + error**2, LEAST_VARIANCE))
    n_treatments = (decoded.dosage[rows][:, : decoded.dosage.shape[1] - residual.n_pairs] != 0).sum(axis=1)
    single = TwoGroups.of(surety[n_treatments == 1])
    combined = TwoGroups.of(surety[n_treatments > 1]) if (n_treatments > 1).any() else single
    return replace(residual, widening=factor, single_groups=single, combined_groups=combined)

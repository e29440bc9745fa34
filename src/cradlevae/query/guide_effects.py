"""Effects of single guide RNAs: measured, shrunk towards the effect of their target, and compared with each other."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cradlevae.data.experiment import check_unique
from cradlevae.data.fields import DataFields, fields_of
from cradlevae.data.identity.marks import warn_if_made
from cradlevae.data.labels import CONTROL
from cradlevae.data.moments import (
    ConditionMoments,
    condition_moments,
    measured_effects,
    moderated_variance,
    steadied_variance,
)
from cradlevae.data.storage.counts import Counts
from cradlevae.data.storage.stored_matrix import CountMatrix, subset_rows
from cradlevae.errors import DataError
from cradlevae.nn.hierarchy import SWEEPS, fit_scales
from cradlevae.query.guide_cells import GuideCells, read_guide_cells
from cradlevae.query.guide_deviations import guide_deviations
from cradlevae.query.guide_noise import GuideMeans
from cradlevae.utils.checks import check_anndata, probability, text, whole_number
from cradlevae.utils.types import AnnDataLike, Float32Array, FloatArray, IntArray

if TYPE_CHECKING:
    from anndata import AnnData


def guide_effects(
    adata: AnnDataLike,
    *,
    guide_key: str = "guide",
    credible: float = 0.9,
    fdr: float = 0.05,
    min_cells: int = 10,
    fields: DataFields | None = None,
    **field_options: Any,
) -> AnnData:
    """Measure the effect of each guide RNA, shrink it towards that of its target, and flag those unlike their siblings.

    An effect is the mean of log2(1 + 1e4·x/Σx) over the passing cells of a guide RNA minus that of the passing
    controls. Where ``fields`` names batches, covariates or contexts, both means are taken within these strata, as
    :mod:`cradlevae.data.strata` says, and so are comparisons of guide RNAs.

    Empirical Bayes: the effect of guide RNA i of target t on gene g is E_tg + δ_ig with
    δ_ig ~ Normal(0, σ_i² τ_g²), where the scales σ and τ are learned from all guide RNAs
    (:mod:`cradlevae.nn.hierarchy`) and E_tg has no prior. A guide RNA of few cells takes the effect of its siblings,
    and one that clearly differs keeps its own.

    The siblings of a guide RNA are the others of its target. Whether it differs from them by more than
    noise is tested over all genes at once (:mod:`cradlevae.query.guide_deviations`). A flagged guide RNA is unlike the
    others, be it without effect, or with one on other genes. Of two guide RNAs that differ both are flagged, because
    nothing tells which of them is off; with three or more it is the one that the others contradict.

    Parameters
    ----------
    adata
        Raw counts with perturbation labels and a column of guide RNAs, in memory or on disk.
    guide_key
        Column of ``obs`` with the guide RNA of each cell, as :func:`cradlevae.assign_guides` writes it. Cells
        with more guide RNAs than targets (``A_1+A_2``) are left out.
    credible
        Probability of the intervals.
    fdr
        Largest expected share of false ones among the flagged guide RNAs.
    min_cells
        Guide RNAs with fewer passing cells are left out.
    fields
        Where labels, counts and artifact columns are (see :class:`DataFields`). Where ``obs`` has no artifact column
        and none is named, all cells count as passing.
    **field_options
        Single fields, e.g. ``perturbation_key="gene"``, instead of ``fields`` or in addition.

    Returns
    -------
    anndata.AnnData
        Guide RNAs × genes, log2 units: ``X`` the shrunk effect; layers ``raw`` (as measured), ``sd`` (posterior
        standard deviation of ``X``, the noise of the controls included), ``low`` and ``high`` (interval). ``obs``:
        ``target``, ``n_cells``, ``n_siblings`` (guide RNAs of the target that it was compared with), ``deviation``
        (squared deviation from them beyond noise, relative to noise: 0 where there is nothing but noise), ``p_value``,
        ``q_value`` (Benjamini–Hochberg) and ``flagged``; the test is missing where there are no siblings (in its
        strata). A guide RNA with fewer than ``min_cells`` cells in strata that hold controls has a row of missing
        values, and is not flagged; ``n_cells`` counts these cells. Control guide RNAs are rows as well, with the target
        ``control``.

    Raises
    ------
    DataError
        If a column is absent, there are fewer than two passing controls, cells of one guide RNA have
        different perturbations, or no guide RNA has ``min_cells`` cells (beside controls of their strata).

    Warns
    -----
    UserWarning
        Of guide RNAs with too few cells, or too few beside controls of their strata, and of cells with more guide
        RNAs than targets.

    Notes
    -----
    Memory grows with guide RNAs × genes, and with guide RNAs × strata × genes where there are strata; cells are read in
    blocks.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=600, n_genes=40, n_perturbations=3, n_combinations=0, artifact_rate=0)
    >>> number = [str(index % 2 + 1) for index in range(adata.n_obs)]
    >>> adata.obs["guide"] = adata.obs["perturbation"].astype(str) + "_" + number
    >>> effects = cv.guide_effects(adata)
    >>> list(effects.obs_names)
    ['control_1', 'control_2', 'A_1', 'A_2', 'B_1', 'B_2', 'C_1', 'C_2']
    >>> int(effects.obs["flagged"].sum()), sorted(effects.layers)
    (0, ['high', 'low', 'raw', 'sd'])
    """
    import anndata as ad

    guide_key = text("guide_key", guide_key)
    credible, fdr = probability("credible", credible), probability("fdr", fdr, 0.05)
    min_cells = whole_number("min_cells", min_cells, 2)
    fields = fields_of(fields, field_options)
    check_anndata(adata)
    warn_if_made(adata, "guide_effects")
    counts = Counts(adata, fields.layer)
    check_unique(adata.var_names, "gene", "adata.var_names_make_unique()")
    guides = read_guide_cells(adata, guide_key, fields, min_cells)
    if int(guides.control.sum()) < 2:
        raise DataError(
            f"{int(guides.control.sum())} passing control cells: effects need at least two; name the controls with "
            "control_labels="
        )
    counts.check()
    matrix = counts.matrix()
    told = guides.measurable()
    measured = _measured(matrix, told)
    shrunk, sd = _shrunk(measured, told.target_code)
    means = GuideMeans(measured.value, measured.variance, measured.n_cells, measured.typical)
    names = pd.Index(adata.obs_names)
    table = guide_deviations(matrix, told.code, names, told.target_code, means, fdr, told.strata)
    reach = NormalDist().inv_cdf((1 + credible) / 2) * sd
    layers = {"raw": measured.value, "sd": sd, "low": shrunk - reach, "high": shrunk + reach}
    return ad.AnnData(
        X=_rows_of_all(shrunk, guides),
        obs=_obs(table, guides),
        var=adata.var.copy(),
        layers={name: _rows_of_all(layer, guides) for name, layer in layers.items()},
        uns={"guide_effects": {"credible": credible, "fdr": fdr, "min_cells": min_cells, "guide_key": guide_key}},
    )


def _rows_of_all(told: FloatArray, guides: GuideCells) -> Float32Array:
    """Give the guide RNAs that could not be measured rows of missing values."""
    rows = np.full((len(guides.guides), told.shape[1]), np.nan, dtype=np.float32)
    rows[guides.told] = told
    return rows


def _obs(deviations: pd.DataFrame, guides: GuideCells) -> pd.DataFrame:
    """Annotation of all guide RNAs; a test is missing where they could not be measured."""
    deviations.index = np.flatnonzero(guides.told)
    table = deviations.reindex(range(len(guides.guides)))
    table["n_siblings"] = table["n_siblings"].fillna(0).astype(np.int64)
    table["flagged"] = table["flagged"].eq(True).astype(bool)  # not where it is missing
    obs = pd.DataFrame({"target": [str(target) for target in guides.targets], "n_cells": guides.n_cells}).join(table)
    obs.index = pd.Index(guides.guides, name="guide")
    return obs


@dataclass(frozen=True)
class MeasuredGuides:
    """Effects of guide RNAs as they are measured.

    Attributes
    ----------
    value
        Effects against the controls, within strata, (guide RNAs, genes).
    own
        Squared standard error of the guide RNA's own mean, σ²/n_effective, (guide RNAs, genes).
    base
        Squared standard error of the controls' mean, which all effects share, (genes,).
    variance
        Variance between the cells of each guide RNA, (guide RNAs, genes).
    typical
        The same pooled over guide RNAs and steadied by similar genes, (genes,).
    n_cells
        (guide RNAs,).
    """

    value: FloatArray
    own: FloatArray
    base: FloatArray
    variance: FloatArray
    typical: FloatArray
    n_cells: IntArray


def _measured(counts: CountMatrix, guides: GuideCells) -> MeasuredGuides:
    """Measure the effect of each guide RNA against all controls.

    The cells of control guide RNAs are read twice: as controls, and as cells of their guide RNA.
    """
    names = tuple(f"guide {index}" for index in range(len(guides.guides)))
    of_control = guides.of_control
    treated_names, control_names = (
        [name for name, own in zip(names, of_control, strict=True) if own == kind] for kind in (False, True)
    )
    place = np.cumsum(~of_control) - 1
    code = np.where(guides.code >= 0, place[guides.code], -1)
    code = np.where(guides.control, len(treated_names), code)
    moments = condition_moments(counts, code, [*treated_names, CONTROL], strata=guides.strata)
    if control_names:
        moments = _together(_of_control_guides(counts, guides, control_names), moments)
    effects = measured_effects(moments)  # the rows are the control guide RNAs, then the others, as in guides
    base = moments.names.index(CONTROL)
    moderated = moderated_variance(moments)
    return MeasuredGuides(
        effects.value,
        np.delete(moderated, base, axis=0) / np.delete(moments.n_effective, base)[:, None],
        moderated[base] / moments.n_effective[base],
        np.delete(moments.variance, base, axis=0),
        steadied_variance(moments),
        np.delete(moments.n_cells, base),
    )


def _of_control_guides(counts: CountMatrix, guides: GuideCells, names: list[str]) -> ConditionMoments:
    """Moments of the control guide RNAs, within strata against all controls, of which they are a part."""
    place = np.cumsum(guides.of_control) - 1
    rows = np.flatnonzero(guides.control & (guides.code >= 0))
    code = place[guides.code[rows]]
    if guides.strata is None:
        return condition_moments(subset_rows(counts, rows), code, names)
    controls = np.flatnonzero(guides.control)
    rows, code = np.r_[rows, controls], np.r_[code, np.full(len(controls), len(names))]
    moments = condition_moments(subset_rows(counts, rows), code, [*names, CONTROL], strata=guides.strata[rows])
    return moments.of(range(len(names)))


def _together(one: ConditionMoments, other: ConditionMoments) -> ConditionMoments:
    return ConditionMoments(
        one.names + other.names,
        np.concatenate([one.n_cells, other.n_cells]),
        np.concatenate([one.mean, other.mean]),
        np.concatenate([one.variance, other.variance]),
        n_effective=np.concatenate([one.n_effective, other.n_effective]),
    )


def _shrunk(measured: MeasuredGuides, target: IntArray) -> tuple[FloatArray, FloatArray]:
    """Shrink the effects towards those of their targets: posterior mean and standard deviation, (guide RNAs, genes)."""
    shrunk, variance = measured.value.copy(), measured.own.copy()
    several = np.bincount(target)[target] > 1
    starts = np.flatnonzero(np.r_[True, target[1:] != target[:-1]])  # guide RNAs of one target follow one another

    def update(part: slice, prior: FloatArray) -> FloatArray:
        value, own = measured.value[:, part], measured.own[:, part] + 1e-12
        weight = 1 / (prior + own)
        total = np.add.reduceat(weight, starts, axis=0)[target]
        common = np.add.reduceat(weight * value, starts, axis=0)[target] / total
        kept = prior * weight
        deviation = kept * (value - common)
        shrunk[several, part] = (common + deviation)[several]
        variance[several, part] = (own * kept + (1 - kept) ** 2 / total)[several]
        return np.asarray(deviation**2 + own * kept + kept**2 / total)

    if several.any():
        fit_scales(several, shrunk.shape[1], update, range(SWEEPS), smallest=1e-8)
    return shrunk, np.sqrt(variance + measured.base)

"""How guide RNAs of one target differ by chance: their means in each stratum, and the correlation of genes in cells."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cradlevae.data.moments import PRIOR_CELLS, condition_moments, expression_blocks
from cradlevae.data.storage.stored_matrix import CountMatrix, subset_rows
from cradlevae.utils.types import AnyIntArray, Float32Array, FloatArray, IndexArray, IntArray

SAMPLED_CELLS = 240
"""Number of cells of a target from which the correlation of its genes is estimated."""

DETECTED_SHARE = 0.05
"""Genes detected in a smaller share of these cells are not tested: their means are far from normal."""

TRACE_CELLS = 100.0
"""Weight, in cells, of the correlation in all targets in that of one."""


@dataclass(frozen=True)
class GuideMeans:
    """Means of the cells of each guide RNA.

    Attributes
    ----------
    value
        Mean expression, from whatever common base, (guide RNAs, genes).
    variance
        Unbiased variance between cells, (guide RNAs, genes).
    n_cells
        (guide RNAs,).
    typical
        Variance between cells of all guide RNAs together, (genes,).
    """

    value: FloatArray
    variance: FloatArray
    n_cells: IntArray
    typical: FloatArray


@dataclass(frozen=True)
class TargetCells:
    """The cells of one target's guide RNAs.

    Attributes
    ----------
    guides
        Positions of its guide RNAs, ascending.
    rows
        All cells of these guide RNAs, ascending.
    sampled
        Those from which correlations are estimated, guide RNA by guide RNA.
    """

    guides: IndexArray
    rows: IndexArray
    sampled: IndexArray


@dataclass(frozen=True)
class TargetNoise:
    """How the deviations of the guide RNAs of one target vary by chance.

    Attributes
    ----------
    guides
        Positions of its guide RNAs, ascending.
    n_cells
        Cells of each in each stratum, (strata, guide RNAs).
    value
        Their mean expression of the tested genes, 0 where there are no cells, (strata, guide RNAs, tested genes).
    spread
        Variance between these cells relative to v, summed over the tested genes, (strata, guide RNAs).
    variance
        v of the tested genes, (tested genes,).
    trace
        Trace of R: about the number of tested genes.
    square, cube
        Traces of R² and R³, relative to the second and third power of that of R.
    n_sampled
        Number of cells they are estimated from.
    """

    guides: IndexArray
    n_cells: FloatArray
    value: FloatArray
    spread: FloatArray
    variance: FloatArray
    trace: float
    square: float
    cube: float
    n_sampled: int


def target_cells(code: AnyIntArray, cells: pd.Index[str], target: AnyIntArray) -> list[TargetCells]:
    """For each target of several guide RNAs: these, their cells, and those from which correlations are estimated.

    The cells are chosen by their names, so that their order does not matter, about as many of each guide RNA.
    """
    rows = np.flatnonzero(code >= 0)
    key = pd.util.hash_array(np.asarray(cells[rows], dtype=object))
    rows = rows[np.lexsort((key, code[rows]))]
    starts = np.searchsorted(code[rows], np.arange(len(target) + 1))
    targets = []
    for number in range(int(target.max(initial=-1)) + 1):
        guides = np.flatnonzero(target == number)
        if len(guides) > 1:
            most = max(4, -(-SAMPLED_CELLS // len(guides)))
            own = [rows[starts[guide] : starts[guide + 1]] for guide in guides]
            sampled = np.concatenate([cells_of_guide[:most] for cells_of_guide in own])
            targets.append(TargetCells(guides, np.sort(np.concatenate(own)), sampled))
    return targets


def target_noise(
    counts: CountMatrix, code: AnyIntArray, cells: TargetCells, means: GuideMeans, strata: AnyIntArray | None
) -> TargetNoise:
    """Means of a target's guide RNAs in each stratum, and variance and correlation of genes between their cells.

    Parameters
    ----------
    counts
        Raw counts, (cells, genes).
    code
        Position of each cell's guide RNA; −1 for none, (cells,).
    cells
        The target's guide RNAs and cells.
    means
        Means of all guide RNAs.
    strata
        Stratum of each cell, (cells,); ``None`` where there is one.
    """
    levels = np.zeros(1, dtype=np.int64) if strata is None else np.unique(strata[cells.rows])
    if strata is None:
        guides = cells.guides
        n_cells, value = means.n_cells[guides].astype(np.float64)[None], means.value[guides][None]
        own = means.variance[guides][None]
    else:
        n_cells, value, own = _stratum_means(counts, code, cells, np.searchsorted(levels, strata[cells.rows]))
    centres = [n @ mean / n.sum() for n, mean in zip(n_cells, value, strict=True)]
    of_each = list(zip(n_cells, value, own, centres, strict=True))
    within = np.sum([np.maximum(n - 1, 0) @ variance for n, _, variance, _ in of_each], axis=0)
    between = np.sum([n @ (mean - centre) ** 2 for n, mean, _, centre in of_each], axis=0)
    free = max(n_cells.sum() - len(levels), 1)
    variance = (within + between + PRIOR_CELLS * means.typical) / (free + PRIOR_CELLS)
    sample = _sample(counts, cells.sampled)
    genes = np.flatnonzero(((sample > 0).mean(axis=0) >= DETECTED_SHARE) & (variance > 0))
    if not len(genes):
        genes = np.flatnonzero(variance > 0)
    trace = float(((within + between)[genes] / free / variance[genes]).sum())
    if len(levels) > 1 and strata is not None:
        place = np.searchsorted(levels, strata[cells.sampled])
        n_stratum = n_cells.sum(axis=1)
        stretch = np.sqrt(n_stratum / np.maximum(n_stratum - 1, 1))  # a cell is part of the mean that it is less
        sample = ((sample - np.stack(centres)[place]) * stretch[place, None]).astype(np.float32)
    square, cube = _traces(sample[:, genes] / np.sqrt(variance[genes], dtype=np.float32), code[cells.sampled])
    least = 1 / max(len(genes), 1)
    square = float(np.clip(square / max(trace, 1e-12) ** 2, least, 1.0))
    spread = np.stack([(np.take(table, genes, axis=1) / variance[genes]).sum(axis=1) for table in own])
    return TargetNoise(
        cells.guides,
        n_cells,
        np.take(value, genes, axis=2),
        _with_lone_cells(spread, n_cells, trace),
        variance[genes],
        trace,
        square,
        cube / max(trace, 1e-12) ** 3,
        len(cells.sampled),
    )


def _stratum_means(
    counts: CountMatrix, code: AnyIntArray, cells: TargetCells, stratum: AnyIntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Cells, (strata, guide RNAs), mean and variance, (strata, guide RNAs, genes), 0 where cells do not tell them."""
    n_strata, n_guides = int(stratum.max()) + 1, len(cells.guides)
    group = stratum * n_guides + np.searchsorted(cells.guides, code[cells.rows])
    present, place = np.unique(group, return_inverse=True)
    moments = condition_moments(subset_rows(counts, cells.rows), place, [str(number) for number in present])
    n_cells = np.zeros(n_strata * n_guides)
    value, variance = np.zeros((2, n_strata * n_guides, counts.shape[1]))
    n_cells[present], value[present] = moments.n_cells, moments.mean
    variance[present] = np.nan_to_num(moments.variance)
    shape = n_strata, n_guides
    return n_cells.reshape(shape), value.reshape(*shape, -1), variance.reshape(*shape, -1)


def _with_lone_cells(spread: FloatArray, n_cells: FloatArray, trace: float) -> FloatArray:
    """Give a guide RNA's only cell in a stratum the spread of the others there, or else that of all."""
    free = np.maximum(n_cells - 1, 0)
    everywhere = float((free * spread).sum() / free.sum()) if free.any() else trace
    total = free.sum(axis=1)
    of_stratum = np.where(total > 0, (free * spread).sum(axis=1) / np.maximum(total, 1), everywhere)
    return np.where(n_cells == 1, of_stratum[:, None], spread)


def _sample(counts: CountMatrix, rows: IndexArray) -> Float32Array:
    """Expression of some cells, (rows, genes), dense."""
    order = np.argsort(rows, kind="stable")
    sample = np.empty((len(rows), counts.shape[1]), dtype=np.float32)
    for part, block in expression_blocks(subset_rows(counts, rows[order])):
        sample[order[part]] = block.toarray()
    return sample


def _traces(sample: Float32Array, code: AnyIntArray) -> tuple[float, float]:
    """Traces of R² and R³, from cells, (cells, genes), that are centred in two halves of each guide RNA's cells."""
    half = np.empty(len(code), dtype=np.int64)
    for guide in np.unique(code):
        own = np.flatnonzero(code == guide)
        half[own] = np.arange(len(own)) % 2
    group = pd.factorize(pd.MultiIndex.from_arrays([code, half]))[0]
    size = np.bincount(group)
    used = size[group] > 1
    sample, group = sample[used], group[used]
    sums = np.zeros((len(size), sample.shape[1]), dtype=np.float64)
    np.add.at(sums, group, sample)
    own_size = size[group][:, None]
    residual = (sample - sums[group] / own_size) * np.sqrt(own_size / (own_size - 1))
    product = residual @ residual.T
    apart = group[:, None] != group
    product[~apart] = 0.0
    kinds = apart.astype(np.float64)
    triples = float(np.einsum("ij,ji->", kinds @ kinds, kinds))
    square = float((product**2).sum() / max(kinds.sum(), 1.0))
    return square, float(np.einsum("ij,ji->", product @ product, product) / max(triples, 1.0))


def shared_noise(noises: list[TargetNoise]) -> list[TargetNoise]:
    """Average the correlations of each target with those of all, by the numbers of cells."""
    if not noises:
        return []
    weight = np.array([noise.n_sampled for noise in noises], dtype=np.float64)
    square, cube = (np.array([getattr(noise, name) for noise in noises]) for name in ("square", "cube"))
    shared = []
    for noise, own in zip(noises, weight, strict=True):
        both = [
            float((own * value + TRACE_CELLS * np.average(all_values, weights=weight)) / (own + TRACE_CELLS))
            for value, all_values in ((noise.square, square), (noise.cube, cube))
        ]
        both[1] = float(np.clip(both[1], both[0] ** 2, both[0] ** 1.5))
        shared.append(replace(noise, square=both[0], cube=both[1]))
    return shared

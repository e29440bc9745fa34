"""Real and predicted cells as groups of raw counts, for metrics of kind "counts"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from scipy.stats import false_discovery_control

from cradlevae.data.labels import context_of, singles_of
from cradlevae.data.naming.gene_names import target_columns
from cradlevae.evaluation.matched_cells import CellPair
from cradlevae.evaluation.metrics.de import DETest, rank_sum_tests
from cradlevae.evaluation.metrics.vcc2026 import CountGroups
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import FloatArray, IntArray

TOTAL = 5e4
"""Counts that the summed cells of a group are scaled to."""

LEAST_CPM = 5.0
"""Mean counts per million of controls from which a gene is tested."""

EPSILON = 1e-9
"""Added to mean counts per million before fold changes are taken."""

BLOCK = 64
"""Cells that are left out at once; they are dense."""


def own_columns(names: Sequence[str], genes: Sequence[str], symbols: Sequence[str] | None) -> IntArray:
    """Column of the gene that each condition targets, (conditions,); −1 for a combination, a context's, and no gene."""
    columns = target_columns(names, genes, symbols)
    plain = [len(singles_of(name)) == 1 and context_of(name) is None for name in names]
    own = [found[0] if one and len(found) == 1 else -1 for found, one in zip(columns, plain, strict=True)]
    return np.array(own, dtype=np.int64)


def predicted_cells(pair: CellPair) -> tuple[sp.csr_matrix, IntArray]:
    """Real controls and as many generated cells of each perturbation as there are real ones, with their codes."""
    matched = pair.matched()
    matched = matched[pair.generated_codes[matched] > 0]
    controls = np.flatnonzero(pair.real_codes == 0)
    counts = sp.csr_matrix(sp.vstack([pair.real[controls], pair.generated[matched]]))
    return counts, np.concatenate([np.zeros(len(controls), dtype=np.int64), pair.generated_codes[matched]])


def count_groups(pair: CellPair, genes: Sequence[str], own: IntArray) -> tuple[CountGroups, CountGroups]:
    """Groups of real and of predicted cells, both with the real controls.

    Parameters
    ----------
    pair
        Real reference cells and as many generated ones.
    genes
        Names of the genes.
    own
        Column of the gene that each perturbation targets, (perturbations,).
    """
    sides = (pair.real, pair.real_codes), predicted_cells(pair)
    controls: tuple[FloatArray, FloatArray, FloatArray] | None = None
    groups = []
    for counts, codes in sides:
        expression, variance, cpm = _summed(counts, codes, len(pair.names), controls)
        controls = expression[0], variance[0], cpm[0]
        tested = cpm[0] > LEAST_CPM
        test = rank_sum_tests(counts, codes, pair.names)
        groups.append(_group(expression, variance, cpm, own, tested, test, genes))
    return groups[0], groups[1]


def _group(
    expression: FloatArray, variance: FloatArray, cpm: FloatArray, own: IntArray, tested: np.ndarray, test: DETest,
    genes: Sequence[str],
) -> CountGroups:  # fmt: skip
    p_value = test.p_value[:, tested]
    return CountGroups(
        expression=expression,
        variance=variance,
        own=own,
        tested=tested,
        log2_fold_change=np.log2((cpm[1:, tested] + EPSILON) / (cpm[0, tested] + EPSILON)),
        p_value=p_value,
        q_value=false_discovery_control(p_value, axis=1) if p_value.size else p_value,
        name_order=np.argsort(np.argsort(np.array(genes, dtype=object)[tested], kind="stable")),
    )


def _summed(
    counts: sp.csr_matrix, codes: IntArray, n: int, controls: tuple[FloatArray, FloatArray, FloatArray] | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Expression, its sampling variance and mean counts per million of each group; those of known controls first."""
    parts = [] if controls is None else [controls]
    for code in track_slow(range(len(parts), n), n - len(parts), "sampling errors of expression"):
        cells = sp.csr_matrix(counts[np.flatnonzero(codes == code)], dtype=np.float64)
        size = np.asarray(cells.sum(axis=1), dtype=np.float64).ravel()
        shares = np.divide(1e6, size, out=np.zeros_like(size), where=size > 0)
        cpm = np.asarray(shares @ cells) / cells.shape[0]
        parts.append((*_jackknife(cells, size), cpm))
    expression, variance, cpm = (np.array(values) for values in zip(*parts, strict=True))
    return expression, variance, cpm


def _jackknife(cells: sp.csr_matrix, size: FloatArray) -> tuple[FloatArray, FloatArray]:
    """ln(1 + :data:`TOTAL`·c/Σc) of the summed cells, and its variance summed over genes, leaving out cell by cell."""
    n = cells.shape[0]
    total = np.asarray(cells.sum(axis=0)).ravel()
    whole = np.log1p(TOTAL * total / max(total.sum(), 1.0))
    first, second = np.zeros_like(total), np.zeros_like(total)
    for start in range(0, n, BLOCK):
        part = slice(start, start + BLOCK)
        left = (total.sum() - size[part])[:, None]
        without = np.log1p(TOTAL * (total - cells[part].toarray()) / np.where(left > 0, left, 1.0))
        change = np.where(left > 0, without, 0.0) - whole
        first += change.sum(axis=0)
        second += (change**2).sum(axis=0)
    variance = (n - 1) / n * float((second - first**2 / n).sum())
    return whole, np.asarray(max(variance, 0.0))

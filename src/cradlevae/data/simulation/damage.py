"""Technical artifacts of known kind and severity, simulated on clean counts.

Each kind mimics what one quality-control criterion looks for. The *severity* is the share of a cell's
counts that are lost (``low_umi``) or foreign (all other kinds); for ``low_genes`` it is the share of
the molecules that were never amplified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from cradlevae.utils.types import Float32Array, FloatArray, IndexArray

CLEAN = "none"
"""Artifact kind of an undamaged cell."""

ARTIFACT_KINDS = ("low_umi", "low_genes", "mito", "ribo", "haemo", "doublet")
"""Kinds of artifact that :func:`cradlevae.data.simulation.simulate.simulate` knows, one per QC criterion."""

SEVERITY = {
    "low_umi": (0.6, 0.9),
    "low_genes": (0.8, 0.97),
    "mito": (0.2, 0.7),
    "ribo": (0.25, 0.7),
    "haemo": (0.1, 0.5),
    "ambient": (0.4, 0.8),
}
"""Range from which the severity is drawn, uniformly; the severity of a doublet follows from its two cells."""

DAMAGED_CELLS = 2_000
"""Number of cells that are damaged together."""

Severity = FloatArray
Profile = FloatArray


def damage(
    clean: sp.csr_matrix,
    kinds: npt.NDArray[np.str_],
    profiles: Mapping[str, Profile],
    rng: np.random.Generator,
) -> tuple[sp.csr_matrix, Float32Array]:
    """Damage some of the cells.

    Parameters
    ----------
    clean
        Clean counts, (cells, genes), float32 holding integers.
    kinds
        Artifact kind of each cell, ``"none"`` for cells that stay clean, (cells,).
    profiles
        Expression profile of the foreign counts, for each kind that adds such counts, (genes,), sums to 1.
    rng
        Source of randomness.

    Returns
    -------
    damaged
        Counts with the artifacts, (cells, genes).
    severity
        Severity of each cell's artifact, 0 where there is none, (cells,).
    """
    severity = np.zeros(len(kinds), dtype=np.float32)
    blocks = []
    for start in range(0, len(kinds), DAMAGED_CELLS):
        block_kinds = kinds[start : start + DAMAGED_CELLS]
        pieces, places = [], []
        for kind in np.unique(block_kinds):
            rows = start + np.flatnonzero(block_kinds == kind)
            if kind == CLEAN:
                piece = clean[rows]
            elif kind == "doublet":
                piece, severity[rows] = _doublet(clean, rows, rng)
            else:
                amount = rng.uniform(*SEVERITY[kind], len(rows))
                piece = _damage_rows(clean[rows], kind, amount, profiles, rng)
                severity[rows] = amount
            pieces.append(piece)
            places.append(rows)
        order = np.argsort(np.concatenate(places))
        blocks.append(sp.csr_matrix(sp.vstack(pieces, format="csr")[order]))
    damaged = sp.csr_matrix(sp.vstack(blocks, format="csr"), dtype=np.float32)
    return damaged, severity


def expected_profile(kind: str, profile: Profile, severity: float, profiles: Mapping[str, Profile]) -> Profile:
    """Return the expected expression profile of damaged cells whose clean profile is ``profile``, (genes,).

    Thinning, unequal amplification and doublets of random cells change how noisy a profile is, not its mean.
    """
    return (1.0 - severity) * profile + severity * profiles[kind] if kind in profiles else profile


def _damage_rows(
    counts: sp.csr_matrix,
    kind: str,
    severity: Severity,
    profiles: Mapping[str, Profile],
    rng: np.random.Generator,
) -> sp.csr_matrix:
    single: Mapping[str, Callable[..., sp.csr_matrix]] = {"low_umi": _thin, "low_genes": _few_molecules}
    if kind in single:
        return single[kind](counts, severity, rng)
    return _replace(counts, severity, profiles[kind], rng)


def _thin(counts: sp.csr_matrix, severity: Severity, rng: np.random.Generator) -> sp.csr_matrix:
    """Remove each molecule with probability ``severity``."""
    lost = np.repeat(severity, np.diff(counts.indptr))
    thinned = counts.copy()
    thinned.data = rng.binomial(counts.data.astype(np.int64), 1.0 - lost).astype(np.float32)
    thinned.eliminate_zeros()
    return thinned


def _few_molecules(counts: sp.csr_matrix, severity: Severity, rng: np.random.Generator) -> sp.csr_matrix:
    """Draw all of a cell's counts from a few of its molecules, as after a poor reverse transcription."""
    redrawn = counts.copy()
    for row, lost in enumerate(severity):
        part = slice(counts.indptr[row], counts.indptr[row + 1])
        values = counts.data[part].astype(np.float64)
        total = int(values.sum())
        if total == 0:
            continue
        molecules = rng.multinomial(max(1, rng.binomial(total, 1.0 - lost)), values / total)
        redrawn.data[part] = rng.multinomial(total, molecules / molecules.sum())
    redrawn.eliminate_zeros()
    return redrawn


def _replace(counts: sp.csr_matrix, severity: Severity, profile: Profile, rng: np.random.Generator) -> sp.csr_matrix:
    """Replace a share of the molecules by foreign ones; the library size stays the same."""
    own = _thin(counts, severity, rng)
    lost = np.asarray(counts.sum(axis=1) - own.sum(axis=1)).ravel().astype(np.int64)
    genes = np.flatnonzero(profile)
    share = profile[genes] / profile[genes].sum()
    foreign = sp.coo_matrix(rng.multinomial(lost, share).astype(np.float32))
    widened = sp.csr_matrix((foreign.data, (foreign.row, genes[foreign.col])), shape=counts.shape)
    return sp.csr_matrix(own + widened)


def _doublet(clean: sp.csr_matrix, rows: IndexArray, rng: np.random.Generator) -> tuple[sp.csr_matrix, Severity]:
    """Add the counts of another, random cell."""
    partner = rng.integers(clean.shape[0] - 1, size=len(rows))
    partner += partner >= rows
    other = clean[partner]
    both = sp.csr_matrix(clean[rows] + other)
    total = np.asarray(both.sum(axis=1)).ravel()
    return both, np.asarray(other.sum(axis=1)).ravel() / np.maximum(total, 1.0)

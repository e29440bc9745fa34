"""A short sketch of each cell's counts, by which a cell is told from another cell of the same name.

A sketch holds one byte for each of some tens of probe genes. The genes of the data may be restricted afterwards: cells
are compared by the probe genes that are left, and by their names alone where none is left.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.storage.counts import Counts
from cradlevae.data.storage.stored_matrix import CountMatrix, row_blocks
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, BoolArray, Float32Array, IndexArray

PROBES = 64
"""Genes of a sketch."""

ENOUGH_PROBES = 16
"""So many of the probe genes are left in data that can be compared without new ones."""

SAMPLED_RUNS, SAMPLED_RUN = 16, 128
"""Probe genes are chosen in so many runs of so many neighbouring cells, from all over the data."""

DETECTED_SHARE = 0.05
"""Probe genes are detected in at least this share of the cells, where there are enough such genes."""

LARGEST_EXACT = 255
"""Whole counts below this are their own byte; other values are hashed into one."""

SketchArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class CellSketch:
    """Sketches of cells.

    Attributes
    ----------
    genes
        Names of the probe genes, (probes,).
    values
        A byte for each cell and probe gene, 0 where the gene was not detected, (cells, probes).
    layer
        Layer whose counts were sketched; ``None`` stands for ``X``.
    known
        Whether the counts of each cell were seen, (cells,); other cells are known by their names alone.
    """

    genes: tuple[str, ...]
    values: SketchArray
    layer: str | None
    known: BoolArray

    def shared(self, genes: pd.Index[str]) -> IndexArray:
        """Positions of the probe genes that are among some genes."""
        return np.flatnonzero(pd.Index(self.genes).isin(genes))

    def as_plain(self, order: IndexArray) -> dict[str, Any]:
        """What a manifest holds of the cells in this order, as JSON can hold it."""
        values = np.ascontiguousarray(self.values[order])
        return {
            "genes": list(self.genes),
            "layer": self.layer,
            "values": _packed(values.tobytes()),
            "known": _packed(np.packbits(self.known[order]).tobytes()),
            "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        }

    @classmethod
    def of_plain(cls, plain: dict[str, Any], n_cells: int) -> CellSketch:
        """Read what :meth:`as_plain` gives; :class:`ValueError` where it was changed."""
        stored = _unpacked(plain["values"])
        values = np.frombuffer(stored, dtype=np.uint8).reshape(n_cells, len(plain["genes"]))
        known = np.unpackbits(np.frombuffer(_unpacked(plain["known"]), dtype=np.uint8), count=n_cells)
        if hashlib.sha256(stored).hexdigest() != plain["sha256"]:
            raise ValueError("the sketch of its cells was changed")
        return cls(tuple(plain["genes"]), values, plain["layer"], known.astype(bool))


def same_cells(recorded: SketchArray, present: SketchArray) -> BoolArray:
    """Whether each cell of the data is the one that was recorded under its name, (cells,).

    Cells without any count of the probe genes say nothing by themselves: they are taken for the same unless most of
    the other cells differ.

    Parameters
    ----------
    recorded, present
        Sketches by the same genes, (cells, probes).
    """
    same: BoolArray = (recorded == present).all(axis=1)
    silent = ~recorded.any(axis=1) & ~present.any(axis=1)
    if (~silent).any() and same[~silent].mean() < 0.5:
        return same & ~silent
    return same


def sketch_of(adata: AnnDataLike, layer: str | None) -> CellSketch | None:
    """Sketch all cells of an AnnData by probe genes of its own; ``None`` where it holds no counts or no gene names.

    Where no layer is named and ``X`` holds no whole numbers (it is normalised), the first layer that does is sketched.
    """
    if not adata.n_obs or not adata.n_vars or not adata.var_names.is_unique:
        return None
    for name in _layers_to_try(adata, layer):
        counts = Counts(adata, name)
        try:
            matrix = counts.matrix()
            if _is_whole(matrix):
                genes = choose_probes(matrix, adata.var_names)
                values = sketch_values(counts.blocks(), adata.n_obs, adata.var_names, genes)
                return CellSketch(genes, values, name, np.ones(adata.n_obs, dtype=bool))
        except DataError:  # no numbers: whatever needs them says so
            continue
    return None


def _layers_to_try(adata: AnnDataLike, layer: str | None) -> list[str | None]:
    """Layers that may hold the counts; ``None`` stands for ``X``."""
    if layer is not None:
        return [layer]
    layers = sorted(adata.layers, key=lambda name: name != "counts")
    return [*([] if adata.X is None else [None]), *layers]


def _is_whole(counts: CountMatrix) -> bool:
    """Whether the counts of some cells are whole numbers."""
    return all((block.data == np.round(block.data)).all() for _, block in row_blocks(counts, _sampled(counts.shape[0])))


def choose_probes(counts: CountMatrix, genes: pd.Index[str]) -> tuple[str, ...]:
    """Choose probe genes: many of the most detected ones, and some of the less detected, down to 5 % of the cells.

    A restriction to variable genes, or one without mitochondrial and ribosomal genes, so leaves some of them.
    """
    detected = np.zeros(len(genes))
    rows = _sampled(counts.shape[0])
    for _, block in row_blocks(counts, rows):
        detected += np.bincount(block.indices[block.data != 0], minlength=len(genes))
    ranked = np.argsort(-detected, kind="stable")
    n_detected = int((detected >= DETECTED_SHARE * len(rows)).sum())
    candidates = ranked[: max(n_detected, min(PROBES, len(genes)))]
    spread = np.unique(np.geomspace(1, len(candidates), min(PROBES, len(candidates))).round().astype(int)) - 1
    others = np.setdiff1d(np.arange(len(candidates)), spread)[: PROBES - len(spread)]
    return tuple(str(gene) for gene in genes[candidates[np.union1d(spread, others)]])


def _sampled(n_cells: int) -> IndexArray:
    """Positions of cells in short runs from all over the data, ascending."""
    starts = np.linspace(0, max(0, n_cells - SAMPLED_RUN), SAMPLED_RUNS).astype(int)
    runs = starts[:, None] + np.arange(min(SAMPLED_RUN, n_cells))
    return np.unique(runs)


def sketch_values(
    blocks: Iterable[tuple[slice, sp.csr_matrix]], n_cells: int, genes: pd.Index[str], probes: Sequence[str]
) -> SketchArray:
    """Sketch cells whose counts come in blocks, (cells, probes); 0 for a probe gene that is not among ``genes``."""
    places = probe_places(genes, probes)
    values = np.zeros((n_cells, len(probes)), dtype=np.uint8)
    for part, block in blocks:
        values[part] = block_sketch(block, places, len(probes))
    return values


def probe_places(genes: pd.Index[str], probes: Sequence[str]) -> IndexArray:
    """Which probe gene each gene is, (genes,); negative for the others."""
    return np.asarray(pd.Index(probes).get_indexer(genes))


def block_sketch(block: sp.csr_matrix, places: IndexArray, n_probes: int) -> SketchArray:
    """Sketch the cells of a block, (cells, probes)."""
    values = np.zeros((block.shape[0], n_probes), dtype=np.uint8)
    place = places[block.indices]
    entries = np.flatnonzero(place >= 0)
    cells = np.searchsorted(block.indptr, entries, side="right") - 1
    values[cells, place[entries]] = _bytes(block.data[entries])
    return values


def _bytes(values: Float32Array) -> SketchArray:
    values = np.ascontiguousarray(values, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        hashed = ((values.view(np.uint32) * np.uint32(0x9E3779B1)) >> np.uint32(24)) % np.uint32(255) + np.uint32(1)
        exact = (values >= 0) & (values < LARGEST_EXACT) & (values == np.floor(values))
        result: SketchArray = np.where(exact, np.where(exact, values, 0).astype(np.uint8), hashed.astype(np.uint8))
    return result


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))

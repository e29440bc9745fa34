"""A short sketch of each cell's counts, by which a cell is told from another cell of the same name.

A sketch holds one byte for each of some tens of probe genes, and a print of all counts of the cell. The genes of the
data may be restricted afterwards: cells are compared by the probe genes that are left, and by their names alone where
none is left. Where all genes are there, and no others, the prints are compared as well.
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

from cradlevae.data.identity.fingerprint import gene_keys
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

PRINT_BYTES = 4
"""Bytes of the print of all counts of a cell; they follow those of the probe genes."""

AT_A_TIME = 1 << 16
"""Entries of a matrix whose part of a print is computed together, so that they stay in the processor's cache."""

SketchArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class CellSketch:
    """Sketches of cells.

    Attributes
    ----------
    genes
        Names of the probe genes, (probes,).
    values
        A byte for each cell and probe gene, 0 where the gene was not detected, and the print of all counts of the
        cell, (cells, probes + print); no print in manifests of earlier versions.
    layer
        Layer whose counts were sketched; ``None`` stands for ``X``.
    known
        Whether the counts of each cell were seen, (cells,); other cells are known by their names alone.
    gene_set
        Digest of the names of all genes whose counts are in the prints (:func:`gene_set`); ``None`` without prints.
    """

    genes: tuple[str, ...]
    values: SketchArray
    layer: str | None
    known: BoolArray
    gene_set: str | None = None

    def columns(self, genes: pd.Index[str]) -> IndexArray:
        """Columns of ``values`` that say something about cells of data with some genes."""
        shared = self.shared(genes)
        if self.gene_set is None or self.gene_set != gene_set(genes):
            return shared
        return np.concatenate([shared, len(self.genes) + np.arange(PRINT_BYTES)])

    def shared(self, genes: pd.Index[str]) -> IndexArray:
        """Positions of the probe genes that are among some genes."""
        return np.flatnonzero(pd.Index(self.genes).isin(genes))

    def as_plain(self, order: IndexArray) -> dict[str, Any]:
        """What a manifest holds of the cells in this order, as JSON can hold it."""
        values = np.ascontiguousarray(self.values[order])
        return {
            "genes": list(self.genes),
            "gene_set": self.gene_set,
            "layer": self.layer,
            "values": _packed(values.tobytes()),
            "known": _packed(np.packbits(self.known[order]).tobytes()),
            "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        }

    @classmethod
    def of_plain(cls, plain: dict[str, Any], n_cells: int) -> CellSketch:
        """Read what :meth:`as_plain` gives; :class:`ValueError` where it was changed."""
        stored = _unpacked(plain["values"])
        genes, digest = tuple(plain["genes"]), plain.get("gene_set")
        width = len(genes) + (0 if digest is None else PRINT_BYTES)
        values = np.frombuffer(stored, dtype=np.uint8).reshape(n_cells, width)
        known = np.unpackbits(np.frombuffer(_unpacked(plain["known"]), dtype=np.uint8), count=n_cells)
        if hashlib.sha256(stored).hexdigest() != plain["sha256"]:
            raise ValueError("the sketch of its cells was changed")
        return cls(genes, values, plain["layer"], known.astype(bool), digest)


def same_cells(recorded: SketchArray, present: SketchArray) -> BoolArray:
    """Whether each cell of the data is the one that was recorded under its name, (cells,).

    Cells without any count of the probe genes say nothing by themselves: they are taken for the same unless most of
    the other cells differ.

    Parameters
    ----------
    recorded, present
        Sketches by the same genes, (cells, columns).
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
                known = np.ones(adata.n_obs, dtype=bool)
                return CellSketch(genes, values, name, known, gene_set(adata.var_names))
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
    """Sketch cells whose counts come in blocks, (cells, probes + print); see :class:`Sketcher`."""
    sketcher = Sketcher(genes, probes)
    values = np.zeros((n_cells, sketcher.width), dtype=np.uint8)
    for part, block in blocks:
        values[part] = sketcher.of_block(block)
    return values


def gene_set(genes: pd.Index[str]) -> str:
    """A digest of the names of some genes, whatever their order."""
    return hashlib.blake2b("\n".join(sorted(map(str, genes))).encode(), digest_size=8).hexdigest()


class Sketcher:
    """Makes sketches of cells, block by block: 0 for a probe gene that is not among the genes.

    Parameters
    ----------
    genes
        Names of the genes, the columns of the blocks.
    probes
        Names of the probe genes.
    modelled
        Those of the genes that are looked at; ``None`` for all.
    """

    def __init__(self, genes: pd.Index[str], probes: Sequence[str], modelled: pd.Index[str] | None = None) -> None:
        self._places = np.asarray(pd.Index(probes).get_indexer(genes))
        self._keys = gene_keys(list(genes)) | np.uint64(1)
        if modelled is not None:
            ignored = ~genes.isin(modelled)
            self._places = np.where(ignored, -1, self._places)
            self._keys[ignored] = 0
        self._n_probes = len(probes)
        self.width = self._n_probes + PRINT_BYTES

    def of_block(self, block: sp.csr_matrix) -> SketchArray:
        """Sketch the cells of a block, (cells, probes + print)."""
        values = np.zeros((block.shape[0], self.width), dtype=np.uint8)
        place = self._places[block.indices]
        entries = np.flatnonzero(place >= 0)
        cells = np.searchsorted(block.indptr, entries, side="right") - 1
        values[cells, place[entries]] = _bytes(block.data[entries])
        values[:, self._n_probes :] = self._prints(block)
        return values

    def _prints(self, block: sp.csr_matrix) -> SketchArray:
        """A print of all counts of each cell, whatever their order and whether zeros are stored, (cells, print)."""
        sums = np.zeros(len(block.data) + 1, dtype=np.uint64)
        mixed = sums[1:]
        for start in range(0, len(mixed), AT_A_TIME):
            part = slice(start, start + AT_A_TIME)
            counts = np.ascontiguousarray(block.data[part], dtype=np.float32).view(np.uint32)
            keys = self._keys[block.indices[part]]
            value = counts.astype(np.uint64)
            value *= np.uint64(0x9E3779B97F4A7C15)  # all arithmetic is modulo 2^64
            value ^= keys
            value *= np.uint64(0xBF58476D1CE4E5B9)
            value ^= value >> np.uint64(31)
            value *= (counts != 0) & (keys != 0)
            mixed[part] = value
        np.cumsum(mixed, out=mixed)
        prints = sums[block.indptr[1:]] - sums[block.indptr[:-1]]
        shortened: SketchArray = (prints >> np.uint64(32)).astype("<u4").view(np.uint8).reshape(-1, PRINT_BYTES)
        return shortened


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

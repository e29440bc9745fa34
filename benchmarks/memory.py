"""Peak memory of training on a large matrix, in memory or out of core.

python benchmarks/memory.py simulate big.h5ad                  # 50,000 cells × 10,000 genes, 93 % zeros
python benchmarks/memory.py simulate big/ --files 10           # the same cells ten times over, in ten files
python benchmarks/memory.py train big.h5ad                     # an epoch in memory; prints the peak after each step
python benchmarks/memory.py train big.h5ad --backed            # the same with the counts on disk
python benchmarks/memory.py qc big.h5ad                        # quality control with the counts on disk

`simulate` draws and writes block by block, so it needs little memory whatever the size.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd

import cradlevae as cv

PARTS = 5_000
"""Cells that are simulated at a time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["simulate", "train", "qc"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--genes", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--backed", action="store_true")
    parser.add_argument("--option", action="append", default=[], help="of training, e.g. n_particles=1")
    options = parser.parse_args()
    {"simulate": simulate, "train": train, "qc": qc}[options.task](options)


def simulate(options: argparse.Namespace) -> None:
    """Write cells block by block; further files hold the same counts under other names."""
    first = options.data
    if options.files > 1:
        options.data.mkdir(parents=True)
        first = options.data / "part0.h5ad"
    write(first, options.cells, options.genes)
    for index in range(1, options.files):
        copy = options.data / f"part{index}.h5ad"
        shutil.copyfile(first, copy)
        with h5py.File(copy, "r+") as file:
            obs = ad.io.read_elem(file["obs"])
            ad.io.write_elem(file, "obs", obs.set_index(f"{index}-" + obs.index))
    print(f"peak {peak():.2f} GB")


def write(path: Path, n_cells: int, n_genes: int) -> None:
    tables = []
    with h5py.File(path, "w") as file:
        for start in range(0, n_cells, PARTS):
            part = cv.simulate(  # every part has effects of its own, which does not matter here
                n_cells=min(PARTS, n_cells - start), n_genes=n_genes, library_size=(n_genes / 5, 0.25), seed=start
            )
            part.obs["artifact"] = part.obs["true_artifact"]
            tables.append(part.obs.astype({"perturbation": str}).set_index(f"{start}-" + part.obs_names))
            if start == 0:
                del part.layers["clean"], part.uns["truth"], part.obsm
                ad.io.write_elem(file, "/", part)
                grow(file["X"])
            else:
                append(file["X"], part.X)
        ad.io.write_elem(file, "obs", pd.concat(tables).astype({"perturbation": "category"}))
        nnz, shape = len(file["X/data"]), file["X"].attrs["shape"]
    print(f"{shape[0]:,} cells × {shape[1]:,} genes, zeros: {1 - nnz / shape[0] / shape[1]:.3f}")


def grow(group: Any) -> None:
    """Make the arrays of a CSR group extensible."""
    for name in ("data", "indices", "indptr"):
        values = group[name][:]
        del group[name]
        group.create_dataset(name, data=values.astype(np.int64) if name == "indptr" else values, maxshape=(None,),
                             chunks=(65_536,))  # fmt: skip


def append(group: Any, matrix: Any) -> None:
    stored = len(group["data"])
    for name, values in (
        ("data", matrix.data), ("indices", matrix.indices), ("indptr", matrix.indptr[1:].astype(np.int64) + stored),
    ):  # fmt: skip
        before = len(group[name])
        group[name].resize(before + len(values), axis=0)
        group[name][before:] = values
    rows, columns = group.attrs["shape"]
    group.attrs["shape"] = (rows + matrix.shape[0], columns)


def train(options: argparse.Namespace) -> None:
    cells = cv.open_cells(options.data)
    print(f"{cells}: in memory the counts would take {cells.memory() / 1e9:.2f} GB; after opening {peak():.2f} GB")
    if not options.backed:
        cells.load()
        print(f"after reading: {peak():.2f} GB")
    started = time.perf_counter()
    split = cv.split(cells, "combinations")
    print(f"after splitting: {peak():.2f} GB, {time.perf_counter() - started:.0f} s")
    model = cv.CradleVAE(cells, split=split)
    print(f"after setting up: {peak():.2f} GB, {time.perf_counter() - started:.0f} s")
    started = time.perf_counter()
    given = {name: int(value) for name, value in (option.split("=") for option in options.option)}
    model.train(options.epochs, progress=False, **given)
    print(f"after {options.epochs} epochs in {time.perf_counter() - started:.0f} s: peak {peak():.2f} GB")
    print(model.history.to_string())


def qc(options: argparse.Namespace) -> None:
    cells = cv.open_cells(options.data)
    started = time.perf_counter()
    cv.annotate_qc(cells, max_fail_share=1.0)
    print(f"after quality control in {time.perf_counter() - started:.0f} s: peak {peak():.2f} GB")


def peak() -> float:
    """Largest resident memory of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()

"""Peak memory of training on a large matrix.

python benchmarks/memory.py simulate big.h5ad     # 50,000 cells × 10,000 genes, 93 % zeros
python benchmarks/memory.py train big.h5ad        # an epoch in a process of its own; prints its peak memory
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import anndata as ad

import cradlevae as cv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["simulate", "train"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--genes", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args()
    if options.task == "simulate":
        adata = cv.simulate(n_cells=options.cells, n_genes=options.genes, library_size=(2000.0, 0.25))
        adata.obs["artifact"] = adata.obs["true_artifact"]
        print(f"zeros: {1 - adata.X.nnz / (adata.n_obs * adata.n_vars):.3f}")
        del adata.layers["clean"]
        adata.write_h5ad(options.file)
        return
    adata = ad.read_h5ad(options.file)
    print(f"after reading: {peak():.2f} GB")
    model = cv.CradleVAE(adata, split=cv.split(adata, "combinations"))
    print(f"after setting up: {peak():.2f} GB")
    started = time.perf_counter()
    model.train(options.epochs, progress=False)
    print(f"after {options.epochs} epochs in {time.perf_counter() - started:.0f} s: peak {peak():.2f} GB")


def peak() -> float:
    """Largest resident memory of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()

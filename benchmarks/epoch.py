"""An epoch end to end against what its steps alone would take.

    python benchmarks/memory.py simulate big.h5ad          # 50,000 cells × 10,000 genes, 93 % zeros
    python benchmarks/epoch.py big.h5ad                    # in memory
    python benchmarks/epoch.py big.h5ad --backed           # counts read from the disk

An epoch is what the package's training does: minibatches read and made, Lightning, the average of the weights. A step
alone is noise, loss, gradient, clipping and Adam on a minibatch that lies ready. Both are timed in turn.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

import anndata as ad
import torch
from overhead import step

import cradlevae as cv
from cradlevae.model.training.fit import fit, make_minibatches, split_sizes
from cradlevae.model.training.settings import TrainConfig
from cradlevae.nn.matmul import matmul_precision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backed", action="store_true")
    parser.add_argument("--batch-size", type=int, default=TrainConfig.batch_size)
    parser.add_argument("--particles", type=int, default=TrainConfig.n_particles)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    adata = cv.open_cells(options.data) if options.backed else ad.read_h5ad(options.data)
    model = cv.CradleVAE(adata, split=cv.split(adata, "combinations"))
    config = TrainConfig(
        max_epochs=1, batch_size=options.batch_size, n_particles=options.particles, patience=0, progress=False
    )
    rounds = []
    for _ in range(options.rounds):
        seconds, n_steps = steps(model, config)
        rounds.append((epoch(model, config), n_steps * seconds))
        print(f"epoch {rounds[-1][0]:.1f} s, its {n_steps} steps {rounds[-1][1]:.1f} s", flush=True)
    ratio = median(whole / alone for whole, alone in rounds)
    print(f"an epoch takes {ratio:.3f} × its steps (median of {options.rounds} rounds)")
    if options.output:
        record = {"cells": adata.n_obs, "genes": adata.n_vars, "backed": options.backed, "ratio": ratio,
                 "batch_size": options.batch_size, "particles": options.particles, "rounds_s": rounds}  # fmt: skip
        options.output.write_text(json.dumps(record, indent=1) + "\n")


def epoch(model: cv.CradleVAE, config: TrainConfig) -> float:
    """Wall seconds of an epoch of training, without validation."""
    assert model.data is not None
    rows = model.split.rows(model.data.cells, "train")
    with tempfile.TemporaryDirectory() as folder:
        history = fit(model.trained.module, model.data, {"train": rows, "val": rows[:0]}, config, output=Path(folder))
    return float(history["seconds"].iloc[-1])


def steps(model: cv.CradleVAE, config: TrainConfig, n: int = 40) -> tuple[float, int]:
    """Wall seconds of a step alone, and how many steps an epoch has."""
    assert model.data is not None
    module, data = model.trained.module, model.data
    rows = model.split.rows(data.cells, "train")
    minibatches = make_minibatches(data, {"train": rows}, module, config)["train"]
    ready = list(islice(minibatches.loader(), n))
    sizes = split_sizes(data, rows, module.config)
    module.train()
    adam = torch.optim.Adam(module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    times = []
    with matmul_precision(config.precision):
        for minibatch in ready:
            started = time.perf_counter()
            step(module, minibatch, sizes, config, adam)
            times.append(time.perf_counter() - started)
    adam.zero_grad()
    times = times[min(5, len(times) // 2) :]  # without the first, which are slower
    return sum(times) / len(times), len(minibatches)


if __name__ == "__main__":
    main()

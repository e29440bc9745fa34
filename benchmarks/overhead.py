"""Time that a training step spends outside the model: ``OMP_NUM_THREADS=1 python benchmarks/overhead.py``.

Trains a tiny model, whose own steps take next to nothing, in two ways that do the same work: through Lightning, as the
package does, and in a bare loop over the same minibatches, losses, gradients and Adam steps. The difference per step is
what Lightning, the record of the epoch and the averaging of the weights cost; it is the same at any model size, but
for the averaging, which is a pass over the weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from unittest.mock import patch

import torch

import cradlevae as cv
from cradlevae.data.loading.minibatch import Minibatch
from cradlevae.model.module import CradleModule
from cradlevae.model.objective import draw_noise, loss_terms
from cradlevae.model.objective_inputs import SplitSizes
from cradlevae.model.training import callbacks
from cradlevae.model.training.fit import fit, make_minibatches, split_sizes
from cradlevae.model.training.settings import TrainConfig
from cradlevae.nn.matmul import matmul_precision

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs")
    parser.add_argument("--cells", type=int, default=4_000)
    parser.add_argument("--genes", type=int, default=100)
    parser.add_argument("--averaging", type=float, default=TrainConfig.averaging, help="0 leaves it out")
    options = parser.parse_args()
    config = TrainConfig(
        max_epochs=1, batch_size=BATCH, averaging=options.averaging, patience=0, accelerator="cpu", progress=False
    )
    _lightning(config, _model(options))  # imports
    pairs = []
    for _ in range(options.repeats):
        pairs.append((_lightning(config, _model(options)), _bare(config, _model(options))))
        print("CPU time of a step: Lightning {:.3f} ms, bare loop {:.3f} ms".format(*pairs[-1]), flush=True)
    overhead = median(one - two for one, two in pairs)
    print(f"overhead: {overhead:.3f} ms a step (median of {options.repeats} pairs)")


def _model(options: argparse.Namespace) -> cv.CradleVAE:
    cells, genes = options.cells, options.genes
    adata = cv.simulate(n_cells=cells, n_genes=genes, n_perturbations=5, n_combinations=0, n_latent=6, seed=0)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    return cv.CradleVAE(adata, n_latent=8, width=32, basal_width=32)


def _lightning(config: TrainConfig, model: cv.CradleVAE) -> float:
    """Milliseconds a step of the package's training, setting up and validation left out."""
    rows = model.trained.split.rows(model.data.cells, "train")
    clock = SimpleNamespace(perf_counter=time.process_time)  # the history's clock, in CPU time
    with tempfile.TemporaryDirectory() as folder, patch.object(callbacks, "time", clock):
        history = fit(model.trained.module, model.data, {"train": rows, "val": rows[:0]}, config, output=Path(folder))
    return 1e3 * history["seconds"].iloc[-1] / -(-len(rows) // BATCH)


def _bare(config: TrainConfig, model: cv.CradleVAE) -> float:
    """Milliseconds a step of a loop that does the same and nothing else."""
    module, data = model.trained.module, model.data
    rows = model.trained.split.rows(data.cells, "train")
    minibatches = make_minibatches(data, {"train": rows}, module, config)["train"]
    sizes = split_sizes(data, rows, module.config)
    module.train()
    adam = torch.optim.Adam(module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    started = time.process_time()
    with matmul_precision(config.precision):
        for minibatch in minibatches.loader():
            step(module, minibatch, sizes, config, adam)
    return 1e3 * (time.process_time() - started) / len(minibatches)


def step(
    module: CradleModule, minibatch: Minibatch, sizes: SplitSizes, config: TrainConfig, adam: torch.optim.Optimizer
) -> None:
    """A step of training and nothing else: noise, loss, gradient, clipping and Adam."""
    adam.zero_grad()
    terms = loss_terms(module, minibatch, sizes, draw_noise(module, minibatch.n_cells, config.n_particles))
    torch.stack(list(terms.values())).sum().backward()
    torch.nn.utils.clip_grad_norm_(module.parameters(), config.gradient_clip)
    adam.step()


if __name__ == "__main__":
    main()

"""What batches cost a training step: ``OMP_NUM_THREADS=1 python benchmarks/batch_step.py --batches 50``.

CPU time of a step (draw, loss, gradients, Adam) of the default model on the same simulated cells, with ``batch_key``
and without, in alternation; medians of steps, and the median of the ratios of pairs.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from statistics import median
from typing import Any

import torch

import cradlevae as cv
from cradlevae.model.objective import draw_noise, loss_terms
from cradlevae.model.training.fit import make_minibatches, split_sizes
from cradlevae.model.training.settings import TrainConfig
from cradlevae.nn.matmul import matmul_precision

WARM_UP = 3
"""Steps of each arm that are not counted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=50)
    parser.add_argument("--cells", type=int, default=4_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--perturbations", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of steps")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    adata = cv.simulate(
        n_cells=options.cells, n_genes=options.genes, n_perturbations=options.perturbations, n_combinations=0,
        n_batches=options.batches, library_size=(2_000.0, 0.3), seed=0,
    )  # fmt: skip
    adata.obs["artifact"] = adata.obs["true_artifact"]
    split = cv.split(adata)
    arms = {key: steps(cv.CradleVAE(adata, split=split, batch_key=key)) for key in (None, "batch")}
    times: dict[Any, list[float]] = {key: [] for key in arms}
    with matmul_precision("float32"):
        for place in range(WARM_UP + options.pairs):
            for key in list(arms) if place % 2 else list(reversed(arms)):
                started = time.process_time()
                next(arms[key])
                times[key].append(1e3 * (time.process_time() - started))
    without, within = times[None][WARM_UP:], times["batch"][WARM_UP:]
    ratio = median(two / one for one, two in zip(without, within, strict=True))
    print(
        f"CPU time of a step: without batches {median(without):.1f} ms, with {options.batches} "
        f"{median(within):.1f} ms; median ratio of {options.pairs} pairs {ratio:.3f}"
    )


def steps(model: cv.CradleVAE) -> Any:
    """An endless generator of training steps."""
    module, data = model.trained.module.train(), model.data
    assert data is not None
    rows = model.trained.split.rows(data, "train")
    config = TrainConfig(max_epochs=1, progress=False, accelerator="cpu").of_cells(len(rows))
    minibatches = make_minibatches(data, {"train": rows}, module, config)["train"]
    sizes = split_sizes(data, rows, module.config)
    adam = torch.optim.Adam(module.parameters(), lr=config.learning_rate, fused=True)
    few = list(itertools.islice(minibatches.minibatches(), 8))
    for minibatch in itertools.cycle(few[:-1] or few):
        adam.zero_grad()
        noise = draw_noise(module, minibatch.n_cells, config.n_particles)
        sum(loss_terms(module, minibatch, sizes, noise).values()).backward()
        adam.step()
        yield


if __name__ == "__main__":
    main()

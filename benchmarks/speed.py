"""A training step of the package against the direct formulation (direct.py), in alternating runs.

    python benchmarks/speed.py run                     # all rows → benchmarks/results.json, docs/figures/speed.png
    python benchmarks/speed.py run --genes 300 2000 --particles 5 --pairs 3
    python benchmarks/speed.py profile --genes 20000   # where the package's step spends its time

Each formulation lives in a process of its own. Steps alternate, and what is reported is the median over pairs of the
ratio of their CPU times and of their wall times, so that a machine whose speed drifts does not matter; the resident
memory is each process's peak. Before timing, loss and gradients of both are compared on the same random numbers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from cradlevae.data.batches import References, make_batch
from cradlevae.data.contract import Experiment
from cradlevae.model.config import ModelConfig
from cradlevae.model.module import CradleModule
from cradlevae.model.objective import draw_noise, loss_terms
from cradlevae.model.training import split_sizes
from cradlevae.nn.matmul import matmul_precision

HERE = Path(__file__).parent
MODELS: dict[str, dict[str, Any]] = {
    "published": {"linear_path": False, "cell_artifact": False, "weight_scale": 0.0},
    "default": {},
}
"""The architecture of the paper (what the thresholds are about), and the package's default."""


# -- the problem -----------------------------------------------------------------------------------------------


def experiment(n_genes: int, n_cells: int = 2048, n_perturbations: int = 100, seed: int = 0) -> Experiment:
    """Cells of 100 perturbations, a quarter of them failed; about 93 % zeros."""
    rng = np.random.default_rng(seed)
    share = rng.lognormal(0, 1.5, n_genes)
    share /= share.sum()
    size = rng.lognormal(np.log(0.16 * n_genes), 0.3, n_cells)
    counts = sp.vstack([sp.csr_matrix(rng.poisson(part[:, None] * share)) for part in np.array_split(size, 8)])
    counts = sp.csr_matrix(counts, dtype=np.float32)
    condition = rng.integers(0, n_perturbations + 1, n_cells)
    names = tuple(f"P{i}" for i in range(n_perturbations))
    return Experiment(
        cells=pd.Index([f"cell{i}" for i in range(n_cells)]),
        genes=pd.Index([f"gene{i}" for i in range(n_genes)]),
        counts=counts,
        condition=condition,
        conditions=("control", *names),
        perturbations=names,
        artifact=(rng.random((n_cells, 1)) < 0.25).astype(np.float32),
        criteria=("artifact",),
    )


def new_module(data: Experiment, model: str) -> CradleModule:
    torch.manual_seed(0)
    config = ModelConfig(n_latent=200, basal_width=400, mask_prior=0.01, counterfactual_weight=0.5, **MODELS[model])
    return CradleModule(config, data.n_genes, len(data.perturbations), 1)


# -- one formulation in its process ------------------------------------------------------------------------------


class Stepper:
    """Training steps of one formulation, on the package's data structures or on dense ones."""

    def __init__(self, formulation: str, options: argparse.Namespace) -> None:
        self.options = options
        self.direct = formulation == "direct"
        data = experiment(options.genes)
        self.module = new_module(data, options.model)
        rows = np.arange(data.n_cells)
        self.sizes = split_sizes(data, rows, self.module.config)
        self.references = References(data, rows)
        self.generator = np.random.default_rng(1)
        self.data = data
        if self.direct:
            from direct import DenseData, DirectModel

            self.dense = DenseData(data, self.references)
            self.model = DirectModel(self.module)
            self.optimiser = torch.optim.Adam(self.model.parameters(), lr=3e-4, weight_decay=1e-6)
        else:
            self.optimiser = torch.optim.Adam(self.module.parameters(), lr=3e-4, weight_decay=1e-6, fused=True)

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        noise = draw_noise(self.module, len(rows), self.options.n_particles)
        if self.direct:
            terms = self.model.terms(self.dense.batch(rows), self.sizes, noise)
        else:
            terms = loss_terms(self.module, make_batch(self.data, rows, self.references), self.sizes, noise)
        return torch.stack(list(terms.values())).sum()

    def step(self) -> None:
        loss = self.loss(self.generator.integers(0, self.data.n_cells, self.options.batch))
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.optimiser.param_groups[0]["params"], 100.0)
        self.optimiser.step()

    def reference(self, path: Path) -> None:
        """Loss and gradients of the first batch, to be compared."""
        torch.manual_seed(2)
        loss = self.loss(np.arange(self.options.batch))
        loss.backward()
        from direct import package_gradients

        gradients = self.model.gradients() if self.direct else package_gradients(self.module)
        torch.save({"loss": loss.detach(), "gradients": gradients}, path)


def work(options: argparse.Namespace) -> None:
    """Obey the driver: a line of input is a number of steps or a file to write loss and gradients to."""
    torch.set_num_threads(options.threads)
    if options.formulation == "package":
        stack = ExitStack()
        stack.enter_context(matmul_precision(options.precision))
    stepper = Stepper(options.formulation, options)
    for line in sys.stdin:
        command = line.strip()
        if command.isdigit():
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(int(command)):
                stepper.step()
            n = int(command)
            report = {"cpu": (time.process_time() - cpu) / n, "wall": (time.perf_counter() - wall) / n}
        else:
            stepper.reference(Path(command))
            report = {}
        report["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps(report), flush=True)


class Worker:
    """A process that runs one formulation."""

    def __init__(self, formulation: str, genes: int, particles: int, options: argparse.Namespace, **extra: Any) -> None:
        settings = {"formulation": formulation, "genes": genes, "particles": particles, "threads": options.threads,
                    "batch": options.batch, "model": options.model, **extra}  # fmt: skip
        arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        self.process = subprocess.Popen(
            [sys.executable, __file__, "work", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, command: int | Path) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        self.process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["work"])
    parser.add_argument("--formulation")
    parser.add_argument("--genes", type=int)
    parser.add_argument("--particles", dest="n_particles", type=int)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--model", default="published")
    options = parser.parse_args()
    work(options)


if __name__ == "__main__":
    main()

"""An epoch of the package's default model against an epoch of scVI, in alternating runs.

    pip install 'cradlevae[peers]'
    python benchmarks/peers.py run                     # → benchmarks/peers.json
    python benchmarks/peers.py run --capability avx2   # as a machine without AVX-512 → benchmarks/peers.avx2.json

Both train on the same cells, on the CPU, by their own training loops, with the same hidden width, number of latents and
batch size; scVI has its default of one hidden layer and a negative binomial likelihood. Timed is the epoch alone: not
the construction, and not what follows the last epoch; there is no validation. Each lives in a process of its own, and
the first epoch of a process does not count. What is reported is the median over rounds of the ratio of their CPU times
and of their wall times, scVI's by the package's: above 1 the package is the faster one. The package's model is there
twice: as users have it, with counterfactual pairs (``damaged``), and with mean profiles for references (``mean``).

Without scvi-tools the script says so and measures the package alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import anndata as ad
import numpy as np
import torch
from processes import CAPABILITIES, Worker, is_installed, serve
from screen import CELLS, simulate

RESULTS = Path(__file__).parent / "peers.json"
PEER = "scvi"
REFERENCES = "damaged", "mean"


class Epochs:
    """Epochs of one formulation, on the training cells of the package's split."""

    def __init__(self, options: argparse.Namespace) -> None:
        warnings.simplefilter("ignore")  # of few cells, of workers of loaders, ...
        adata = ad.read_h5ad(options.data)
        import cradlevae as cv

        self.options = options
        self.split = cv.split(adata, "cells")
        if options.formulation == PEER:
            self._epoch = self._of_peer(adata[self._whole_batches(adata.obs_names)].copy())
        else:
            self._epoch = self._of_package(adata)

    def epoch(self) -> dict[str, float]:
        """CPU and wall seconds of an epoch."""
        clock = Marks()
        self._epoch(clock)
        return clock.between()

    def _whole_batches(self, cells: Any) -> np.ndarray:
        """Rows of the training cells, without those that would be left for a smaller last minibatch."""
        rows = self.split.rows(cells, "train")
        return rows[: len(rows) // self.options.batch * self.options.batch] if len(rows) > self.options.batch else rows

    def _of_package(self, adata: ad.AnnData) -> Any:
        import cradlevae as cv
        from cradlevae.model.training import callbacks
        from cradlevae.model.training.fit import fit
        from cradlevae.model.training.settings import TrainConfig

        options = self.options
        model = cv.CradleVAE(
            adata, split=self.split, reference=options.formulation, n_latent=options.latent, width=options.width,
            basal_width=options.width,
        )  # fmt: skip
        rows = self._whole_batches(model.data.cells)
        config = TrainConfig(max_epochs=1, batch_size=options.batch, patience=0, accelerator="cpu", progress=False)

        def epoch(clock: Marks) -> None:  # what model.train does, without what follows the last epoch
            parts = {"train": rows, "val": rows[:0]}
            history_clock = SimpleNamespace(perf_counter=clock.mark)  # asked as an epoch begins and as it ends
            with tempfile.TemporaryDirectory() as folder, patch.object(callbacks, "time", history_clock):
                fit(model.trained.module, model.data, parts, config, output=Path(folder))

        return epoch

    def _of_peer(self, adata: ad.AnnData) -> Any:
        import scvi
        from lightning.pytorch.callbacks import Callback

        options = self.options
        scvi.settings.seed = 0
        scvi.settings.verbosity = 40
        scvi.model.SCVI.setup_anndata(adata)
        model = scvi.model.SCVI(
            adata, n_hidden=options.width, n_latent=options.latent, n_layers=1, gene_likelihood="nb"
        )

        def epoch(clock: Marks) -> None:
            class Clock(Callback):
                def on_train_epoch_start(self, *_: Any) -> None:
                    clock.mark()

                def on_train_epoch_end(self, *_: Any) -> None:
                    clock.mark()

            model.train(
                max_epochs=1, accelerator="cpu", train_size=1.0, batch_size=options.batch, enable_progress_bar=False,
                callbacks=[Clock()],
            )  # fmt: skip

        return epoch


class Marks:
    """Moments, in CPU and in wall time."""

    def __init__(self) -> None:
        self.moments: list[tuple[float, float]] = []

    def mark(self) -> float:
        """Remember this moment; its wall time."""
        self.moments.append((time.process_time(), time.perf_counter()))
        return self.moments[-1][1]

    def between(self) -> dict[str, float]:
        """Seconds from the first mark to the last."""
        (cpu, wall), (cpu_after, wall_after) = self.moments[0], self.moments[-1]
        return {"cpu": cpu_after - cpu, "wall": wall_after - wall}


def work(options: argparse.Namespace) -> None:
    """Obey the driver, with one formulation."""
    torch.set_num_threads(options.threads)
    serve(None if options.formulation == "none" else Epochs(options))


@contextmanager
def written(genes: int, density: float, options: argparse.Namespace) -> Iterator[Path]:
    """A data set in a temporary file: 1 cell in 10 failed, as far as its label says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        simulate(argparse.Namespace(
            data=path, fraction=options.cells / CELLS, perturbations=options.perturbations, genes=genes, lanes=1,
            density=density, seed=0,
        ))  # fmt: skip
        adata = ad.read_h5ad(path)
        adata.obs["artifact"] = np.random.default_rng(1).random(adata.n_obs) < 0.1
        adata.write_h5ad(path)
        yield path


def measure(genes: int, density: float, formulations: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """The row of one data set."""
    settings = {name: getattr(options, name) for name in ("batch", "width", "latent", "threads", "capability")}
    with written(genes, density, options) as path:
        positive = _density(path)
        workers = {name: Worker(__file__, formulation=name, data=path, **settings) for name in formulations}
        for worker in workers.values():
            worker.ask("epoch")
        rounds = [{name: worker.ask("epoch") for name, worker in workers.items()} for _ in range(options.rounds)]
        for worker in workers.values():
            worker.close()
    row: dict[str, Any] = {"genes": genes, "density": positive, "cells": options.cells, "rounds": options.rounds,
                           "batch": options.batch, "width": options.width, "latent": options.latent}  # fmt: skip
    for name in formulations:
        for kind in ("cpu", "wall"):
            row[f"{name}_{kind}_s"] = float(np.median([one[name][kind] for one in rounds]))
            if PEER in formulations and name != PEER:
                row[f"{name}_{kind}_ratio"] = float(np.median([one[PEER][kind] / one[name][kind] for one in rounds]))
        row[f"{name}_rss_gb"] = rounds[-1][name]["rss"]
    row["pairs_cpu_ratio"] = float(np.median([one["damaged"]["cpu"] / one["mean"]["cpu"] for one in rounds]))
    return row


def _density(path: Path) -> float:
    adata = ad.read_h5ad(path)
    return adata.X.nnz / adata.n_obs / adata.n_vars


def run(options: argparse.Namespace) -> None:
    """Measure all rows."""
    formulations = [*REFERENCES, PEER]
    if not is_installed("scvi-tools"):
        formulations.remove(PEER)
        print("scvi-tools is not installed, so scVI is left out: pip install 'cradlevae[peers]'", flush=True)
    output = options.output or RESULTS.with_suffix(".json" if options.capability == "native" else ".avx2.json")
    worker = Worker(__file__, options.capability, formulation="none", threads=options.threads)
    where = worker.ask("machine")
    worker.close()
    rows = []
    for genes, density in zip(options.genes, options.density, strict=True):
        rows.append(measure(genes, density, formulations, options))
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                        for key, value in rows[-1].items()), flush=True)  # fmt: skip
        output.write_text(json.dumps({"machine": where, "rows": rows}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    driver, worker = tasks.add_parser("run"), tasks.add_parser("work")
    driver.add_argument("--genes", type=int, nargs="+", default=[299, 2141, 8563])
    driver.add_argument("--density", type=float, nargs="+", default=[0.25, 0.33, 0.33], help="of positive values")
    driver.add_argument("--cells", type=int, default=8_000, help="64 %% of them train")
    driver.add_argument("--perturbations", type=int, default=100)
    driver.add_argument("--rounds", type=int, default=5)
    driver.add_argument("--capability", choices=list(CAPABILITIES), default="native")
    driver.add_argument("--output", type=Path, help="JSON of the results")
    worker.add_argument("--formulation")
    worker.add_argument("--data", type=Path)
    for task in (driver, worker):
        task.add_argument("--batch", type=int, default=256)
        task.add_argument("--width", type=int, default=400, help="hidden width of all networks")
        task.add_argument("--latent", type=int, default=100, help="latent dimensions")
        task.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    {"run": run, "work": work}[options.task](options)


if __name__ == "__main__":
    main()

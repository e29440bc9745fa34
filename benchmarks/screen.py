"""The paper's largest data set, simulated at any fraction, through the whole path: time and memory by stage.

    python benchmarks/screen.py simulate screen.h5ad --fraction 0.2    # 62,077 cells × 8,563 genes, 2,057 perturbations
    python benchmarks/screen.py run screen.h5ad                        # QC, split, one epoch, effects of all, ...
    python benchmarks/screen.py run screen.h5ad --stages train effects  # some of the stages, and what they need

The data are like those of Replogle et al. (Cell 2022), K562, essential genes: 310,385 cells × 8,563 genes, 2,057
perturbations and 3.4 % controls, 48 lanes whose mean log2 expression differs by 0.28, a third of the values positive.
A tenth of the cells has lost most of its counts, or is full of mitochondrial ones.

CPU time is that of all threads; the peak is of resident memory within the stage, where the system tells (Linux), with
the counts (8 bytes a positive value) and everything that earlier stages left.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from memory import append, grow
from processes import machine

import cradlevae as cv

CELLS, GENES, PERTURBATIONS, LANES = 310_385, 8_563, 2_057, 48
CONTROLS = 0.034
LANE_SD = 0.28  # log2
GENE_SD = 1.2  # of the log share of genes
OVERDISPERSION = 0.2
RESPONSE_RANK, RESPONSE_SD, OWN_SHARE = 10, 0.25, 0.01
FAILED = 0.1
PARTS = 2_000
STAGES = "read", "qc", "split", "construct", "train", "effects", "save", "load", "evaluate", "report"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    drawn = tasks.add_parser("simulate", help="write such a data set")
    drawn.add_argument("data", type=Path)
    drawn.add_argument("--fraction", type=float, default=0.2, help="of the cells")
    drawn.add_argument("--perturbations", type=int, default=PERTURBATIONS)
    drawn.add_argument("--genes", type=int, default=GENES)
    drawn.add_argument("--lanes", type=int, default=LANES)
    drawn.add_argument("--density", type=float, default=1 / 3, help="share of positive values")
    drawn.add_argument("--seed", type=int, default=0)
    ran = tasks.add_parser("run", help="run the stages on a data set")
    ran.add_argument("data", type=Path)
    ran.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    ran.add_argument("--epochs", type=int, default=1)
    ran.add_argument("--batches", action="store_true", help="model lanes, too (batch_key)")
    ran.add_argument("--conditions", type=int, default=0, help="effects of so many conditions; 0 is all")
    ran.add_argument("--output", type=Path, default=Path("screen"), help="folder of the model, report and results.json")
    ran.add_argument("--no-denoiser", action="store_true", help="evaluate without that floor")
    ran.add_argument("--option", action="append", default=[], help="of the model, e.g. width=64")
    options = parser.parse_args()
    {"simulate": simulate, "run": run}[options.task](options)


# -- the data ----------------------------------------------------------------------------------------------------


def simulate(options: argparse.Namespace) -> None:
    """Draw and write block by block: little memory, whatever the size."""
    rng = np.random.default_rng(options.seed)
    n_cells, n_genes, n_perturbations = round(options.fraction * CELLS), options.genes, options.perturbations
    log_share = rng.normal(0, GENE_SD, n_genes).astype(np.float32)
    loadings = rng.normal(0, RESPONSE_SD / RESPONSE_RANK**0.5, (RESPONSE_RANK, n_genes)).astype(np.float32)
    scores = rng.normal(0, 1, (n_perturbations + 1, RESPONSE_RANK)) * rng.gamma(0.5, 2, (n_perturbations + 1, 1))
    scores[0] = 0
    lane_shift = (np.log(2) * LANE_SD * rng.normal(size=(options.lanes, n_genes))).astype(np.float32)
    condition = np.where(rng.random(n_cells) < CONTROLS, 0, rng.integers(1, n_perturbations + 1, n_cells))
    condition[: n_perturbations + 1] = np.arange(n_perturbations + 1)[:n_cells]  # each at least once
    lane = rng.integers(0, options.lanes, n_cells)
    size = counts_for(options.density, log_share) * rng.lognormal(0, 0.35, n_cells)
    size[rng.random(n_cells) < FAILED / 2] *= 0.15
    dying = rng.random(n_cells) < FAILED / 2
    genes = [f"MT-{gene}" if gene < 13 else f"G{gene}" for gene in range(n_genes)]
    names = np.array(["control", *(f"P{i:04d}" for i in range(1, n_perturbations + 1))])

    def block(cells: slice) -> sp.csr_matrix:
        chosen = condition[cells]
        log_rate = log_share + scores[chosen].astype(np.float32) @ loadings + lane_shift[lane[cells]]
        for row, one in enumerate(chosen):
            if one:  # genes of its own
                own = np.random.default_rng((options.seed, int(one)))
                moved = own.random(n_genes) < OWN_SHARE
                log_rate[row, moved] += own.normal(0, 0.7, int(moved.sum())).astype(np.float32)
        log_rate[dying[cells], :13] += 3.5
        share = np.exp(log_rate)
        share /= share.sum(axis=1, keepdims=True)
        noise = rng.standard_gamma(1 / OVERDISPERSION, share.shape, dtype=np.float32)
        counts = rng.poisson(share * size[cells, None] * noise * OVERDISPERSION)
        return sp.csr_matrix(counts.astype(np.float32))

    def cells_of(start: int) -> ad.AnnData:
        part = slice(start, min(start + PARTS, n_cells))
        obs = pd.DataFrame(
            {"perturbation": names[condition[part]], "lane": [f"lane{i + 1}" for i in lane[part]]},
            index=[f"cell{i}" for i in range(part.start, part.stop)],
        )
        return ad.AnnData(block(part), obs, pd.DataFrame(index=genes))

    tables = []
    with h5py.File(options.data, "w") as file:
        for start in range(0, n_cells, PARTS):
            part = cells_of(start)
            tables.append(part.obs.copy())
            if start == 0:
                ad.io.write_elem(file, "/", part)
                grow(file["X"])
            else:
                append(file["X"], part.X)
            if sys.stderr.isatty():
                print(f"\r{start + part.n_obs:,} of {n_cells:,} cells", end="", file=sys.stderr)
        ad.io.write_elem(file, "obs", pd.concat(tables).astype("category"))
        positive = len(file["X/data"]) / n_cells / n_genes
    print(f"{n_cells:,} cells × {n_genes:,} genes, {n_perturbations:,} perturbations, {positive:.3f} positive")


def counts_for(density: float, log_share: np.ndarray) -> float:
    """Median counts of a cell with which this share of the values is positive."""
    share = np.exp(log_share) / np.exp(log_share).sum()
    low, high = 1.0, 1e7
    for _ in range(60):
        middle = (low * high) ** 0.5
        positive = (1 - (1 + OVERDISPERSION * middle * share) ** (-1 / OVERDISPERSION)).mean()
        low, high = (middle, high) if positive < density else (low, middle)
    return low


# -- the path ----------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    clock = Clock()
    options.output.mkdir(parents=True, exist_ok=True)
    given = {name: json.loads(value) for name, value in (option.split("=", 1) for option in options.option)}
    if options.batches:
        given["batch_key"] = "lane"
    stages = set(options.stages)
    with clock("read"):
        adata = ad.read_h5ad(options.data)
    with clock("qc"):
        cv.annotate_qc(adata)
    with clock("split"):
        split = cv.split(adata, "cells")
    with clock("construct"):
        model = cv.CradleVAE(adata, split=split, **given)
    if stages & {"train", "effects", "evaluate", "report", "save", "load"}:
        with clock("train"), clock.after_epochs():
            model.train(options.epochs, progress=False, accelerator="cpu")
    names = sorted({str(name) for name in adata.obs["perturbation"]} - {"control"})
    if options.conditions:
        names = names[: options.conditions]
    if "effects" in stages:
        with clock("effects", conditions=len(names)):
            model.effects(names)
    if "save" in stages or "load" in stages:
        with clock("save"):
            model.save(options.output / "model", overwrite=True)
    if "load" in stages:
        with clock("load"):
            cv.load(options.output / "model")
    if stages & {"evaluate", "report"}:
        with clock("evaluate"):
            scores = cv.evaluate(model, adata, denoiser=not options.no_denoiser)
        print(scores)
    if "report" in stages:
        from cradlevae.reporting.report import write_report

        with clock("report"):
            write_report(model.trained, adata, scores, options.output, reference="held-out")
    record = {
        "machine": machine(), "data": options.data.name, "cells": adata.n_obs, "genes": adata.n_vars,
        "perturbations": int(adata.obs["perturbation"].nunique()) - 1, "options": given, "epochs": options.epochs,
        "stages": clock.stages,
    }  # fmt: skip
    (options.output / "results.json").write_text(json.dumps(record, indent=1))
    print(pd.DataFrame(clock.stages).to_string(index=False))


class Clock:
    """Seconds and peak memory of named stages."""

    def __init__(self) -> None:
        self.stages: list[dict[str, Any]] = []

    @contextmanager
    def __call__(self, name: str, **of_stage: Any) -> Iterator[None]:
        reset_peak()
        wall, cpu = time.perf_counter(), cpu_seconds()
        yield
        self._add(name, wall, cpu, of_stage)

    @contextmanager
    def after_epochs(self) -> Iterator[None]:
        """The part of training that comes after its last epoch, as a stage of its own."""
        from unittest.mock import patch

        from cradlevae.api import perturbation_vae

        fit, left = perturbation_vae.fit, ExitStack()

        def timed(*arguments: Any, **keywords: Any) -> pd.DataFrame:
            history = fit(*arguments, **keywords)
            left.enter_context(self("after the last epoch"))
            return history

        with patch.object(perturbation_vae, "fit", timed), left:
            yield

    def _add(self, name: str, wall: float, cpu: float, of_stage: dict[str, Any]) -> None:
        seconds = {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(cpu_seconds() - cpu, 1)}
        self.stages.append({"stage": name, **seconds, "peak_GB": round(peak_memory(), 2), **of_stage})
        print(self.stages[-1], flush=True)


def cpu_seconds() -> float:
    """CPU seconds of this process and those that it has started."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def reset_peak() -> None:
    """Forget the largest resident memory so far, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Largest resident memory since :func:`reset_peak`, GB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e6
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()

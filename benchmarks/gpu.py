"""Everything that is to be known of the package on a card, in one command of at most 8 minutes.

    python benchmarks/gpu.py                           # the tests of it, steps, an epoch → benchmarks/gpu.json
    python benchmarks/gpu.py --parts steps --genes 20000 --output steps.json

- ``tests``: the tests marked ``gpu``.
- ``card``: how fast it copies memory and multiplies large matrices, which is what a step is held against.
- ``steps``: a training step of the package's default model (mean profiles for references) and of the direct formulation
  (direct.py), whose loss and gradients are compared first; how near it is to what its matrix products alone would take
  at the card's rate, and to what the memory that it has to move would take (:func:`least_bytes`); and peak memory.
- ``epoch``: an epoch of the default model with all cells on the device: 100,000 cells × 8,563 genes, a third of the
  values positive (5,000 cells that are drawn, and the same ones again under other names); and how long the host takes
  to make the counterfactual pairs of a minibatch, which it does while the card is at work: a step cannot be faster.

Each part is a process of its own with a time limit. One that fails or takes too long is recorded with its last words;
the others run all the same, and the status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
import torch
from processes import machine
from screen import CELLS, simulate
from steps import Stepper, matmul_rate

import cradlevae as cv
from cradlevae.model.training.fit import fit, make_pairs
from cradlevae.model.training.settings import TrainConfig
from cradlevae.nn.matmul import Precision, matmul_precision

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "gpu.json"
LIMITS = {"tests": 120.0, "card": 40.0, "steps": 180.0, "epoch": 300.0}
"""Seconds that each part may take; all together are held to ``--limit``."""

GRACE = 5.0
"""Seconds that are kept for the end."""


def run(options: argparse.Namespace) -> None:
    """Run the parts, each in its process, and write what they found after each of them."""
    until = time.monotonic() + options.limit - GRACE
    record: dict[str, Any] = {"machine": machine(), "card": described(options.device), "parts": {}}
    parts = [part for part in options.parts if part != "tests" or not options.skip_tests]
    for part in parts:
        record["parts"][part] = answer = in_process(part, min(LIMITS[part], until - time.monotonic()), options)
        options.output.write_text(json.dumps(record, indent=1) + "\n")
        print(part, json.dumps(answer, indent=1), flush=True)
    if not all(answer["ok"] for answer in record["parts"].values()):
        sys.exit(1)


def in_process(part: str, limit: float, options: argparse.Namespace) -> dict[str, Any]:
    """What a part found, ``ok`` and the seconds that it took; with its last words where it failed."""
    if limit <= 0:
        return {"ok": False, "seconds": 0.0, "error": "no time was left"}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        words, found = Path(folder) / "words", Path(folder) / "found.json"
        command = [sys.executable, __file__, "--part", part, "--output", str(found), "--device", options.device]
        for name in (
            "genes",
            "particles",
            "batch",
            "cells",
            "perturbations",
            "epoch_cells",
            "epoch_genes",
            "drawn_cells",
        ):
            value = getattr(options, name)
            command += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
        with words.open("w") as said:
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                failure = "" if process.wait(limit) == 0 else f"ended with status {process.returncode}"
            except subprocess.TimeoutExpired:
                failure = f"took more than {limit:.0f} s"
            finally:
                end(process)
        answer = json.loads(found.read_text()) if found.exists() else {}
        seconds = round(time.monotonic() - started, 1)
        if failure:
            return {"ok": False, "seconds": seconds, "error": failure, "words": words.read_text()[-2000:], **answer}
        return {"ok": True, "seconds": seconds, **answer}


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def described(device: str) -> dict[str, Any]:
    """The name and size of a card."""
    if not device.startswith("cuda"):
        return {"name": device}
    of_card = torch.cuda.get_device_properties(device)
    return {"name": of_card.name, "memory_gb": of_card.total_memory / 1e9, "cuda": torch.version.cuda,
            "capability": f"{of_card.major}.{of_card.minor}"}  # fmt: skip


# -- time and memory ---------------------------------------------------------------------------------------------


def seconds_of(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Seconds of a call on a device, mean over repeats; on CUDA between two events of the card."""
    if device.type == "cuda":
        begin, finish = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(repeats):
            call()
        finish.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(finish) / 1e3 / repeats
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
    return (time.perf_counter() - started) / repeats


def forget_peak(device: torch.device) -> None:
    """Measure the peak of the card's memory from here on."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: torch.device) -> dict[str, float]:
    """Peak memory of the card: of tensors, and with what torch keeps for later ones."""
    if device.type != "cuda":
        return {}
    return {"peak_gb": torch.cuda.max_memory_allocated() / 1e9, "reserved_gb": torch.cuda.max_memory_reserved() / 1e9}


# -- the parts ---------------------------------------------------------------------------------------------------


def tests(options: argparse.Namespace) -> dict[str, Any]:
    """Run the tests that are marked."""
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-rs", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-1500:], done.stderr[-500:])
    lines = done.stdout.strip().splitlines()
    return {"failed": done.returncode != 0, "summary": lines[-1] if lines else "", "status": done.returncode}


def card(options: argparse.Namespace) -> dict[str, Any]:
    """Bytes/s of a large copy, read and written, and FLOP/s of large products in each precision."""
    device = torch.device(options.device)
    n = 256_000_000 if device.type == "cuda" else 1_000_000
    source = torch.ones(n, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    found = {"bytes_per_s": 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device, 10)}
    for precision in precisions(device):
        with matmul_precision(precision):
            found[f"{precision}_flop_per_s"] = matmul_rate(device)
    return found


def precisions(device: torch.device) -> tuple[Precision, ...]:
    """Precisions to measure; many processors have no arithmetic for bfloat16, and emulate it for minutes."""
    return ("float32",) if device.type == "cpu" else ("float32", "bf16")


def steps(options: argparse.Namespace) -> dict[str, Any]:
    """The package's step and the direct formulation's, by number of genes."""
    found: dict[str, Any] = {"rows": []}
    rates = card(options)
    for genes in options.genes:
        found["rows"].append(row := {"genes": genes, "particles": options.particles, "batch": options.batch})
        try:
            of_genes(row, genes, rates, options)
        except Exception as error:  # e.g. memory, of the direct formulation at many genes
            row["error"] = found["failed"] = f"{type(error).__name__}: {str(error)[:300]}"
        write(found, options)
    return found


def of_genes(row: dict[str, Any], genes: int, rates: dict[str, float], options: argparse.Namespace) -> None:
    """Fill a row; what is measured before an error stays."""
    device = torch.device(options.device)

    def stepper(formulation: str) -> Stepper:
        settings = vars(options) | {"genes": genes, "formulation": formulation, "model": "default"}
        return Stepper(argparse.Namespace(**settings), options.device)

    def measured(name: str, one: Stepper) -> float:
        one.run(3)
        forget_peak(device)
        repeats = int(np.clip(1.0 / one.run(2)["wall"], 1, 100))
        row[f"{name}_s"] = seconds_of(one.step, device, repeats)
        row.update({f"{name}_{key}": value for key, value in peak_gb(device).items()})
        return row[f"{name}_s"]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "direct.pt"
        package = stepper("package")
        state = {key: value.clone() for key, value in package.module.state_dict().items()}
        for precision in precisions(device):
            with matmul_precision(precision):
                taken = measured(precision, package)
                flop = package.floor()["flop"]
                row[f"{precision}_of_matmul_floor"] = flop / rates[f"{precision}_flop_per_s"] / taken
                row[f"{precision}_of_bandwidth_floor"] = least_bytes(package) / rates["bytes_per_s"] / taken
        direct = stepper("direct")
        direct.compare(path)
        package.module.load_state_dict(state)  # as both were before the steps
        row.update(package.compare(path))
        row["ratio"] = measured("direct", direct) / row["float32_s"]


def least_bytes(stepper: Stepper) -> float:
    """Bytes that a step in float32 has to move, if everything else stayed in the card's caches.

    A weight is read twice (forward and backward), its gradient is written and read, and Adam reads and writes it and
    its two moments: 10 × 4 bytes. A logit is written and read by the forward product and the softmax, and its gradient
    is written and read by two products: 5 × 4 bytes for each particle, cell and gene.
    """
    options = stepper.options
    n_weights = sum(parameter.numel() for parameter in stepper.module.parameters())
    return 40.0 * n_weights + 20.0 * options.particles * options.batch * options.genes


def epoch(options: argparse.Namespace) -> dict[str, Any]:
    """Two epochs of training with all cells on the device; the second is the one that counts."""
    warnings.simplefilter("ignore")
    device, found = torch.device(options.device), {}
    started = time.perf_counter()
    adata = repeated(options)
    found["simulate_s"] = time.perf_counter() - started
    found |= {"cells": adata.n_obs, "genes": adata.n_vars, "positive": adata.X.nnz / adata.n_obs / adata.n_vars}
    started = time.perf_counter()
    model = cv.CradleVAE(adata, split=cv.split(adata, "cells"))
    found["construct_s"] = time.perf_counter() - started
    write(found, options)
    config = TrainConfig(
        max_epochs=2, patience=0, accelerator="gpu" if device.type == "cuda" else device.type, progress=False,
        data_on_device="always",
    )  # fmt: skip
    forget_peak(device)
    rows = np.arange(adata.n_obs)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        history = fit(model.trained.module, model.data, {"train": rows}, config, output=Path(folder))
    seconds = float(history["seconds"].iloc[-1])
    n_steps = -(-len(rows) // config.batch_size)
    found |= {"train_s": time.perf_counter() - started, "epochs_s": history["seconds"].tolist(), "steps": n_steps,
              "step_ms": 1e3 * seconds / n_steps, "cells_per_s": len(rows) / seconds}  # fmt: skip
    found |= peak_gb(device)
    pairs = make_pairs(model.data, rows, model.trained.module, config.seed)
    if pairs is not None:  # which the host makes while the card is at work
        chosen = [rows[start : start + config.batch_size] for start in range(0, len(rows), config.batch_size)][:20]
        started = time.perf_counter()
        for minibatch_rows in chosen:
            pairs.of_minibatch(minibatch_rows)
        found["pairs_ms"] = 1e3 * (time.perf_counter() - started) / len(chosen)
    return found


def repeated(options: argparse.Namespace) -> ad.AnnData:
    """A simulated experiment, of few cells that are drawn and many that repeat them under other names."""
    drawn = min(options.drawn_cells, options.epoch_cells)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.h5ad"
        simulate(argparse.Namespace(
            data=path, fraction=drawn / CELLS, perturbations=options.perturbations, genes=options.epoch_genes, lanes=1,
            density=1 / 3, seed=0,
        ))  # fmt: skip
        few = ad.read_h5ad(path)
    rows = np.arange(options.epoch_cells) % few.n_obs
    times = -(-options.epoch_cells // few.n_obs)
    counts = sp.csr_matrix(sp.vstack([few.X] * times, format="csr")[: options.epoch_cells])
    obs = few.obs.iloc[rows].set_axis([f"cell{i}" for i in range(len(rows))])
    obs["artifact"] = np.random.default_rng(1).random(len(rows)) < 0.1
    return ad.AnnData(counts, obs, few.var)


def write(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Write what a part has found so far; the process that waits for it reads it."""
    options.output.write_text(json.dumps(found))


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "tests": tests, "card": card, "steps": steps, "epoch": epoch,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)  # what the processes are asked
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", type=float, default=480, help="seconds, of everything")
    parser.add_argument("--genes", type=int, nargs="+", default=[300, 2000, 20_000], help="of the steps")
    parser.add_argument("--particles", type=int, default=5)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--cells", type=int, default=2000, help="that steps take their minibatches from, and others")
    parser.add_argument("--perturbations", type=int, default=100)
    parser.add_argument("--epoch-cells", type=int, default=100_000)
    parser.add_argument("--epoch-genes", type=int, default=8563)
    parser.add_argument("--drawn-cells", type=int, default=5000)
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON of the results")
    options = parser.parse_args()
    if options.part is None:
        run(options)
        return
    found = PARTS[options.part](options)
    failed = found.pop("failed", False)
    write(found, options)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

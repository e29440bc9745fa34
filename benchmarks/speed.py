"""A training step of the package against the direct formulation (direct.py), in alternating runs.

    python benchmarks/speed.py run                     # all rows → benchmarks/results.json, its picture and README.md
    python benchmarks/speed.py run --genes 300 2000 --pairs 9    # these rows anew, the others as they were
    python benchmarks/speed.py profile --genes 20000   # the operations that the package's step spends its time in

Each formulation lives in a process of its own. Steps alternate, and what is reported is the median over rounds of the
ratio of their CPU times and of their wall times, so that a machine whose speed drifts does not matter; the resident
memory is each process's peak. Before timing, loss and gradients of both are compared on the same random numbers. The
floor is what the step's matrix products alone would take at the rate that the machine shows on large ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from direct import DenseData, DirectModel, largest_difference, package_gradients

import cradlevae as cv
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.data.loading.minibatch import make_minibatch
from cradlevae.model.objective import draw_noise, loss_terms
from cradlevae.model.training.fit import split_sizes
from cradlevae.nn.matmul import matmul_precision, reduced

RESULTS = Path(__file__).parent / "results.json"
README = Path(__file__).parents[1] / "README.md"
PICTURE = Path(__file__).parents[1] / "docs" / "figures" / "speed.png"
BEGIN, END = "<!-- speed: written by make bench -->", "<!-- speed ends -->"
PARTS = ("data", "encode", "decode", "likelihood", "backward", "optimiser")
MODELS: dict[str, dict[str, Any]] = {
    "published": {"linear_path": False, "artifact_model": "shared", "gene_effects": False, "weight_scale": 0.0},
    "default": {},
}
"""The architecture of the paper (what the thresholds are about), and the package's default.

Both have mean profiles for references: the direct formulation knows no counterfactual pairs.
"""


# -- the problem -----------------------------------------------------------------------------------------------


def problem(n_genes: int, n_cells: int, n_perturbations: int, model: str, seed: int = 0) -> cv.CradleVAE:
    """A model of cells of so many perturbations, a quarter of them failed, before training; about 93 % zeros."""
    rng = np.random.default_rng(seed)
    log_share = rng.normal(0, 1.5, n_genes)
    effects = rng.normal(0, 0.5, (n_perturbations + 1, n_genes)) * (rng.random((n_perturbations + 1, n_genes)) < 0.05)
    size = rng.lognormal(np.log(0.16 * n_genes), 0.3, n_cells)
    condition = rng.integers(0, n_perturbations + 1, n_cells)
    blocks = []
    for cells in np.array_split(np.arange(n_cells), 8):
        share = np.exp(log_share + effects[condition[cells]])
        blocks.append(sp.csr_matrix(rng.poisson(size[cells, None] * share / share.sum(1, keepdims=True))))
    names = np.array(["control", *(f"P{i}" for i in range(n_perturbations))])
    obs = pd.DataFrame(
        {"perturbation": names[condition], "artifact": rng.random(n_cells) < 0.25},
        index=[f"cell{i}" for i in range(n_cells)],
    )
    adata = ad.AnnData(
        sp.csr_matrix(sp.vstack(blocks), dtype=np.float32),
        obs,
        pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of cells without a count, where there are few genes
        return cv.CradleVAE(
            adata, split=cv.split(adata, "cells"), n_latent=200, basal_width=400, mask_prior=0.01,
            counterfactual_weight=0.5, reference="mean", **MODELS[model],
        )  # fmt: skip


# -- one formulation in its process ------------------------------------------------------------------------------


class Stepper:
    """Training steps of one formulation, on the package's data structures or on dense ones."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.direct = options.formulation == "direct"
        model = problem(options.genes, options.cells, options.perturbations, options.model)
        assert model.data is not None
        self.data, self.module = model.data, model.trained.module
        self.module.train()
        self.rows = model.split.rows(self.data.cells, "train")
        self.sizes = split_sizes(self.data, self.rows, self.module.config)
        self.references = CounterfactualReferences(self.data, self.rows)
        self.generator = np.random.default_rng(1)
        self.spent: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        if self.direct:
            self.dense = DenseData(self.data, self.references)
            self.model: torch.nn.Module = DirectModel(self.module)
        else:
            self.model = self.module
        fused = {} if self.direct else {"fused": True}
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=3e-4, weight_decay=1e-6, **fused)

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        noise = draw_noise(self.module, len(rows), self.options.particles)
        with self.part("data"):
            cells = self.dense.minibatch(rows) if self.direct else make_minibatch(self.data, rows, self.references)
        if self.direct:
            terms = self.model.terms(cells, self.sizes, noise)
        else:
            terms = loss_terms(self.module, cells, self.sizes, noise)
        return torch.stack(list(terms.values())).sum()

    def step(self) -> None:
        loss = self.loss(self.generator.choice(self.rows, self.options.batch))
        self.optimiser.zero_grad()
        with self.part("backward"):
            loss.backward()
        with self.part("optimiser"):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 100.0)
            self.optimiser.step()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.spent[name] += time.perf_counter() - started

    def timed(self, name: str, call: Any) -> Any:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            with self.part(name):
                return call(*arguments, **keywords)

        return wrapped

    def run(self, n: int) -> dict[str, float]:
        """CPU and wall seconds a step."""
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(n):
            self.step()
        return {"cpu": (time.process_time() - cpu) / n, "wall": (time.perf_counter() - wall) / n}

    def parts(self, n: int) -> dict[str, float]:
        """Wall seconds that each part of the package's step takes."""
        encoder, decoder, likelihood = self.module.basal_encoder, self.module.decoder, self.module.likelihood
        self.module.encode_counts = self.timed("encode", self.module.encode_counts)
        decoder.hidden_of_minibatch = self.timed("decode", decoder.hidden_of_minibatch)
        for part in (encoder.head, encoder.mlp):
            name = "forward" if part is encoder.head else "rest"
            setattr(part, name, self.timed("encode", getattr(part, name)))
        likelihood.linear_log_prob = self.timed("likelihood", likelihood.linear_log_prob)
        self.spent = dict.fromkeys(PARTS, 0.0)
        total = self.run(n)["wall"]
        parts = {name: seconds / n for name, seconds in self.spent.items()}
        return parts | {"other": total - sum(parts.values())}

    def floor(self) -> dict[str, float]:
        """FLOP of the step's matrix products, and the rate of large ones, FLOP/s."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.step()
        return {"flop": float(counter.get_total_flops()), "rate": _matmul_rate()}

    def compare(self, path: Path) -> dict[str, float]:
        """Write loss and gradients of the first minibatch, or return how far they are from those in the file."""
        torch.manual_seed(2)
        loss = self.loss(self.rows[: self.options.batch])
        loss.backward()
        gradients = self.model.gradients() if self.direct else package_gradients(self.module)
        if self.direct:
            torch.save({"loss": loss.item(), "gradients": gradients}, path)
            self.model.zero_grad()
            return {}
        direct = torch.load(path)
        differences = {
            "loss_difference": abs(loss.item() - direct["loss"]) / abs(direct["loss"]),
            "gradient_difference": largest_difference(direct["gradients"], gradients),
        }
        self.model.zero_grad()
        return differences


def _matmul_rate() -> float:
    """FLOP/s of the three products of a large linear layer, as the package does them."""
    dtype = torch.bfloat16 if reduced() else torch.float32
    hidden, weight = torch.randn(2560, 400).to(dtype), torch.randn(8000, 400).to(dtype)
    logits = torch.empty(2560, 8000, dtype=dtype)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(hidden, weight.T, out=logits)
        torch.mm(logits, weight)
        torch.mm(logits.T, hidden)
        times.append(time.perf_counter() - started)
    return 3 * 2 * 2560 * 400 * 8000 / min(times)


def work(options: argparse.Namespace) -> None:
    """Obey the driver: a line of input is a command and its argument, a line of output the answer."""
    torch.set_num_threads(options.threads)
    with ExitStack() as stack:
        if options.formulation == "package":  # the direct formulation takes torch as it comes
            stack.enter_context(matmul_precision(options.precision))
        stepper = Stepper(options)
        for line in sys.stdin:
            command, argument = line.split(maxsplit=1)
            answer = getattr(stepper, command)(*json.loads(argument))
            answer["rss"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            print(json.dumps(answer), flush=True)


# -- the driver --------------------------------------------------------------------------------------------------


class Worker:
    """A process that runs one formulation."""

    def __init__(self, **settings: Any) -> None:
        arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        plain = {"THP_MEM_ALLOC_ENABLE": "0"} if settings["formulation"] == "direct" else {}  # which the package sets
        self.process = subprocess.Popen(
            [sys.executable, __file__, "work", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **plain},
        )  # fmt: skip

    def ask(self, command: str, *arguments: Any) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command} {json.dumps(arguments)}\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        self.process.communicate()


def measure(genes: int, particles: int, model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one problem: the package in each precision against the direct formulation."""
    common = {"genes": genes, "particles": particles, "model": model, "threads": options.threads,
              "batch": options.batch, "cells": options.cells, "perturbations": options.perturbations}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "direct.pt")
        direct = Worker(formulation="direct", **common)
        direct.ask("compare", path)
        direct.ask("run", 1)
        workers = {name: Worker(formulation="package", precision=name, **common) for name in options.precision}
        differences = {name: worker.ask("compare", path) for name, worker in workers.items()}
    repeats = {}
    for name, worker in workers.items():
        worker.ask("run", 2)
        repeats[name] = max(1, min(50, round(1.0 / worker.ask("run", 2)["wall"])))
    rounds = []
    for _ in range(options.pairs):
        base = direct.ask("run", max(1, round(0.5 / genes * 300)))
        rounds.append({name: (base, worker.ask("run", repeats[name])) for name, worker in workers.items()})
    rows = []
    for name, worker in workers.items():
        pairs = [one[name] for one in rounds]
        floor, parts = worker.ask("floor"), worker.ask("parts", repeats[name])
        parts.pop("rss")
        wall = float(np.median([ours["wall"] for _, ours in pairs]))
        rows.append({
            "genes": genes, "particles": particles, "precision": name, "model": model, "code": code(),
            "cpu_ratio": float(np.median([base["cpu"] / ours["cpu"] for base, ours in pairs])),
            "wall_ratio": float(np.median([base["wall"] / ours["wall"] for base, ours in pairs])),
            "rss_ratio": pairs[-1][0]["rss"] / pairs[-1][1]["rss"],
            "direct_wall_s": float(np.median([base["wall"] for base, _ in pairs])), "wall_s": wall,
            "direct_cpu_s": float(np.median([base["cpu"] for base, _ in pairs])),
            "cpu_s": float(np.median([ours["cpu"] for _, ours in pairs])),
            "rss_gb": pairs[-1][1]["rss"], "flop": floor["flop"], "matmul_flop_per_s": floor["rate"],
            "of_floor": floor["flop"] / floor["rate"] / wall, "pairs": options.pairs,
            "loss_difference": differences[name]["loss_difference"],
            "gradient_difference": differences[name]["gradient_difference"], "parts_s": parts,
        })  # fmt: skip
    for worker in (direct, *workers.values()):
        worker.close()
    return rows


def run(options: argparse.Namespace) -> None:
    problems = list(product(options.model, options.genes, options.particles))
    earlier = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    rows = [row for row in earlier if (row["model"], row["genes"], row["particles"]) not in problems]
    for model, genes, particles in problems:
        new = measure(genes, particles, model, options)
        rows = sorted(rows + new, key=lambda row: (row["model"] == "default", row["genes"], row["particles"]))
        for row in new:
            print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                            for key, value in row.items() if key != "parts_s"), flush=True)  # fmt: skip
        record = {"machine": machine(options), "rows": rows}
        options.output.write_text(json.dumps(record, indent=1) + "\n")
    if options.output == RESULTS:
        report(options)


def code() -> str:
    """The commit that is measured, ``-dirty`` with changes that are not committed."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def machine(options: argparse.Namespace) -> dict[str, Any]:
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())  # fmt: skip
    return {"processor": cpu, "capability": torch.backends.cpu.get_cpu_capability(), "threads": options.threads,
            "torch": torch.__version__, "python": platform.python_version(), "batch": options.batch}  # fmt: skip


def profile(options: argparse.Namespace) -> None:
    """The operations that a step of the package spends its time in."""
    torch.set_num_threads(options.threads)
    for model, genes, particles, precision in product(
        options.model, options.genes, options.particles, options.precision
    ):
        settings = argparse.Namespace(
            formulation="package", genes=genes, particles=particles, model=model, batch=options.batch,
            cells=options.cells, perturbations=options.perturbations,
        )  # fmt: skip
        with matmul_precision(precision):
            stepper = Stepper(settings)
            stepper.run(2)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
                stepper.run(3)
        print(f"\n{genes} genes, {particles} particles, {precision}, {model} model: three steps")
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


def report(options: argparse.Namespace) -> None:
    """The picture of the results, and the README's table."""
    record = json.loads(options.output.read_text())
    rows = pd.DataFrame(record["rows"])
    _picture(rows, options.picture)
    text = options.readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    options.readme.write_text(f"{before}{BEGIN}\n{_table(rows, record['machine'])}\n{END}{after}")


def _table(rows: pd.DataFrame, where: dict[str, Any]) -> str:
    lines = [
        "| genes | particles | step, direct | step, cradlevae | CPU time | bf16 products | memory | of the floor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    published = rows[rows["model"] == "published"]
    for (genes, particles), problem_rows in published.groupby(["genes", "particles"]):
        by = problem_rows.set_index("precision")
        full = by.loc["float32"]
        low = f"{by.loc['bf16', 'cpu_ratio']:.1f} ×" if "bf16" in by.index else ""
        lines.append(
            f"| {genes:,} | {particles} | {full['direct_wall_s']:.2f} s | {full['wall_s']:.3f} s "
            f"| **{full['cpu_ratio']:.1f} ×** | {low} | {full['rss_ratio']:.1f} × | {full['of_floor']:.0%} |"
        )
    lines.append(
        f"\n{where['processor']} ({where['capability']}), {where['threads']} threads, torch {where['torch']}, "
        f"minibatches of {where['batch']} cells, medians of alternating runs; code of "
        f"{', '.join(published['code'].unique())}."
    )
    return "\n".join(lines)


def _picture(rows: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    colours = {"float32": "#2a6f97", "bf16": "#e07a5f"}
    published = rows[(rows["model"] == "published") & (rows["particles"] == rows["particles"].max())]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    genes = sorted(published["genes"].unique())
    for offset, (precision, colour) in zip((-0.2, 0.2), colours.items(), strict=True):
        ratios = published[published["precision"] == precision].set_index("genes")["cpu_ratio"]
        present = [place for place, g in enumerate(genes) if g in ratios.index]
        bars = left.bar([p + offset for p in present], ratios.loc[[genes[p] for p in present]], 0.38,
                        color=colour, label=f"{precision} products")  # fmt: skip
        left.bar_label(bars, fmt="%.0f×", fontsize=8)
    left.set_xticks(range(len(genes)), [f"{g:,}" for g in genes])
    left.set(xlabel="genes", ylabel="direct / cradlevae, CPU time a step")
    left.legend(frameon=False, loc="upper left")
    full = published[published["precision"] == "float32"].set_index("genes")
    bottom = np.zeros(len(genes))
    palette = plt.get_cmap("tab10")
    for index, name in enumerate((*PARTS, "other")):
        share = np.array([full.loc[g, "parts_s"][name] / sum(full.loc[g, "parts_s"].values()) for g in genes])
        right.bar(range(len(genes)), 100 * share, 0.7, bottom=100 * bottom, label=name, color=palette(index))
        bottom += share
    right.set_xticks(range(len(genes)), [f"{g:,}" for g in genes])
    right.set(xlabel="genes", ylabel="share of the step, %")
    right.legend(frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left", fontsize=8)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    for name in ("run", "profile"):
        task = tasks.add_parser(name)
        task.add_argument("--genes", type=int, nargs="+", default=[300, 2000, 5000, 20_000])
        task.add_argument("--particles", type=int, nargs="+", default=[1, 5] if name == "run" else [5])
        task.add_argument("--precision", nargs="+", default=["float32", "bf16"] if name == "run" else ["float32"])
        task.add_argument("--model", nargs="+", default=list(MODELS) if name == "run" else ["published"])
        task.add_argument("--threads", type=int, default=2)
        task.add_argument("--batch", type=int, default=512)
        task.add_argument("--cells", type=int, default=3200, help="64 % of them train")
        task.add_argument("--perturbations", type=int, default=100)
        task.add_argument("--pairs", type=int, default=3)
    tasks.add_parser("report")
    for name in ("run", "report"):
        tasks.choices[name].add_argument("--output", type=Path, default=RESULTS, help="JSON of the results")
        tasks.choices[name].add_argument("--readme", type=Path, default=README, help="page that holds the table")
        tasks.choices[name].add_argument("--picture", type=Path, default=PICTURE)
    worker = tasks.add_parser("work")
    for option, kind in {"formulation": str, "precision": str, "model": str, "genes": int, "particles": int,
                         "threads": int, "batch": int, "cells": int, "perturbations": int}.items():  # fmt: skip
        worker.add_argument(f"--{option}", type=kind)
    options = parser.parse_args()
    {"run": run, "profile": profile, "report": report, "work": work}[options.task](options)


if __name__ == "__main__":
    main()

"""A training step of the package against the direct formulation (direct.py), in alternating runs.

    python benchmarks/speed.py run                     # all rows → benchmarks/results.json, picture, docs/speed.md
    python benchmarks/speed.py run --genes 300 2000 --pairs 9    # these rows anew, the others as they were
    python benchmarks/speed.py run --capability avx2   # as a machine without AVX-512 → benchmarks/results.avx2.json
    python benchmarks/speed.py profile --genes 20000   # the operations that the package's step spends its time in

Each formulation lives in a process of its own. Steps alternate, and what is reported is the median over rounds of the
ratio of their CPU times and of their wall times, so that a machine whose speed drifts does not matter; the resident
memory is each process's peak. Before timing, loss and gradients of both are compared on the same random numbers. The
floor is what the step's matrix products alone would take at the rate that the machine shows on large ones.

The direct formulation knows no counterfactual pairs, so both have mean profiles for references. What pairs add is told
beside the default model (``pairs_*``): its step as users have it, against the same step with mean profiles, in float32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from processes import CAPABILITIES, Worker, code, serve
from steps import MODELS, PARTS, Stepper

from cradlevae.nn.matmul import matmul_precision

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
PICTURE = Path(__file__).parents[1] / "docs" / "figures" / "speed.png"
BEGIN, END = "<!-- speed: written by make bench -->", "<!-- speed ends -->"
AGAINST_DIRECT = "published", "default"
"""Models that the direct formulation has too."""


def work(options: argparse.Namespace) -> None:
    """Obey the driver, with one formulation."""
    torch.set_num_threads(options.threads)
    with ExitStack() as stack:
        if options.formulation == "package":  # the direct formulation takes torch as it comes
            stack.enter_context(matmul_precision(options.precision))
        serve(None if options.formulation == "none" else Stepper(options))


# -- the driver --------------------------------------------------------------------------------------------------


def measure(genes: int, particles: int, model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one problem: the package in each precision against the direct formulation."""
    common = {"capability": options.capability, "genes": genes, "particles": particles, "threads": options.threads,
              "batch": options.batch, "cells": options.cells, "perturbations": options.perturbations}  # fmt: skip

    def package(precision: str, model: str) -> Worker:
        return Worker(__file__, formulation="package", precision=precision, model=model, **common)

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "direct.pt")
        plain = {"THP_MEM_ALLOC_ENABLE": "0"}  # which the package sets
        direct = Worker(__file__, environment=plain, formulation="direct", model=model, **common)
        direct.ask("compare", path)
        direct.ask("run", 1)
        workers = {name: package(name, model) for name in options.precision}
        differences = {name: worker.ask("compare", path) for name, worker in workers.items()}
    where = direct.ask("machine")
    with_pairs = package("float32", "pairs") if model == "default" and "float32" in workers else None
    repeats = {}
    for name, worker in workers.items():
        worker.ask("run", 2)
        repeats[name] = max(1, min(50, round(1.0 / worker.ask("run", 2)["wall"])))
    if with_pairs is not None:
        with_pairs.ask("run", 2)
    rounds, of_pairs = [], []
    for _ in range(options.pairs):
        base = direct.ask("run", max(1, round(0.5 / genes * 300)))
        rounds.append({name: (base, worker.ask("run", repeats[name])) for name, worker in workers.items()})
        if with_pairs is not None:
            of_pairs.append((rounds[-1]["float32"][1], with_pairs.ask("run", repeats["float32"])))
    rows = []
    for name, worker in workers.items():
        pairs = [one[name] for one in rounds]
        floor, parts = worker.ask("floor"), worker.ask("parts", repeats[name])
        parts.pop("rss")
        wall = float(np.median([ours["wall"] for _, ours in pairs]))
        rows.append({
            "genes": genes, "particles": particles, "precision": name, "model": model, "code": code(),
            "capability": where["capability"],
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
        if name == "float32" and of_pairs:
            rows[-1] |= {f"pairs_{kind}_ratio": float(np.median([two[kind] / one[kind] for one, two in of_pairs]))
                         for kind in ("cpu", "wall")}  # fmt: skip
            rows[-1]["pairs_wall_s"] = float(np.median([two["wall"] for _, two in of_pairs]))
    for worker in (direct, *workers.values(), *([] if with_pairs is None else [with_pairs])):
        worker.close()
    return rows


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """The machine as the workers see it."""
    worker = Worker(__file__, options.capability, formulation="none", threads=options.threads)
    where = worker.ask("machine")
    worker.close()
    where.pop("rss")
    return where | {"batch": options.batch}


def run(options: argparse.Namespace) -> None:
    """Measure the rows that are asked for, and keep the others of the file."""
    if options.output is None:
        options.output = (
            RESULTS if options.capability == "native" else RESULTS.with_suffix(f".{options.capability}.json")
        )
    where = machine(options)
    problems = list(product(options.model, options.genes, options.particles))
    earlier = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    rows = [row for row in earlier if (row["model"], row["genes"], row["particles"]) not in problems]
    for model, genes, particles in problems:
        new = measure(genes, particles, model, options)
        rows = sorted(rows + new, key=lambda row: (row["model"] == "default", row["genes"], row["particles"]))
        for row in new:
            print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                            for key, value in row.items() if key != "parts_s"), flush=True)  # fmt: skip
        record = {"machine": where, "rows": rows}
        options.output.write_text(json.dumps(record, indent=1) + "\n")
    if options.output == RESULTS:
        report(options)


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
    """The picture of the results, and the table of docs/speed.md."""
    record = json.loads(options.output.read_text())
    rows = pd.DataFrame(record["rows"])
    _picture(rows, options.picture)
    text = options.page.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    options.page.write_text(f"{before}{BEGIN}\n{_table(rows, record['machine'])}\n{END}{after}")


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
        task.add_argument("--model", nargs="+", choices=list(AGAINST_DIRECT if name == "run" else MODELS),
                          default=list(AGAINST_DIRECT) if name == "run" else ["published"])  # fmt: skip
        task.add_argument("--threads", type=int, default=2)
        task.add_argument("--batch", type=int, default=512)
        task.add_argument("--cells", type=int, default=3200, help="64 %% of them train")
        task.add_argument("--perturbations", type=int, default=100)
        task.add_argument("--pairs", type=int, default=3)
    tasks.add_parser("report")
    tasks.choices["run"].add_argument("--capability", choices=list(CAPABILITIES), default="native")
    for name, output in (("run", None), ("report", RESULTS)):
        tasks.choices[name].add_argument("--output", type=Path, default=output, help="JSON of the results")
        tasks.choices[name].add_argument("--page", type=Path, default=PAGE, help="page that holds the table")
        tasks.choices[name].add_argument("--picture", type=Path, default=PICTURE)
    worker = tasks.add_parser("work")
    for option, kind in {"formulation": str, "precision": str, "model": str, "genes": int, "particles": int,
                         "threads": int, "batch": int, "cells": int, "perturbations": int}.items():  # fmt: skip
        worker.add_argument(f"--{option}", type=kind)
    options = parser.parse_args()
    {"run": run, "profile": profile, "report": report, "work": work}[options.task](options)


if __name__ == "__main__":
    main()

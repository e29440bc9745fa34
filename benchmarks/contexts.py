"""Effects of a perturbation in a context (donor) in which it was never seen, from those in the others.

    python benchmarks/contexts.py glioblastoma_300g_5donors.h5ad --context donor --output docs/results/contexts.csv
    python benchmarks/contexts.py glioblastoma_300g_5donors.h5ad --context donor --models CradleVAE --output …

The perturbed cells of each context are held out in turn, with a fifth of its controls (recipe ``contexts``); all other
cells train. ``--models`` names floors, or classes of cradlevae; ``--without`` trains without
``context_key`` as well. Without a file, data are simulated, with effects that depend on the context. Rows: one per
model, context and seed; finished ones are kept.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd
from batches import scored
from rows import add_row, is_there

import cradlevae as cv
from cradlevae.data.experiment import DataFields, read_experiment
from cradlevae.data.labels import base_of
from cradlevae.evaluation.floors.registry import FLOORS

KEY = ["data", "model", "way", "context", "seed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--context", default="context", help="column of the contexts")
    parser.add_argument("--models", nargs="+",
                        default=["perturbed_mean", *(name for name, entry in FLOORS.items() if entry.needs_contexts)],
                        help="floors, or classes of cradlevae")  # fmt: skip
    parser.add_argument("--without", action="store_true", help="also without context_key")
    parser.add_argument("--held-out", nargs="+", help="contexts; by default all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--context-sd", type=float, default=0.3, help="of simulated effects")
    parser.add_argument("--epochs", type=int, help="at most; by default as many as the package takes")
    parser.add_argument("--cells", type=int, default=4000, help="of simulated data")
    parser.add_argument("--genes", type=int, default=200, help="of simulated data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        adata = load(options, seed)
        for context in options.held_out or sorted(adata.obs[options.context].astype(str).unique()):
            for model in options.models:
                for way in ("with", "without") if options.without else ("with",):
                    run(options, adata, model, way, context, seed)
    table = pd.read_csv(options.output).groupby(["data", "model", "way"], sort=False)
    print(table[["ate_rho", "ate_r2", "attainable_rho"]].mean().round(3).to_string())


def run(options: argparse.Namespace, adata: ad.AnnData, model: str, way: str, context: str, seed: int) -> None:
    """Write the scores of one model in one context, unless they are there."""
    if way == "without" and model in FLOORS and FLOORS[model].needs_contexts:
        return
    name = "simulated" if options.data is None else options.data.stem
    key = dict(zip(KEY, (name, model, way, context, seed), strict=True))
    if is_there(options.output, key):
        return
    here = adata.obs[options.context].astype(str) == context
    held_out = [(one, context) for one in sorted(set(adata.obs["perturbation"][here].astype(str)) - {"control"})]
    split = cv.split(adata, "contexts", held_out=held_out, seed=seed, context_key=options.context)
    if way != "with":  # the same cells, for a model that knows no contexts
        split = replace(split, recipe="column", options={})
    context_key = options.context if way == "with" else None
    started = time.perf_counter()
    if model in FLOORS:
        predictor: Any = cv.FloorModel(model, adata, split=split, context_key=context_key)
        predictor.train()
    else:
        predictor = getattr(cv, model)(adata, split=split, seed=seed, context_key=context_key)
        predictor.train(options.epochs, progress=False, seed=seed)
    seconds = time.perf_counter() - started
    data = read_experiment(adata, DataFields(context_key=options.context))
    rows = split.rows(data.cells, "test")
    rows = rows[~data.failed[rows]]
    asked = predictor if context_key is not None else WithoutContext(predictor)
    add_row(options.output, key | scored(asked, data, rows, seed) | {"train_s": seconds})


class WithoutContext:
    """A predictor that knows no contexts: it is asked for the conditions without them."""

    def __init__(self, predictor: Any) -> None:
        self.predictor = predictor

    def effects(self, conditions: list[str]) -> Any:
        return self.predictor.effects([base_of(name) for name in conditions])


def load(options: argparse.Namespace, seed: int) -> ad.AnnData:
    """Cells with contexts and artifact labels."""
    if options.data is None:
        adata = cv.simulate(
            n_cells=options.cells, n_genes=options.genes, n_perturbations=6, n_combinations=0, n_contexts=3,
            context_sd=options.context_sd, seed=seed,
        )  # fmt: skip
        adata.obs["artifact"] = adata.obs["true_artifact"]
        return adata
    adata = ad.read_h5ad(options.data)
    if "artifact" not in adata.obs:
        adata.obs["artifact"] = False
    return adata


if __name__ == "__main__":
    main()

"""Scores of the model on simulated data and on real counts with planted artifacts, over seeds.

    python benchmarks/scores.py simulated --seeds 0 1 2 3 4 --output docs/results/simulated.csv
    python benchmarks/scores.py cells papalexi2021_299g_planted_artifacts.h5ad --truth clean --seeds 0 1 2 \
        --objective corrected released --output docs/results/planted.csv

``--truth`` names the layer with the true counts of a file that carries no mark of the truth, as that one.

A run is a row of the table per reference, metric and predictor; rows of finished runs are kept when called again.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

import cradlevae as cv


def one_run(
    name: str, adata: ad.AnnData, recipe: str, seed: int, objective: str, options: argparse.Namespace
) -> pd.DataFrame:
    split = cv.split(adata, recipe, seed=seed)
    model = cv.CradleVAE(adata, split=split, seed=seed, objective=objective)
    settings: dict[str, Any] = {"max_epochs": options.epochs, "precision": options.precision}
    if options.published_training:
        settings |= {"batch_size": 512, "n_particles": 5, "learning_rate": 3e-4, "averaging": 0.0}
    started, cpu = time.perf_counter(), time.process_time()
    model.train(**settings, seed=seed, progress=False)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    scores = cv.evaluate(model, adata, published=True, truth=options.truth, seed=seed)
    run = {
        "data": name,
        "objective": label(objective, options),
        "seed": seed,
        "epochs": len(model.history),
        "train_s": wall,
        "train_cpu_s": cpu,
    }
    return scores.assign(**run)


def simulated(options: argparse.Namespace, seed: int) -> ad.AnnData:
    """An experiment whose truth is known, annotated."""
    adata = cv.simulate(n_cells=options.cells, n_genes=options.genes, seed=seed)
    cv.annotate_qc(adata)
    return adata


def label(objective: str, options: argparse.Namespace) -> str:
    """What a run is called in the table."""
    added = [text for text, given in (("published training", options.published_training),
                                      ("bf16", options.precision == "bf16")) if given]  # fmt: skip
    return f"{objective} ({', '.join(added)})" if added else objective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=["simulated", "cells", "combinations"])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--objective", nargs="+", default=["corrected"])
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--cells", type=int, default=6000, help="of simulated data")
    parser.add_argument("--genes", type=int, default=600, help="of simulated data")
    parser.add_argument("--truth", default="auto", help="layer with the true counts of a file")
    parser.add_argument("--published-training", action="store_true")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(options.threads)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for objective in options.objective:
        for seed in options.seeds:
            done = (
                pd.read_csv(options.output) if options.output.exists() else pd.DataFrame({"objective": [], "seed": []})
            )
            if ((done["objective"] == label(objective, options)) & (done["seed"] == seed)).any():
                continue
            if options.recipe == "simulated":
                name, recipe, adata = "simulated", "combinations", simulated(options, seed)
            else:
                name, recipe, adata = options.data.stem, options.recipe, ad.read_h5ad(options.data)
            run = one_run(name, adata, recipe, seed, objective, options)
            done = pd.read_csv(options.output) if options.output.exists() else pd.DataFrame()
            pd.concat([done, run]).to_csv(options.output, index=False)
            print(summary(run).to_string(), flush=True)


def summary(run: pd.DataFrame) -> pd.DataFrame:
    """The scores that the documentation quotes."""
    chosen = ["ate_rho", "ate_r2", "jaccard_20", "attainable_rho", "clean_deviance", "leakage_z_basal",
              "leakage_z_perturbation", "signature_correlation", "mask_f1"]  # fmt: skip
    rows = run[run["metric"].isin(chosen)]
    return rows.pivot_table(index=["reference", "metric"], columns="predictor", values="value", sort=False).round(3)


if __name__ == "__main__":
    main()

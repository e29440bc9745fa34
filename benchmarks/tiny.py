"""Effects and their intervals where nothing happens: few cells of one distribution, under many labels.

    python benchmarks/tiny.py --output docs/results/tiny.csv

All cells have one expected profile, so every effect is 0: 0.1 of the 90 % intervals should exclude 0 at most.
``poisson`` counts have no variance beside that of counting, ``gamma`` ones have a concentration of 2, and in ``failed``
three cells in ten are labelled as failed at random. Rows: one per data set; finished ones are kept.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import cradlevae as cv

CONCENTRATION = 2.0
KEY = ["model", "noise", "cells", "conditions", "seed"]
FLOORS = ("training_mean", "shrunk_mean", "hierarchical_mean")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["CradleVAE"], help="classes of cradlevae, or names of floors")
    parser.add_argument("--cells", nargs="+", type=int, default=[4, 5, 8, 20], help="of a condition, controls too")
    parser.add_argument("--conditions", nargs="+", type=int, default=[2, 6, 25])
    parser.add_argument("--noise", nargs="+", default=["poisson", "gamma", "failed"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--genes", type=int, default=100)
    parser.add_argument("--library", type=float, default=800.0, help="median total count of a cell")
    parser.add_argument("--epochs", type=int, help="at most; by default as many as the package takes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(options.threads)
    jobs = [
        (model, noise, cells, conditions, seed)
        for model in options.models
        for noise in options.noise
        for cells in options.cells
        for conditions in options.conditions
        for seed in options.seeds
    ]
    for job in jobs:
        done = pd.read_csv(options.output) if options.output.exists() else pd.DataFrame(columns=KEY)
        key = dict(zip(KEY, job, strict=True))
        if (done[KEY] == pd.Series(key)).all(axis=1).any():
            continue
        row = pd.DataFrame([key | measured(options, *job)])
        pd.concat([done, row] if len(done) else [row]).to_csv(options.output, index=False, float_format="%.4f")
    table = pd.read_csv(options.output).groupby(["model", "noise", "conditions", "cells"])
    print(table[["median_effect", "largest_effect", "excluding_0"]].mean().round(3).to_string())


def measured(
    options: argparse.Namespace, model: str, noise: str, cells: int, conditions: int, seed: int
) -> dict[str, Any]:
    """Effects of one data set, and how many of their intervals exclude 0."""
    adata = cells_of_one_kind(noise, cells, conditions, options.genes, options.library, seed)
    split = cv.split(adata, "cells", seed=seed)
    epochs = 0
    if model in FLOORS:
        predictor: Any = cv.FloorModel(model, adata, split=split)
        predictor.train()
    else:
        predictor = getattr(cv, model)(adata, split=split, n_latent=8, width=32, basal_width=32, seed=seed)
        predictor.train(options.epochs, progress=False, seed=seed)
        epochs = len(predictor.history)
    effects = predictor.effects([label for label in adata.obs["perturbation"].unique() if label != "control"])
    value, low, high = np.asarray(effects.X), effects.layers["low"], effects.layers["high"]
    return {
        "epochs": epochs,
        "median_effect": float(np.median(np.abs(value))),
        "largest_effect": float(np.abs(value).max()),
        "excluding_0": float(((low > 1e-6) | (high < -1e-6)).mean()),
        "median_width": float(np.median(high - low)),
    }


def cells_of_one_kind(noise: str, cells: int, conditions: int, genes: int, library: float, seed: int) -> ad.AnnData:
    """So many cells of each condition and of the controls, whose expected profile is the same."""
    rng = np.random.default_rng(seed)
    profile = rng.dirichlet(np.full(genes, 0.5))
    labels = np.repeat(["control", *(f"p{i}" for i in range(conditions))], cells)
    mean = library * np.exp(rng.normal(0, 0.4, len(labels)))[:, None] * profile
    if noise != "poisson":
        mean = mean * rng.gamma(CONCENTRATION, 1 / CONCENTRATION, mean.shape)
    failed = rng.random(len(labels)) < (0.3 if noise == "failed" else 0.0)
    obs = pd.DataFrame(
        {"perturbation": labels, "artifact": failed.astype(int)}, index=[f"c{i}" for i in range(len(labels))]
    )
    counts = sp.csr_matrix(rng.poisson(mean).astype(np.float32))
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(genes)]))


if __name__ == "__main__":
    main()

"""What a design costs in which every perturbation lives in one batch, with ``batch_key`` and without.

    python benchmarks/batches.py papalexi2021_299g.h5ad --mad 3 --seeds 0 1 2 --output docs/results/batches.csv
    python benchmarks/batches.py papalexi2021_299g.h5ad --mad 3 --seeds 0 1 2 --models CradleVAE --output …

The training cells of each perturbation are of one batch, in rotation; controls train in all batches. Effects are scored
within batch, on held-out cells of all batches: all cells of the other batches, a fifth of those of the perturbation's
own, and a fifth of the controls. ``--design balanced`` trains on cells of all batches instead. Without labels
(``--mad``), cells fail whose ``n_counts_full``, ``n_genes_full`` or ``pct_mito_full`` lie beyond so many MAD of their
batch. Without a file, data are simulated. Rows: one per model, way and seed; finished ones are kept.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from rows import add_row, is_there

import cradlevae as cv
from cradlevae.data.experiment import DataFields, Experiment, read_experiment
from cradlevae.data.moments import condition_moments, measured_effects
from cradlevae.evaluation.ceiling import ceiling
from cradlevae.evaluation.floors.registry import FLOORS
from cradlevae.evaluation.metrics.effects import ate_r2, ate_rho
from cradlevae.evaluation.metrics.pca_space import log_normalised

KEY = ["data", "design", "model", "batch_key", "seed"]
SIGNALS = "batch_from_raw", "batch_from_z_basal", "batch_from_twin"
FOLDS = 5
WAYS = {"with": "batch", "without": None}
CRITERIA = {"n_counts_full": -1, "n_genes_full": -1, "pct_mito_full": 1}
"""Columns of quality, and the side on which a cell fails."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--design", default="rotation", choices=["rotation", "balanced"])
    parser.add_argument("--models", nargs="+", default=["training_mean", "shrunk_mean", "hierarchical_mean"],
                        help="floors, or classes of cradlevae")  # fmt: skip
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="with or without batch_key")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--mad", type=float)
    parser.add_argument("--epochs", type=int, help="at most; by default as many as the package takes")
    parser.add_argument("--cells", type=int, default=4000, help="of simulated data")
    parser.add_argument("--genes", type=int, default=200, help="of simulated data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(options.threads)
    name = "simulated" if options.data is None else options.data.stem
    jobs = [(model, way, seed) for seed in options.seeds for model in options.models for way in options.ways]
    for model, way, seed in jobs:
        key = dict(zip(KEY, (name, options.design, model, way, seed), strict=True))
        if not is_there(options.output, key):
            add_row(options.output, key | one_run(options, model, WAYS[way], seed))
    table = pd.read_csv(options.output).groupby(["data", "design", "model", "batch_key"], sort=False)
    shown = [name for name in ("ate_rho", "ate_r2", "attainable_rho", *SIGNALS) if name in table.obj]
    print(table[shown].mean().round(3).to_string())


def one_run(options: argparse.Namespace, model: str, batch_key: str | None, seed: int) -> dict[str, Any]:
    """Scores of one model, within batch."""
    adata = load(options, seed)
    adata.obs["part"] = parts(adata, options.design, seed)
    split = cv.split(adata, "column", column="part")
    started = time.perf_counter()
    predictor = trained(model, adata, split, batch_key, seed, options.epochs)
    seconds = time.perf_counter() - started
    data = read_experiment(adata, DataFields(batch_key="batch"))
    rows = split.rows(data.cells, "test")
    rows = rows[~data.failed[rows]]
    scores = scored(predictor, data, rows, seed)
    if model not in FLOORS:
        controls = rows[data.is_control[rows]]
        scores |= batch_signal(predictor, adata[data.cells[controls]].copy(), batch_key, seed)
    return scores | {"test_cells": len(rows), "train_s": seconds}


def batch_signal(model: Any, controls: ad.AnnData, batch_key: str | None, seed: int) -> dict[str, float]:
    """How well the batch of held-out controls is told from their counts, their basal states, and their clean twins.

    Balanced accuracy of a cross-validated logistic regression; chance is 1 / number of batches. Twins are put into the
    first batch where the model knows batches.
    """
    first = sorted(controls.obs["batch"].astype(str).unique())[0]
    place = {} if batch_key is None else {"batch": first}
    features = {
        "raw": log_normalised(sp.csr_matrix(controls.X)).toarray(),
        "z_basal": model.latents(controls, sample=True, seed=seed).obsm["z_basal"],
        "twin": log_normalised(sp.csr_matrix(model.clean(controls, seed=seed, **place).X)).toarray(),
    }
    batch = controls.obs["batch"].astype(str).to_numpy()
    return {f"batch_from_{name}": told(table, batch, seed) for name, table in features.items()}


def told(table: np.ndarray, batch: np.ndarray, seed: int) -> float:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if np.unique(batch, return_counts=True)[1].min() < FOLDS:
        return float("nan")
    few = PCA(min(50, *table.shape), random_state=seed).fit_transform(table)
    regression = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return float(balanced_accuracy_score(batch, cross_val_predict(regression, few, batch, cv=folds)))


def scored(predictor: Any, data: Experiment, rows: np.ndarray, seed: int) -> dict[str, float]:
    """ρ and R² of a predictor's effects against those measured in some cells, within their strata."""
    counts, condition, strata = data.counts[rows], data.condition[rows], data.strata[rows]
    measured = measured_effects(condition_moments(counts, condition, data.conditions, strata=strata))
    named = [place for place, name in enumerate(measured.names) if np.isfinite(measured.value[place]).all()]
    names = [measured.names[place] for place in named]
    real = measured.value[named]
    predicted = np.asarray(predictor.effects(names).X, dtype=np.float64)
    codes = {name: code for code, name in enumerate(data.conditions)}
    kept = np.isin(condition, [0, *(codes[name] for name in names)])
    attainable = ceiling(
        counts[kept], condition[kept], data.conditions, strata=strata[kept], seed=seed, n_splits=10, n_bootstrap=10
    )
    return {
        "ate_rho": float(ate_rho(real, predicted)),
        "ate_r2": float(ate_r2(real, predicted)),
        "attainable_rho": attainable.attainable_rho,
    }


def trained(
    model: str, adata: ad.AnnData, split: cv.Split, batch_key: str | None, seed: int, epochs: int | None
) -> Any:
    """A floor or a model after training."""
    if model in FLOORS:
        floor = cv.FloorModel(model, adata, split=split, batch_key=batch_key)
        floor.train()
        return floor
    predictor = getattr(cv, model)(adata, split=split, seed=seed, batch_key=batch_key)
    predictor.train(epochs, progress=False, seed=seed)
    return predictor


def parts(adata: ad.AnnData, design: str, seed: int) -> np.ndarray:
    """Part of each cell: 64/16/20 within condition and batch, and all cells of a perturbation's other batches test."""
    random = np.random.default_rng(seed)
    batches = sorted(adata.obs["batch"].astype(str).unique())
    chosen = np.full(adata.n_obs, "test", dtype=object)
    groups = adata.obs.groupby(["perturbation", "batch"], observed=True).indices
    turns = {name: turn for turn, name in enumerate(sorted(adata.obs["perturbation"].astype(str).unique()))}
    for (name, batch), rows in sorted(groups.items()):
        own = batches[(turns[name] + seed) % len(batches)]
        if design == "rotation" and name != "control" and batch != own:
            continue
        shuffled = random.permutation(rows)
        n_train, n_seen = round(0.64 * len(rows)), round(0.8 * len(rows))
        chosen[shuffled[:n_train]], chosen[shuffled[n_train:n_seen]] = "train", "val"
    return chosen


def load(options: argparse.Namespace, seed: int) -> ad.AnnData:
    """Cells with batches and artifact labels."""
    if options.data is None:
        adata = cv.simulate(
            n_cells=options.cells, n_genes=options.genes, n_perturbations=6, n_combinations=0, n_batches=3,
            batch_sd=0.4, seed=seed,
        )  # fmt: skip
        adata.obs["artifact"] = adata.obs["true_artifact"]
        return adata
    adata = ad.read_h5ad(options.data)
    failed = np.zeros(adata.n_obs, dtype=bool)
    if options.mad is not None:
        for column, side in CRITERIA.items():
            value = adata.obs[column]
            middle = value.groupby(adata.obs["batch"], observed=True).transform("median")
            spread = (value - middle).abs().groupby(adata.obs["batch"], observed=True).transform("median")
            failed |= (side * (value - middle) > options.mad * 1.4826 * spread).to_numpy()
        adata.obs["artifact"] = failed
    elif "artifact" not in adata.obs:
        adata.obs["artifact"] = failed
    return adata


if __name__ == "__main__":
    main()

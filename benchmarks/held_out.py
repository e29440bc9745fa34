"""Effects of the default model against its floors on held-out cells, and three ways with failed cells.

    python benchmarks/held_out.py cells papalexi2021_299g_planted_artifacts.h5ad --truth clean --seeds 0 1 2 3 4 \
        --ways modelled dropped pooled --output docs/results/held_out.csv
    python benchmarks/held_out.py combinations --seeds 0 1 2 3 4 --output docs/results/held_out.csv

``modelled`` is the default; ``dropped`` trains on passing cells only; ``pooled`` takes failed cells for good ones. With
``--settings`` (as ``gene_effects=False``) it is an ablation. Without labels (``--mad``), cells fail whose
``n_counts_full``, ``n_genes_full`` or ``pct_mito_full`` (as far as they are there) lie beyond so many MAD.
``combinations`` scores unseen pairs: of a file, against held-out passing cells; without one, of data simulated as
sparse as real ones with 100 cells a perturbation, against their true effects. Finished rows are kept.
``--truth`` names the layer of a file with the true counts of its cells, against which effects are then scored as well.
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

import cradlevae as cv
from cradlevae.data.moments import ConditionMoments, Effects, condition_moments, measured_effects
from cradlevae.evaluation.floors.registry import floor_effects
from cradlevae.evaluation.metrics.effects import ate_r2, ate_rho, jaccard_20

FLOORS = {
    "cells": ("training_mean", "shrunk_mean", "lowrank_shrunk_mean", "hierarchical_mean"),
    "combinations": ("additive", "additive_shrunk", "additive_hierarchical"),
}
LIBRARY = 130.0, 0.5
"""Median and log-sd of the total counts of a simulated cell: as sparse as real data."""
KEY = ["data", "way", "settings", "split_seed", "seed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=list(FLOORS))
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--init-seeds", nargs="+", type=int, help="of the weights, for the first split seed")
    parser.add_argument("--ways", nargs="+", default=["modelled"], choices=["modelled", "dropped", "pooled"])
    parser.add_argument("--settings", nargs="*", default=[], help="of the model, e.g. gene_effects=False")
    parser.add_argument("--mad", type=float)
    parser.add_argument("--truth", help="layer with the true counts of a file")
    parser.add_argument("--epochs", type=int, help="at most; by default as many as the package takes")
    parser.add_argument("--cells", type=int, default=4450, help="of simulated data")
    parser.add_argument("--genes", type=int, default=500, help="of simulated data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    if options.recipe == "cells" and options.data is None:
        parser.error("cells needs a file")
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(options.threads)
    runs = [(seed, seed) for seed in options.seeds]
    if options.init_seeds:
        runs = [(options.seeds[0], seed) for seed in options.init_seeds]
    for split_seed, seed in runs:
        for way in options.ways:
            key = dict(zip(KEY, (name(options), way, " ".join(options.settings), split_seed, seed), strict=True))
            done = pd.read_csv(options.output, keep_default_na=False) if options.output.exists() else pd.DataFrame()
            if len(done) and (done[KEY] == pd.Series(key)).all(axis=1).any():
                continue
            rows = one_run(options, way, split_seed, seed).assign(**key)
            pd.concat([done, rows[[*KEY, *(c for c in rows if c not in KEY)]]]).to_csv(options.output, index=False)
            print(rows.pivot_table(index="reference", columns="predictor", values="ate_rho").round(3).to_string())


def name(options: argparse.Namespace) -> str:
    if options.data is None:
        return "simulated, sparse"
    return options.data.stem + (", unseen pairs" if options.recipe == "combinations" else "")


def one_run(options: argparse.Namespace, way: str, split_seed: int, seed: int) -> pd.DataFrame:
    adata = load(options, split_seed)
    failed = adata.obs["artifact"].to_numpy(dtype=bool).copy()
    settings: dict[str, Any] = {key: literal(value) for key, value in (one.split("=") for one in options.settings)}
    if way == "dropped":
        settings["train_on"] = "passing"
    if way == "pooled":
        adata.obs["artifact"] = 0
    split = cv.split(adata, options.recipe, seed=split_seed)
    model = cv.CradleVAE(adata, split=split, seed=seed, **settings)
    started, cpu = time.perf_counter(), time.process_time()
    model.train(options.epochs, progress=False, seed=seed)
    run = {
        "epochs": len(model.history),
        "train_s": time.perf_counter() - started,
        "train_cpu_s": time.process_time() - cpu,
        "val_loss": model.history["val_loss"].min(),
    }
    data = model.data
    assert data is not None

    def moments(part: str, counts: Any = data.counts, passing: bool = True) -> ConditionMoments:
        rows = split.rows(data.cells, part)
        if part == "test" and not data.is_control[rows].any():  # unseen pairs: controls that did not train
            validation_rows = split.rows(data.cells, "val")
            rows = np.union1d(rows, validation_rows[data.is_control[validation_rows]])
        rows = rows[~failed[rows]] if passing else rows
        return condition_moments(counts[rows], data.condition[rows], data.conditions, genes=tuple(data.genes))

    train, validation = moments("train"), moments("val")
    if options.data is None:
        references = true_effects(adata, moments("test"))
    else:
        references = {"held-out passing": answered(measured_effects(moments("test")), model.trained.answerable)}
        if options.truth is not None:
            clean = measured_effects(moments("test", adata.layers[options.truth].tocsr(), passing=False))
            names = set(references["held-out passing"].names)
            references["held-out clean"] = answered(clean, lambda all_: [name for name in all_ if name in names])
    conditions = list(next(iter(references.values())).names)
    predicted = {floor: (floor_effects(floor, train, validation, conditions), None) for floor in FLOORS[options.recipe]}
    for label, residual in (("model", True), ("decoder alone", False)):
        answer = model.effects(conditions, residual=residual)
        predicted[label] = (np.asarray(answer.X), answer.layers["sd"])
    return pd.DataFrame(
        scores(effects, value, sd) | {"reference": reference, "predictor": predictor} | run
        for reference, effects in references.items()
        for predictor, (value, sd) in predicted.items()
    )


def scores(real: Effects, value: np.ndarray, sd: np.ndarray | None) -> dict[str, float]:
    values = {
        "ate_rho": ate_rho(real.value, value),
        "ate_r2": ate_r2(real.value, value),
        "jaccard_20": jaccard_20(real.value, value),
        "slope": float((value * real.value).sum() / (value**2).sum()),
    }
    if sd is not None:
        inside = np.abs(real.value - value) < 1.6449 * np.sqrt(sd**2 + real.standard_error**2)
        values["coverage_90"] = float(inside.mean())
    return values


def load(options: argparse.Namespace, seed: int) -> ad.AnnData:
    if options.data is None:
        adata = cv.simulate(n_cells=options.cells, n_genes=options.genes, library_size=LIBRARY, seed=seed)
        cv.annotate_qc(adata)
        return adata
    adata = ad.read_h5ad(options.data)
    if options.mad:
        bad = [beyond(np.log1p(adata.obs[column]), -options.mad) for column in ("n_counts_full", "n_genes_full")]
        if "pct_mito_full" in adata.obs:
            bad.append(beyond(adata.obs["pct_mito_full"], options.mad))
        adata.obs["artifact"] = np.any(bad, axis=0).astype(int)
    return adata


def beyond(value: Any, mad: float) -> np.ndarray:
    """Cells beyond so many MAD above the median, or, if negative, below it."""
    value = np.asarray(value, dtype=float)
    away = (value - np.median(value)) / (1.4826 * np.median(np.abs(value - np.median(value))))
    return away > mad if mad > 0 else away < mad


def true_effects(adata: ad.AnnData, held_out: ConditionMoments) -> dict[str, Effects]:
    truth = adata.uns["truth"]
    names = [str(one) for one in truth["effect_conditions"]]
    unseen = tuple(one for one, n in zip(held_out.names, held_out.n_cells, strict=True) if n and "+" in one)
    value = np.asarray(truth["effects"], dtype=float)[[names.index(one) for one in unseen]]
    return {"truth": Effects(unseen, value, np.zeros_like(value))}


def answered(effects: Effects, answerable: Any) -> Effects:
    """Effects of the conditions with cells that the model can answer for."""
    names = set(answerable(effects.names))
    rows = [row for row, name in enumerate(effects.names) if name in names and np.isfinite(effects.value[row]).all()]
    return Effects(tuple(effects.names[row] for row in rows), effects.value[rows], effects.standard_error[rows])


def literal(text: str) -> Any:
    import ast

    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()

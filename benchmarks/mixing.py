"""Cleaned failed cells beside raw passing ones: do they mix, do they stand by their perturbation, what do labels do?

    python benchmarks/mixing.py papalexi2021_299g_planted_artifacts.h5ad --seeds 0 1 2 --output docs/results/mixing.csv

Held-out cells of some conditions, log-normalised, are laid into the principal components of the passing training cells
of these conditions (those of the compared cells themselves would part them from all others, from true ones as well).
For each version of the failed cells: the share of a failed cell's neighbours that failed too (``expected_share``: under
perfect mixing), the share that is of its perturbation, the AUC of a classifier that tells failed from passing cells,
and of twins the Poisson deviance of the true counts.

Labels are then shuffled among all held-out failed cells. ``effect_r`` is the correlation of effects measured in them
with those of the model, over all conditions and genes; ``effect_r_own`` that without shuffling. ``--folder`` keeps the
trained models. Artifacts are planted into a file without the layer of true counts.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.decomposition import PCA

import cradlevae as cv
from cradlevae.data.moments import condition_moments, measured_effects
from cradlevae.evaluation.metrics.clean import poisson_deviance
from cradlevae.evaluation.metrics.mixing import Mixture, failed_neighbours, own_neighbours, two_sample_auc
from cradlevae.evaluation.metrics.pca_space import log_normalised

CONDITIONS = ("control", "IFNGR1", "JAK2", "STAT1", "BRD4", "CUL3")
SHUFFLES = 5
TWINS = {"twins, label used": True, "twins, label unused": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS))
    parser.add_argument("--truth", default="clean", help="layer with the true counts")
    parser.add_argument("--components", type=int, default=30)
    parser.add_argument("--draws", type=int, default=5, help="twins of each cell, whose scores are averaged")
    parser.add_argument("--epochs", type=int, help="at most; by default as many as the package takes")
    parser.add_argument("--folder", type=Path, help="where trained models are kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(options.threads)
    adata = ad.read_h5ad(options.data)
    if options.truth not in adata.layers:
        adata = cv.plant_artifacts(adata)
    adata.obs["artifact"] = adata.obs["artifact"].astype(bool)
    tables = []
    for seed in options.seeds:
        model = trained(adata, seed, options)
        tables.append(measured(model, adata, options).assign(seed=seed))
        pd.concat(tables).to_csv(options.output, index=False)
        print(tables[-1].round(3).to_string(index=False), flush=True)
    shown = pd.concat(tables).groupby("version", sort=False).agg(["mean", "std"]).drop(columns="seed", level=0)
    print(shown.round(3).T.to_string())


def trained(adata: ad.AnnData, seed: int, options: argparse.Namespace) -> cv.CradleVAE:
    """The default model of a split, from the folder of models where it is there."""
    folder = None if options.folder is None else options.folder / f"model{seed}"
    if folder is not None and folder.exists():
        return cv.CradleVAE.load(folder)
    model = cv.CradleVAE(adata, split=cv.split(adata, "cells", seed=seed), seed=seed)
    model.train(options.epochs, progress=False, seed=seed)
    if folder is not None:
        model.save(folder)
    return model


def measured(model: cv.CradleVAE, adata: ad.AnnData, options: argparse.Namespace) -> pd.DataFrame:
    """All figures of one model, a row for each version of the failed cells."""
    held_out, train = (adata[model.split.cells(part)] for part in ("test", "train"))
    failed = held_out[held_out.obs["artifact"].to_numpy()].copy()
    answered = model.clean(failed).obs_names  # without cells that have no count, or a label that was not trained on
    failed, held_out = failed[answered].copy(), held_out[~held_out.obs["artifact"] | held_out.obs_names.isin(answered)]
    beside = beside_passing(held_out, train, options)
    chosen = failed.obs["perturbation"].isin(options.conditions).to_numpy()
    effect_r = agreement(model, failed.obs["perturbation"].astype(str).to_numpy())
    true = sp.csr_matrix(failed.layers[options.truth])[chosen]

    def row(version: str, counts: list[Any], shuffled: list[Any], expected: list[Any] | None = None) -> dict[str, Any]:
        figures = pd.DataFrame([beside(sp.csr_matrix(drawn)[chosen]) for drawn in counts]).mean()
        deviance = [poisson_deviance(true, np.asarray(one[chosen], dtype=np.float64)).mean() for one in expected or []]
        return {
            "version": version, **figures, "deviance": np.mean(deviance) if deviance else np.nan,
            "effect_r": np.mean([effect_r(sp.csr_matrix(cells), names) for cells, names in shuffled]),
            "effect_r_own": np.mean([effect_r(sp.csr_matrix(drawn)) for drawn in counts]),
        }  # fmt: skip

    labels = [np.random.default_rng(seed).permutation(failed.obs["perturbation"]) for seed in range(SHUFFLES)]
    raw, truth = failed.X, failed.layers[options.truth]
    rows = [row("raw", [raw], [(raw, names) for names in labels])]
    for version, use_label in TWINS.items():
        twins = [model.clean(failed, use_label=use_label, seed=seed) for seed in range(options.draws)]
        shuffled = []
        for names in labels:
            cells = failed.copy()
            cells.obs["perturbation"] = names
            shuffled.append((model.clean(cells, use_label=use_label), names))
        smooth = [one.layers["expected"] for one in twins]
        rows.append(row(version, [one.X for one in twins], [(one.X, names) for one, names in shuffled], smooth))
        of_shuffled = [(one.layers["expected"], names) for one, names in shuffled]
        rows.append(row(f"{version}, expected", smooth[:1], of_shuffled))
    rows.append(row("truth", [truth], [(truth, names) for names in labels]))
    return pd.DataFrame(rows)


def beside_passing(held_out: ad.AnnData, train: ad.AnnData, options: argparse.Namespace) -> Callable[..., Any]:
    """A function that scores a version of the failed cells among the passing ones, of the conditions that are shown."""
    held_out, train = (part[part.obs["perturbation"].isin(options.conditions).to_numpy()] for part in (held_out, train))
    fitted = log_normalised(sp.csr_matrix(train[~train.obs["artifact"].to_numpy()].X)).toarray()
    pca = PCA(min(options.components, min(fitted.shape) - 1), svd_solver="full").fit(fitted)
    bad = held_out.obs["artifact"].to_numpy()
    labels = held_out.obs["perturbation"].astype(str).to_numpy()
    order = np.concatenate([np.flatnonzero(~bad), np.flatnonzero(bad)])
    condition = np.unique(labels, return_inverse=True)[1][order]
    passing = pca.transform(log_normalised(sp.csr_matrix(held_out[~bad].X)).toarray())

    def score(counts: sp.csr_matrix) -> dict[str, float]:
        failed = pca.transform(log_normalised(counts).toarray())
        cells = Mixture(np.concatenate([passing, failed]), bad[order], condition)
        return {
            "failed_neighbours": failed_neighbours(cells),
            "expected_share": (bad.sum() - 1) / (len(bad) - 1),
            "own_neighbours": own_neighbours(cells),
            "auc": two_sample_auc(cells),
        }

    return score


def agreement(model: cv.CradleVAE, labels: np.ndarray) -> Callable[..., float]:
    """A function that correlates effects that are measured in cells, by some labels of theirs, with the model's."""
    data = model.trained
    names = [name for name in sorted(set(labels)) if name != "control" and data.answerable([name])]
    predicted = np.asarray(model.effects(names).X)

    def correlation(counts: sp.csr_matrix, given: np.ndarray = labels) -> float:
        codes = pd.Categorical(given, categories=["control", *names]).codes
        known = codes >= 0
        moments = condition_moments(counts[known], codes[known].astype(np.int64), ("control", *names))
        effects = measured_effects(moments)
        place = [names.index(name) for name in effects.names]
        return float(np.corrcoef(effects.value.ravel(), predicted[place].ravel())[0, 1])

    return correlation


if __name__ == "__main__":
    main()

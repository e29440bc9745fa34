"""Responders by the model and by a floor of perturbation signatures: on simulated escapers, and on real cells.

    python benchmarks/responders.py simulated --seeds 0 1 2 3 4 --output docs/results/responders_simulated.csv
    python benchmarks/responders.py halves papalexi2021_299g.h5ad --seeds 0 1 2 --output docs/results/responders.csv

`simulated`: a known share of the cells of each perturbation escapes. How well responders are told from escaping cells
(AUROC, within each perturbation), how near shares are to the truth and how often their intervals hold it, and how near
effects among responders are.

`halves`: nobody knows which real cells responded, but both halves of a cell's genes are of the same cell. Responders
are judged by one half of the genes, and compared with the *response* of held-out cells in the other half: the cell's
log expression there along the mean shift of the training cells of its perturbation. Agreement is the rank correlation
among the held-out cells of a perturbation, mean over perturbations whose cells respond in the other half at all (AUROC
of that response against controls at least .6).
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from rows import add_row, is_there  # beside this script
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

import cradlevae as cv
from cradlevae.evaluation.responder_floor import RESPONDER_FLOORS, responder_floor
from cradlevae.query.responders.result import Responders

FEWEST = 20
"""Held-out cells of a perturbation that an agreement is computed from."""

TELLING = 0.6
"""AUROC of the response in the other half of the genes, held-out cells against held-out controls."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    simulated = commands.add_parser("simulated")
    simulated.add_argument("--cells", type=int, default=6000)
    simulated.add_argument("--genes", type=int, default=600)
    simulated.add_argument("--perturbations", type=int, default=16)
    simulated.add_argument("--pairs", type=int, default=8)
    simulated.add_argument("--escaping", nargs="+", type=float, default=[0.2, 0.4, 0.6], help="shares, in rotation")
    halves = commands.add_parser("halves")
    halves.add_argument("data", type=Path)
    for command in (simulated, halves):
        command.add_argument("--seeds", nargs="+", type=int, default=[0])
        command.add_argument("--epochs", type=int, help="by default those of a training")
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    for seed in options.seeds:
        key: dict[str, Any] = {"seed": seed}
        if not is_there(options.output, key):
            rows = on_simulated(seed, options) if options.command == "simulated" else on_halves(seed, options)
            for row in rows:
                add_row(options.output, key | row)
                print(
                    key | {name: round(float(v), 4) if isinstance(v, float) else v for name, v in row.items()},
                    flush=True,
                )


def trained(adata: ad.AnnData, seed: int, epochs: int | None) -> cv.CradleVAE:
    """A model of a split of its own seed."""
    model = cv.CradleVAE(adata, split=cv.split(adata, "cells", seed=seed), seed=seed)
    model.train(epochs, seed=seed, progress=False)
    return model


def answers(model: cv.CradleVAE, adata: ad.AnnData) -> dict[str, Responders]:
    """What the model and the floors say."""
    return {"model": model.responders(adata)} | {name: responder_floor(adata, name) for name in RESPONDER_FLOORS}


def on_simulated(seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each predictor and share of escaping cells."""
    sizes = {
        "n_cells": options.cells, "n_genes": options.genes, "n_perturbations": options.perturbations,
        "n_combinations": options.pairs, "n_interacting": 0, "seed": seed,
    }  # fmt: skip
    names = [str(name) for name in cv.simulate(**sizes).uns["truth"]["effect_conditions"]]
    escaping = {name: options.escaping[place % len(options.escaping)] for place, name in enumerate(names)}
    adata = cv.simulate(**sizes, escaping=escaping)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    model = trained(adata, seed, options.epochs)
    effects = model.effects(names)
    truth = pd.DataFrame(adata.uns["truth"]["effects_of_responders"], index=names)
    rows = []
    for predictor, found in answers(model, adata).items():
        cells = found.cells.join(adata.obs["true_escaped"])
        table = pd.DataFrame([of_perturbation(group) for _, group in cells.groupby("perturbation", observed=True)])
        table.index = found.shares.index
        table["error"] = found.shares["share"] - table["true"]
        table["held"] = (found.shares["low"] <= table["true"]) & (table["true"] <= found.shares["high"])
        table["width"] = found.shares["high"] - found.shares["low"]
        if predictor == "model":
            among = found.effects(effects)[names]
            table["effect_rmse"] = np.sqrt(((among.X - truth) ** 2).mean(axis=1))
            table["effect_rmse_of_all"] = np.sqrt(((effects[names].X - truth) ** 2).mean(axis=1))
            inside = (among.layers["low"] <= truth) & (truth <= among.layers["high"])
            table["effect_held"] = inside.mean(axis=1)
        for share, part in table.groupby(pd.Series(escaping)):
            row = {"predictor": predictor, "escaping": share} | part.drop(columns=["error", "true"]).mean().to_dict()
            rows.append(row | {"share_bias": part["error"].mean(), "share_rmse": np.sqrt((part["error"] ** 2).mean())})
    return rows


def of_perturbation(cells: pd.DataFrame) -> dict[str, float]:
    """AUROC of responders of one perturbation, among all its cells and some."""
    found = {"true": float(1 - cells["true_escaped"].mean())}
    failed, held_out = cells["failed_qc"], cells["held_out"]
    parts = {"": cells, "_passing": cells[~failed], "_failed": cells[failed], "_held_out": cells[held_out]}
    for name, part in parts.items():
        both = part["true_escaped"].nunique() == 2
        found[f"auroc{name}"] = roc_auc_score(~part["true_escaped"], part["p_responding"]) if both else np.nan
    return found


def on_halves(seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each predictor."""
    adata = ad.read_h5ad(options.data)
    if "artifact" not in adata.obs:
        cv.annotate_qc(adata)
    order = np.random.default_rng(seed).permutation(adata.n_vars)
    judged, other = adata[:, np.sort(order[::2])].copy(), adata[:, np.sort(order[1::2])].copy()
    model = trained(judged, seed, options.epochs)
    response = responses(other, set(model.split.cells("train")))
    rows = []
    for predictor, found in answers(model, judged).items():
        cells = found.cells.join(response, how="inner")
        strength, agreement = [], []
        for _, group in cells.dropna(subset="p_responding").groupby("perturbation", observed=True):
            if len(group) >= FEWEST and group["telling"].iloc[0] >= TELLING:
                agreement.append(spearmanr(group["p_responding"], group["response"]).statistic)
                responding = group["p_responding"] > group["p_responding"].median()
                strength.append(group["response"][responding].mean() / group["response"].mean())
        about = {"n_perturbations": len(agreement), "agreement": float(np.mean(agreement))}
        rows.append({"predictor": predictor} | about | {"strength": float(np.mean(strength))})
    return rows


def responses(adata: ad.AnnData, train: set[str]) -> pd.DataFrame:
    """Response of each held-out perturbed cell: 0 as controls on the average, 1 as its perturbation's training cells.

    ``telling`` is the AUROC of the perturbation's held-out cells against held-out controls.
    """
    counts = adata.X.toarray().astype(np.float64)
    logged = np.log1p(1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    label, seen = adata.obs["perturbation"].astype(str).to_numpy(), adata.obs_names.isin(train)
    passing = ~adata.obs["artifact"].to_numpy(dtype=bool)
    base = logged[(label == "control") & seen & passing]
    spread = base.var(axis=0) + 0.01
    parts = []
    for name in sorted(set(label) - {"control"}):
        shift = logged[(label == name) & seen & passing].mean(axis=0) - base.mean(axis=0)
        score = ((logged - base.mean(axis=0)) / spread) @ shift / (shift**2 / spread).sum()
        own, controls = (label == name) & ~seen, (label == "control") & ~seen
        perturbed = np.repeat([True, False], [own.sum(), controls.sum()])
        telling = roc_auc_score(perturbed, np.concatenate([score[own], score[controls]]))
        parts.append(pd.DataFrame({"response": score[own], "telling": telling}, index=adata.obs_names[own]))
    return pd.concat(parts)


if __name__ == "__main__":
    main()

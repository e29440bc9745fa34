"""Whether the answers hold: false signs among called effects and interactions, and interactions against the truth.

    python benchmarks/answers.py --seeds 10 11 12 13 14 --output docs/results/answers.csv

Data are simulated, pairs held out, a model trained. Effects are called by their local false sign rate (``lfsr``), and
by its mean down to a rank (``q``); how many of them have another sign than the true effect is the realised false sign
rate. Interactions are compared with the true ones, and with the plain difference of means of passing training cells
where the pair has such. Rows that are there already stay.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rows import add_row, is_there  # beside this script

import cradlevae as cv
from cradlevae.evaluation.metrics.effects import pearson

LEVELS = (0.01, 0.05, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the data, the split and the model")
    parser.add_argument("--cells", type=int, default=3600)
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--perturbations", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--epochs", type=int, help="at most; by default as many as the package takes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        about = {"cells": options.cells, "genes": options.genes, "epochs": options.epochs or "default", "seed": seed}
        if is_there(options.output, about):
            continue
        for row in measure(options, seed):
            add_row(options.output, about | row)
        print(pd.read_csv(options.output).query("seed == @seed").to_string(), flush=True)


def measure(options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Rows of one seed."""
    adata = cv.simulate(
        n_cells=options.cells, n_genes=options.genes, n_perturbations=options.perturbations,
        n_combinations=options.pairs, seed=seed,
    )  # fmt: skip
    cv.annotate_qc(adata, criteria=["umi", "genes", "mito", "ribo"])
    model = cv.CradleVAE(adata, split=cv.split(adata, "combinations", seed=seed), seed=seed)
    model.train(options.epochs, progress=False, seed=seed)
    return rows_of(model, adata)


def rows_of(model: cv.CradleVAE, adata: Any) -> list[dict[str, Any]]:
    """Rows of a trained model."""
    truth = adata.uns["truth"]
    true = pd.DataFrame(truth["effects"], index=truth["effect_conditions"], columns=truth["genes"])[adata.var_names]
    pairs = model.interactions()
    singles = [name for name in true.index if "+" not in name]
    kinds = {"singles": singles}
    kinds |= {f"{kind} pairs": list(pairs.obs_names[pairs.obs["measured"] == (kind == "measured")])
              for kind in ("measured", "unseen")}  # fmt: skip
    effects = model.effects([*singles, *pairs.obs_names])
    rows = []
    for kind, names in kinds.items():
        rows += scored("effects", kind, effects[names], true.loc[names].to_numpy())
        if names is not singles:
            beyond = np.stack([beyond_sum(true.to_numpy(), true.index, name) for name in names])
            rows += scored("interactions", kind, pairs[names], beyond)
    floor = cv.FloorModel("training_mean", adata, split=model.split)
    floor.train()
    means = floor.effects()
    measured = kinds["measured pairs"]
    plain = np.stack([beyond_sum(np.asarray(means.X), means.obs_names, name) for name in measured])
    beyond = np.stack([beyond_sum(true.to_numpy(), true.index, name) for name in measured])
    rows.append(
        row("interactions", "measured pairs", "correlation of the plain difference", correlation(plain, beyond))
    )
    interacting = pairs.obs_names.isin(truth["interacting"])
    for kind, chosen in (("interacting", interacting), ("other", ~interacting)):
        additive = float((pairs.obs["interaction"] == "additive")[chosen].mean())
        rows.append(row("interactions", f"{kind} pairs", "share called additive", additive, int(chosen.sum())))
    return rows


def beyond_sum(table: np.ndarray, names: Any, pair: str) -> np.ndarray:
    """Effect of a pair minus the sum of its single perturbations, (genes,)."""
    place = list(names)
    effect = table[place.index(pair)].astype(float)
    for single in pair.split("+"):
        effect = effect - table[place.index(single)]
    return effect


def scored(what: str, kind: str, answer: Any, true: np.ndarray) -> list[dict[str, Any]]:
    """Correlation with the truth, coverage, and the share of false signs among what is called."""
    table = cv.effects_table(answer, sort_by=None)
    wrong = np.sign(table["effect"].to_numpy()) != np.sign(true.ravel())
    inside = (table["low"] <= true.ravel()) & (true.ravel() <= table["high"])
    rows = [
        row(what, kind, "correlation", correlation(np.asarray(answer.X), true)),
        row(what, kind, "coverage of 90 % intervals", float(inside.mean())),
    ]
    for by in ("lfsr", "q"):
        for level in LEVELS:
            called = (table[by] <= level).to_numpy()
            rate = float(wrong[called].mean()) if called.any() else 0.0
            rows.append(row(what, kind, f"false signs at {by} ≤ {level:g}", rate, int(called.sum())))
    return rows


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(pearson(one.ravel().astype(float), other.ravel().astype(float)))


def row(what: str, kind: str, score: str, value: float, n: int | None = None) -> dict[str, Any]:
    return {"what": what, "kind": kind, "score": score, "value": round(value, 4), "n": n}


if __name__ == "__main__":
    main()

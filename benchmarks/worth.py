"""How many passing cells a failed cell is worth as evidence of effects, by the model's estimate without a decoder.

    python benchmarks/worth.py papalexi2021_299g.h5ad --seeds 0 1 2 3 4 --output docs/results/worth.csv

Artifacts are planted into a share of the cells. Effects are estimated from passing cells (dropped), from passing and
failed cells (modelled), and from all cells as if they had passed (pooled), and compared with the true counts of all
held-out cells. Passing cells are then thinned until the modelled estimate is only as good as the dropped one with all
of them: what was taken away, over the number of failed cells, is what a failed cell is worth.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
from rows import add_row, is_there  # beside this script

import cradlevae as cv
from cradlevae.data.experiment import Experiment
from cradlevae.data.moments import condition_codes, condition_moments, measured_effects
from cradlevae.evaluation.metrics.effects import ate_rho
from cradlevae.model.trained import TrainedModel
from cradlevae.model.training import residual

KEPT = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
"""Shares of the passing cells that are kept."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="clean cells")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25, 0.5], help="of the cells that fail")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the split")
    parser.add_argument("--repeats", type=int, default=3, help="random choices of the cells that are kept")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    clean = ad.read_h5ad(options.data)
    clean.layers.pop("clean", None)
    for share in options.shares:
        planted = cv.plant_artifacts(clean, share=share, seed=0)
        for seed in options.seeds:
            about = {"data": options.data.stem, "share": share, "split_seed": seed}
            if not is_there(options.output, about):
                found = measure(planted, seed, options.repeats)
                add_row(options.output, about | found)
                print(about, {name: round(value, 4) for name, value in found.items()}, flush=True)


def measure(planted: ad.AnnData, seed: int, repeats: int) -> dict[str, float]:
    """ρ of the three estimates, and what a failed cell is worth."""
    split = cv.split(planted, "cells", seed=seed)
    model = cv.CradleVAE(planted, split=split)
    assert model.data is not None
    data, trained = model.data, model.trained
    rows, failed = split.rows(data, "train"), data.failed
    passing = rows[~failed[rows]]
    truth = true_effects(planted, data, split.rows(data, "test"), trained)

    def rho(used: np.ndarray, *, pooled: bool = False) -> float:
        return float(ate_rho(truth, estimated(trained, data, used, rows, pooled=pooled)))

    dropped, modelled = rho(passing), rho(rows)
    found = {"dropped": dropped, "modelled": modelled, "pooled": rho(rows, pooled=True)}
    curve = [modelled]
    for kept in KEPT[1:]:
        draws = []
        for repeat in range(repeats):
            some = np.random.default_rng([seed, repeat]).permutation(passing)[: round(kept * len(passing))]
            draws.append(rho(np.sort(np.concatenate([some, rows[failed[rows]]]))))
        curve.append(float(np.mean(draws)))
    found["worth"] = worth(np.array(curve), dropped, len(passing), len(rows) - len(passing))
    return found


def worth(curve: np.ndarray, dropped: float, n_passing: int, n_failed: int) -> float:
    """Passing cells that a failed one stands for: where a line through the curve meets the dropped estimate."""
    slope, level = np.polyfit(KEPT, curve, 1)
    return float((1 - (dropped - level) / slope) * n_passing / n_failed)


def estimated(
    model: TrainedModel, data: Experiment, used: np.ndarray, train: np.ndarray, *, pooled: bool = False
) -> np.ndarray:
    """Effects of the conditions, (conditions, genes), from training cells ``used``; validation cells choose as ever."""
    left_out = np.setdiff1d(train, used)
    some = data.subset(np.setdiff1d(np.arange(data.n_cells), left_out))
    if pooled:
        some.artifact[:] = 0
    measured = residual._measure(model, some)
    assert measured is not None
    names = list(measured.names)
    nothing = np.zeros((len(names) + 1, data.n_genes), dtype=np.float32)
    fitted = residual._fitted(measured, nothing, np.arange(len(names) + 1)).mean[1:]
    return np.stack([fitted[names.index(name)] for name in model.trained])


def true_effects(planted: ad.AnnData, data: Experiment, rows: np.ndarray, model: TrainedModel) -> np.ndarray:
    """Effects in the true counts of held-out cells, (conditions, genes)."""
    conditions = [data.conditions[0], *(name for name in data.conditions[1:] if name in model.trained)]
    order = planted.obs_names.get_indexer(data.cells[rows])
    counts = planted.layers["clean"][order]
    moments = condition_moments(counts, condition_codes(data, rows, conditions), conditions)
    effects = measured_effects(moments)
    return np.stack([effects.value[list(effects.names).index(name)] for name in model.trained])


if __name__ == "__main__":
    main()

"""Tables of mean ± standard deviation over seeds, from what scores.py wrote.

python benchmarks/table.py docs/results/planted.csv docs/results/simulated.csv
"""

from __future__ import annotations

import argparse

import pandas as pd

METRICS = (
    "ate_rho", "ate_r2", "jaccard_20", "pearson_delta", "discrimination_l2", "clean_deviance", "leakage_z_basal",
    "leakage_z_basal_mean", "leakage_z_perturbation", "signature_correlation", "mask_f1", "de_overlap", "de_direction",
)  # fmt: skip
PREDICTORS = (
    "model", "model (published protocol)", "zero", "perturbed_mean", "training_mean", "shrunk_mean",
    "lowrank_shrunk_mean", "additive", "additive_shrunk", "matching_mean", "own_damaged_profile", "perturbation_mean",
    "overall_mean", "denoiser",
)  # fmt: skip


def markdown(runs: pd.DataFrame) -> str:
    runs = runs[runs["metric"].isin(METRICS) & runs["predictor"].isin(PREDICTORS)]
    keys = ["objective", "reference", "metric", "predictor"]
    over_seeds = runs.groupby(keys, sort=False)["value"].agg(["mean", "std", "count"])
    ceiling = runs[runs["predictor"] == "model"].groupby(keys[:3], sort=False)["ceiling"].mean()
    text = over_seeds.apply(lambda row: "" if pd.isna(row["mean"]) else f"{row['mean']:.3f} ± {row['std']:.3f}", axis=1)
    wide = text.unstack("predictor").fillna("")
    wide = wide[[name for name in PREDICTORS if name in wide and (wide[name] != "").any()]]
    wide["ceiling"] = ceiling.reindex(wide.index).map(lambda value: "" if pd.isna(value) else f"{value:.3f}")
    lines = ["| " + " | ".join([*keys[:3], *wide.columns]) + " |", "|" + "---|" * (3 + len(wide.columns))]
    for index, row in zip(wide.index, wide.to_numpy(), strict=True):
        lines.append("| " + " | ".join([*map(str, index), *row]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+")
    for path in parser.parse_args().tables:
        table = pd.read_csv(path)
        for name, runs in table.groupby("data"):
            per_run = runs.groupby(["objective", "seed"])[["epochs", "train_cpu_s"]].first()
            seeds = per_run.groupby("objective").size().to_dict()
            print(f"\n### {name}, runs: {seeds}, training {per_run['train_cpu_s'].mean():.0f} CPU s\n")
            print(markdown(runs))

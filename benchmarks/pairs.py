"""What counterfactual pairs are worth: cleaned cells, diagnoses, leakage, effects and generated cells.

    python benchmarks/pairs.py papalexi2021_299g_planted_artifacts.h5ad --seeds 0 1 2 3 4 \\
        --output docs/results/pairs.csv
    python benchmarks/pairs.py … --settings reference=mean
    python benchmarks/pairs.py … --settings counterfactual_weight=0

A file needs ``layers["clean"]`` (the true counts), ``obs["artifact"]`` and ``obs["artifact_kind"]``; with ``--damage
other`` it needs clean counts alone, into which damages are planted that no operator of the package has the form of:
thinning with a bias by gene, doublets of unequal parts, ambient RNA of a pool of few genes, loss of all but some genes'
RNA. Finished rows are kept.
"""

from __future__ import annotations

import argparse
import ast
import time
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
from rows import add_row, is_there  # beside this script

import cradlevae as cv
from cradlevae.evaluation.metrics.clean import poisson_deviance

NAMES = {"low_umi": "few_counts", "unequal_doublet": "doublet", "other_pool": "ambient", "cytoplasm": "dying"}
"""Kinds of the data, as the package calls them where the names differ."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--damage", choices=["planted", "other"], default="planted")
    parser.add_argument("--share", type=float, default=0.25, help="of the cells that are damaged (--damage other)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--settings", nargs="*", default=[], help="of the model, e.g. reference=mean")
    parser.add_argument("--epochs", type=int, help="at most; by default as many as the package takes")
    parser.add_argument("--part", choices=["val", "test"], default="test")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="cleaned cells and diagnoses alone, without floors")
    parser.add_argument("--no-denoiser", action="store_true", help="leave the denoiser out of the floors")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(options.threads)
    adata = ad.read_h5ad(options.data)
    if options.damage == "other":
        adata = with_other_damage(adata, options.share, seed=0)
    for seed in options.seeds:
        about = {
            "data": options.data.stem + ("" if options.damage == "planted" else ", other damage"),
            "settings": " ".join(sorted(options.settings)) or "default",
            "split_seed": seed,
            "epochs": options.epochs or 0,
            "part": options.part,
        }
        if is_there(options.output, about):
            continue
        settings = {name: literal(value) for name, value in (one.split("=") for one in options.settings)}
        found = measure(adata, seed, settings, options)
        add_row(options.output, about | found)
        print(about, {name: round(value, 3) for name, value in found.items()}, flush=True)


def literal(value: str) -> Any:
    """A number or text of the command line."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def measure(adata: ad.AnnData, seed: int, settings: dict[str, Any], options: argparse.Namespace) -> dict[str, float]:
    """Scores of a model that is trained on a split of its own seed."""
    split = cv.split(adata, "cells", seed=seed)
    started = time.process_time()
    model = cv.CradleVAE(adata, split=split, seed=seed, **settings)
    model.train(max_epochs=options.epochs, seed=seed, progress=False)
    found: dict[str, float] = {"cpu_s": time.process_time() - started}
    held_out = adata[split.cells(options.part)].copy()
    found |= clean_scores(model, held_out)
    if model.config.reference == "damaged":
        found |= diagnosis_scores(model, held_out[held_out.obs["artifact"].to_numpy() > 0].copy())
    if not options.quick:
        found |= table_scores(model, adata, denoiser=not options.no_denoiser)
    return found


def clean_scores(model: cv.CradleVAE, cells: ad.AnnData) -> dict[str, float]:
    """Deviance of true counts from cleaned cells, by kind, and of passing cells' own counts from theirs."""
    twins = model.clean(cells)[cells.obs_names]
    failed = cells.obs["artifact"].to_numpy() > 0
    expected = np.asarray(twins.layers["expected"], dtype=np.float64)
    deviance = poisson_deviance(sp.csr_matrix(cells.layers["clean"]), expected)
    kinds = cells.obs["artifact_kind"].astype(str).to_numpy()
    found = {"clean": deviance[failed].mean()}
    found |= {f"clean_{kind}": deviance[kinds == kind].mean() for kind in sorted(set(kinds[failed]))}
    passing = expected[~failed]
    copies = np.random.default_rng(0).poisson(passing).astype(np.float32)
    found["passing_own"] = poisson_deviance(sp.csr_matrix(cells.X)[~failed], passing).mean()
    found["passing_copy"] = poisson_deviance(sp.csr_matrix(copies), passing).mean()
    return found


def diagnosis_scores(model: cv.CradleVAE, failed: ad.AnnData) -> dict[str, float]:
    """How often the most probable kind is true, how often its probability says so, and what severities hold."""
    table = model.diagnose(failed)
    kinds = failed.obs["artifact_kind"].astype(str)
    true = np.array([NAMES.get(kind, kind) for kind in kinds])
    right = table["damage"].astype(str).to_numpy() == true
    found = {"kind_right": right.mean()}
    found["kind_probability"] = table[[c for c in table if c.startswith("p_") and c != "p_second_parent"]].max(1).mean()
    if "true_severity" in failed.obs:
        severity = failed.obs["true_severity"].to_numpy()
        held = (table["severity_low"] <= severity) & (severity <= table["severity_high"])
        found["severity_held"] = held[right].mean()
    return found


def table_scores(model: cv.CradleVAE, adata: ad.AnnData, *, denoiser: bool) -> dict[str, float]:
    """Scores of `evaluate`, with the best floor of each."""
    table = cv.evaluate(model, adata, truth="clean", denoiser=denoiser)
    found = {}
    for metric in ("ate_rho", "ate_r2", "clean_deviance", "leakage_z_basal", "leakage_z_basal_mean", "e_distance"):
        rows = table[table["metric"] == metric]
        for row in rows.itertuples():
            if row.predictor == "model" and metric != "clean_deviance":
                found[f"{metric}|{row.reference}"] = row.value
            elif row.predictor in FLOORS:
                found[f"{metric}|{row.reference}|{row.predictor}"] = row.value
    return found


FLOORS = (
    "own_damaged_profile", "perturbation_mean", "denoiser", "shrunk_mean", "lowrank_shrunk_mean", "hierarchical_mean",
    "multivariate_shrunk_mean",
)  # fmt: skip


def with_other_damage(adata: ad.AnnData, share: float, seed: int) -> ad.AnnData:
    """A copy with damages that are none of the package's operators; cells that lose all counts are left out."""
    random = np.random.default_rng(seed)
    clean = sp.csr_matrix(adata.layers.get("clean", adata.X)).toarray().astype(np.int64)
    n_cells, n_genes = clean.shape
    kinds = np.full(n_cells, "none", dtype="<U16")
    cells = random.permutation(n_cells)[: round(share * n_cells)]
    kinds[cells] = random.choice(["length_bias", "unequal_doublet", "other_pool", "cytoplasm"], len(cells))
    damaged = clean.copy()
    rows = np.flatnonzero(kinds == "length_bias")
    bias = np.exp(random.normal(0, 1, n_genes))
    bias = np.minimum(2 * bias / bias.max(), 1)
    damaged[rows] = random.binomial(clean[rows], random.uniform(0.15, 0.7, (len(rows), 1)) * bias)
    rows = np.flatnonzero(kinds == "unequal_doublet")
    other = clean[random.integers(n_cells, size=len(rows))]
    damaged[rows] += random.binomial(other, random.uniform(0.25, 0.8, (len(rows), 1)))
    rows = np.flatnonzero(kinds == "other_pool")
    pool = np.full(n_genes, 0.3 / n_genes)
    few = random.permutation(n_genes)[: max(1, n_genes // 8)]
    pool[few] += 0.7 * random.dirichlet(np.ones(len(few)))
    own = random.binomial(clean[rows], 1 - random.uniform(0.2, 0.7, (len(rows), 1)))
    damaged[rows] = own + random.multinomial((clean[rows] - own).sum(axis=1), pool)
    rows = np.flatnonzero(kinds == "cytoplasm")
    stays = np.zeros(n_genes, dtype=bool)
    stays[random.permutation(n_genes)[: max(1, n_genes // 20)]] = True
    damaged[rows] = random.binomial(clean[rows], np.where(stays, 1.0, random.uniform(0.08, 0.4, (len(rows), 1))))
    other_damage = adata.copy()
    other_damage.X = sp.csr_matrix(damaged.astype(np.float32))
    other_damage.layers["clean"] = sp.csr_matrix(clean.astype(np.float32))
    other_damage.obs["artifact"] = (kinds != "none").astype(np.int64)
    other_damage.obs["artifact_kind"] = kinds
    other_damage.uns.pop("truth", None)
    other_damage.obs.drop(columns="true_severity", errors="ignore", inplace=True)
    return other_damage[damaged.sum(axis=1) > 0].copy()


if __name__ == "__main__":
    main()

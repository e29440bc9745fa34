"""The published settings on a small file in the published layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.benchmarking import benchmark as benchmark_module
from cradlevae.benchmarking import reproduce as reproduce_module
from cradlevae.benchmarking.data_source import DataSource
from cradlevae.benchmarking.jobs import Job
from cradlevae.benchmarking.plan import Plan
from cradlevae.benchmarking.store import Store
from cradlevae.benchmarking.worker import work


def published_norman(path: Path) -> None:
    """A simulated experiment written as Norman et al. is published: Ensembl ids, pairs of guide RNAs, lanes."""
    adata = cv.simulate(n_cells=500, n_genes=80, n_perturbations=5, n_combinations=8, n_interacting=1, seed=0)
    labels = adata.obs["perturbation"].astype(str)
    pairs = [
        "NegCtrl0_NegCtrl0" if name == "control" else name.replace("+", "_") if "+" in name else f"{name}_NegCtrl0"
        for name in labels
    ]
    obs = pd.DataFrame(
        {"guide_identity": [f"{pair}__{pair}" for pair in pairs], "gemgroup": 1, "good_coverage": True,
         "number_of_cells": 1},
        index=[f"CELL{place}-1" for place in range(len(pairs))],
    )  # fmt: skip
    ids = [f"ENSG{place:011d}" for place in range(adata.n_vars)]
    var = pd.DataFrame({"gene_symbols": list(adata.var_names)}, index=ids)
    ad.AnnData(sp.csr_matrix(adata.X, dtype=np.float32), obs=obs, var=var).write_h5ad(path)


def test_reproduce_small_runs_on_a_published_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRADLEVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reproduce_module, "SMALL", {"max_epochs": 1, "batch_size": 128, "accelerator": "cpu"})
    monkeypatch.setattr(reproduce_module, "MODELS", reproduce_module.MODELS[:1] + reproduce_module.MODELS[4:5])

    def compute(store: Store, jobs: Sequence[Job], plan: Plan, workers: int) -> None:
        work(store, [job for job in jobs if job.split_seed == 0], {source.name: source for source in plan.data})

    monkeypatch.setattr(benchmark_module, "compute_jobs", compute)
    published_norman(tmp_path / "norman.h5ad")
    found = cv.reproduce("norman", tmp_path / "out", budget="small", path=tmp_path / "norman.h5ad")
    assert set(found.failures["model"]) == {"SVAE+"}
    text = (tmp_path / "out" / "reproduction.md").read_text()
    assert "NOT the published setting" in text
    assert "NOT the published setting" in (tmp_path / "out" / "table.md").read_text()
    header = next(line for line in text.splitlines() if line.startswith("| | "))
    for column in (
        "ate_rho, as published",
        "ate_rho, held out",
        "pearson_delta, held out",
        "qc_pass_rate_mad3, held out",
    ):
        assert column in header
    ours = next(line for line in text.splitlines() if line.startswith("| CRADLE-VAE, released objective |"))
    filled = [entry.strip() for entry in ours.strip("|").split("|")][1:]
    assert all(filled)
    assert float(filled[0]) != float(filled[header.strip("|").split("|").index(" ate_rho, held out ") - 1])
    assert "| floor: additive |" in text
    assert "No score of SVAE+" in text


@pytest.mark.parametrize("budget", ["full", "small"])
def test_the_published_recipe_of_splits_is_reproduced(budget: reproduce_module.Budget) -> None:
    recipes = {
        name: reproduce_module.reproduction_plan(name, budget=budget).data[0].recipe
        for name in ("norman", "dixit", "adamson", "replogle")
    }
    assert recipes["norman"] == recipes["dixit"] == "combinations_published"
    assert DataSource(published="norman").recipe == "combinations"
    assert not {recipes["adamson"], recipes["replogle"]} & {"combinations", "combinations_published"}

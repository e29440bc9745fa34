"""Few cells in which nothing happens have no effects, and their intervals say so; large effects are seen."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import cradlevae as cv

GENES = 60


def cells_of_one_kind(
    n_cells: int, n_conditions: int, seed: int, *, failed: float = 0.0, log_fold: np.ndarray | None = None
) -> ad.AnnData:
    """Gamma-Poisson counts of concentration 2 about one profile, which ``log_fold`` moves in the first condition."""
    rng = np.random.default_rng(seed)
    profile = rng.dirichlet(np.full(GENES, 0.5))
    labels = np.repeat(["control", *(f"p{i}" for i in range(n_conditions))], n_cells)
    share = np.tile(profile, (len(labels), 1))
    if log_fold is not None:
        share[labels == "p0"] *= np.exp(log_fold)
    size = 800 * np.exp(rng.normal(0, 0.4, (len(labels), 1)))
    counts = rng.poisson(size * share * rng.gamma(2, 0.5, share.shape))
    obs = pd.DataFrame({"perturbation": labels, "artifact": (rng.random(len(labels)) < failed).astype(int)})
    obs.index = [f"c{i}" for i in range(len(labels))]
    var = pd.DataFrame(index=[f"g{i}" for i in range(GENES)])
    return ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


def new_model(adata: ad.AnnData, kind: type[cv.CradleVAE], seed: int) -> cv.CradleVAE:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody failed, or a condition has few cells
        return kind(adata, split=cv.split(adata, "cells", seed=seed), n_latent=4, width=16, basal_width=16, seed=seed)


def effects_of(adata: ad.AnnData, kind: type[cv.CradleVAE], seed: int, max_epochs: int = 3) -> ad.AnnData:
    model = new_model(adata, kind, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few cells are warned about
        model.train(max_epochs=max_epochs, progress=False, accelerator="cpu", seed=seed)
        return model.effects([name for name in adata.obs["perturbation"].unique() if name != "control"], error=0.1)


def excluding_zero(effects: ad.AnnData) -> float:
    return float(((effects.layers["low"] > 1e-6) | (effects.layers["high"] < -1e-6)).mean())


@pytest.mark.parametrize("failed", [0.0, 0.3])
@pytest.mark.parametrize(("n_cells", "n_conditions"), [(4, 1), (4, 2), (5, 6), (8, 3)])
def test_nothing_is_found_where_nothing_happens(n_cells: int, n_conditions: int, failed: float) -> None:
    found = [
        effects_of(cells_of_one_kind(n_cells, n_conditions, seed, failed=failed), cv.CradleVAE, seed)
        for seed in range(2)
    ]
    assert np.mean([excluding_zero(one) for one in found]) <= 0.1
    assert np.median([np.abs(one.X) for one in found]) < 0.2


@pytest.mark.parametrize("seed", range(3))
def test_gene_effects_start_near_zero(seed: int) -> None:
    adata = cells_of_one_kind(4, 1, seed)
    gene_effects = new_model(adata, cv.CradleVAE, seed).trained.module.gene_effects
    assert gene_effects is not None
    assert float(gene_effects.value.detach().abs().max()) < 2.5


def test_the_error_of_few_controls_is_part_of_every_effect() -> None:
    adata = cells_of_one_kind(60, 2, 0)
    few = adata[(adata.obs["perturbation"] != "control") | (np.arange(adata.n_obs) < 6)].copy()
    deviations = []
    for cells in (adata, few):
        module = new_model(cells, cv.CradleVAE, 0).trained.module
        assert module.gene_effects is not None
        information = module.likelihood.information(module.gene_effects.mean_count)
        deviations.append(module.gene_effects.base_deviation(torch.arange(2), information).detach().mean())
    assert deviations[1] > 1.1 * deviations[0]


def test_large_effects_of_twenty_cells_are_found() -> None:
    found = []
    for seed in range(2):
        log_fold = np.zeros(GENES)
        common = np.argsort(np.random.default_rng(seed).dirichlet(np.full(GENES, 0.5)))[::-1]
        log_fold[common[4:8]], log_fold[common[8:12]] = -2.5, 2.0
        effects = effects_of(cells_of_one_kind(32, 3, seed, log_fold=log_fold), cv.CradleVAE, seed, max_epochs=20)
        side = np.sign(log_fold[common[4:12]])
        low, high = (np.asarray(effects["p0"].layers[name])[0][common[4:12]] for name in ("low", "high"))
        found.append(np.where(side > 0, low > 0, high < 0))
    assert np.mean(found) > 0.8


@pytest.mark.parametrize("kind", [cv.ConditionalVAE, cv.SVAEPlus, cv.CPAVAE, cv.SAMSVAE])
def test_intervals_of_models_without_gene_effects_are_no_points(kind: type[cv.CradleVAE]) -> None:
    effects = effects_of(cells_of_one_kind(5, 6, 0), kind, 0)
    assert excluding_zero(effects) <= 0.15
    assert np.median(effects.layers["sd"]) > 0.02


@pytest.mark.parametrize("name", ["training_mean", "shrunk_mean", "hierarchical_mean"])
@pytest.mark.parametrize(("n_cells", "n_conditions"), [(4, 1), (4, 4), (8, 6)])
def test_intervals_of_floors_hold_the_truth(name: str, n_cells: int, n_conditions: int) -> None:
    outside = []
    for seed in range(10):
        adata = cells_of_one_kind(n_cells, n_conditions, seed)
        model = cv.FloorModel(name, adata, split=cv.split(adata, "cells", seed=seed))
        model.train()
        outside.append(excluding_zero(model.effects([f"p{i}" for i in range(n_conditions)])))
    assert np.mean(outside) <= 0.125

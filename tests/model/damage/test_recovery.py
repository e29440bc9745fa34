"""Cleaned cells are nearer to the truth than every floor, after damage that no operator has the form of."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import cradlevae as cv


def with_other_damage(adata: ad.AnnData) -> ad.AnnData:
    """A quarter of the cells: thinned with a bias by gene, part of another cell, ambient RNA of few genes, leaking."""
    random = np.random.default_rng(0)
    clean = sp.csr_matrix(adata.X).toarray().astype(np.int64)
    n_cells, n_genes = clean.shape
    kinds = np.full(n_cells, "none", dtype="<U12")
    cells = random.permutation(n_cells)[: n_cells // 4]
    kinds[cells] = random.choice(["biased", "part", "pool", "leaking"], len(cells))
    damaged = clean.copy()
    bias = np.exp(random.normal(0, 0.7, n_genes))
    rows = np.flatnonzero(kinds == "biased")
    damaged[rows] = random.binomial(clean[rows], np.minimum(random.uniform(0.1, 0.4, (len(rows), 1)) * bias, 1))
    rows = np.flatnonzero(kinds == "part")
    damaged[rows] += random.binomial(clean[random.integers(n_cells, size=len(rows))], 0.5)
    rows = np.flatnonzero(kinds == "pool")
    pool = random.dirichlet(np.full(n_genes, 0.2))
    own = random.binomial(clean[rows], random.uniform(0.3, 0.8, (len(rows), 1)))
    damaged[rows] = own + random.multinomial((clean[rows] - own).sum(axis=1), pool)
    rows = np.flatnonzero(kinds == "leaking")
    damaged[rows] = random.binomial(clean[rows], np.where(np.arange(n_genes) < n_genes // 20, 1.0, 0.2))
    planted = adata.copy()
    del planted.uns["truth"]
    planted.X = sp.csr_matrix(damaged.astype(np.float32))
    planted.layers["clean"] = sp.csr_matrix(clean.astype(np.float32))
    planted.obs["artifact"] = kinds != "none"
    planted.obs["artifact_kind"] = kinds
    return planted[damaged.sum(axis=1) > 0].copy()


@pytest.mark.slow
def test_cleaned_cells_are_nearer_to_the_truth_than_every_floor() -> None:
    adata = cv.simulate(
        n_cells=5000, n_genes=150, n_perturbations=6, n_combinations=0, n_interacting=0, artifact_rate=0, seed=2
    )
    del adata.layers["clean"]
    planted = with_other_damage(adata)
    model = cv.CradleVAE(planted, split=cv.split(planted, "cells", seed=0))
    model.train(50, progress=False)
    scores = cv.evaluate(model, planted, truth="clean", generated=False)
    rows = scores[(scores["metric"] == "clean_deviance") & (scores["reference"] == "held-out clean counts (truth)")]
    values = rows.set_index("predictor")["value"]
    assert {"denoiser", "own_damaged_profile", "perturbation_mean"} <= set(values.index)
    assert values["model"] < values.drop("model").min()

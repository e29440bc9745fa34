"""Every member of the family recovers effects from data of its own generative story."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import cradlevae as cv
from cradlevae.nn.gamma_poisson import GammaPoisson
from cradlevae.nn.log_expression import expected_log_expression

CONDITIONS = ("control", "A", "B", "C", "D", "A+B", "C+D", "A+C")
K, GENES, CELLS, LIBRARY = 4, 60, 2400, 100.0
CONCENTRATION = 20.0

RECOVERED = 0.9
"""Correlation of effects with the truth over conditions and genes that each member must reach."""


def sparse_additive(rng: np.random.Generator) -> np.ndarray:
    """Latent shifts of the conditions by one latent for each perturbation, which add up, (conditions, K)."""
    single = 3.0 * np.eye(4, K) * rng.choice([-1, 1], 4)[:, None]
    return dosage() @ single


def dense_additive(rng: np.random.Generator) -> np.ndarray:
    return dosage() @ rng.normal(0, 1.8, (4, K))


def sparse_by_condition(rng: np.random.Generator) -> np.ndarray:
    """Every condition shifts a latent of its own, combinations included."""
    shift = np.zeros((len(CONDITIONS), K))
    rows = np.arange(1, len(CONDITIONS))
    shift[rows, rng.integers(K, size=len(rows))] = 3.0 * rng.choice([-1, 1], len(rows))
    return shift


def dosage() -> np.ndarray:
    return np.array([[float(name in condition.split("+")) for name in "ABCD"] for condition in CONDITIONS])


def story(kind: str, seed: int = 0) -> tuple[ad.AnnData, np.ndarray]:
    """Cells of a member's story, and the true effects of its conditions, (conditions − 1, genes).

    Log shares are linear in the latents; the conditional VAE's perturbations move them directly. A third of
    CRADLE-VAE's cells have an artifact.
    """
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 1, GENES)
    loadings = rng.normal(0, 0.3, (K, GENES))
    if kind == "conditional_vae":
        moved = dosage() @ (rng.normal(0, 0.8, (4, GENES)) * (rng.random((4, GENES)) < 0.3))
    else:
        shifts = {"cpa_vae": dense_additive, "svae_plus": sparse_by_condition}.get(kind, sparse_additive)
        moved = shifts(rng) @ loadings
    condition = np.arange(CELLS) % len(CONDITIONS)
    failed = rng.random(CELLS) < (1 / 3 if kind == "cradle_vae" else 0.1)
    damage = rng.normal(0, 1.0, GENES) * (kind == "cradle_vae")
    states = rng.normal(size=(CELLS, K)) @ loadings
    shares = softmax(base + states + moved[condition] + failed[:, None] * damage)
    gamma = rng.gamma(CONCENTRATION, 1 / CONCENTRATION, shares.shape)
    adata = ad.AnnData(
        sp.csr_matrix(rng.poisson(LIBRARY * shares * gamma).astype(np.float32)),
        obs=pd.DataFrame({"perturbation": np.array(CONDITIONS)[condition], "artifact": failed},
                         index=[f"cell{i}" for i in range(CELLS)]),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(GENES)]),
    )  # fmt: skip
    expected = np.stack([mean_expression(softmax(base + states + one)) for one in moved])
    return adata, expected[1:] - expected[0]


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def mean_expression(shares: np.ndarray) -> np.ndarray:
    likelihood, library = GammaPoisson(GENES), torch.full((len(shares),), LIBRARY)
    likelihood.start(torch.full((GENES,), CONCENTRATION))
    with torch.no_grad():
        return expected_log_expression(torch.from_numpy(shares).float(), likelihood, library).numpy().mean(axis=0)


@pytest.mark.parametrize("kind", ["cradle_vae", "sams_vae", "svae_plus", "cpa_vae", "conditional_vae"])
def test_effects_of_its_own_story_are_recovered(kind: str, quick: dict[str, Any]) -> None:
    adata, truth = story(kind)
    options = {"mask_prior": 0.1} if kind in ("cradle_vae", "sams_vae") else {}
    model = cv.models()[kind].make(
        adata, split=cv.split(adata, "cells"), n_latent=8, width=64, basal_width=64, **options
    )
    model.train(30, **(quick | {"n_particles": 1, "learning_rate": 4e-3, "averaging": 0.95}))
    found = np.asarray(model.effects(list(CONDITIONS[1:]), error=0.2).X)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > RECOVERED

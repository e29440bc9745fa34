"""Small experiments and models that the tests share. Tests take copies; none changes what is shared."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cradlevae as cv

DATA_FOLDER = Path(os.environ.get("CRADLEVAE_DATA", Path(__file__).parents[2] / "shared" / "data"))

TINY_MODEL: dict[str, Any] = {"n_latent": 8, "width": 32, "basal_width": 32}
QUICK: dict[str, Any] = {"batch_size": 64, "n_particles": 2, "progress": False, "accelerator": "cpu"}


@pytest.fixture(scope="session")
def data_file() -> Callable[[str], Path]:
    """Path of a file of real counts; the test is skipped, by the file's name, where it is absent."""

    def find(name: str) -> Path:
        path = DATA_FOLDER / name
        if not path.exists():
            pytest.skip(f"{name} is not in {DATA_FOLDER} (set CRADLEVAE_DATA)")
        return path

    return find


@pytest.fixture(scope="session")
def simulated() -> ad.AnnData:
    """400 cells × 60 genes: controls, 5 single perturbations, 6 pairs, an eighth of the cells or so damaged."""
    adata = cv.simulate(
        n_cells=400, n_genes=60, n_perturbations=5, n_combinations=6, n_interacting=1, n_latent=6, seed=0
    )
    adata.obs["artifact"] = adata.obs["true_artifact"]
    kind = adata.obs["true_artifact_kind"].astype(str)
    adata.obs["low_umi"] = (kind == "low_umi").to_numpy()
    adata.obs["other_damage"] = (~kind.isin(["low_umi", "none"])).to_numpy()
    return adata


@pytest.fixture(scope="session")
def tiny_options() -> dict[str, Any]:
    """Sizes of a model that trains in a moment."""
    return dict(TINY_MODEL)


@pytest.fixture(scope="session")
def quick() -> dict[str, Any]:
    """Training options for a moment's training."""
    return dict(QUICK)


@pytest.fixture(scope="session")
def model(simulated: ad.AnnData) -> cv.CradleVAE:
    """A model of the simulated experiment after three epochs."""
    model = cv.CradleVAE(simulated, split=cv.split(simulated, "combinations", seed=0), **TINY_MODEL)
    model.train(3, **QUICK)
    return model


@pytest.fixture(scope="session")
def strong(model: cv.CradleVAE) -> cv.CradleVAE:
    """The trained model with random weights in its place, large enough that perturbations and artifact do much."""
    import torch

    from cradlevae.nn.mlp import GaussianHead

    strong = cv.CradleVAE.__new__(cv.CradleVAE)
    strong.data = model.data
    module = copy.deepcopy(model.trained.module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter.shape[1] if parameter.dim() == 2 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
        for part in module.modules():
            if isinstance(part, GaussianHead):
                half = len(part.linear.bias) // 2
                part.linear.weight[half:].mul_(0.2)
                part.linear.bias[half:].mul_(0.2).sub_(1.0)
        module.mask.logits.mul_(6)
        module.gene_effects.log_spread.fill_(-6)
        for encoder in (module.embedding.encoder, module.artifact.encoder):
            encoder.head.linear.bias[: module.n_latent].mul_(4)
    strong.trained = replace(model.trained, module=module)
    return strong


@pytest.fixture(scope="session")
def untrained(simulated: ad.AnnData) -> cv.CradleVAE:
    """The same before training."""
    return cv.CradleVAE(simulated, split=cv.split(simulated, "combinations", seed=0), **TINY_MODEL)


@pytest.fixture(scope="session")
def screen() -> ad.AnnData:
    """700 cells × 40 genes in three batches, confounded with the perturbations, and two contexts."""
    adata = cv.simulate(
        n_cells=700, n_genes=40, n_perturbations=4, n_combinations=2, n_interacting=0, n_latent=4, control_share=0.3,
        n_batches=3, confounding=0.5, n_contexts=2, context_sd=0.5, seed=3,
    )  # fmt: skip
    adata.obs["artifact"] = adata.obs["true_artifact"]
    return adata


SCREEN_KEYS: dict[str, Any] = {"batch_key": "batch", "context_key": "context"}


@pytest.fixture(scope="session")
def screen_model(screen: ad.AnnData) -> cv.CradleVAE:
    """A model of the screen after three epochs; A was not seen in the second context."""
    split = cv.split(screen, "contexts", held_out=[("A", "context2")], **SCREEN_KEYS)
    model = cv.CradleVAE(screen, split=split, **SCREEN_KEYS, **TINY_MODEL)
    model.train(3, **QUICK)
    return model


@pytest.fixture(scope="session")
def make_adata() -> Callable[..., ad.AnnData]:
    """AnnData from a dense array of counts and labels, by default with no failed cell."""

    def make(
        counts: np.ndarray,
        labels: list[str] | None = None,
        artifact: Any = False,
        *,
        form: Any = sp.csr_matrix,
    ) -> ad.AnnData:
        n_cells, n_genes = counts.shape
        obs = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)])
        if labels is not None:
            obs["perturbation"] = labels
        obs["artifact"] = artifact
        return ad.AnnData(form(counts), obs=obs, var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]))

    return make

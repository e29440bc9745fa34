"""Small experiments and models that the tests share. Tests take copies; none changes what is shared."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class GuideScreen:
    """A screen with guide RNAs, of which it is known which cell holds which.

    Attributes
    ----------
    genes, guides
        Counts, cells × genes and cells × guide RNAs.
    names
        Names of the guide RNAs: two of each gene and three controls.
    labels
        The true perturbation of each cell.
    """

    genes: ad.AnnData
    guides: sp.csr_matrix
    names: list[str]
    labels: pd.Series

    @property
    def targets(self) -> dict[str, str]:
        """The target of each guide RNA."""
        return {name: "control" if name.startswith("NT") else name.split("_")[0] for name in self.names}


@pytest.fixture(scope="session")
def guide_screen(simulated: ad.AnnData) -> GuideScreen:
    """The simulated experiment with counts of guide RNAs: 30 or so real ones, 0.1 ambient ones on the average."""
    rng = np.random.default_rng(1)
    adata = ad.AnnData(simulated.X.copy(), obs=pd.DataFrame(index=simulated.obs_names), var=simulated.var[[]].copy())
    names = [f"{gene}_{number}" for gene in "ABCDE" for number in (1, 2)] + [f"NT_{number}" for number in (1, 2, 3)]
    held = np.zeros((adata.n_obs, len(names)), dtype=bool)
    labels = simulated.obs["perturbation"].astype(str)
    for row, label in enumerate(labels):
        for target in ["NT"] if label == "control" else label.split("+"):
            held[row, rng.choice([index for index, name in enumerate(names) if name.startswith(f"{target}_")])] = True
    real = rng.poisson(30 * rng.lognormal(0, 0.5, held.shape)) * held
    return GuideScreen(adata, sp.csr_matrix(real + rng.poisson(0.1, held.shape)), names, labels)


FORMS = ("h5", "folder", "h5mu")
"""Published layouts of counts of genes and guide RNAs."""


def write_screen(screen: GuideScreen, form: str, folder: Path, **changes: Any) -> Path:
    """Write a screen as Cell Ranger 3 or MuData do; ``changes`` replace parts of it by name."""
    import gzip

    import h5py
    import scipy.io

    n_genes, n_guides = screen.genes.n_vars, len(screen.names)
    parts: dict[str, Any] = {
        "matrix": sp.csc_matrix(sp.hstack([screen.genes.X, screen.guides]).T.astype(np.int32)),
        "barcodes": [f"{name}-1" for name in screen.genes.obs_names],
        "ids": [f"ENSG{index:011}" for index in range(n_genes)] + [f"id_{name}" for name in screen.names],
        "names": [*screen.genes.var_names, *screen.names],
        "kinds": ["Gene Expression"] * n_genes + ["CRISPR Guide Capture"] * n_guides,
    } | changes
    matrix = parts["matrix"]
    if form == "h5":
        with h5py.File(folder / "screen.h5", "w") as file:
            group = file.create_group("matrix")
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(matrix, name)
            group["shape"] = np.array(matrix.shape)
            group["barcodes"] = np.array(parts["barcodes"], dtype="S")
            features = group.create_group("features")
            features["id"], features["name"] = np.array(parts["ids"], dtype="S"), np.array(parts["names"], dtype="S")
            if parts["kinds"] is not None:
                features["feature_type"] = np.array(parts["kinds"], dtype="S")
            features["genome"] = np.array(["GRCh38"] * len(parts["ids"]), dtype="S")
        return folder / "screen.h5"
    if form == "folder":
        path = folder / "filtered_feature_bc_matrix"
        path.mkdir()
        columns = [parts["ids"], parts["names"], *([] if parts["kinds"] is None else [parts["kinds"]])]
        scipy.io.mmwrite(path / "matrix.mtx", matrix)
        texts = {
            "matrix.mtx": (path / "matrix.mtx").read_bytes(),
            "features.tsv": "".join("\t".join(row) + "\n" for row in zip(*columns, strict=True)).encode(),
            "barcodes.tsv": "".join(f"{name}\n" for name in parts["barcodes"]).encode(),
        }
        (path / "matrix.mtx").unlink()
        for name, text in texts.items():
            (path / f"{name}.gz").write_bytes(gzip.compress(text))
        return path
    mudata = pytest.importorskip("mudata")
    genes = screen.genes.copy()
    genes.obs_names = parts["barcodes"]
    genes.var["feature_types"] = "Gene Expression"
    guides = ad.AnnData(screen.guides.copy(), obs=genes.obs[[]].copy(), var=pd.DataFrame(index=screen.names))
    guides.var["feature_types"] = "CRISPR Guide Capture"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MuData about itself
        mudata.MuData({"rna": genes, "gdo": guides}).write(folder / "screen.h5mu")
    return folder / "screen.h5mu"


@pytest.fixture(scope="session")
def written() -> Callable[..., Path]:
    """A function that writes a screen in one of the published layouts: :func:`write_screen`."""
    return write_screen

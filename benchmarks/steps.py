"""The problem that a training step is timed on, and steps of the package and of the direct formulation (direct.py)."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from direct import DenseData, DirectModel, largest_difference, package_gradients

import cradlevae as cv
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.data.loading.device_cells import DeviceCells
from cradlevae.model.objective import draw_noise, loss_terms
from cradlevae.model.training.fit import make_minibatches, split_sizes
from cradlevae.model.training.settings import TrainConfig
from cradlevae.nn.matmul import reduced

PARTS = ("data", "encode", "decode", "likelihood", "backward", "optimiser")
MODELS: dict[str, dict[str, Any]] = {
    "published": {"linear_path": False, "artifact_model": "shared", "gene_effects": False, "weight_scale": 0.0},
    "default": {},
    "pairs": {"reference": "damaged"},
}
"""The architecture of the paper (what the thresholds are about), and the package's default, without and with pairs.

The first two have mean profiles for references: the direct formulation knows no counterfactual pairs.
"""

# -- the problem -----------------------------------------------------------------------------------------------


def problem(n_genes: int, n_cells: int, n_perturbations: int, model: str, seed: int = 0) -> cv.CradleVAE:
    """A model of cells of so many perturbations, a quarter of them failed, before training; about 93 % zeros."""
    rng = np.random.default_rng(seed)
    log_share = rng.normal(0, 1.5, n_genes)
    effects = rng.normal(0, 0.5, (n_perturbations + 1, n_genes)) * (rng.random((n_perturbations + 1, n_genes)) < 0.05)
    size = rng.lognormal(np.log(0.16 * n_genes), 0.3, n_cells)
    condition = rng.integers(0, n_perturbations + 1, n_cells)
    blocks = []
    for cells in np.array_split(np.arange(n_cells), 8):
        share = np.exp(log_share + effects[condition[cells]])
        blocks.append(sp.csr_matrix(rng.poisson(size[cells, None] * share / share.sum(1, keepdims=True))))
    names = np.array(["control", *(f"P{i}" for i in range(n_perturbations))])
    obs = pd.DataFrame(
        {"perturbation": names[condition], "artifact": rng.random(n_cells) < 0.25},
        index=[f"cell{i}" for i in range(n_cells)],
    )
    adata = ad.AnnData(
        sp.csr_matrix(sp.vstack(blocks), dtype=np.float32),
        obs,
        pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of cells without a count, where there are few genes
        return cv.CradleVAE(
            adata, split=cv.split(adata, "cells"), n_latent=200, basal_width=400, mask_prior=0.01,
            counterfactual_weight=0.5, **{"reference": "mean", **MODELS[model]},
        )  # fmt: skip


# -- one formulation in its process ------------------------------------------------------------------------------


class Stepper:
    """Training steps of one formulation, on the package's data structures or on dense ones.

    Parameters
    ----------
    options
        ``formulation`` (``direct`` or ``package``), ``model``, ``genes``, ``cells``, ``perturbations``, ``batch`` and
        ``particles``.
    device
        Where the steps are made; elsewhere than on the CPU, all cells lie there.
    """

    def __init__(self, options: argparse.Namespace, device: str = "cpu") -> None:
        self.options, self.device = options, torch.device(device)
        self.direct = options.formulation == "direct"
        model = problem(options.genes, options.cells, options.perturbations, options.model)
        assert model.data is not None
        self.data, self.module = model.data, model.trained.module
        self.module.to(self.device).train()
        self.rows = model.split.rows(self.data.cells, "train")
        self.sizes = split_sizes(self.data, self.rows, self.module.config).to(self.device)
        self.generator = np.random.default_rng(1)
        self.spent: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        if self.direct:
            self.dense = DenseData(self.data, CounterfactualReferences(self.data, self.rows)).to(self.device)
            self.model: torch.nn.Module = DirectModel(self.module).to(self.device)
        else:
            self.model = self.module
            config = TrainConfig(batch_size=options.batch)
            self.minibatches = make_minibatches(self.data, {"train": self.rows}, self.module, config)["train"]
            if self.device.type != "cpu":
                self.minibatches.take_from(DeviceCells(self.data, self.device))
        fused = {} if self.direct else {"fused": True}
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=3e-4, weight_decay=1e-6, **fused)

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        noise = draw_noise(self.module, len(rows), self.options.particles)
        with self.part("data"):
            cells = self.dense.minibatch(rows) if self.direct else self.minibatches[rows]
        if self.direct:
            terms = self.model.terms(cells, self.sizes, noise)
        else:
            terms = loss_terms(self.module, cells, self.sizes, noise)
        return torch.stack(list(terms.values())).sum()

    def step(self) -> None:
        loss = self.loss(self.generator.choice(self.rows, self.options.batch))
        self.optimiser.zero_grad()
        with self.part("backward"):
            loss.backward()
        with self.part("optimiser"):
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 100.0)
            self.optimiser.step()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.spent[name] += time.perf_counter() - started

    def timed(self, name: str, call: Any) -> Any:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            with self.part(name):
                return call(*arguments, **keywords)

        return wrapped

    def run(self, n: int) -> dict[str, float]:
        """CPU and wall seconds a step."""
        self.synchronise()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(n):
            self.step()
        self.synchronise()
        return {"cpu": (time.process_time() - cpu) / n, "wall": (time.perf_counter() - wall) / n}

    def synchronise(self) -> None:
        """Wait until an accelerator has done what it was asked for."""
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    def parts(self, n: int) -> dict[str, float]:
        """Wall seconds that each part of the package's step takes."""
        encoder, decoder, likelihood = self.module.basal_encoder, self.module.decoder, self.module.likelihood
        self.module.encode_counts = self.timed("encode", self.module.encode_counts)
        decoder.hidden_of_minibatch = self.timed("decode", decoder.hidden_of_minibatch)
        for part in (encoder.head, encoder.mlp):
            name = "forward" if part is encoder.head else "rest"
            setattr(part, name, self.timed("encode", getattr(part, name)))
        likelihood.linear_log_prob = self.timed("likelihood", likelihood.linear_log_prob)
        self.spent = dict.fromkeys(PARTS, 0.0)
        total = self.run(n)["wall"]
        parts = {name: seconds / n for name, seconds in self.spent.items()}
        return parts | {"other": total - sum(parts.values())}

    def floor(self) -> dict[str, float]:
        """FLOP of the step's matrix products, and the rate of large ones, FLOP/s."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.step()
        return {"flop": float(counter.get_total_flops()), "rate": matmul_rate(self.device)}

    def compare(self, path: Path) -> dict[str, float]:
        """Write loss and gradients of the first minibatch, or return how far they are from those in the file."""
        torch.manual_seed(2)
        self.model.zero_grad()
        loss = self.loss(self.rows[: self.options.batch])
        loss.backward()
        gradients = self.model.gradients() if self.direct else package_gradients(self.module)
        if self.direct:
            torch.save({"loss": loss.item(), "gradients": gradients}, path)
            self.model.zero_grad()
            return {}
        direct = torch.load(path)
        differences = {
            "loss_difference": abs(loss.item() - direct["loss"]) / abs(direct["loss"]),
            "gradient_difference": largest_difference(direct["gradients"], gradients),
        }
        self.model.zero_grad()
        return differences


def matmul_rate(device: torch.device) -> float:
    """FLOP/s of the three products of a large linear layer, as the package does them."""
    dtype = torch.bfloat16 if reduced() else torch.float32
    hidden, weight = (torch.randn(n, 400, device=device).to(dtype) for n in (2560, 8000))
    logits = torch.empty(2560, 8000, dtype=dtype, device=device)
    times = []
    for _ in range(5):
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()
        started = time.perf_counter()
        torch.mm(hidden, weight.T, out=logits)
        torch.mm(logits, weight)
        torch.mm(logits.T, hidden)
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()
        times.append(time.perf_counter() - started)
    return 3 * 2 * 2560 * 400 * 8000 / min(times)

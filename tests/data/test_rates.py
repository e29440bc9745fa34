"""Rates of conditions, against their definition cell by cell."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cradlevae.data import rates as measured
from cradlevae.data.experiment import DataFields, Experiment, read_experiment
from cradlevae.data.rates import condition_rates


@pytest.fixture(scope="module")
def data(simulated: ad.AnnData) -> Experiment:
    return read_experiment(simulated, DataFields())


def test_every_cell_weighs_alike(data: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "PRIOR_CELLS", 0.0)  # each gene on its own
    rows = np.arange(0, data.n_cells, 2)
    rates = condition_rates(data, rows)
    size = np.median(data.library_size[rows])
    assert rates.library_size == size
    dense = data.counts[rows].toarray().astype(float) * (size / data.library_size[rows])[:, None]
    for code in range(len(data.conditions)):
        own = dense[data.condition[rows] == code]
        assert rates.n_cells[code] == len(own)
        np.testing.assert_allclose(rates.total[code], own.sum(axis=0), rtol=1e-5, atol=1e-6)
    mean = np.stack([dense[data.condition[rows] == code].mean(axis=0) for code in data.condition[rows].tolist()])
    seen = dense.any(axis=0)
    scatter = ((dense - mean) ** 2).sum(axis=0)[seen] / dense.sum(axis=0)[seen]
    scatter *= len(rows) / (len(rows) - len(np.unique(data.condition[rows])))  # a mean is that of its own cells
    np.testing.assert_allclose(rates.dispersion[seen], np.maximum(scatter, 1e-2), rtol=1e-4)
    assert (rates.dispersion[~seen] == 1).all()


def test_concentrations_are_those_that_counts_were_drawn_with(data: Experiment) -> None:
    rng = np.random.default_rng(0)
    theta = np.geomspace(0.3, 10, 60)
    n_cells = 20_000
    sizes = rng.uniform(200, 600, n_cells)
    share = rng.uniform(0.5, 1.5, (2, 60)) / 60
    condition = rng.integers(2, size=n_cells)
    counts = rng.poisson(rng.gamma(theta, (sizes[:, None] * share[condition]) / theta)).astype(np.float32)
    drawn = replace(
        data,
        cells=pd.Index([f"cell{i}" for i in range(n_cells)]),
        counts=sp.csr_matrix(counts),
        condition=condition,
        conditions=data.conditions[:2],
        artifact=np.zeros((n_cells, 1), dtype=np.float32),
        library_size=sizes.astype(np.float32),
    )
    rates = condition_rates(drawn, np.arange(n_cells))
    np.testing.assert_allclose(rates.concentration, theta, rtol=0.2)


def test_few_cells_have_neither_too_little_nor_no_overdispersion(data: Experiment) -> None:
    rng = np.random.default_rng(0)
    n_genes, n_cells = 60, 6
    for theta, low, high in ((2.0, 1.0, 5.0), (1e6, 5.0, 50.0)):
        counts = rng.poisson(rng.gamma(theta, 10 / theta, (n_cells, n_genes))).astype(np.float32)
        drawn = replace(
            data,
            cells=pd.Index([f"cell{i}" for i in range(n_cells)]),
            counts=sp.csr_matrix(counts),
            condition=np.repeat([0, 1, 2], 2),
            conditions=data.conditions[:3],
            artifact=np.zeros((n_cells, 1), dtype=np.float32),
            library_size=counts.sum(axis=1),
        )
        concentration = condition_rates(drawn, np.arange(n_cells)).concentration
        assert low < np.median(concentration) < high
        assert concentration.max() < 4 * np.median(concentration)

"""The search of hyper-parameters: it goes on where it was, and never sees test cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.benchmarking import sweep as sweep_module
from cradlevae.benchmarking.jobs import Job
from cradlevae.benchmarking.plain import from_plain
from cradlevae.benchmarking.plan import Plan
from cradlevae.benchmarking.store import Store
from cradlevae.benchmarking.sweep import Range, sweep
from cradlevae.benchmarking.worker import work
from cradlevae.errors import DataError

pytest.importorskip("optuna", reason="the extra sweep is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

RANGES = {"settings": {"n_latent": {"choices": [4]}}, "training": {"batch_size": {"low": 63, "high": 64}}}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are computed in this process."""

    def compute(store: Store, jobs: Sequence[Job], plan: Plan, workers: int) -> None:
        work(store, jobs, {source.name: source for source in plan.data})

    monkeypatch.setattr(sweep_module, "compute_jobs", compute)


def content(path: Path, **more: Any) -> dict[str, Any]:
    return {
        "data": [{"path": str(path)}],
        "models": [{"model": "cpa_vae", "settings": {"width": 16, "basal_width": 16}}],
        "training": {"max_epochs": 1, "accelerator": "cpu"},
        "split_seeds": [0],
        "sweep": RANGES,
        **more,
    }


def test_test_cells_make_no_difference_and_the_search_goes_on(simulated: ad.AnnData, tmp_path: Path) -> None:
    split = cv.split(simulated, "cells", seed=0)
    other = simulated.copy()
    counts = other.X.toarray()
    test = split.rows(other.obs_names, "test")
    assert len(test)
    counts[test] = np.random.default_rng(0).poisson(50, counts[test].shape)
    other.X = sp.csr_matrix(counts, dtype=np.float32)
    for name, adata in (("a", simulated), ("b", other)):
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    fixed = {"settings": {"n_latent": {"choices": [4]}}}
    first = sweep(content(tmp_path / "a.h5ad", sweep=fixed), tmp_path / "first", trials=1)
    second = sweep(content(tmp_path / "b.h5ad", sweep=fixed), tmp_path / "second", trials=1)
    assert first["ate_rho"].item() == second["ate_rho"].item()
    again = sweep(content(tmp_path / "a.h5ad", sweep=fixed), tmp_path / "first", trials=2)
    assert len(again) == 2
    assert (again["ate_rho"] == first["ate_rho"].item()).all()
    assert len(list((tmp_path / "first" / "cells").glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sweep": None}, r"sweep: of the plan must be a mapping"),
        ({"sweep": {}}, r"the sweep has no ranges"),
        ({"sweep": {"settings": {"width": {"low": 3}}}}, r"needs low: below high:, or choices:"),
        ({"sweep": {**RANGES, "metric": "iwelbo"}}, r"metric is 'iwelbo'; choose one of ate_rho"),
        (
            {"sweep": {"settings": {"width": {"low": 3, "choices": [3]}}}},
            r"has choices:, so low:, high: and log: mean nothing",
        ),
        ({"models": ["zero"]}, r"a sweep is of one model of the family"),
    ],
)
def test_a_wrong_sweep_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        sweep(content(tmp_path / "a.h5ad", **change), tmp_path / "out", trials=1)


def test_a_range_of_whole_numbers_suggests_whole_numbers() -> None:
    optuna = pytest.importorskip("optuna")
    trial = optuna.create_study().ask()
    assert type(from_plain(Range, {"low": 20, "high": 200, "log": True}, "n_latent").suggest(trial, "a")) is int
    assert type(from_plain(Range, {"low": 1, "high": 2.5}, "weight").suggest(trial, "b")) is float

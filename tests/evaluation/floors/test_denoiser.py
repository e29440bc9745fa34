"""The denoiser, a floor of cleaned cells: what it learns, what it leaves alone, and where it stands in the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import cradlevae as cv
from cradlevae.data.storage.stored_matrix import StoredMatrix
from cradlevae.evaluation.floors import denoiser
from cradlevae.evaluation.floors.denoiser import train_denoiser
from cradlevae.evaluation.floors.random_damage import randomly_damaged
from cradlevae.evaluation.metrics.clean import poisson_deviance

TRUTH = "held-out clean counts (truth)"


def two_kinds(n: int, n_genes: int = 30, seed: int = 0) -> sp.csr_matrix:
    """Cells of two kinds, which express either half of the genes."""
    rng = np.random.default_rng(seed)
    rate = np.full((n, n_genes), 0.5)
    rate[: n // 2, : n_genes // 2] = rate[n // 2 :, n_genes // 2 :] = 8.0
    return sp.csr_matrix(rng.poisson(rate).astype(np.float32))


def test_it_undoes_damage_of_cells_that_it_has_not_seen() -> None:
    counts, new = two_kinds(300), two_kinds(200, seed=1)
    learned = train_denoiser(counts, np.arange(300))
    rng = np.random.default_rng(2)
    thinned = sp.csr_matrix(rng.binomial(new.toarray().astype(int), 0.1))
    profile = learned.profiles(thinned)
    np.testing.assert_allclose(profile.sum(axis=1), 1, rtol=1e-5)
    own, mean = thinned.toarray() + counts.mean(axis=0).A1 / counts.sum(axis=1).mean(), counts.mean(axis=0).A1[None]
    deviance = [poisson_deviance(new, one).mean() for one in (profile, own, mean)]
    assert deviance[0] < 0.7 * min(deviance[1:])


def test_the_same_seed_gives_the_same_numbers_and_leaves_those_of_torch_alone() -> None:
    counts = two_kinds(80)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = train_denoiser(counts, np.arange(60), seed=1).profiles(counts)
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(train_denoiser(counts, np.arange(60), seed=1).profiles(counts), first)
    assert not np.array_equal(train_denoiser(counts, np.arange(60), seed=2).profiles(counts), first)


def test_sparse_and_dense_counts_and_counts_on_disk_give_the_same(tmp_path: Path) -> None:
    counts = two_kinds(60)
    ad.AnnData(counts).write_h5ad(tmp_path / "cells.h5ad")
    stored = cv.open_cells(tmp_path / "cells.h5ad").X
    assert isinstance(stored, StoredMatrix)
    passing = np.arange(0, 60, 2)
    in_memory, on_disk = train_denoiser(counts, passing), train_denoiser(stored, passing)
    np.testing.assert_array_equal(in_memory.profiles(counts), on_disk.profiles(stored[np.arange(60)]))
    np.testing.assert_array_equal(in_memory.profiles(counts), in_memory.profiles(counts.toarray()))


def test_rare_genes_share_what_is_predicted_for_them_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rare_counts = rng.poisson([[0.4, 0.2, 0.1, 0.1]], (100, 4)).astype(np.float32)
    counts = sp.csr_matrix(sp.hstack([two_kinds(100, 26), rare_counts]))
    monkeypatch.setattr(denoiser, "MAX_GENES", 26)
    profile = train_denoiser(counts, np.arange(100)).profiles(counts)
    np.testing.assert_allclose(profile.sum(axis=1), 1, rtol=1e-5)
    rare = profile[:, 26:] / profile[:, 26:].sum(axis=1, keepdims=True)
    total = counts[:, 26:].sum(axis=0).A1 + 1e-3
    np.testing.assert_allclose(rare, np.tile(total / total.sum(), (100, 1)), rtol=1e-5)


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(denoiser, "randomly_damaged", lambda *args: steps.append(1) or randomly_damaged(*args))
    for name, value, most in (("STEPS", 3, 3), ("MAX_EPOCHS", 4, 2), ("MAX_WORK", 150, 5)):
        with monkeypatch.context() as limited:
            limited.setattr(denoiser, name, value)
            steps.clear()
            train_denoiser(two_kinds(100), np.arange(100))
        assert len(steps) == most + 1, name  # and once for the scale of the inputs
    monkeypatch.setattr(denoiser, "MAX_CELLS", 10)
    learned = train_denoiser(two_kinds(100), np.arange(100))
    assert np.isfinite(learned.profiles(two_kinds(3))).all()


@pytest.mark.parametrize("shape", [(1, 5), (3, 1), (2, 2)])
def test_tiny_data_work(shape: tuple[int, int]) -> None:
    counts = sp.csr_matrix(np.ones(shape, dtype=np.float32))
    profile = train_denoiser(counts, np.arange(shape[0])).profiles(sp.csr_matrix(np.zeros((2, shape[1]))))
    np.testing.assert_allclose(profile.sum(axis=1), 1, rtol=1e-5)
    with pytest.raises(cv.DataError, match="passing training cells"):
        train_denoiser(counts, np.arange(0))


def test_damage_is_of_every_kind() -> None:
    whole = np.full((300, 20), 10, dtype=np.float32)
    damaged = randomly_damaged(whole, whole, np.full(20, -3.0), np.random.default_rng(0))
    size = damaged.sum(axis=1) / 200
    assert (size == 2).mean() == pytest.approx(1 / 3, abs=0.1)
    assert ((size > 0.01) & (size < 0.7)).mean() == pytest.approx(1 / 3, abs=0.1)
    np.testing.assert_array_equal(whole, 10)
    np.testing.assert_array_equal(damaged, np.round(damaged))


def test_the_table_has_it_where_it_is_wanted(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    options: dict[str, Any] = {"generated": False}
    with_it, without = (cv.evaluate(model, simulated, denoiser=wanted, **options) for wanted in (True, False))
    rows = with_it[with_it["predictor"] == "denoiser"]
    assert set(rows["metric"]) == {"clean_deviance"}
    assert TRUTH in set(rows["reference"])
    assert np.isfinite(rows["value"]).all()
    ours = with_it[(with_it["metric"] == "clean_deviance") & (with_it["reference"] == TRUTH)].set_index("predictor")
    floors = ours.drop(index="model")["value"]
    assert ours.loc["model", "floor"] == floors.min()
    assert ours.loc["model", "best_floor"] == floors.idxmin()
    assert "denoiser" not in set(without["predictor"])
    others = with_it[with_it["predictor"] != "denoiser"][["reference", "metric", "predictor", "value"]]
    assert others.reset_index(drop=True).equals(without[["reference", "metric", "predictor", "value"]])
    with pytest.raises(cv.DataError, match="denoiser"):
        cv.evaluate(model, simulated, denoiser="no")  # type: ignore[arg-type]

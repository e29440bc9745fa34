"""Batches hold the rows of the matrix and the references of their counterfactuals, nothing else."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading import loader as batches_module
from cradlevae.data.loading.counterfactual_references import MEDIAN_CELLS, CounterfactualReferences
from cradlevae.data.loading.loader import Minibatches
from cradlevae.data.loading.minibatch import Minibatch, make_minibatch
from cradlevae.data.storage.stored_matrix import StoredMatrix, stored_matrix

CONDITIONS = ("control", "A", "A+B", "B")
N_CELLS, N_GENES = 60, 7


def experiment(*, criteria: int = 1, seed: int = 0) -> Experiment:
    """Sixty cells in four conditions; no cell of ``B`` failed and every cell of ``A+B`` did."""
    rng = np.random.default_rng(seed)
    condition = rng.integers(4, size=N_CELLS)
    artifact = (rng.random((N_CELLS, criteria)) < 0.4).astype(np.float32)
    artifact[condition == 3] = 0
    artifact[condition == 2, 0] = 1
    counts = rng.poisson(1.0, (N_CELLS, N_GENES)).astype(np.float32)
    return Experiment(
        cells=pd.Index([f"cell{i}" for i in range(N_CELLS)]),
        genes=pd.Index([f"gene{i}" for i in range(N_GENES)]),
        counts=sp.csr_matrix(counts),
        condition=condition,
        conditions=CONDITIONS,
        perturbations=("A", "B"),
        artifact=artifact,
        criteria=tuple(f"criterion{i}" for i in range(criteria)),
        library_size=counts.sum(axis=1),
    )


def dense(batch: Minibatch) -> np.ndarray:
    starts = batch.starts.numpy()
    return sp.csr_matrix(
        (batch.values.numpy(), batch.genes.numpy(), starts), shape=(len(starts) - 1, batch.n_genes)
    ).toarray()


def reference_rows(batch: Minibatch) -> list[np.ndarray | None]:
    """The reference profile of each cell, or none."""
    profiles = batch.references.numpy()
    return [profiles[row] if row >= 0 else None for row in batch.reference.tolist()]


def test_a_batch_holds_the_rows_of_the_matrix() -> None:
    data = experiment()
    rows = np.array([41, 3, 17, 5])
    batch = make_minibatch(data, rows)
    np.testing.assert_array_equal(dense(batch), data.counts.toarray()[rows])
    np.testing.assert_array_equal(batch.library_size, data.library_size[rows])
    np.testing.assert_array_equal(batch.artifact, data.artifact[rows])
    np.testing.assert_array_equal(batch.dosage[batch.condition], data.dosage[data.condition[rows]])
    assert (batch.values > 0).all()
    assert batch.n_cells == 4
    assert batch.n_genes == N_GENES
    assert batch.references.shape == (0, N_GENES)
    assert (batch.reference == -1).all()
    assert batch.values.dtype == batch.dosage.dtype == batch.artifact.dtype == torch.float32
    assert batch.genes.dtype == batch.condition.dtype == batch.reference.dtype == torch.int64


def test_to_moves_all_but_the_starts() -> None:
    batch = make_minibatch(experiment(), np.arange(5)).to("meta")
    assert batch.starts.device.type == "cpu"
    for name in ("values", "genes", "dosage", "condition", "artifact", "library_size", "references", "flipped"):
        assert getattr(batch, name).device.type == "meta", name


# -- references ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mean", "median"])
@pytest.mark.parametrize("opposite", [True, False])
def test_references_are_those_of_the_same_condition(kind: str, opposite: bool) -> None:
    data = experiment()
    rows = np.arange(5, N_CELLS)  # the first five are of another part
    references = CounterfactualReferences(data, rows, kind=kind, opposite=opposite)
    counts = data.counts.toarray()
    batch = make_minibatch(data, rows, references)
    summary = {"mean": np.mean, "median": np.median}[kind]
    found = reference_rows(batch)
    n_without = 0
    for cell, reference in zip(rows, found, strict=True):
        wanted = ~data.failed[cell] if opposite else True
        alike = rows[(data.condition[rows] == data.condition[cell]) & (data.failed[rows] == wanted)]
        if len(alike):
            np.testing.assert_allclose(reference, summary(counts[alike], axis=0), rtol=1e-6)
        else:
            assert reference is None
            n_without += 1
    assert 0 < n_without < len(rows)
    np.testing.assert_array_equal(batch.flipped, 1 - data.artifact[rows])


def test_references_of_a_part_take_that_parts_cells_only() -> None:
    data = experiment()
    train, val = np.arange(0, 30), np.arange(30, N_CELLS)
    batch = make_minibatch(data, train, CounterfactualReferences(data, val))
    counts = data.counts.toarray()
    for cell, reference in zip(train, reference_rows(batch), strict=True):
        alike = val[(data.condition[val] == data.condition[cell]) & (data.failed[val] != data.failed[cell])]
        if len(alike):
            np.testing.assert_allclose(reference, counts[alike].mean(axis=0), rtol=1e-6)


def test_a_random_cell_is_a_real_one_and_follows_seed_and_epoch() -> None:
    data = experiment()
    rows = np.arange(N_CELLS)
    counts = data.counts.toarray()

    def draw(epoch: int, seed: int = 0) -> np.ndarray:
        references = CounterfactualReferences(data, rows, kind="cell", seed=seed)
        references.set_epoch(epoch)
        batch = make_minibatch(data, rows, references)
        found = reference_rows(batch)
        for cell, reference in zip(rows, found, strict=True):
            alike = (data.condition == data.condition[cell]) & (data.failed != data.failed[cell])
            assert (reference is not None) == alike.any()
            if reference is not None:
                assert (counts[alike] == reference).all(axis=1).any()
        return batch.references.numpy()

    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))
    assert not np.array_equal(draw(1), draw(1, seed=1))


def test_random_cells_are_drawn_evenly() -> None:
    counts = np.eye(4, dtype=np.float32)[np.arange(40) % 4]
    data = Experiment(
        pd.Index([str(i) for i in range(40)]), pd.Index(list("abcd")), sp.csr_matrix(counts), np.zeros(40, int),
        ("control",), (), (np.arange(40) < 20).astype(np.float32)[:, None], ("artifact",),
        np.ones(40, np.float32),
    )  # fmt: skip
    references = CounterfactualReferences(data, np.arange(40), kind="cell")
    drawn = np.zeros(4)
    for epoch in range(100):
        references.set_epoch(epoch)
        drawn += make_minibatch(data, np.arange(40), references).references.sum(0).numpy()
    np.testing.assert_allclose(drawn / 4000, 0.25, atol=0.035)  # 5 standard deviations


def test_no_cell_has_a_random_reference() -> None:
    data = experiment()
    rows = np.flatnonzero(data.condition == 3)  # B: none failed
    batch = make_minibatch(data, rows, CounterfactualReferences(data, np.arange(N_CELLS), kind="cell"))
    assert batch.references.shape == (0, N_GENES)
    assert (batch.reference == -1).all()


def test_medians_are_of_fifty_random_cells_at_most() -> None:
    n = 4 * MEDIAN_CELLS
    counts = np.random.default_rng(0).poisson(5.0, (n, 3)).astype(np.float32)
    data = Experiment(
        pd.Index([str(i) for i in range(n)]), pd.Index(list("abc")), sp.csr_matrix(counts), np.zeros(n, int),
        ("control",), (), np.ones((n, 1), np.float32), ("artifact",), counts.sum(axis=1),
    )  # fmt: skip

    def median(seed: int) -> np.ndarray:
        references = CounterfactualReferences(data, np.arange(n), kind="median", opposite=False, seed=seed)
        return make_minibatch(data, np.arange(2), references).references.numpy()

    drawn = np.concatenate([median(seed) for seed in range(20)])
    assert len(np.unique(drawn, axis=0)) > 1
    assert np.all(np.abs(drawn - np.median(counts, axis=0)) <= 1.5)
    np.testing.assert_array_equal(median(3), median(3))


def test_with_several_criteria_the_counterfactual_is_one_that_occurs() -> None:
    data = experiment(criteria=3)
    rows = np.arange(N_CELLS)
    batch = make_minibatch(data, rows, CounterfactualReferences(data, rows))
    flipped = batch.flipped.numpy()
    assert (flipped[data.failed] == 0).all()  # a failed cell: had it passed
    for cell in rows[~data.failed]:  # a passing cell: had it failed as its references did
        alike = (data.condition == data.condition[cell]) & data.failed
        expected = data.artifact[alike].mean(axis=0) if alike.any() else np.zeros(3)
        np.testing.assert_allclose(flipped[cell], expected, rtol=1e-6)


# -- going through the cells -----------------------------------------------------------------------------------


def test_batches_cover_every_cell_once_and_shuffle_by_epoch() -> None:
    data = experiment()
    rows = np.arange(2, 59, 3)
    batches = Minibatches(data, rows, 8, shuffle=True, seed=4)

    def order(epoch: int) -> list[int]:
        batches.set_epoch(epoch)
        return [int(row) for part in batches for row in part]

    assert len(batches) == 3
    assert [len(part) for part in batches] == [8, 8, 3]
    assert sorted(order(0)) == sorted(order(1)) == rows.tolist()
    assert order(0) != order(1)
    assert order(1) == order(1)
    in_order = [int(row) for part in Minibatches(data, rows, 8) for row in part]
    assert in_order == rows.tolist()


def test_the_loader_gives_batches_with_references() -> None:
    data = experiment()
    rows = np.arange(N_CELLS)
    batches = list(Minibatches(data, rows, 25, CounterfactualReferences(data, rows)).loader())
    assert [batch.n_cells for batch in batches] == [25, 25, 10]
    np.testing.assert_array_equal(np.concatenate([dense(batch) for batch in batches]), data.counts.toarray())
    expected = reference_rows(make_minibatch(data, rows[25:50], CounterfactualReferences(data, rows)))
    for found, wanted in zip(reference_rows(batches[1]), expected, strict=True):
        np.testing.assert_equal(found, wanted)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(N_CELLS)), st.sampled_from(["mean", "median"]))
def test_the_order_of_the_cells_has_no_say(order: list[int], kind: str) -> None:
    data = experiment()
    rows = np.arange(N_CELLS)
    shuffled = data.subset(np.array(order))
    batch = make_minibatch(data, np.array(order), CounterfactualReferences(data, rows, kind=kind))
    other = make_minibatch(shuffled, rows, CounterfactualReferences(shuffled, rows, kind=kind))
    np.testing.assert_array_equal(dense(batch), dense(other))
    np.testing.assert_array_equal(batch.dosage[batch.condition], other.dosage[other.condition])
    np.testing.assert_array_equal(batch.flipped, other.flipped)
    for one, two in zip(reference_rows(batch), reference_rows(other), strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            np.testing.assert_allclose(one, two, rtol=1e-5)


# -- counts on disk --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Experiment]:
    """Two thousand cells, sorted by condition, in memory and on disk."""
    n_cells = 2000
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (n_cells, N_GENES)).astype(np.float32)
    condition = np.sort(rng.integers(4, size=n_cells))
    memory = Experiment(
        pd.Index([f"cell{i}" for i in range(n_cells)]), pd.Index([f"gene{i}" for i in range(N_GENES)]),
        sp.csr_matrix(counts), condition, CONDITIONS, ("A", "B"),
        (rng.random((n_cells, 1)) < 0.4).astype(np.float32), ("artifact",), counts.sum(axis=1),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("batches") / "cells.h5ad"
    ad.AnnData(memory.counts).write_h5ad(path)
    stored = stored_matrix(h5py.File(path)["X"])
    assert stored is not None
    return memory, replace(memory, counts=stored)


@pytest.fixture
def small_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools of 400 cells, about."""
    monkeypatch.setattr(batches_module, "POOL_VALUES", int(400 * 0.632 * N_GENES))


@pytest.mark.usefixtures("small_pools")
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("kind", ["mean", "cell"])
def test_batches_from_disk_are_those_of_their_rows(
    on_disk: tuple[Experiment, Experiment], shuffle: bool, kind: Any
) -> None:
    memory, disk = on_disk
    rows = np.flatnonzero(np.arange(2000) % 3)
    batches = Minibatches(
        disk, rows, 64, CounterfactualReferences(disk, rows, kind=kind, seed=1), shuffle=shuffle, seed=2
    )
    batches.set_epoch(3)
    order = list(batches)
    assert sorted(np.concatenate(order).tolist()) == rows.tolist()
    references = CounterfactualReferences(memory, rows, kind=kind, seed=1)
    references.set_epoch(3)
    made = list(batches.loader())
    assert len(made) == len(order) == len(batches) == len(batches.loader())
    for found, part in zip(made, order, strict=True):
        expected = make_minibatch(memory, part, references)
        np.testing.assert_array_equal(dense(found), dense(expected))
        np.testing.assert_array_equal(found.artifact, expected.artifact)
        np.testing.assert_array_equal(found.library_size, expected.library_size)
        for one, two in zip(reference_rows(found), reference_rows(expected), strict=True):
            np.testing.assert_equal(one, two)


@pytest.mark.usefixtures("small_pools")
def test_the_order_from_disk_follows_seed_and_epoch_and_mixes_conditions(
    on_disk: tuple[Experiment, Experiment],
) -> None:
    _, disk = on_disk

    def order(seed: int, epoch: int) -> list[int]:
        batches = Minibatches(disk, np.arange(2000), 64, shuffle=True, seed=seed)
        batches.set_epoch(epoch)
        return [int(row) for part in batches for row in part]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    first = disk.condition[order(0, 1)[:64]]
    assert (np.bincount(first, minlength=4) > 4).all()


@pytest.mark.usefixtures("small_pools")
def test_an_epoch_cut_short_leaves_no_thread(on_disk: tuple[Experiment, Experiment]) -> None:
    _, disk = on_disk
    loader = Minibatches(disk, np.arange(2000), 64, shuffle=True).loader()
    first = next(iter(loader))
    for batch in loader:
        np.testing.assert_array_equal(dense(batch), dense(first))
        break
    assert not [thread for thread in threading.enumerate() if thread.name == "cradlevae-prefetch"]


@pytest.mark.usefixtures("small_pools")
def test_no_more_than_two_pools_are_read_ahead(
    on_disk: tuple[Experiment, Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, disk = on_disk
    read: list[int] = []
    original = StoredMatrix.__getitem__
    monkeypatch.setattr(StoredMatrix, "__getitem__", lambda self, rows: read.append(len(rows)) or original(self, rows))
    loader = iter(Minibatches(disk, np.arange(2000), 64, shuffle=True).loader())
    next(loader)
    time.sleep(0.05)
    assert len(read) <= 2
    assert sum(1 for _ in loader) == 31
    assert sum(read) == 2000
    assert max(read) <= 6 * 64

"""Batches gathered on a device are those made on the host (here the device is the CPU)."""

from __future__ import annotations

import threading
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.data.loading.device_cells import DeviceCells, DeviceMinibatches
from cradlevae.data.loading.loader import Minibatches
from cradlevae.data.loading.minibatch import make_minibatch
from cradlevae.data.loading.shard import Shard
from cradlevae.data.storage.stored_matrix import StoredMatrix
from cradlevae.errors import DataError

CPU = torch.device("cpu")
N_CELLS, N_GENES = 50, 7


def experiment(*, criteria: int = 1, largest: float = 4.0) -> Experiment:
    """Cells in three conditions, one of them without failed cells; one cell has no count, one a large one."""
    rng = np.random.default_rng(0)
    condition = rng.integers(3, size=N_CELLS)
    artifact = (rng.random((N_CELLS, criteria)) < 0.4).astype(np.float32)
    artifact[condition == 2] = 0
    counts = rng.poisson(0.7, (N_CELLS, N_GENES)).astype(np.float32)
    counts[3] = 0
    counts[5, 2] = largest
    return Experiment(
        pd.Index([f"cell{i}" for i in range(N_CELLS)]), pd.Index([f"gene{i}" for i in range(N_GENES)]),
        sp.csr_matrix(counts), condition, ("control", "A", "B"), ("A", "B"), artifact,
        tuple(f"criterion{i}" for i in range(criteria)), counts.sum(axis=1),
    )  # fmt: skip


def assert_same(one: object, two: object) -> None:
    for field in fields(one):  # type: ignore[arg-type]
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype, field.name
            assert a.shape == b.shape, field.name
            assert torch.equal(a, b), field.name
        else:
            assert a == b, field.name


@pytest.mark.parametrize("kind", ["mean", "median", "cell", None])
@pytest.mark.parametrize("criteria", [1, 3])
@pytest.mark.parametrize("largest", [4.0, 40_000.0])
def test_batches_on_a_device_are_those_of_the_host(kind: str | None, criteria: int, largest: float) -> None:
    data = experiment(criteria=criteria, largest=largest)
    references = None if kind is None else CounterfactualReferences(data, np.arange(N_CELLS), kind=kind, seed=2)  # type: ignore[arg-type]
    there = DeviceMinibatches(DeviceCells(data, CPU), data, references)
    for epoch, rows in enumerate((np.arange(N_CELLS), np.array([5, 3, 5, 40]), np.array([3]))):
        if references is not None:
            references.set_epoch(epoch)
        assert_same(there.minibatch(rows), make_minibatch(data, rows, references))


def test_counts_take_four_bytes_each_where_they_are_small() -> None:
    cells = DeviceCells(experiment(), CPU)
    assert (cells.values.dtype, cells.genes.dtype) == (torch.int16, torch.int16)
    assert DeviceCells(experiment(largest=2.0**15), CPU).values.dtype == torch.int32


def test_loaders_take_from_the_device() -> None:
    data = experiment()
    rows = np.arange(1, N_CELLS)
    host, device = (
        Minibatches(data, rows, 10, CounterfactualReferences(data, rows, kind="cell"), shuffle=True, shard=Shard(1, 2))
        for _ in range(2)
    )
    device.take_from(DeviceCells(data, CPU))
    for batches in (host, device):
        batches.set_epoch(3)
    pairs = list(zip(host.loader(), device.loader(), strict=True))
    assert [one.n_cells for one, _ in pairs] == [5, 5, 5, 5, 5]
    assert [one.whole for one, _ in pairs] == [10, 10, 10, 10, 9]
    for one, two in pairs:
        assert_same(one, two)


def test_only_devices_with_memory_of_their_own_are_filled_without_being_asked() -> None:
    assert not DeviceCells.fits(experiment(), CPU)
    on_disk = StoredMatrix.__new__(StoredMatrix)
    with pytest.raises(DataError, match="counts are on disk"):
        DeviceCells(replace(experiment(), counts=on_disk), CPU)
    assert not DeviceCells.fits(replace(experiment(), counts=on_disk), torch.device("cuda"))


@pytest.mark.parametrize(("kind", "ahead"), [("cpu", True), ("mps", False)])
def test_no_thread_shares_a_device_that_two_threads_may_not_use(kind: str, ahead: bool) -> None:
    minibatches = Minibatches(experiment(), np.arange(30), 3)
    minibatches._on_device = SimpleNamespace(  # type: ignore[assignment]
        device=torch.device(kind), minibatch=lambda rows: make_minibatch(minibatches.data, rows)
    )
    threads = [{thread.name for thread in threading.enumerate()} for _ in minibatches.loader()]
    assert ("cradlevae-prefetch" in threads[0]) == ahead
    assert len(threads) == 10

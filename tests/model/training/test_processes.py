"""Training in several processes: the numbers of one, and nothing left behind when it fails."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

import cradlevae as cv
from cradlevae.data.loading.shard import Shard
from cradlevae.errors import DataError, TrainingError
from cradlevae.model.training import processes
from cradlevae.model.training.processes import read_shared, write_shared
from cradlevae.model.training.settings import TrainConfig

pytestmark = pytest.mark.numeric

Options = dict[str, Any]


@pytest.fixture
def new_model(simulated: ad.AnnData, tiny_options: Options) -> Callable[..., cv.CradleVAE]:
    def make(**options: Any) -> cv.CradleVAE:
        return cv.CradleVAE(simulated, split=cv.split(simulated, "cells"), **(tiny_options | options))

    return make


def assert_alike(one: cv.CradleVAE, two: cv.CradleVAE) -> None:
    """The same history and weights but for rounding.

    A gradient is a sum over cells, which rounds by its order: relative to its terms, by 1e-7. Adam divides it by its
    own size, so a weight whose gradient is nothing but rounding takes steps of the learning rate in either direction.
    Such weights are few (a concentration at its bound, for instance), and are apart by two learning rates a step at
    most.
    """
    assert one.history.columns.tolist() == two.history.columns.tolist()
    for column in one.history.columns.drop("seconds"):
        np.testing.assert_allclose(one.history[column], two.history[column], rtol=1e-5, atol=1e-7, err_msg=column)
    steps = len(one.history) * -(-len(one.split.cells("train")) // 60)
    others = two.trained.module.state_dict()
    apart = []
    for name, value in one.trained.module.state_dict().items():
        difference = (value - others[name]).abs() - 1e-4 * others[name].abs()
        assert float(difference.max()) <= 2 * TrainConfig().learning_rate * steps, name
        apart.append((difference > 1e-4).flatten())
    assert float(torch.cat(apart).double().mean()) < 0.01


def test_two_processes_give_what_one_gives(new_model: Any, quick: Options, tmp_path: Path) -> None:
    # random references depend on no order; the last batch is of one cell, so that one process has none
    options = {"reference": "cell", "balance_classes": True}
    one, two = new_model(**options), new_model(**options)
    n_train = len(one.split.cells("train"))
    batch_size = next(size for size in range(60, 200) if n_train % size == 1)
    for model, devices in ((one, 1), (two, 2)):
        folder = tmp_path / str(devices)
        model.train(2, **(quick | {"batch_size": batch_size, "devices": devices}), output=folder)
    assert_alike(one, two)
    files = [sorted(path.name for path in (tmp_path / run).rglob("*")) for run in ("1", "2")]
    assert files[0] == files[1]
    resumed = new_model(**options)
    resumed.train(3, **(quick | {"batch_size": batch_size}), output=tmp_path / "2", resume=True)
    one.train(3, **(quick | {"batch_size": batch_size}), output=tmp_path / "1", resume=True)
    assert_alike(one, resumed)


@pytest.mark.slow
def test_two_processes_go_on_where_one_stopped(new_model: Any, quick: Options, tmp_path: Path) -> None:
    whole, resumed = new_model(), new_model()
    whole.train(2, **quick)
    new_model().train(1, **quick, output=tmp_path)
    resumed.train(2, **quick, devices=2, output=tmp_path, resume=True)
    assert_alike(whole, resumed)


def test_an_error_in_a_process_is_ours(new_model: Any, quick: Options) -> None:
    with pytest.raises(TrainingError, match="the loss is not finite in epoch"):
        new_model().train(50, **quick, devices=2, learning_rate=1e6, gradient_clip=1e12)


def test_a_process_that_dies_is_reported(new_model: Any, quick: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.sys, "executable", "false")
    with pytest.raises(TrainingError, match=r"process \d of 2 failed: its exit status is 1"):
        new_model().train(1, **quick, devices=2)


def test_a_killed_process_is_reported_rather_than_what_follows(
    new_model: Any, quick: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen

    def started(command: list[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
        if env["LOCAL_RANK"] == "1":
            command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
        return start(command, env=env, **options)

    monkeypatch.setattr(processes.subprocess, "Popen", started)
    with pytest.raises(TrainingError, match="process 1 of 2 failed: its exit status is -9"):
        new_model().train(1000, **quick, devices=2)


@pytest.mark.parametrize(
    ("told", "codes", "reported"),
    [
        ([(2.0, 0, None, "closed"), (1.0, 1, None, "no memory")], [1, 1], "process 1 of 2 failed: no memory"),
        ([(2.0, 0, None, "connection closed")], [1, -9], "process 1 of 2 failed: its exit status is -9"),
        ([(2.0, 0, KeyboardInterrupt(), "stopped")], [None, -9], "process 1 of 2 failed: its exit status is -9"),
        ([(1.0, 0, None, "closed"), (2.0, 1, TrainingError("not finite"), "")], [1, 1], "not finite"),
        ([], [3, -11], "process 1 of 2 failed: its exit status is -11"),
    ],
)
def test_the_cause_is_reported(tmp_path: Path, told: list[Any], codes: list[int | None], reported: str) -> None:
    for words in told:
        (tmp_path / f"error-{words[1]}").write_bytes(pickle.dumps(words))
    with pytest.raises(TrainingError, match=reported):
        processes._raise(tmp_path, codes)


def test_an_interrupt_ends_the_processes(new_model: Any, quick: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    stop = processes._stop

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    def stopped(running: list[subprocess.Popen[bytes]]) -> None:
        started.extend(running)
        monkeypatch.undo()
        stop(running)

    monkeypatch.setattr(processes.time, "sleep", interrupt)
    monkeypatch.setattr(processes, "_stop", stopped)
    with pytest.raises(KeyboardInterrupt):
        new_model().train(1000, **quick, devices=2)
    assert len(started) == 2
    assert all(process.returncode for process in started)


def test_released_is_for_one_device(new_model: Any, quick: Options) -> None:
    with pytest.raises(DataError, match=r"devices is 2, but the objective 'released' .* set devices=1"):
        new_model(objective="released").train(1, **quick, devices=2)


@pytest.mark.slow
def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import cradlevae as cv

        print("begun")
        adata = cv.simulate(n_cells=200, n_genes=40, n_perturbations=4, n_combinations=0, n_latent=4, seed=0)
        adata.obs["artifact"] = adata.obs["true_artifact"]
        model = cv.CradleVAE(adata, n_latent=4, width=8, basal_width=8)
        model.train(1, accelerator="cpu", devices=2, progress=False)
        print("epochs:", len(model.history))
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "begun\nepochs: 1\n"), done.stderr


def test_shared_arrays_are_mapped_and_private(tmp_path: Path) -> None:
    value = {"a": np.arange(7, dtype=np.int16), "b": np.zeros((0, 3)), "c": np.asfortranarray(np.eye(3)), "d": "text"}
    write_shared(value, tmp_path)
    one, two = read_shared(tmp_path), read_shared(tmp_path)
    for name in "abc":
        np.testing.assert_array_equal(one[name], value[name])
        assert one[name].dtype == value[name].dtype
    assert one["d"] == "text"
    one["a"][:] = -1
    np.testing.assert_array_equal(two["a"], value["a"])
    np.testing.assert_array_equal(read_shared(tmp_path)["a"], value["a"])


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("n_cells", [1, 2, 4, 64, 101])
def test_shards_make_up_the_batch(n: int, n_cells: int) -> None:
    cells = np.arange(n_cells)
    shards = [Shard(rank, n) for rank in range(n)]
    np.testing.assert_array_equal(np.concatenate([cells[shard.cells(n_cells)] for shard in shards]), cells)
    sizes = [len(cells[shard.cells(n_cells)]) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    assert all(len(cells[shard.computed(n_cells)]) == max(size, 1) for shard, size in zip(shards, sizes, strict=True))

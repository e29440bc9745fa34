"""What training asks of a device, as far as a processor can tell: no float64, and no operation that Apple's MPS lacks.

A device is given what Lightning's trainer runs: steps, validation, the average of the weights, checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import cradlevae as cv
from cradlevae.data.loading.device_cells import DeviceCells
from cradlevae.data.loading.loader import Minibatches
from cradlevae.model.training.trainer import TrainingRun
from cradlevae.nn.matmul import onednn_is_float32

GUARDED = {"segment_reduce", "_segment_reduce_backward", "_embedding_bag_forward_only"}
"""Operations that MPS lacks, which the package calls on a processor (and CUDA) alone."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "pairs": ("CradleVAE", {}),
    "several classes": ("CradleVAE", {"artifact_key": ["low_umi", "other_damage"], "balance_classes": True}),
    "mean references": ("CradleVAE", {"reference": "mean"}),
    "random references": ("CradleVAE", {"reference": "cell"}),
    "released": ("CradleVAE", {"objective": "released"}),
    "sum, mean-field, shared": ("CradleVAE", {"decode": "sum", "guide": "mean-field", "artifact_model": "shared"}),
    **{name: (name, {}) for name in ("SAMSVAE", "CPAVAE", "SVAEPlus", "ConditionalVAE")},
}
"""Models, and settings of them, with other code on the device."""


class Watch(TorchDispatchMode):
    """Remembers the operations that are run, and refuses tensors in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations.add(f"{func._schema.name.removeprefix('aten::')}.{func._schema.overload_name}")
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            assert not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float64, f"{func} gives float64"
        return result


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A watch on everything that a run of training does within Lightning's trainer."""
    onednn_is_float32()  # which compares with float64, on the processor, once
    watch, train = Watch(), TrainingRun.train

    def train_watched(self: TrainingRun, *arguments: Any) -> None:
        with watch:
            train(self, *arguments)

    monkeypatch.setattr(TrainingRun, "train", train_watched)
    return watch


@pytest.fixture
def minibatches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The minibatches that training is given; a thread makes them, where no watch is."""
    made: list[Any] = []
    make = Minibatches._minibatch

    def remembered(self: Minibatches, *arguments: Any) -> Any:
        made.append(make(self, *arguments))
        return made[-1]

    monkeypatch.setattr(Minibatches, "_minibatch", remembered)
    return made


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of a dataclass, and of those that it holds."""
    for field in fields(value):
        entry = getattr(value, field.name)
        if isinstance(entry, torch.Tensor):
            yield entry
        elif is_dataclass(entry):
            yield from tensors(entry)


@cache
def on_mps() -> dict[str, bool]:
    """Whether MPS has an operation, of torch's own table of them; by its name and overload."""
    torchgen = pytest.importorskip("torchgen")
    table = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    if not table.exists():
        pytest.skip("this torch comes without its table of operations")
    known, delegates = {}, {}
    for entry in table.read_text().split("\n- func: ")[1:]:
        name = entry.split("(")[0]
        name = name if "." in name else f"{name}."
        dispatched = re.findall(r"^    ([A-Za-z, ]+):", entry, re.MULTILINE)
        keys = {key.strip() for line in dispatched for key in line.split(",")}
        delegate = re.search(r"structured_delegate: (\S+)", entry)
        if delegate:
            delegates[name] = delegate[1]
        known[name] = not dispatched or any(key == "MPS" or key.startswith("Composite") for key in keys)
    for name, delegate in delegates.items():
        known[name] = known[delegate if "." in delegate else f"{delegate}."]
    return known


def lacking(watch: Watch) -> set[str]:
    """Names of the operations that MPS lacks, without their overloads."""
    known = on_mps()
    return {name.split(".")[0] for name in watch.operations if not known.get(name, True)}


@pytest.mark.parametrize("case", list(CASES))
def test_training_needs_no_float64_and_nothing_that_mps_lacks(
    case: str,
    simulated: ad.AnnData,
    watched: Watch,
    minibatches: list[Any],
    tiny_options: dict[str, Any],
    quick: dict[str, Any],
) -> None:
    name, settings = CASES[case]
    model = getattr(cv, name)(simulated, split=cv.split(simulated, "cells"), **tiny_options, **settings)
    model.train(1, averaging=0.9, **quick)
    assert "val_loss" in model.history
    assert "addmm." in watched.operations or "mm." in watched.operations
    assert lacking(watched) <= GUARDED
    module = model.trained.module
    assert all(tensor.dtype != torch.float64 for tensor in (*module.parameters(), *module.buffers()))
    assert {tensor.dtype for minibatch in minibatches for tensor in tensors(minibatch)} <= {torch.float32, torch.int64}


@pytest.mark.parametrize("reference", ["damaged", "mean"])
@pytest.mark.parametrize("place", ["never", "always"])
def test_nor_does_a_screen_in_batches_and_contexts(
    reference: str,
    place: str,
    screen: ad.AnnData,
    watched: Watch,
    minibatches: list[Any],
    tiny_options: dict[str, Any],
    quick: dict[str, Any],
) -> None:
    keys = {"batch_key": "batch", "context_key": "context"}
    split = cv.split(screen, "contexts", held_out=[("A", "context2")], **keys)
    model = cv.CradleVAE(screen, split=split, reference=reference, **keys, **tiny_options)
    model.train(1, averaging=0.9, data_on_device=place, **quick)
    assert lacking(watched) <= GUARDED
    assert {tensor.dtype for minibatch in minibatches for tensor in tensors(minibatch)} <= {torch.float32, torch.int64}


def test_cells_on_a_device_are_gathered_there_without_float64(model: cv.CradleVAE) -> None:
    assert model.data is not None
    cells = DeviceCells(model.data, torch.device("cpu"))
    with Watch() as watch:
        cells.dense(torch.arange(5), int(cells.starts[5]))
    assert not lacking(watch)
    assert all(value.dtype != torch.float64 for value in vars(cells).values() if isinstance(value, torch.Tensor))


def test_the_watch_sees_float64(make_adata: Callable[..., ad.AnnData]) -> None:
    with Watch(), pytest.raises(AssertionError, match="gives float64"):
        torch.zeros(3).double()


def test_the_table_knows_what_mps_lacks() -> None:
    known = on_mps()
    assert known["mm."]
    assert known["add.Tensor"]
    assert not known["segment_reduce."]
    assert not known["poisson."]

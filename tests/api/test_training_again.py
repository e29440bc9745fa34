"""Resuming, training again and attaching data: everything that training depends on is recorded, and told by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import cradlevae as cv
from cradlevae.model.training import fit as fit_module
from cradlevae.model.training.fit import appended

Options = dict[str, Any]


def made(adata: ad.AnnData, tiny: Options, **options: Any) -> cv.CradleVAE:
    return cv.CradleVAE(adata, split=cv.split(adata, "cells", seed=0), **(tiny | options))


def permuted_genes(adata: ad.AnnData) -> None:
    adata.var_names = np.random.default_rng(0).permutation(adata.var_names)


def exchanged_labels(adata: ad.AnnData) -> None:
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["perturbation"] = labels.replace({"A": "B", "B": "A"})


def one_other_label(adata: ad.AnnData) -> None:
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    cells = cv.split(adata, "cells", seed=0).cells("train")
    row = next(i for i, name in enumerate(adata.obs_names) if name in set(cells) and labels[i] == "A")
    labels[row] = "B"
    adata.obs["perturbation"] = labels


def renamed_perturbation(adata: ad.AnnData) -> None:
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).str.replace("A", "Z")


def inverted_artifact(adata: ad.AnnData) -> None:
    adata.obs["artifact"] = ~adata.obs["artifact"].to_numpy()


def one_other_count(adata: ad.AnnData) -> None:
    cell = adata.obs_names.get_loc(cv.split(adata, "cells", seed=0).cells("val")[0])
    table = adata.X.tolil()
    table[cell, 0] += 1
    adata.X = table.tocsr()


CHANGES: list[tuple[Callable[[ad.AnnData], None], str]] = [
    (permuted_genes, "the genes or their order"),
    (exchanged_labels, "the perturbation labels of the cells"),
    (one_other_label, "the perturbation labels of the cells"),
    (renamed_perturbation, "the perturbations"),
    (inverted_artifact, "the artifact columns"),
    (one_other_count, "the counts"),
]


def with_split_of(changed: ad.AnnData, original: ad.AnnData, tiny: Options) -> cv.CradleVAE:
    """A model of changed data with the split of the original."""
    # a split that knows its cells by name alone, so that it is the record of the run that tells
    return cv.CradleVAE(changed, split=replace(cv.split(original, "cells", seed=0), sketch=None), **tiny)


@pytest.mark.parametrize(("change", "named"), CHANGES)
def test_a_run_is_not_resumed_on_other_data(
    simulated: ad.AnnData, tiny_options: Options, quick: Options, tmp_path: Path, change: Any, named: str
) -> None:
    made(simulated, tiny_options).train(1, **quick, output=tmp_path)
    changed = simulated.copy()
    change(changed)
    with pytest.raises(cv.DataError, match=f"the run in .* was another one .*{named} were others"):
        with_split_of(changed, simulated, tiny_options).train(2, **quick, output=tmp_path, resume=True)


def test_a_run_is_not_resumed_on_cells_in_another_order(
    simulated: ad.AnnData, tiny_options: Options, quick: Options, tmp_path: Path
) -> None:
    made(simulated, tiny_options).train(1, **quick, output=tmp_path)
    with pytest.raises(cv.DataError, match="the order of the cells were others"):
        with_split_of(simulated[::-1].copy(), simulated, tiny_options).train(2, **quick, output=tmp_path, resume=True)


@pytest.mark.parametrize("change", [lambda x: np.multiply(x, 3, out=x), lambda x: np.log1p(x, out=x)])
def test_counts_changed_in_place_are_refused(
    simulated: ad.AnnData, tiny_options: Options, quick: Options, change: Any
) -> None:
    adata = simulated.copy()
    model = made(adata, tiny_options)
    change(adata.X.data)
    with pytest.raises(cv.DataError, match="were changed in place after the model was made"):
        model.train(1, **quick)


def test_counts_exchanged_within_a_cell_are_refused(
    simulated: ad.AnnData, tiny_options: Options, quick: Options
) -> None:
    """Library sizes are the same; the counts of the genes are not."""
    adata = simulated.copy()
    model = made(adata, tiny_options)
    row = int(adata.obs_names.get_loc(model.split.cells("train")[0]))
    part = slice(adata.X.indptr[row], adata.X.indptr[row + 1])
    adata.X.data[part] = adata.X.data[part][::-1].copy()
    with pytest.raises(cv.DataError, match="were changed in place after the model was made"):
        model.train(1, **quick)


def test_data_can_be_attached_and_trained_on(
    simulated: ad.AnnData, tiny_options: Options, quick: Options, tmp_path: Path
) -> None:
    model = made(simulated, tiny_options)
    model.train(2, **quick)
    model.save(tmp_path / "model")
    plain = cv.load(tmp_path / "model")
    with pytest.raises(cv.DataError, match=r"give them to CradleVAE.load\(folder, adata\) to train"):
        plain.train(1, **quick)
    for loaded in (cv.load(tmp_path / "model", simulated), cv.CradleVAE.load(tmp_path / "model", simulated[::-1])):
        loaded.train(3, **quick)
        assert loaded.history["epoch"].tolist() == [0, 1, 2, 3, 4]
        pd.testing.assert_frame_equal(loaded.history.iloc[:2], model.history, check_dtype=False)
    loaded.save(tmp_path / "again")
    assert cv.load(tmp_path / "again").history["epoch"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("change", "named"), CHANGES[1:])
def test_other_data_are_not_attached(
    simulated: ad.AnnData, tiny_options: Options, quick: Options, tmp_path: Path, change: Any, named: str
) -> None:
    model = made(simulated, tiny_options)
    model.train(1, **quick)
    model.save(tmp_path / "model")
    changed = simulated.copy()
    change(changed)
    with pytest.raises(cv.DataError, match=f"{named}|unknown to the model"):
        cv.load(tmp_path / "model", changed)
    with pytest.raises(cv.DataError, match="cells that the model was trained on are not in the data"):
        cv.load(tmp_path / "model", simulated[:200])


def test_a_second_training_goes_on_in_the_history(simulated: ad.AnnData, tiny_options: Options, quick: Options) -> None:
    model = made(simulated, tiny_options)
    model.train(2, **quick)
    first = model.history.copy()
    model.train(1, **quick)
    assert model.history["epoch"].tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(model.history.iloc[:2], first, check_dtype=False)


def test_a_resumed_run_tells_its_epochs_once(
    simulated: ad.AnnData, tiny_options: Options, quick: Options, tmp_path: Path
) -> None:
    model = made(simulated, tiny_options)
    model.train(1, **quick)
    model.train(2, **quick, output=tmp_path)
    model.train(4, **quick, output=tmp_path, resume=True)
    assert model.history["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert model.history["train_loss"].is_unique


def test_histories_are_numbered_on() -> None:
    first = pd.DataFrame({"epoch": [0, 1], "train_loss": [3.0, 2.0]})
    second = pd.DataFrame({"epoch": [0, 1], "train_loss": [1.5, 1.2]})
    assert appended(pd.DataFrame(), first) is first
    assert appended(first, second)["epoch"].tolist() == [0, 1, 2, 3]
    whole = pd.DataFrame({"epoch": [0, 1, 2], "train_loss": [3.0, 2.0, 1.0]})
    assert appended(first, whole)["train_loss"].tolist() == [3.0, 2.0, 1.0]


def test_an_error_of_a_step_keeps_its_type_and_its_traceback(
    simulated: ad.AnnData, tiny_options: Options, quick: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cradlevae.model.training import lightning_module

    def broken(*arguments: Any) -> Any:
        raise ValueError("the step is broken")

    monkeypatch.setattr(lightning_module, "loss_terms", broken)
    with pytest.raises(ValueError, match="the step is broken") as caught:
        made(simulated, tiny_options).train(1, **quick)
    assert not isinstance(caught.value, cv.DataError)
    assert any(entry.name == "broken" for entry in caught.traceback)


def test_bf16_without_its_arithmetic_is_warned_of(
    simulated: ad.AnnData, tiny_options: Options, quick: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "has_bf16_arithmetic", lambda: False)
    with pytest.warns(UserWarning, match="this processor has no bfloat16 arithmetic"):
        made(simulated, tiny_options).train(1, **quick, precision="bf16")
    monkeypatch.setattr(fit_module, "has_bf16_arithmetic", lambda: True)
    made(simulated, tiny_options).train(1, **quick, precision="bf16")


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx2 avx512f", False), ("fpu avx512f avx512_bf16", True), ("", True)]
)
def test_what_the_processor_says(monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool) -> None:
    from cradlevae.nn import matmul

    monkeypatch.setattr(Path, "read_text", lambda self: f"processor : 0\nflags : {flags}\n" if flags else "")
    assert matmul.has_bf16_arithmetic() is expected


def test_a_run_is_not_resumed_from_other_first_weights(
    simulated: ad.AnnData, tiny_options: Options, quick: Options, tmp_path: Path
) -> None:
    made(simulated, tiny_options, seed=0).train(1, **quick, output=tmp_path)
    with pytest.raises(cv.DataError, match="seed_of_weights was 0, now 5"):
        made(simulated, tiny_options, seed=5).train(2, **quick, output=tmp_path, resume=True)


def test_a_floor_refuses_counts_changed_in_place(simulated: ad.AnnData) -> None:
    adata = simulated.copy()
    floor = cv.FloorModel("training_mean", adata, split=cv.split(adata, "cells"))
    adata.X.data[adata.X.indices == 0] *= 50
    with pytest.raises(cv.DataError, match="were changed in place after the model was made"):
        floor.train()


def test_making_training_and_loading_leave_the_callers_random_numbers(
    simulated: ad.AnnData, tiny_options: Options, quick: Options, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state().clone()
    model = made(simulated, tiny_options)
    model.train(1, **quick)
    model.save(tmp_path / "model")
    cv.load(tmp_path / "model")
    cv.load(tmp_path / "model", simulated)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_accelerator_that_needs_another_package_is_explained(
    simulated: ad.AnnData, tiny_options: Options, quick: Options
) -> None:
    with pytest.raises(cv.DataError, match="accelerator='tpu', devices=1 cannot be used here"):
        made(simulated, tiny_options).train(1, **(quick | {"accelerator": "tpu"}))

"""Training: the same numbers every time, nothing lost by a kill, and a stop that says why."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import cradlevae as cv
from cradlevae.errors import DataError, TrainingError
from cradlevae.model.training import lightning_module as plan_module
from cradlevae.model.training.lightning_module import TrainingModule
from cradlevae.model.training.settings import TrainConfig

Options = dict[str, Any]
TERMS = ("reconstruction", "basal", "mask", "embedding", "artifact", "counterfactual")


@pytest.fixture
def new_model(simulated: ad.AnnData, tiny_options: Options) -> Any:
    def make(adata: ad.AnnData | None = None, *, recipe: str = "cells", **options: Any) -> cv.CradleVAE:
        adata = simulated if adata is None else adata
        column = {"column": "part"} if recipe == "column" else {}
        return cv.CradleVAE(adata, split=cv.split(adata, recipe, **column), **(tiny_options | options))

    return make


def weights(model: cv.CradleVAE) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.trained.module.state_dict().items()}


def assert_same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def differ(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return any(not np.array_equal(one[name], two[name]) for name in one)


def curves(model: cv.CradleVAE) -> pd.DataFrame:
    return model.history.drop(columns="seconds")


# -- reproducibility -------------------------------------------------------------------------------------------


def test_the_same_seeds_give_the_same_numbers(new_model: Any, quick: Options) -> None:
    one, two, other = new_model(), new_model(), new_model()
    before = weights(one)
    one.train(2, **quick)
    two.train(2, **quick)
    other.train(2, **quick, seed=1)
    assert_same(weights(one), weights(two))
    pd.testing.assert_frame_equal(curves(one), curves(two))
    assert differ(weights(one), before)
    assert differ(weights(one), weights(other))
    assert differ(before, weights(new_model(seed=1)))


def test_what_ran_before_has_no_say_and_is_not_disturbed(new_model: Any, quick: Options) -> None:
    expected = new_model()
    expected.train(1, **quick)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    torch.rand(7)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    model = new_model()
    model.train(1, **quick)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002
    assert_same(weights(model), weights(expected))


def test_statistics_of_the_counts_are_those_of_the_training_cells(simulated: ad.AnnData, new_model: Any) -> None:
    model = new_model()
    logs = np.log1p(simulated[model.split.cells("train")].X.toarray().astype(np.float64))
    state = weights(model)
    np.testing.assert_allclose(state["basal_encoder.log_mean"], logs.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(state["basal_encoder.log_std"], logs.std(axis=0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize("reference", ["mean", "cell"])
def test_where_the_cells_are_has_no_say(new_model: Any, quick: Options, reference: str) -> None:
    host, device = new_model(reference=reference), new_model(reference=reference)
    host.train(2, **quick)
    device.train(2, **quick, data_on_device="always")
    assert_same(weights(host), weights(device))
    pd.testing.assert_frame_equal(curves(host), curves(device))


# -- resuming --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"reference": "cell"}, {"objective": "released"}])
def test_a_resumed_run_is_the_uninterrupted_one(
    new_model: Any, quick: Options, tmp_path: Path, options: Options
) -> None:
    whole = new_model(**options)
    whole.train(4, **quick, output=tmp_path / "whole")
    parts = new_model(**options)
    parts.train(2, **quick, output=tmp_path / "parts")
    again = new_model(**options)
    again.train(4, **quick, output=tmp_path / "parts", resume=True)
    assert_same(weights(again), weights(whole))
    pd.testing.assert_frame_equal(curves(again), curves(whole))
    last = [
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "parts")
    ]
    for name, value in last[0].items():
        assert torch.equal(value, last[1][name]), name


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_a_kill_costs_the_epoch_under_way_at_most(
    new_model: Any, quick: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    interruption: type[BaseException],
) -> None:  # fmt: skip
    whole = new_model()
    whole.train(4, **quick)
    step = TrainingModule.training_step

    def killed(self: TrainingModule, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 2 and batch_idx == 1:
            raise interruption("killed")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", killed)
        with pytest.raises(interruption):
            new_model().train(4, **quick, output=tmp_path / "run")
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 2
    resumed = new_model()
    resumed.train(4, **quick, output=tmp_path / "run", resume=True)
    assert_same(weights(resumed), weights(whole))
    pd.testing.assert_frame_equal(curves(resumed), curves(whole))


def test_a_kill_in_the_first_epoch_starts_anew(
    new_model: Any, quick: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            new_model().train(2, **quick, output=tmp_path)
    resumed, whole = new_model(), new_model()
    resumed.train(2, **quick, output=tmp_path, resume=True)
    whole.train(2, **quick)
    assert_same(weights(resumed), weights(whole))


def test_resuming_a_finished_run_changes_nothing(new_model: Any, quick: Options, tmp_path: Path) -> None:
    model, again = new_model(), new_model()
    model.train(2, **quick, output=tmp_path)
    again.train(2, **quick, output=tmp_path, resume=True)
    assert_same(weights(again), weights(model))
    assert again.predict(["A"], 3).shape == (3, 60)


def test_a_folder_with_a_run_is_refused(new_model: Any, quick: Options, tmp_path: Path) -> None:
    new_model().train(1, **quick, output=tmp_path)
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(DataError, match=rf"{tmp_path} already holds a run; choose another folder, resume it, or repl"):
        new_model().train(1, **quick, output=tmp_path)
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


def test_an_output_that_cannot_be_written_is_refused(new_model: Any, quick: Options, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="which is a file; name a folder"):
        new_model().train(1, **quick, output=tmp_path / "file")


# -- course of training ----------------------------------------------------------------------------------------


def test_the_history_has_every_term_of_every_epoch(new_model: Any, quick: Options, tmp_path: Path) -> None:
    model = new_model()
    model.train(3, **quick, output=tmp_path)
    history = model.history
    terms = (*TERMS, "cell_artifact", "gene_effects", "weights", "pair_counts", "pair_damage")
    expected = {"epoch", "seconds"} | {f"{part}_{term}" for part in ("train", "val") for term in ("loss", *terms)}
    assert set(history.columns) == expected
    assert history["epoch"].tolist() == [0, 1, 2]
    assert np.isfinite(history.to_numpy()).all()
    for part in ("train", "val"):
        total = history[[f"{part}_{term}" for term in terms]].sum(axis=1)
        np.testing.assert_allclose(history[f"{part}_loss"], total, rtol=1e-5)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv"), history, check_exact=False)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_training_lowers_the_loss(new_model: Any, quick: Options) -> None:
    model = new_model()
    model.train(15, **quick, learning_rate=1e-2)
    for loss, least in (("train_loss", 0.5), ("val_loss", 0.2)):
        assert model.history[loss].iloc[-1] < model.history[loss].iloc[0] - least, loss


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Makes training see these validation losses, epoch after epoch."""
    means = TrainingModule.means

    def use(losses: list[float]) -> None:
        def scripted(self: TrainingModule, part: str) -> dict[str, float]:
            return {"reconstruction": losses[self.current_epoch]} if part == "val" else means(self, part)

        monkeypatch.setattr(TrainingModule, "means", scripted)

    return use


def test_the_best_epoch_is_kept(new_model: Any, quick: Options, tmp_path: Path, script: Any) -> None:
    script([3, 1, 2])
    model = new_model()
    model.train(3, **quick, output=tmp_path)
    assert model.history["val_loss"].tolist() == [3, 1, 2]
    best, last = (torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert (best["epoch"], last["epoch"]) == (1, 2)  # the last follows every epoch, better or not
    for name, value in weights(model).items():
        if name != "damage_guide.kind_odds":  # told by failed cells when training has ended
            np.testing.assert_array_equal(value, best["state_dict"][f"module.{name}"], err_msg=name)


@pytest.mark.parametrize("interrupted", [False, True])
def test_early_stopping_counts_the_epochs_without_a_better_one(
    new_model: Any, quick: Options, tmp_path: Path, script: Any, interrupted: bool
) -> None:
    script([9, 8, 8.5, 8.2, 8.1, 7, 6])
    model = new_model()
    if interrupted:  # the count goes on after a kill
        new_model().train(4, **quick, output=tmp_path, patience=3)
    model.train(7, **quick, output=tmp_path, patience=3, resume=True)
    assert model.history["val_loss"].tolist() == [9, 8, 8.5, 8.2, 8.1]


def test_without_patience_training_goes_to_the_end(new_model: Any, quick: Options, script: Any) -> None:
    script([9, 10, 11, 12])
    model = new_model()
    model.train(4, **quick, patience=0)
    assert len(model.history) == 4


def test_without_validation_cells_the_last_epoch_counts(simulated: ad.AnnData, new_model: Any, quick: Options) -> None:
    adata = simulated.copy()
    adata.obs["part"] = np.where(np.arange(adata.n_obs) % 10 == 0, "test", "train")
    model = new_model(adata, recipe="column")
    model.train(2, **quick)
    assert len(model.history) == 2
    assert not any(column.startswith("val") for column in model.history)
    resumed = new_model(adata, recipe="column")
    resumed.train(1, **quick)
    assert differ(weights(model), weights(resumed))


@pytest.mark.parametrize("failed", [False, True])
def test_one_artifact_class_only_trains_with_a_warning(
    simulated: ad.AnnData, new_model: Any, quick: Options, failed: bool
) -> None:
    adata = simulated.copy()
    adata.obs["artifact"] = failed
    what = "failed" if failed else "passed"
    with pytest.warns(UserWarning, match=f"all training cells {what} QC: there is no artifact to disentangle"):
        model = new_model(adata)
    model.train(1, **quick)
    assert (model.history["train_counterfactual"] == 0).all() == failed  # without passing cells there are no pairs
    assert np.isfinite(model.history.to_numpy()).all()


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "released"},
        {"objective": "released", "alpha": 0.4},
        {"guide": "mean-field", "decode": "sum"},
        {"balance_classes": True, "reference": "median"},
        {"counterfactual_weight": 0.0},
        {"artifact_key": ("low_umi", "other_damage")},
    ],
)
def test_every_variant_trains(new_model: Any, quick: Options, options: Options) -> None:
    model = new_model(**options)
    before = weights(model)
    model.train(1, **quick)
    assert np.isfinite(model.history.to_numpy()).all()
    assert differ(before, weights(model))
    assert ("train_counterfactual" in model.history) == (options.get("counterfactual_weight") != 0.0)


def test_progress_is_shown_where_asked_for(new_model: Any, quick: Options, capsys: pytest.CaptureFixture[str]) -> None:
    new_model().train(1, **quick)
    assert capsys.readouterr() == ("", "")
    new_model().train(2, **(quick | {"progress": True}))
    out, err = capsys.readouterr()
    assert out == ""
    number = r"-?[\d.]+"
    expected = [
        f"training: epoch 1/2, loss {number}, validation {number}, 0:0\\d left",
        f"training: epoch 2/2, loss {number}, validation {number}",
    ]
    for line, text in zip(err.splitlines(), expected, strict=True):
        assert re.fullmatch(text, line)


# -- what goes wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "word"), [("train", "training"), ("val", "validation")])
def test_a_loss_that_is_not_finite_names_batch_and_term(
    new_model: Any, quick: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, word: str
) -> None:
    honest = plan_module.loss_terms
    epochs = {"train": 0, "val": 0}
    current: list[Any] = []

    step = TrainingModule._step

    def watched(self: TrainingModule, where: str, batch: Any, batch_idx: int) -> Any:
        epochs[where] += batch_idx == 0
        current[:] = [where, batch_idx, epochs[where]]
        return step(self, where, batch, batch_idx)

    def broken(*arguments: Any) -> Any:
        terms = honest(*arguments)
        if current[0] == part and current[1] == 0 and current[2] == 2:
            terms["basal"] = terms["basal"] * float("nan")
        return terms

    monkeypatch.setattr(TrainingModule, "_step", watched)
    monkeypatch.setattr(plan_module, "loss_terms", broken)
    message = rf"not finite in epoch 1, {word} batch 0: basal = nan\. Try a smaller learning_rate"
    with pytest.raises(TrainingError, match=message):
        new_model().train(3, **quick, output=tmp_path)
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()  # of the epoch before


def test_a_diverging_run_stops(new_model: Any, quick: Options) -> None:
    with pytest.raises(TrainingError, match="the loss is not finite in epoch"):
        new_model().train(50, **quick, learning_rate=1e6, gradient_clip=1e12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 0}, "max_epochs is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"devices": 0}, "devices is 0; it must be at least 1"),
        ({"data_on_device": "maybe"}, "data_on_device"),
        ({"n_particles": -1}, "n_particles is -1; it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(options: Options, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TrainConfig(**options)


def test_training_does_not_change_what_warnings_the_caller_sees(new_model: Any, quick: Options) -> None:
    filters = list(warnings.filters)
    new_model().train(1, **quick)
    assert list(warnings.filters) == filters


# -- resuming what is not the same run -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_options", "train_options", "named"),
    [
        ({"counterfactual_weight": 0.3}, {}, "counterfactual_weight"),
        ({}, {"learning_rate": 1e-4}, "learning_rate"),
        ({}, {"seed": 5}, "seed"),
    ],
)
def test_another_run_is_not_resumed(
    new_model: Any, quick: Options, tmp_path: Path, model_options: Options, train_options: Options, named: str
) -> None:
    new_model().train(1, **quick, output=tmp_path)
    with pytest.raises(cv.DataError, match=f"was another one .*{named} was"):
        new_model(**model_options).train(2, **(quick | train_options), output=tmp_path, resume=True)


def test_another_split_is_not_resumed(simulated: ad.AnnData, tiny_options, quick: Options, tmp_path: Path) -> None:
    first, second = (cv.split(simulated, "cells", seed=seed) for seed in (0, 1))
    cv.CradleVAE(simulated, split=first, **tiny_options).train(1, **quick, output=tmp_path)
    with pytest.raises(cv.DataError, match="split_hash was"):
        cv.CradleVAE(simulated, split=second, **tiny_options).train(2, **quick, output=tmp_path, resume=True)


def test_damaged_checkpoints_and_finished_runs_are_refused(new_model: Any, quick: Options, tmp_path: Path) -> None:
    new_model().train(2, **quick, output=tmp_path)
    with pytest.raises(cv.DataError, match="already has 2 epochs; set max_epochs above"):
        new_model().train(1, **quick, output=tmp_path, resume=True)
    last = tmp_path / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(cv.DataError, match=r"last\.ckpt is damaged or not a checkpoint"):
        new_model().train(3, **quick, output=tmp_path, resume=True)


def test_settings_that_cannot_be_are_refused(new_model: Any, quick: Options) -> None:
    for options, message in (
        (
            {"accelerator": "abacus"},
            "accelerator='abacus', devices=1 cannot be used here: You selected an invalid",
        ),
        ({"precision": "3-bit"}, "precision is '3-bit'"),
        ({"averaging": 1.0}, "averaging is 1.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"seed": -1}, "seed is -1"),
    ):
        with pytest.raises(cv.DataError, match=message):
            new_model().train(1, **(quick | options))


def test_counts_changed_in_place_are_not_trained_on(simulated: ad.AnnData, tiny_options, quick: Options) -> None:
    adata = simulated.copy()
    model = cv.CradleVAE(adata, **tiny_options)
    np.log1p(adata.X.data, out=adata.X.data)
    with pytest.raises(cv.DataError, match="changed in place"):
        model.train(1, **quick)

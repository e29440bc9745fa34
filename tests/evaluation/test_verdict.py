"""The verdict in words: every rule on both sides of its threshold, on tables made by hand."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.evaluation import doubts
from cradlevae.evaluation.reference_effects import ALL_CELLS_NOTE, MIN_CELLS, VALIDATION_NOTE
from cradlevae.evaluation.score_table import COLUMNS
from cradlevae.evaluation.verdict import Finding

HELD_OUT = "held-out passing cells"
CELLS = {"condition": list("ABCDE"), "n_singles": [1] * 5, "n_train": [90] * 5, "n_parts": [90] * 5}
CELLS["n_reference"] = [40] * 5
LOSSES = [100.0, 60.0, 55.0, 54.0, 54.0, 53.9, 53.9, 53.9]


def row(metric: str, value: float, predictor: str = "model", reference: str = HELD_OUT, **rest: Any) -> dict[str, Any]:
    return {"reference": reference, "metric": metric, "predictor": predictor, "value": value, "note": ""} | rest


def table(*rows: dict[str, Any], **attrs: Any) -> pd.DataFrame:
    scores = pd.DataFrame(list(rows), columns=list(COLUMNS))
    scores = scores.astype(dict.fromkeys(("value", "low", "high", "floor", "ceiling", "fraction"), float))
    scores.attrs = {"conditions": CELLS, "leads": {}} | attrs
    return scores


def found(topic: str, *rows: dict[str, Any], **attrs: Any) -> list[Finding]:
    return [finding for finding in cv.verdict(table(*rows, **attrs)) if finding.topic == topic]


def effect(metric: str, lead: float, fraction: float = np.nan) -> dict[str, Any]:
    """A row of effects whose model is ahead of the best floor by so much."""
    return row(metric, 0.5 + lead, floor=0.5, best_floor="additive", ceiling=0.9, fraction=fraction)


def leads(rho: tuple[float, float], r2: tuple[float, float]) -> dict[str, list[Any]]:
    low, high = zip(rho, r2, strict=True)
    return {"reference": [HELD_OUT] * 2, "metric": ["ate_rho", "ate_r2"], "low": list(low), "high": list(high)}


UP, NONE, DOWN = (0.01, 0.2), (-0.01, 0.2), (-0.2, -0.01)


@pytest.mark.parametrize(
    ("rho", "r2", "level", "words"),
    [
        (UP, UP, "good", "use the model"),
        (UP, NONE, "good", "use the model"),
        (NONE, NONE, "note", "cannot be told apart; for effects alone the floor is the simpler one"),
        (DOWN, NONE, "warning", "use additive rather than the model"),
        (DOWN, DOWN, "warning", "use additive rather than the model"),
        (UP, DOWN, "note", "the model is better by ATE-ρ, additive by ATE-R²"),
    ],
)
def test_effects_are_judged_by_the_interval_of_the_lead(
    rho: tuple[float, float], r2: tuple[float, float], level: str, words: str
) -> None:
    (finding,) = found("effects", effect("ate_rho", 0.1, 0.25), effect("ate_r2", 0.1), leads=leads(rho, r2))
    assert finding.level == level
    assert words in finding.text
    assert "5 seen perturbations" in finding.text
    assert "25% of the way from there to the attainable 0.900" in finding.text


def test_without_paired_intervals_the_floor_is_held_against_the_models_own() -> None:
    for low, level in ((0.51, "good"), (0.49, "note")):
        (finding,) = found("effects", effect("ate_rho", 0.1) | {"low": low, "high": 0.7})
        assert finding.level == level
    (finding,) = found("effects", effect("ate_rho", -0.1) | {"low": 0.3, "high": 0.49})
    assert finding.level == "warning"


def test_an_interval_over_few_conditions_decides_nothing() -> None:
    few = {name: values[: doubts.FEW_CONDITIONS - 1] for name, values in CELLS.items()}
    options: dict[str, Any] = {"leads": leads(UP, UP), "conditions": few}
    (finding,) = found("effects", effect("ate_rho", 0.1), effect("ate_r2", 0.1), **options)
    assert finding.level == "note"
    assert "so few conditions cannot tell the model and additive apart" in finding.text
    assert len(found("few conditions", **options)) == 1
    assert not found("few conditions")


def test_floors_that_are_best_by_one_score_each_are_both_named() -> None:
    (finding,) = found(
        "effects", effect("ate_rho", 0.1), effect("ate_r2", 0.1) | {"best_floor": "mean"}, leads=leads(NONE, NONE)
    )
    assert "additive (the best by ATE-ρ) or mean (the best by ATE-R²)" in finding.text


def test_what_was_asked_is_said() -> None:
    conditions = {
        "condition": ["A", "B in D1", "A+B", "A+C", "D"],
        "n_singles": [1, 1, 2, 2, 1],
        "n_train": [50, 0, 0, 50, 50],
        "n_parts": [50] * 5,
        "n_reference": [50] * 5,
    }
    (finding,) = found("effects", effect("ate_rho", 0.1), leads=leads(UP, UP), conditions=conditions)
    what = "3 seen perturbations and 1 unseen combinations and 1 perturbations unseen in their context"
    assert what in finding.text


def test_a_model_without_a_floor_to_compare_with_is_not_placed() -> None:
    (finding,) = found("effects", row("ate_rho", 0.7))
    assert (finding.level, "cannot be placed" in finding.text) == ("note", True)
    assert not found("effects", row("ate_rho", np.nan, floor=0.5, best_floor="additive"))


@pytest.mark.parametrize(
    ("value", "fraction", "level", "words"),
    [
        (0.15, 0.95, "good", "cannot be told from real ones"),
        (0.3, 0.5, "good", "nearer to real cells than"),
        (0.4, 0.49, "note", "nearer to controls than"),
        (1.1, -0.1, "warning", "no nearer to real cells"),
        (0.3, np.nan, "note", "nothing can be said"),
    ],
)
def test_generated_cells_are_judged_by_their_place_between_controls_and_real_cells(
    value: float, fraction: float, level: str, words: str
) -> None:
    model = row("e_distance", value, floor=1.0, fraction=fraction)
    (finding,) = found("cells", model, row("e_distance", 0.1, "real cells", low=0.0, high=0.2))
    assert finding.level == level
    assert words in finding.text
    assert not found("cells", row("e_distance", np.nan))


@pytest.mark.parametrize(
    ("low", "high", "level"), [(90.0, 109.0, "good"), (90.0, 111.0, "note"), (111.0, 130.0, "warning")]
)
def test_cleaning_is_judged_by_the_interval_of_the_deviance(low: float, high: float, level: str) -> None:
    truth, floor = "held-out clean counts (truth)", {"floor": 110.0, "best_floor": "denoiser"}
    whole = row("clean_deviance", (low + high) / 2, reference=truth, low=low, high=high, **floor)
    kinds = [
        row("clean_deviance", 100.0, reference=f"{truth}, {kind}", low=of_kind, high=130.0, **floor)
        for kind, of_kind in (("doublet", 111.0), ("low_umi", 109.0))
    ]
    (finding,) = found("cleaning", whole, *kinds)
    assert finding.level == level
    assert "worse than a floor for cells of the kind doublet (denoiser)" in finding.text
    assert "low_umi" not in finding.text


@pytest.mark.parametrize(
    ("cleaned", "raw", "level", "words"),
    [
        (0.55, 0.7, "good", "nearly as real ones do"),
        (0.65, 0.7, "note", "still stand apart"),
        (0.71, 0.7, "warning", "do not use them"),
        (0.51, 0.515, "note", "hardly stand apart"),
    ],
)
def test_without_true_counts_cleaning_is_judged_by_what_stands_beside(
    cleaned: float, raw: float, level: str, words: str
) -> None:
    values = {"model (label unused)": cleaned, "as measured": raw, "real cells": 0.5, "model": 0.5}
    rows = [row("mixing_failed_neighbours", value, name) for name, value in values.items()]
    (finding,) = found("cleaning", *rows, cleans=True)
    assert finding.level == level
    assert words in finding.text
    assert "plant_artifacts" in finding.text


def test_cleaning_that_cannot_be_judged_is_said_of_models_that_clean() -> None:
    assert [finding.level for finding in found("cleaning", cleans=True)] == ["note"]
    assert not found("cleaning", cleans=False)


@pytest.mark.parametrize("metric", ["leakage_z_basal", "leakage_z_perturbation"])
def test_leakage(metric: str) -> None:
    assert not found("leakage", row(metric, doubts.LEAKAGE))
    assert not found("leakage", row(metric, np.nan))
    (finding,) = found("leakage", row(metric, doubts.LEAKAGE + 0.001))
    assert finding.level == "warning"


def test_confounding_names_the_perturbations() -> None:
    assert not found("confounding", row("confounded_perturbations", 0, "data"))
    names = ", ".join(f"P{place}" for place in range(7))
    (finding,) = found("confounding", row("confounded_perturbations", 7, "data", note=f"{names}; {ALL_CELLS_NOTE}"))
    assert "P0, P1, P2, P3, P4 and 2 more" in finding.text


def test_batches() -> None:
    assert not found("batches", cells_lost=doubts.LOST, unmeasured=[])
    (finding,) = found("batches", cells_lost=doubts.LOST + 0.01)
    assert "costs 21% of the cells" in finding.text
    (finding,) = found("batches", unmeasured=["A"])
    assert finding.level == "warning"
    assert "No held-out controls share a batch (or context) with A" in finding.text
    assert len(found("not answered", unanswered=["A+B"])) == 1
    assert not found("not answered", unanswered=[])


@pytest.mark.parametrize("column", ["n_train", "n_reference"])
def test_conditions_with_few_cells(column: str) -> None:
    def with_few(n_few: int, n_cells: int, n: int = 20) -> list[Finding]:
        conditions = {name: [values[0]] * n for name, values in CELLS.items()}
        conditions[column] = [n_cells] * n_few + [90] * (n - n_few)
        return found("few cells", conditions=conditions)

    assert not with_few(20, MIN_CELLS)
    assert [finding.level for finding in with_few(2, MIN_CELLS - 1)] == ["note"]
    assert [finding.level for finding in with_few(3, MIN_CELLS - 1)] == ["warning"]


def test_an_unseen_combination_rests_on_the_cells_of_its_rarest_part() -> None:
    unseen = CELLS | {"n_train": [0] * 5}
    assert not found("few cells", conditions=unseen)
    (finding,) = found("few cells", conditions=unseen | {"n_parts": [90, 90, 90, 90, MIN_CELLS - 1]})
    assert "1 of 5 conditions" in finding.text


def test_training_that_still_improves() -> None:
    assert not found("training", history={"train_loss": LOSSES[::-1], "val_loss": LOSSES})  # validation counts
    assert not found("training")
    for share, n in ((doubts.LATE_SHARE - 0.001, 0), (doubts.LATE_SHARE + 0.001, 1)):
        loss = [100.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -100.0 * share / (1 - share)]
        assert len(found("training", history={"train_loss": loss})) == n, share
    (finding,) = found("training", history={"val_loss": LOSSES[: doubts.FEW_EPOCHS - 1]})
    assert "had 3 epochs" in finding.text
    (finding,) = found("training", history={"val_loss": [1.0, 2.0, 3.0, 4.0]})
    assert "improved nothing" in finding.text


@pytest.mark.parametrize("metric", doubts.INTERVALS)
def test_intervals_that_hold_too_few_or_too_many_effects(metric: str) -> None:
    def judged(value: float, low: float, high: float) -> list[str]:
        return [finding.level for finding in found("intervals", row(metric, value, low=low, high=high))]

    assert not judged(0.851, 0.84, 0.86)
    assert judged(0.849, 0.84, 0.86) == ["warning"]
    assert not judged(0.8, 0.6, 0.95)  # .9 is within what chance allows
    assert not judged(0.949, 0.94, 0.96)
    assert judged(0.951, 0.94, 0.96) == ["note"]
    assert judged(0.8, np.nan, np.nan) == ["warning"]


def test_a_ceiling_that_is_low_or_not_known() -> None:
    def judged(value: float, low: float, high: float) -> list[str]:
        rows = row("attainable_rho", value, "ceiling", low=low, high=high)
        return [finding.level for finding in found("ceiling", rows)]

    assert not judged(0.5, 0.4, 0.6)
    assert judged(0.49, 0.4, 0.6) == ["warning"]
    assert judged(0.7, 0.59, 0.8) == ["note"]


def test_negative_r2_is_a_matter_of_sizes() -> None:
    assert not found("sizes", row("ate_r2", 0.0), row("ate_r2", -1.0, "additive"))
    (finding,) = found("sizes", row("ate_r2", -0.01))
    assert finding.level == "warning"


def test_cells_that_training_has_looked_at() -> None:
    assert not found("reference", row("mmd2", 0.1))
    assert found("reference", row("mmd2", 0.1, note=f"x; {ALL_CELLS_NOTE}"))[0].level == "warning"
    assert found("reference", row("mmd2", 0.1, note=VALIDATION_NOTE))[0].level == "note"


def test_of_a_models_table_and_of_the_same_from_a_file(model: cv.CradleVAE, simulated: ad.AnnData, tmp_path) -> None:
    scores = cv.evaluate(model, simulated, generated=False)
    assert len(scores.attrs["history"]["val_loss"]) == 3
    assert scores.attrs["conditions"]["n_train"] == [0] * len(scores.attrs["conditions"]["condition"])  # unseen pairs
    assert min(scores.attrs["conditions"]["n_parts"]) > 0
    topics = [finding.topic for finding in cv.verdict(scores)]
    assert topics[:3] == ["effects"] * 3
    assert {"cleaning", "training", "few conditions"} <= set(topics)
    assert "not judged" not in topics
    scores.to_csv(tmp_path / "scores.csv", index=False)
    from_file = cv.verdict(pd.read_csv(tmp_path / "scores.csv"))
    assert from_file[-1].topic == "not judged"
    assert "cleaning" in {finding.topic for finding in from_file}


def test_the_lead_is_paired_by_perturbation(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    """A floor stands level with itself, whatever the spread over perturbations."""
    split = cv.split(simulated, "cells", seed=0)
    floor = cv.FloorModel("additive_multivariate", simulated, split=split)
    floor.train()
    scores = cv.evaluate(floor, simulated, generated=False)
    of_floor = scores[scores["predictor"] == "model"]
    paired = pd.DataFrame(scores.attrs["leads"]).merge(of_floor, on=["reference", "metric"])
    for _, lead in paired.iterrows():
        assert lead["low_x"] - 1e-9 <= lead["value"] - lead["floor"] <= lead["high_x"] + 1e-9
        if lead["best_floor"] == "additive_multivariate":
            assert lead["low_x"] == lead["high_x"] == 0

"""The verdict on a table of scores, in words: which predictor to use for which question, and what to distrust.

This file says which predictor is better for effects, for cells and for cleaning; :mod:`cradlevae.evaluation.doubts`
says what the scores, or the data behind them, give reason to distrust. All rules are plain comparisons with constants.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from cradlevae.evaluation.doubts import FEW_CONDITIONS, doubts
from cradlevae.evaluation.findings import Finding, Level, attribute, of_metric
from cradlevae.evaluation.score_table import MODEL, REAL, check_scores
from cradlevae.evaluation.scorers.mixing import AS_MEASURED, WITHOUT_LABEL

__all__ = ["Finding", "verdict"]

NEEDED = ("reference", "metric", "predictor", "value", "low", "high", "floor", "best_floor", "ceiling", "fraction")

HALFWAY = 0.5
"""Fraction from which generated cells count as near real ones: they are nearer to real cells than to controls."""

NAMES = {"ate_rho": "ATE-ρ", "ate_r2": "ATE-R²"}

Standing = Literal["ahead", "level", "behind"]
"""Where the model stands against the best floor: the 95 % interval of its lead is above 0, holds 0, or is below it."""


def verdict(scores: pd.DataFrame) -> list[Finding]:
    """Say in words what a table of scores means: which predictor to use for which question, and what to distrust.

    Parameters
    ----------
    scores
        The table that :func:`cradlevae.evaluate` returned. A table read from ``scores.csv`` lacks its ``attrs``: what
        needs them (training, cells per condition, batches) is then not judged, and a finding says so.

    Returns
    -------
    list of Finding
        ``level`` (``"good"``, ``"note"`` or ``"warning"``), ``topic`` and ``text``: first a finding for each question
        that was scored (effects, generated cells, cleaning), then what to distrust.

    Raises
    ------
    DataError
        If ``scores`` is no such table.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> adata.obs["artifact"] = adata.obs["true_artifact"]
    >>> floor = cv.FloorModel("zero", adata)
    >>> floor.train()
    >>> findings = cv.verdict(cv.evaluate(floor, adata, generated=False))
    >>> findings[0].level, findings[0].topic
    ('warning', 'effects')
    """
    check_scores(scores, NEEDED)
    return [*_effects(scores), *_generated(scores), *_cleaning(scores), *doubts(scores)]


def _effects(scores: pd.DataFrame) -> list[Finding]:
    """A finding for each reference that effects were compared with."""
    rows = of_metric(scores, "ate_rho")
    references = rows.loc[(rows["predictor"] == MODEL) & rows["value"].notna(), "reference"]
    return [_of_reference(scores, str(reference)) for reference in dict.fromkeys(references)]


def _of_reference(scores: pd.DataFrame, reference: str) -> Finding:
    """Which predictor to use for effects, by what one reference says."""
    standings: dict[Standing, list[str]] = {"ahead": [], "level": [], "behind": []}
    numbers: list[str] = []
    floors: dict[str, str] = {}
    conditions = attribute(scores, "conditions")
    few = conditions is not None and len(conditions["condition"]) < FEW_CONDITIONS  # intervals over them say nothing
    for metric, name in NAMES.items():
        rows = of_metric(scores, metric)
        model = rows[(rows["reference"] == reference) & (rows["predictor"] == MODEL)]
        if model.empty or not np.isfinite(model[["value", "floor"]].to_numpy(dtype=np.float64)).all():
            continue
        row = model.iloc[0]
        low, high = (np.nan, np.nan) if few else _lead(scores, row)
        standings["ahead" if low > 0 else "behind" if high < 0 else "level"].append(name)
        floors[name] = str(row["best_floor"])
        numbers.append(_numbers(row, name, low, high))
    floor = _floors(floors)
    ahead, behind = standings["ahead"], standings["behind"]
    level: Level
    if not numbers:
        level, advice = "note", "no floor could answer, so the model's score cannot be placed"
    elif few:
        level, advice = "note", f"so few conditions cannot tell the model and {floor} apart, whatever the scores are"
    elif ahead and behind:
        level, advice = "note", f"the model is better by {ahead[0]}, {floors[behind[0]]} by {behind[0]}"
    elif ahead:
        level, advice = "good", "use the model"
    elif behind:
        level, advice = "warning", f"use {floor} rather than the model, which is worse"
    else:
        level = "note"
        advice = (
            f"the model and {floor} cannot be told apart; for effects alone the floor is the simpler one, and the "
            "model is what also cleans, diagnoses and tells responders"
        )
    text = f"Effects of {_scored(scores)}, against {reference}: {advice}. {'; '.join(numbers)}"
    return Finding(level, "effects", f"{text.strip().rstrip('.')}.")


def _floors(by_score: dict[str, str]) -> str:
    """The best floor, or that of each score where these differ."""
    if len(set(by_score.values())) <= 1:
        return next(iter(by_score.values()), "")
    return " or ".join(f"{floor} (the best by {name})" for name, floor in by_score.items())


def _lead(scores: pd.DataFrame, row: pd.Series[Any]) -> tuple[float, float]:
    """95 % interval of the model's score minus the best floor's, paired by perturbation where the table has that."""
    leads = attribute(scores, "leads")
    if leads is not None:
        paired = pd.DataFrame(leads, columns=["reference", "metric", "low", "high"])
        paired = paired[(paired["reference"] == row["reference"]) & (paired["metric"] == row["metric"])]
        if len(paired):
            return float(paired["low"].iloc[0]), float(paired["high"].iloc[0])
    return float(row["low"] - row["floor"]), float(row["high"] - row["floor"])


def _numbers(row: pd.Series[Any], name: str, low: float, high: float) -> str:
    """The model's score, that of the best floor, the lead with its interval, and the fraction."""
    lead = f"lead {row['value'] - row['floor']:+.3f}"
    if np.isfinite([low, high]).all():
        lead += f", 95 % {low:+.3f} to {high:+.3f}"
    text = f"{name} {row['value']:.3f}, {row['best_floor']} {row['floor']:.3f} ({lead})"
    if np.isfinite(row["fraction"]) and row["fraction"] > 0:
        text += f", {row['fraction']:.0%} of the way from there to the attainable {row['ceiling']:.3f}"
    elif np.isfinite(row["ceiling"]):
        text += f", attainable {row['ceiling']:.3f}"
    return text


def _scored(scores: pd.DataFrame) -> str:
    """What was asked: seen conditions, unseen combinations, conditions unseen in their context."""
    conditions = attribute(scores, "conditions")
    if conditions is None:
        return "the held-out conditions"
    table = pd.DataFrame(conditions)
    unseen = table["n_train"] == 0
    combined = table["n_singles"] > 1
    parts = {
        "seen perturbations": ~unseen,
        "unseen combinations": unseen & combined,
        "perturbations unseen in their context": unseen & ~combined,
    }
    return " and ".join(f"{int(which.sum())} {what}" for what, which in parts.items() if which.any())


def _generated(scores: pd.DataFrame) -> list[Finding]:
    """Whether generated cells may stand for real ones, by the E-distance."""
    rows = of_metric(scores, "e_distance").set_index("predictor")
    rows = rows[["value", "high", "floor", "fraction"]].astype(float)
    if not {MODEL, REAL} <= set(rows.index) or np.isnan(rows["value"][MODEL]):
        return []
    model, real = rows.loc[MODEL], rows.loc[REAL]
    text = f"E-distance to real cells {model['value']:.3g}, of other real cells {real['value']:.3g}"
    text += f", of controls {model['floor']:.3g}"
    fraction = model["fraction"]
    if not np.isfinite(fraction):
        advice = "real cells of these perturbations are as far from each other as from controls, so nothing can be said"
        return [Finding("note", "cells", f"Generated cells: {advice}. {text}.")]
    if model["value"] <= real["high"]:
        return [Finding("good", "cells", f"Generated cells cannot be told from real ones by their distance. {text}.")]
    if fraction > 0:
        text += f", {fraction:.0%} of the way from controls to real cells"
    if fraction >= HALFWAY:
        return [Finding("good", "cells", f"Generated cells are nearer to real cells than to controls. {text}.")]
    if fraction > 0:
        advice = "Generated cells are nearer to controls than to real cells: take effects, not cells, from the model"
        return [Finding("note", "cells", f"{advice}. {text}.")]
    advice = "Generated cells are no nearer to real cells than controls are: do not use them"
    return [Finding("warning", "cells", f"{advice}. {text}.")]


def _cleaning(scores: pd.DataFrame) -> list[Finding]:
    """Whether cleaned cells are nearer to their true counts than those of the best floor."""
    rows = of_metric(scores, "clean_deviance")
    model = rows[(rows["predictor"] == MODEL) & rows["value"].notna() & rows["floor"].notna()]
    if model.empty:
        return _mixing(scores)
    whole, kinds = model.iloc[0], model.iloc[1:]
    text = f"deviance from the true counts {whole['value']:.4g}, {whole['best_floor']} {whole['floor']:.4g}"
    worse = kinds[kinds["low"] > kinds["floor"]]
    if len(worse):
        of_kinds = (f"{str(row['reference']).rsplit(', ', 1)[-1]} ({row['best_floor']})" for _, row in worse.iterrows())
        text += f"; worse than a floor for cells of the kind {', '.join(of_kinds)}"
    level: Level = "note"
    advice = f"the model and {whole['best_floor']} cannot be told apart"
    if whole["high"] < whole["floor"]:
        level, advice = "good", "use the model"
    elif whole["low"] > whole["floor"]:
        level, advice = "warning", f"{whole['best_floor']} is better than the model"
    return [Finding(level, "cleaning", f"Cleaned cells: {advice}; {text}.")]


def _mixing(scores: pd.DataFrame) -> list[Finding]:
    """Where the true counts are not known: whether cleaned cells stand among passing ones as other passing cells do."""
    rows = of_metric(scores, "mixing_failed_neighbours").set_index("predictor")["value"].astype(float).dropna()
    if not {WITHOUT_LABEL, AS_MEASURED, REAL} <= set(rows.index):
        return [] if not attribute(scores, "cleans") else [Finding("note", "cleaning", f"{UNJUDGED} {PLANT}")]
    cleaned, raw, real = (float(rows[name]) for name in (WITHOUT_LABEL, AS_MEASURED, REAL))
    text = f"of a failed cell's neighbours, {cleaned:.0%} failed too (as measured {raw:.0%}; passing ones {real:.0%})"
    level: Level
    if raw - real < APART:
        level, advice = "note", "failed cells hardly stand apart from passing ones of their perturbation as they are"
    elif raw - cleaned >= HALFWAY * (raw - real):
        level, advice = "good", "they stand among passing cells nearly as real ones do"
    elif cleaned < raw:
        level, advice = "note", "they still stand apart from passing cells"
    else:
        level, advice = "warning", "they stand no nearer to passing cells than before: do not use them"
    return [Finding(level, "cleaning", f"Cleaned cells (label unused): {advice}; {text}. {PLANT}")]


APART = 0.02
"""Share of neighbours that fail beyond that of passing cells from which failed cells stand apart."""

UNJUDGED = (
    "Cleaned cells are not judged, because the true counts of failed cells are not known, and too few were held out to "
    "look at what stands beside them."
)
PLANT = (
    "Whether their counts are right needs true ones: plant_artifacts damages passing cells of these data, and "
    "evaluate(truth=...) takes a layer of true counts."
)

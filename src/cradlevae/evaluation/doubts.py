"""What to distrust: rules on a table of scores and on what evaluate knows of the data and the training behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cradlevae.evaluation.findings import Finding, attribute, of_metric
from cradlevae.evaluation.reference_effects import ALL_CELLS_NOTE, MIN_CELLS, VALIDATION_NOTE
from cradlevae.evaluation.score_table import MODEL

LEAKAGE = 0.55
"""Balanced accuracy of reading failed QC from draws of a latent state. Measured on planted artifacts: .50 to .51 for
models with an artifact of each cell, .57 to .59 for models without (docs/benchmark)."""

LOST = 0.2
"""Share of the cells that uneven batches cost: errors are then 12 % larger than those of evenly spread cells."""

TINY_SHARE = 0.1
"""Share of the conditions with few cells from which it is more than a note."""

FEW_CONDITIONS = 5
"""Conditions that an interval over conditions needs: with four, one draw in 64 is of a single condition alone."""

LATE, LATE_SHARE = 0.25, 0.05
"""Training still improves where its last quarter brought more than a twentieth of all that was gained: an exponential
approach has then gone through fewer than three of its time constants, and would gain as much again."""

FEW_EPOCHS = 4
"""Epochs without which there is no last quarter to look at."""

COVERAGE = 0.05
"""How far coverage may be from .9: at .85, half again as many effects as promised lie outside of the intervals."""

LOW_CEILING = 0.5
"""Attainable ρ below which three quarters of the variance of the measured effects, 1 − .5², are noise."""

WIDE_CEILING = 0.2
"""Width of the interval of the attainable ρ from which fractions of it say little."""

INTERVALS = tuple(f"{kind}_coverage_90{genes}" for kind in ("predictive", "credible") for genes in ("", "_top20"))
"""Scores of the intervals that are judged."""


def doubts(scores: pd.DataFrame) -> list[Finding]:
    """Everything that there is to distrust, in this order: reference, sizes, data, training, intervals, noise.

    Parameters
    ----------
    scores
        The table that :func:`cradlevae.evaluate` returned.
    """
    return [finding for rule in RULES for finding in rule(scores)]


def _names(names: Sequence[str], most: int = 5) -> str:
    """The first few names; how many others there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _reference(scores: pd.DataFrame) -> list[Finding]:
    """Whether the reference cells were looked at in training."""
    notes = scores["note"].fillna("") if "note" in scores else pd.Series(dtype=str)
    if notes.str.contains(ALL_CELLS_NOTE, regex=False).any():
        text = (
            "The reference holds training cells, as in published comparisons; no score says how unseen cells would do."
        )
        return [Finding("warning", "reference", text)]
    if notes.str.contains(VALIDATION_NOTE, regex=False).any():
        text = "The reference cells stopped the training (validation): choose a model by them, and report other scores."
        return [Finding("note", "reference", text)]
    return []


def _sizes(scores: pd.DataFrame) -> list[Finding]:
    """Whether predicted effects are worse, in squares, than one number for all."""
    rows = of_metric(scores, "ate_r2")
    bad = rows[(rows["predictor"] == MODEL) & (rows["value"] < 0)]
    text = "The sizes of the predicted effects are wrong (ATE-R² {:.2f}, against {}): use their ranks, if anything."
    return [Finding("warning", "sizes", text.format(row["value"], row["reference"])) for _, row in bad.iterrows()]


def _leakage(scores: pd.DataFrame) -> list[Finding]:
    """Whether failed QC can be read from a latent state that should not hold it."""
    what = {
        "leakage_z_basal": ("the basal state", "cleaned cells and counterfactuals keep a part of the artifact"),
        "leakage_z_perturbation": ("the perturbation state", "effects may hold a part of the artifact"),
    }
    findings = []
    for metric, (state, consequence) in what.items():
        value = of_metric(scores, metric)["value"].max()
        if value > LEAKAGE:
            text = f"Failed QC can be read from {state} ({metric} {value:.3f}, where 0.5 is none): {consequence}."
            findings.append(Finding("warning", "leakage", text))
    return findings


def _confounding(scores: pd.DataFrame) -> list[Finding]:
    """Whether perturbations themselves make cells fail."""
    rows = of_metric(scores, "confounded_perturbations")
    if rows.empty or not rows["value"].iloc[0] > 0:
        return []
    names = str(rows["note"].iloc[0]).split("; ")[0].split(", ")
    text = (
        f"The confounding alarm rings for {_names(names)}: their cells fail QC more or less often than controls. What "
        "looks like an artifact may be biology; do not clean these cells without looking at them."
    )
    return [Finding("warning", "confounding", text)]


def _batches(scores: pd.DataFrame) -> list[Finding]:
    """Whether perturbations and controls are spread over batches unevenly, or conditions cannot be measured at all."""
    findings = []
    lost = attribute(scores, "cells_lost")
    if lost is not None and lost > LOST:
        text = (
            f"Perturbations and controls are spread over batches unevenly, which costs {lost:.0%} of the cells: "
            "effects are noisier than the numbers of cells suggest."
        )
        findings.append(Finding("warning", "batches", text))
    unmeasured = attribute(scores, "unmeasured") or []
    if unmeasured:
        text = f"No held-out controls share a batch (or context) with {_names(unmeasured)}: these were not scored."
        findings.append(Finding("warning", "batches", text))
    unanswered = attribute(scores, "unanswered") or []
    if unanswered:
        text = f"Not scored, because training cells that the model needs are absent: {_names(unanswered)}."
        findings.append(Finding("note", "not answered", text))
    return findings


def _few_cells(scores: pd.DataFrame) -> list[Finding]:
    """Conditions with few training or reference cells, and too few conditions."""
    conditions = attribute(scores, "conditions")
    if conditions is None:
        return []
    table = pd.DataFrame(conditions)
    findings = []
    told_by = table["n_train"].where(table["n_train"] > 0, table["n_parts"])
    for which, what in ((told_by, "training"), (table["n_reference"], "held-out")):
        tiny = table.loc[which < MIN_CELLS, "condition"].tolist()
        if tiny:
            consequence = "their effects rest on little" if what == "training" else "their scores are mostly noise"
            text = (
                f"{len(tiny)} of {len(table)} conditions have fewer than {MIN_CELLS} passing {what} cells: "
                f"{consequence} ({_names(tiny)})."
            )
            many = len(tiny) > TINY_SHARE * len(table)
            findings.append(Finding("warning" if many else "note", "few cells", text))
    if len(table) < FEW_CONDITIONS:
        text = (
            f"Only {len(table)} conditions were scored: intervals over conditions say nothing, and scores say little."
        )
        findings.append(Finding("note", "few conditions", text))
    return findings


def _training(scores: pd.DataFrame) -> list[Finding]:
    """Whether training was stopped while it still improved."""
    history = attribute(scores, "history")
    if not history:
        return []
    name = "val_loss" if "val_loss" in history else "train_loss"
    loss = np.asarray(history[name], dtype=np.float64)
    n = len(loss)
    advice = (
        "call train once more, which goes on from here, or train anew with more epochs (max_epochs; on the command "
        "line --max-epochs and --overwrite), before relying on the scores"
    )
    if n < FEW_EPOCHS:
        text = f"Training had {n} epochs, too few to see whether it is done; {advice}."
        return [Finding("warning", "training", text)]
    begin = n - max(1, round(LATE * n))
    gained, late = loss[0] - loss.min(), max(loss[:begin].min() - loss[begin:].min(), 0.0)
    if gained <= 0:
        text = f"Training improved nothing: the {name} was never below that of the first epoch."
        return [Finding("warning", "training", text)]
    if late <= LATE_SHARE * gained:
        return []
    text = (
        f"Training was stopped early: of all that its {n} epochs gained in {name}, the last {n - begin} brought "
        f"{late / gained:.0%}; {advice}."
    )
    return [Finding("warning", "training", text)]


def _intervals(scores: pd.DataFrame) -> list[Finding]:
    """Whether 90 % intervals hold 90 % of the effects; the interval of the coverage itself has to exclude .9."""
    rows = scores[scores["metric"].isin(INTERVALS) & (scores["predictor"] == MODEL)]
    narrow = rows[(rows["value"] < 0.9 - COVERAGE) & ~(rows["high"] >= 0.9)]
    wide = rows[(rows["value"] > 0.9 + COVERAGE) & ~(rows["low"] <= 0.9)]
    findings = []
    if len(narrow):
        text = f"90 % intervals are too narrow: they hold {_coverages(narrow)}. Take them for less than they say."
        findings.append(Finding("warning", "intervals", text))
    if len(wide):
        text = f"90 % intervals are wider than they need be: they hold {_coverages(wide)}."
        findings.append(Finding("note", "intervals", text))
    return findings


def _coverages(rows: pd.DataFrame) -> str:
    """What each sort of interval holds, in words."""
    texts = []
    for _, row in rows.iterrows():
        effects = "the 20 largest effects" if str(row["metric"]).endswith("top20") else "the effects"
        kind = "measured" if str(row["metric"]).startswith("predictive") else "true"
        texts.append(f"{row['value']:.0%} of {effects} ({kind}, {row['reference']})")
    return ", ".join(texts)


def _ceiling(scores: pd.DataFrame) -> list[Finding]:
    """Whether the held-out cells are too few, or too different, to tell a good prediction from a bad one."""
    findings = []
    for _, row in of_metric(scores, "attainable_rho").iterrows():
        value, low, high, reference = row["value"], row["low"], row["high"], row["reference"]
        if value < LOW_CEILING:
            text = (
                f"Even true effects would reach an ATE-ρ of only {value:.2f} ({low:.2f} to {high:.2f}) against "
                f"{reference}: most of what is measured there is noise, and low scores are no fault of a predictor."
            )
            findings.append(Finding("warning", "ceiling", text))
        elif high - low > WIDE_CEILING:
            text = (
                f"What is attainable against {reference} is not well known ({value:.2f}, {low:.2f} to {high:.2f}): "
                "take fractions of it with care."
            )
            findings.append(Finding("note", "ceiling", text))
    return findings


def _unjudged(scores: pd.DataFrame) -> list[Finding]:
    """What could not be judged, where the table came without what evaluate knows beside it."""
    if "conditions" in scores.attrs:
        return []
    text = (
        "Training, batches and cells per condition are not judged, because the table came without its attrs, as from a "
        "file; call verdict on what evaluate returns."
    )
    return [Finding("note", "not judged", text)]


RULES = (
    _reference, _sizes, _leakage, _confounding, _batches, _few_cells, _training, _intervals, _ceiling, _unjudged,
)  # fmt: skip

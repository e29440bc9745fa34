"""The record of a benchmark: its plan, and its results as tidy tables."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cradlevae.benchmarking.plan import Plan

JOB = ("data", "recipe", "qc", "split_seed", "init_seed")
"""Columns that say which job a row is of."""

RESULTS = (
    *JOB[:3], "model", "kind", "split_seed", "init_seed", "reference", "metric", "predictor", "value", "low", "high",
    "floor", "best_floor", "ceiling", "fraction", "unanswered", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Benchmark:
    """The results of a plan.

    Attributes
    ----------
    plan
        The plan that was computed.
    results
        A row per job, reference, metric and predictor; columns :data:`RESULTS`. ``kind`` is ``model``, ``floor``, or
        ``reference`` for rows of neither (ceilings, real cells). Floors stand once for each split of the data, under
        the labels that the plan gives them.
    timings
        Seconds of each job.
    failures
        Jobs that failed, and why.
    """

    plan: Plan
    results: pd.DataFrame
    timings: pd.DataFrame
    failures: pd.DataFrame

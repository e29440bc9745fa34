"""Hyper-parameters by search (optuna): judged on validation cells; test cells are taken out of the data first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import cradlevae.evaluation.evaluate  # noqa: F401  registers every metric
from cradlevae.benchmarking.jobs import Cell, expand
from cradlevae.benchmarking.plan import ModelRun, Plan, Scoring, made, plan_of, read_yaml
from cradlevae.benchmarking.run import compute_cells
from cradlevae.benchmarking.store import Store
from cradlevae.errors import CradleError, DataError
from cradlevae.evaluation.metrics.registry import REGISTRY
from cradlevae.evaluation.score_table import MODEL
from cradlevae.utils.atomic import atomic_path
from cradlevae.utils.checks import check_at_least, check_choice

VALIDATION = Scoring(references=("validation",), generated=False, truth=False)
JOURNAL = "trials.log"


@dataclass(frozen=True)
class Range:
    """Values of a hyper-parameter: from ``low`` to ``high`` (whole numbers where both are), or some ``choices``."""

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if not self.choices and (self.low is None or self.high is None or not self.low < self.high):
            raise DataError("a range of the sweep needs low: below high:, or choices:")

    def suggest(self, trial: Any, name: str) -> Any:
        """A value for a trial of optuna."""
        if self.choices:
            return trial.suggest_categorical(name, list(self.choices))
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return (trial.suggest_int if whole else trial.suggest_float)(name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Sweep:
    """What is searched: ranges of fields of ModelConfig (``settings``) and TrainConfig (``training``), and for what."""

    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metric: str = "ate_rho"

    def __post_init__(self) -> None:
        if not self.settings and not self.training:
            raise DataError("the sweep has no ranges; give settings: or training:")
        check_choice("metric", self.metric, [name for name, entry in REGISTRY.items() if entry.kind == "effect"])
        for group in ("settings", "training"):
            ranges = {name: made(Range, value, f"{name} of the sweep") for name, value in getattr(self, group).items()}
            object.__setattr__(self, group, ranges)

    def run(self, trial: Any, model: ModelRun) -> ModelRun:
        """The model with a trial's values."""
        found = {
            group: {name: range_.suggest(trial, f"{group}.{name}") for name, range_ in getattr(self, group).items()}
            for group in ("settings", "training")
        }
        return replace(
            model, label=f"trial {trial.number}", settings={**model.settings, **found["settings"]},
            training={**model.training, **found["training"]},
        )  # fmt: skip


def sweep(plan: str | Path | dict[str, Any], output: str | Path, *, trials: int = 30, workers: int = 1) -> pd.DataFrame:
    """Search hyper-parameters of the one model of a plan, by its scores on validation cells.

    Parameters
    ----------
    plan
        A YAML file, or what it holds: a plan with one model, and ``sweep:`` with the fields of :class:`Sweep`.
    output
        Folder; called again with it, the search goes on.
    trials
        Trials in all, those of earlier calls included.
    workers
        Processes.

    Returns
    -------
    A row per trial, best first, also in ``trials.csv``: its values and the metric, mean over data sets and seeds.

    Raises
    ------
    DataError
        If the plan does not hold, or optuna is absent.
    CradleError
        If no trial has a score.
    """
    check_at_least(1, trials=trials, workers=workers)
    if find_spec("optuna") is None:
        raise DataError("a sweep needs optuna; pip install 'cradlevae[sweep]'")
    import optuna
    from optuna.storages.journal import JournalFileBackend

    content, folder = (plan, Path()) if isinstance(plan, dict) else (read_yaml(plan), Path(plan).parent)
    search = made(Sweep, content.get("sweep"), "sweep: of the plan")
    base = plan_of({name: value for name, value in content.items() if name != "sweep"}, folder=folder)
    base = replace(base, scoring=VALIDATION)
    if len(base.models) != 1 or base.models[0].floor:
        raise DataError("a sweep is of one model of the family; give the plan one")
    store = Store(output)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = JournalFileBackend(str(store.folder / JOURNAL))
    done = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend), study_name=search.metric, load_if_exists=True
    )
    while len(study.get_trials(deepcopy=False, states=done)) < trials:
        trial = study.ask()
        value = _value(store, replace(base, models=(search.run(trial, base.models[0]),)), search.metric, workers)
        if value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            trial.set_user_attr("value", value)
            study.tell(trial, REGISTRY[search.metric].shortfall(value))
    return _table(study, search.metric, store)


def _value(store: Store, plan: Plan, metric: str, workers: int) -> float | None:
    """Mean score of a trial on validation cells; ``None`` if a cell failed."""
    cells = [cell for cell in expand(plan) if cell.kind == "model"]
    compute_cells(store, cells, plan, workers)
    if any(store.state(cell) != "done" for cell in cells):
        return None
    return float(np.mean([_score(store, cell, metric) for cell in cells]))


def _score(store: Store, cell: Cell, metric: str) -> float:
    rows: Sequence[dict[str, Any]] = store.read(cell)["scores"]
    return float(next(row["value"] for row in rows if row["metric"] == metric and row["predictor"] == MODEL))


def _table(study: Any, metric: str, store: Store) -> pd.DataFrame:
    """Trials with a score, best first."""
    rows = [
        {"trial": trial.number, **trial.params, metric: trial.user_attrs["value"], "shortfall": trial.value}
        for trial in study.trials
        if trial.value is not None
    ]
    if not rows:
        raise CradleError(f"no trial has a score; why is in {store.cells}")
    table = pd.DataFrame(rows).sort_values("shortfall", kind="stable").drop(columns="shortfall").reset_index(drop=True)
    with atomic_path(store.folder / "trials.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table

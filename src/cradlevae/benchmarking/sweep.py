"""The search of hyper-parameters (optuna) by scores on validation cells; test cells are taken out of the data first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import cradlevae.evaluation.evaluate  # noqa: F401  registers every metric
from cradlevae.benchmarking.jobs import Job, expand
from cradlevae.benchmarking.plain import from_plain, normalise
from cradlevae.benchmarking.plan import ModelRun, Plan, Scoring, plan_of, read_yaml
from cradlevae.benchmarking.pool import compute_jobs
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
        normalise(self, "a range of the sweep")
        if self.choices and (self.low is not None or self.high is not None or self.log):
            raise DataError("a range of the sweep has choices:, so low:, high: and log: mean nothing; leave them out")
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
    """A search: ranges of fields of ModelConfig (``settings``) and TrainConfig (``training``), and the metric."""

    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metric: str = "ate_rho"

    def __post_init__(self) -> None:
        if not self.settings and not self.training:
            raise DataError("the sweep has no ranges; give settings: or training:")
        check_choice("metric", self.metric, [name for name, entry in REGISTRY.items() if entry.kind == "effect"])
        for group in ("settings", "training"):
            ranges = {
                name: from_plain(Range, value, f"{name} of the sweep") for name, value in getattr(self, group).items()
            }
            object.__setattr__(self, group, ranges)

    def with_values(self, trial: Any, model: ModelRun) -> ModelRun:
        """The model with a trial's values."""
        values = {
            group: {name: range_.suggest(trial, f"{group}.{name}") for name, range_ in getattr(self, group).items()}
            for group in ("settings", "training")
        }
        return replace(
            model, label=f"trial {trial.number}", settings={**model.settings, **values["settings"]},
            training={**model.training, **values["training"]},
        )  # fmt: skip


def sweep(plan: str | Path | dict[str, Any], output: str | Path, *, trials: int = 30, workers: int = 1) -> pd.DataFrame:
    """Search hyper-parameters of the one model of a plan, by its scores on validation cells.

    Parameters
    ----------
    plan
        A YAML file, or a mapping with its content: a plan with one model, and ``sweep:`` with the fields of
        :class:`Sweep`.
    output
        Folder of the search; called again with it, the search goes on.
    trials
        Number of trials in all, those of earlier calls included.
    workers
        Number of processes.

    Returns
    -------
    A row per trial, best first, also in ``trials.csv``: its values and the metric, mean over data sets and seeds.

    Raises
    ------
    DataError
        If the plan contradicts itself, or optuna is absent.
    CradleError
        If no trial has a score.
    """
    check_at_least(1, trials=trials, workers=workers)
    if find_spec("optuna") is None:
        raise DataError("a sweep needs optuna; pip install 'cradlevae[sweep]'")
    import optuna
    from optuna.storages.journal import JournalFileBackend

    content, folder = (plan, Path()) if isinstance(plan, dict) else (read_yaml(plan), Path(plan).parent)
    search = from_plain(Sweep, content.get("sweep"), "sweep: of the plan")
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
        value = _value(
            store, replace(base, models=(search.with_values(trial, base.models[0]),)), search.metric, workers
        )
        if value is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            trial.set_user_attr("value", value)
            study.tell(trial, REGISTRY[search.metric].shortfall(value))
    return _table(study, search.metric, store)


def _value(store: Store, plan: Plan, metric: str, workers: int) -> float | None:
    """Mean score of a trial on validation cells; ``None`` if a job failed."""
    jobs = [job for job in expand(plan) if job.kind == "model"]
    compute_jobs(store, jobs, plan, workers)
    if any(store.state(job) != "done" for job in jobs):
        return None
    return float(np.mean([_score(store, job, metric) for job in jobs]))


def _score(store: Store, job: Job, metric: str) -> float:
    rows: Sequence[dict[str, Any]] = store.read(job)["scores"]
    return float(next(row["value"] for row in rows if row["metric"] == metric and row["predictor"] == MODEL))


def _table(study: Any, metric: str, store: Store) -> pd.DataFrame:
    """Trials with a score, best first."""
    rows = [
        {"trial": trial.number, **trial.params, metric: trial.user_attrs["value"], "shortfall": trial.value}
        for trial in study.trials
        if trial.value is not None
    ]
    if not rows:
        raise CradleError(f"no trial has a score; the reasons are in {store.jobs}")
    table = pd.DataFrame(rows).sort_values("shortfall", kind="stable").drop(columns="shortfall").reset_index(drop=True)
    with atomic_path(store.folder / "trials.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table

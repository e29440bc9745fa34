"""What a benchmark is, as data: data sets × models × split seeds × initialisation seeds × QC thresholds.

A *run* is a model of the plan with its settings; it is computed as many *jobs*, one for each data set, QC threshold and
pair of seeds (:mod:`cradlevae.benchmarking.jobs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from cradlevae.benchmarking.data_source import DataSource, check_distinct
from cradlevae.benchmarking.plain import from_plain, normalise, plain
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig
from cradlevae.model.training.settings import TrainConfig
from cradlevae.utils.checks import check_at_least, check_choice, texts
from cradlevae.utils.names import closest

BEST_FLOOR = "best floor"
REFERENCES = ("held-out", "validation", "all")

NOT_HERE = {
    "seed": "the seeds of a plan are its init_seeds",
    "progress": "jobs run in processes of their own, where nobody sees a progress bar",
    "tensorboard": "jobs keep no folder of their training",
}
"""Fields of :class:`cradlevae.TrainConfig` that a plan cannot set, and why."""


@dataclass(frozen=True)
class ModelRun:
    """A model of a plan with its settings.

    Parameters
    ----------
    model
        A name of :func:`cradlevae.models`: a member of the family or a floor. (All floors are scored in any case;
        naming one adds the scores of the cells that it generates, and can give it another label.)
    label
        The name in the tables; by default ``model``.
    settings
        Fields of :class:`cradlevae.ModelConfig`, e.g. ``counterfactual_weight: 0``.
    training
        Fields of :class:`cradlevae.TrainConfig`, over those of the plan and of the data.
    split_seeds, init_seeds
        Seeds instead of the plan's; a floor has no ``init_seeds``.
    data
        Names of the data sets that the model runs on; by default all.

    Raises
    ------
    DataError
        If the model is unknown, or a setting would have no effect.
    """

    model: str
    label: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    split_seeds: tuple[int, ...] | None = None
    init_seeds: tuple[int, ...] | None = None
    data: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        from cradlevae.catalogue import models

        normalise(self, "a model of the plan")
        known = models()
        if self.model not in known:
            raise DataError(f"unknown model {self.model!r}{closest(self.model, list(known))}")
        if not self.label:
            object.__setattr__(self, "label", self.model)
        if self.floor and (self.settings or self.training):
            raise DataError(f"the floor {self.model!r} has no settings; leave settings: and training: out")
        if self.floor and self.init_seeds is not None:
            raise DataError(f"the floor {self.model!r} is not initialised at random; leave init_seeds: out")
        if "model" in self.settings:
            raise DataError(f"settings of {self.label!r} name a model; {self.model!r} is the model")
        for name in ("split_seeds", "init_seeds", "data"):
            values = getattr(self, name)
            if values is not None and not values:
                raise DataError(f"{name} of {self.label!r} is empty, so nothing would run; leave it out for all")
        _check_seeds(repr(self.label), self.split_seeds or (), self.init_seeds or ())

    @property
    def floor(self) -> bool:
        """Whether the model is a floor."""
        return self.model in _floors()


@dataclass(frozen=True)
class Scoring:
    """How runs are scored; names as in :func:`cradlevae.evaluate`.

    Parameters
    ----------
    references
        Cells to score against: ``held-out``, ``validation``, ``all`` (the published all-cells reference).
    published
        Also score effects as the released evaluation takes them.
    generated
        Also score generated cells.
    truth
        ``"auto"``: also score against the truth of simulated and planted data, and likelihood and leakage; or the name
        of a layer with true counts; ``false``: none of these.
    n_cells
        Generated cells per condition.
    denoiser
        Where cleaned cells are scored: also train a denoiser as a floor, once for each run.

    Raises
    ------
    DataError
        If there is no reference, or an unknown one, or ``n_cells`` is set but no cells are generated.
    """

    references: tuple[str, ...] = ("held-out",)
    published: bool = False
    generated: bool = True
    truth: bool | str = "auto"
    n_cells: int = 200
    denoiser: bool = True

    def __post_init__(self) -> None:
        normalise(self, "scoring")
        if self.truth is True:
            object.__setattr__(self, "truth", "auto")
        if not self.references:
            raise DataError(f"scoring: has no references; name some of {', '.join(REFERENCES)}")
        for name in self.references:
            check_choice("references", name, REFERENCES)
        check_distinct("references of scoring", self.references)
        check_at_least(1, n_cells=self.n_cells)
        if not self.generated and self.n_cells != type(self).n_cells:
            raise DataError("scoring: has n_cells, but no cells are generated; leave n_cells out, or generate cells")


@dataclass(frozen=True)
class Plan:
    """A benchmark: which models run on which data, with which seeds, and how they are scored.

    Parameters
    ----------
    data
        Data sets: :class:`DataSource`, or mappings with its fields.
    models
        Models with their settings: :class:`ModelRun`, mappings with its fields, or a name alone.
    training
        Fields of :class:`cradlevae.TrainConfig` for all models.
    split_seeds
        Seeds of the split.
    init_seeds
        Seeds of weights, minibatches and scores: every model is trained for each pair of seeds.
    baseline
        The model that every other one is tested against: ``best floor`` (the best of each metric), or the label of a
        model or floor.
    scoring
        How runs are scored.
    modules
        Python modules to import first, that register models of your own.
    note
        A sentence that stands above the tables.

    Raises
    ------
    DataError
        If the plan contradicts itself, names what is not there, or has a setting without effect.

    Examples
    --------
    Two models on simulated data, with two splits:

    >>> import cradlevae as cv
    >>> plan = cv.Plan(
    ...     data=[{"simulate": {"n_cells": 2000}}],
    ...     models=["cradle_vae", {"model": "sams_vae", "label": "few latents", "settings": {"n_latent": 20}}],
    ...     training={"max_epochs": 50},
    ...     split_seeds=[0, 1],
    ... )
    >>> [run.label for run in plan.models]
    ['cradle_vae', 'few latents']
    >>> plan.data[0].name, plan.data[0].recipe, plan.data[0].n_mads
    ('simulated', 'combinations', (3.0,))
    """

    data: tuple[DataSource, ...]
    models: tuple[ModelRun, ...]
    training: dict[str, Any] = field(default_factory=dict)
    split_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    init_seeds: tuple[int, ...] = (0,)
    baseline: str = BEST_FLOOR
    scoring: Scoring = field(default_factory=Scoring)
    modules: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        _import(self.modules)
        if isinstance(self.models, (list, tuple)):
            runs = tuple({"model": run} if isinstance(run, str) else run for run in self.models)
            object.__setattr__(self, "models", runs)
        normalise(self, "the plan")
        self._check_names()
        for run in self.models:
            if not run.floor:
                self.model_config(run)
                for source in self.data:
                    self.train_config(run, source)
        if not self.split_seeds or not self.init_seeds:
            raise DataError("the plan needs at least one split seed and one init seed")
        _check_seeds("the plan", self.split_seeds, self.init_seeds)

    def _check_names(self) -> None:
        """Raise :class:`DataError` unless every name means one thing."""
        labels, sources = [run.label for run in self.models], [source.name for source in self.data]
        for what, names in (("data sets", sources), ("models", labels)):
            if not names:
                raise DataError(f"the plan has no {what}")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError(f"several {what} of the plan are called {twice[0]!r}; give each its own name")
        floors = [run.model for run in self.models if run.floor]
        for run in self.models:
            if run.floor and floors.count(run.model) > 1:
                raise DataError(f"the floor {run.model!r} is in the plan twice; it has no settings to differ in")
            if run.label in (BEST_FLOOR, *_floors()) and run.label != run.model:
                raise DataError(f"a model of the plan is called {run.label!r}, as a floor is; give it another label")
            for name in run.data or ():
                if name not in sources:
                    raise DataError(f"model {run.label!r} is to run on {name!r}{closest(name, sources)}")
        allowed = [BEST_FLOOR, *labels, *_floors()]
        if self.baseline not in allowed:
            raise DataError(f"baseline {self.baseline!r} is no model of the plan{closest(self.baseline, allowed)}")

    @property
    def floor_labels(self) -> dict[str, str]:
        """Labels of the floors that the plan gives another name than their own."""
        return {run.model: run.label for run in self.models if run.floor and run.label != run.model}

    @property
    def baseline_label(self) -> str:
        """The baseline under the name that it has in the tables."""
        return self.floor_labels.get(self.baseline, self.baseline)

    def model_config(self, run: ModelRun) -> ModelConfig:
        """The model's configuration; :class:`DataError` if its settings do not fit."""
        return from_plain(ModelConfig, {"model": run.model, **run.settings}, f"settings of {run.label!r}")

    def train_config(self, run: ModelRun, source: DataSource) -> TrainConfig:
        """How the model is trained on a data set."""
        given = {**self.training, **source.training, **run.training}
        for name, reason in NOT_HERE.items():
            if given.get(name, False) is not False:
                raise DataError(f"training: has a {name}; {reason}")
        return from_plain(TrainConfig, {**given, "progress": False}, f"training of {run.label!r}")


def load_plan(path: str | Path) -> Plan:
    """Read a plan from a YAML file.

    Raises
    ------
    DataError
        If the file is absent, no YAML, or names what is not there; the message says where.
    """
    return plan_of(read_yaml(path), folder=Path(path).parent)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """What the YAML file of a plan holds; :class:`DataError` where it is absent or no mapping."""
    import yaml

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise DataError(f"cannot read the plan {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise DataError(f"the plan {path} is no YAML: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"the plan {path} must be a mapping with data: and models:")
    return content


def plan_of(content: Mapping[str, Any], *, folder: Path | None = None) -> Plan:
    """A plan from what a YAML file (or :func:`plan_dict`) holds; paths relative to ``folder`` are made absolute."""
    content = dict(content)
    _import(content.get("modules") or ())
    if isinstance(content.get("models") or [], list | tuple) and "models" in content:
        content["models"] = [{"model": run} if isinstance(run, str) else run for run in content["models"] or ()]
    if folder is not None and isinstance(content.get("data") or [], list | tuple):
        content["data"] = [_with_path(source, folder) for source in content.get("data") or ()]
    return from_plain(Plan, content, "the plan")


def plan_dict(plan: Plan) -> dict[str, Any]:
    """A plan as plain lists, mappings and numbers; :func:`plan_of` reads it."""
    content: dict[str, Any] = plain(asdict(plan))
    return content


def _with_path(source: Any, folder: Path) -> Any:
    if not isinstance(source, Mapping) or not source.get("path"):
        return source
    return {**source, "path": str((folder / Path(str(source["path"])).expanduser()).resolve())}


def _import(modules: Any) -> None:
    """Import the modules of a plan, which register models."""
    for module in texts("modules", modules):
        try:
            import_module(module)
        except ImportError as error:
            raise DataError(f"the plan's module {module!r} cannot be imported: {error}") from None


def _floors() -> list[str]:
    """Names of the floors."""
    from cradlevae.evaluation.floors.registry import FLOORS

    return list(FLOORS)


def _check_seeds(where: str, split_seeds: tuple[int, ...], init_seeds: tuple[int, ...]) -> None:
    """Raise :class:`DataError` for seeds below 0, or one that stands twice."""
    for name, seeds in (("split_seeds", split_seeds), ("init_seeds", init_seeds)):
        check_distinct(f"{name} of {where}", seeds)
        check_at_least(0, **{f"{name} of {where}": min(seeds, default=0)})

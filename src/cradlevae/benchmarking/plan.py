"""What a benchmark is, as data: data sets × models × split seeds × initialisation seeds × QC thresholds."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from cradlevae.data.experiment import DataFields
from cradlevae.data.labels import closest
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig, TrainConfig
from cradlevae.utils.checks import check_choice

Kind = TypeVar("Kind")

BEST_FLOOR = "best floor"
REFERENCES = ("held-out", "validation", "all")


@dataclass(frozen=True)
class DataSource:
    """A data set of a plan; exactly one of ``path``, ``simulate`` and ``published`` says where it comes from.

    Parameters
    ----------
    path
        An ``.h5ad`` file, a zarr store or a folder of several; relative paths start at the plan's file.
    simulate
        Arguments of :func:`cradlevae.simulate`. Without ``seed``, every split seed gets an experiment of its own.
    published
        ``norman``, ``dixit``, ``adamson`` or ``replogle``; ``path`` may then name the published file.
    name
        What it is called in the tables; by default the file's stem, ``simulated`` or the published name.
    recipe
        How it is split, see :func:`cradlevae.split`; by default that of the published data set, ``combinations`` for
        simulated data, else ``cells``.
    recipe_options
        ``n_shared`` or ``column`` of the recipe.
    fields
        Where it holds what the models need.
    n_mads
        QC thresholds: the data are annotated (:func:`cradlevae.annotate_qc`) and benchmarked for each. By default 3
        for simulated and published data; those of a path are then taken as their artifact column says.
    qc
        Other arguments of :func:`cradlevae.annotate_qc`, e.g. ``batch_key`` or ``criteria``.
    max_genes
        Keep only so many genes, those of the most counts.
    max_cells_per_condition
        Keep only so many cells of each condition, and ten times as many controls, at random (the same every time).
    training
        Fields of :class:`cradlevae.TrainConfig` for these data, over those of the plan, e.g. more epochs for few cells.
    """

    path: str | None = None
    simulate: dict[str, Any] | None = None
    published: str | None = None
    name: str = ""
    recipe: str = ""
    recipe_options: dict[str, Any] = field(default_factory=dict)
    fields: DataFields = field(default_factory=DataFields)
    n_mads: tuple[float, ...] = ()
    qc: dict[str, Any] = field(default_factory=dict)
    max_genes: int | None = None
    max_cells_per_condition: int | None = None
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.simulate is not None and (self.path or self.published):
            raise DataError("a data set of the plan is simulated and has a path or a published name; give one of them")
        if self.simulate is None and not self.path and not self.published:
            raise DataError("a data set of the plan needs path:, simulate: or published:")
        if self.published:
            from cradlevae.data.datasets.published import published

            found = published(self.published)
            self._fill("recipe", found.split)
            self._fill("name", found.name)
        elif self.path:
            self._fill("recipe", "cells")
            self._fill("name", Path(self.path).stem)
        else:
            self._fill("recipe", "combinations")
            self._fill("name", "simulated")
        if not self.path or self.published:
            self._fill("n_mads", (3.0,))
        if self.qc and not self.n_mads:
            raise DataError(f"data set {self.name!r} has qc: but no n_mads:, so nothing is annotated; add n_mads: [3]")
        object.__setattr__(self, "n_mads", tuple(float(value) for value in self.n_mads))

    def _fill(self, name: str, value: Any) -> None:
        if not getattr(self, name):
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class ModelRun:
    """A model of a plan with its settings.

    Parameters
    ----------
    model
        A name of :func:`cradlevae.models`: a member of the family or a floor. (All floors are scored in any case;
        naming one adds the scores of the cells that it generates.)
    label
        What it is called in the tables; by default ``model``.
    settings
        Fields of :class:`cradlevae.ModelConfig`, e.g. ``counterfactual_weight: 0``.
    training
        Fields of :class:`cradlevae.TrainConfig`, over those of the plan and of the data.
    split_seeds, init_seeds
        Instead of the plan's.
    data
        Names of the data sets that it is run on; by default all.
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

        known = models()
        if self.model not in known:
            raise DataError(f"unknown model {self.model!r}{closest(self.model, list(known))}")
        if not self.label:
            object.__setattr__(self, "label", self.model)
        if self.floor and (self.settings or self.training):
            raise DataError(f"the floor {self.model!r} has no settings; leave settings: and training: out")

    @property
    def floor(self) -> bool:
        """Whether it is a floor."""
        from cradlevae.evaluation.floors.registry import FLOORS

        return self.model in FLOORS


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
        Also score against the truth where there is one, and likelihood and leakage.
    n_cells
        Generated cells per condition.
    """

    references: tuple[str, ...] = ("held-out",)
    published: bool = False
    generated: bool = True
    truth: bool = True
    n_cells: int = 200

    def __post_init__(self) -> None:
        if not self.references:
            raise DataError(f"scoring: has no references; name some of {', '.join(REFERENCES)}")
        for name in self.references:
            check_choice("references", name, REFERENCES)


@dataclass(frozen=True)
class Plan:
    """A benchmark.

    Parameters
    ----------
    data
        Data sets.
    models
        Models with their settings; in YAML a name alone will do.
    training
        Fields of :class:`cradlevae.TrainConfig` for all models.
    split_seeds
        Seeds of the split.
    init_seeds
        Seeds of weights, batches and scores: every model is trained for each pair of seeds.
    baseline
        What every model is tested against: ``best floor`` (the best of each metric), or the name of a model or floor.
    scoring
        How runs are scored.
    modules
        Python modules to import first, that register models of your own.
    note
        A sentence that stands above the tables.
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
        from cradlevae.evaluation.floors.registry import FLOORS

        labels = [run.label for run in self.models]
        for what, names in (("data sets", [source.name for source in self.data]), ("models", labels)):
            if not names:
                raise DataError(f"the plan has no {what}")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError(f"several {what} of the plan are called {twice[0]!r}; give each its own name")
        known = [source.name for source in self.data]
        for run in self.models:
            for name in run.data or ():
                if name not in known:
                    raise DataError(f"model {run.label!r} is to run on {name!r}{closest(name, known)}")
            if not run.floor:
                self.model_config(run)
                for source in self.data:
                    self.train_config(run, source)
        allowed = [BEST_FLOOR, *labels, *FLOORS]
        if self.baseline not in allowed:
            raise DataError(f"baseline {self.baseline!r} is no model of the plan{closest(self.baseline, allowed)}")
        if not self.split_seeds or not self.init_seeds:
            raise DataError("the plan needs at least one split seed and one init seed")

    def model_config(self, run: ModelRun) -> ModelConfig:
        """The model's configuration; :class:`DataError` if its settings do not fit."""
        return made(ModelConfig, {"model": run.model, **run.settings}, f"settings of {run.label!r}")

    def train_config(self, run: ModelRun, source: DataSource) -> TrainConfig:
        """How the model is trained on a data set."""
        given = {**self.training, **source.training, **run.training}
        if "seed" in given:
            raise DataError("training: has a seed; the seeds of a plan are its init_seeds")
        return made(TrainConfig, {"progress": False, **given}, f"training of {run.label!r}")


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
    for module in content.get("modules") or ():
        try:
            import_module(module)
        except ImportError as error:
            raise DataError(f"the plan's module {module!r} cannot be imported: {error}") from None
    if "models" in content:
        content["models"] = [{"model": run} if isinstance(run, str) else run for run in content["models"] or ()]
    if folder is not None:
        content["data"] = [_with_path(source, folder) for source in content.get("data") or ()]
    return made(Plan, content, "the plan")


def plan_dict(plan: Plan) -> dict[str, Any]:
    """A plan as plain lists, mappings and numbers; :func:`plan_of` reads it."""
    found: dict[str, Any] = _plain(asdict(plan))
    return found


def _with_path(source: Any, folder: Path) -> Any:
    if not isinstance(source, Mapping) or not source.get("path"):
        return source
    return {**source, "path": str((folder / Path(str(source["path"])).expanduser()).resolve())}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def made(kind: type[Kind], given: Any, where: str) -> Kind:
    """A dataclass from plain values; :class:`DataError` names what is unknown, missing or of another type."""
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise DataError(f"{where} must be a mapping, not {given!r}")
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise DataError(f"{where} has no {name!r}{closest(str(name), list(known))}")
    for name, entry in known.items():
        if name not in given and entry.default is MISSING and entry.default_factory is MISSING:
            raise DataError(f"{where} lacks {name}:")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{name} of {where}") for name, value in given.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """A value as its type wants it, lists as tuples and mappings as dataclasses."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        choices = [choice for choice in inner if choice is not type(None)]
        fitting = [choice for choice in choices if _fits(choice, value)]
        return _value((fitting or choices)[0], value, where)
    if origin is tuple:
        if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
            raise DataError(f"{where} must be a list, not {value!r}")
        return tuple(_value(inner[0], item, where) for item in value)
    if hasattr(kind, "__dataclass_fields__"):
        return made(kind, value, where)
    if not _fits(kind, value):
        raise DataError(f"{where} must be {getattr(kind, '__name__', kind)}, not {value!r}")
    return float(value) if kind is float else value


def _fits(kind: Any, value: Any) -> bool:
    """Whether a plain value is of a plain type; what is neither is left to who takes it."""
    origin = get_origin(kind) or kind
    if origin is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is tuple:
        return isinstance(value, (list, tuple))
    return isinstance(value, origin) if origin in (str, bool, dict) else True


def source_of(content: Mapping[str, Any]) -> DataSource:
    """A data set from plain values."""
    return made(DataSource, content, "a data set of the plan")

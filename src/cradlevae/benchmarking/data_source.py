"""A data set of a benchmark: where it comes from, how it is split and annotated, and what is left out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any

from cradlevae.benchmarking.plain import from_plain, normalise
from cradlevae.data.experiment import DataFields
from cradlevae.errors import DataError
from cradlevae.utils.checks import check_at_least
from cradlevae.utils.names import closest

OPTIONS_OF_RECIPES = {"n_shared": "perturbations", "held_out": "contexts", "column": "column"}
"""The recipe that each option of a split belongs to."""

ARTIFACT_COLUMN = "artifact"
"""Column of failed cells that is annotated where the models read columns of single criteria."""

BATCH_COLUMN = "batch"
"""Column of the 10x lanes in converted published data sets."""

ELSEWHERE = {
    "n_mads": "n_mads: of the data set",
    "layer": "layer: of its fields",
    "key_added": "artifact_key: of its fields",
}
"""Arguments of :func:`cradlevae.annotate_qc` that other settings of a data set stand for."""


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
        The name in the tables; by default the file's stem, ``simulated`` or the published name.
    recipe
        How the cells are split, see :func:`cradlevae.split`; by default the recipe of the published data set,
        ``combinations`` for simulated data, else ``cells``. A split by ``column`` is the same for every split seed, so
        models run on its first split seed only.
    recipe_options
        ``n_shared`` (recipe ``perturbations``), ``held_out`` (recipe ``contexts``) or ``column`` (recipe ``column``).
    fields
        Where the data set holds what the models need. A published data set has its 10x lanes for batches
        (``batch_key: batch``) unless its fields name another column.
    n_mads
        QC thresholds: the data are annotated (:func:`cradlevae.annotate_qc`) and benchmarked for each. By default 3
        for simulated and published data; without thresholds, the artifact column of a file is taken as it is.
    qc
        Other arguments of :func:`cradlevae.annotate_qc`, e.g. ``criteria``; ``batch_key`` is that of the fields, unless
        it is given here (``null`` for one threshold for all batches).
    max_genes
        Keep only so many genes, those of the most counts.
    max_cells_per_condition
        Keep only so many cells of each condition, and ten times as many controls, at random (the same every time).
    training
        Fields of :class:`cradlevae.TrainConfig` for these data, over those of the plan, e.g. more epochs for few cells.

    Raises
    ------
    DataError
        If settings contradict each other, or one would have no effect.
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
        normalise(self, "a data set of the plan")
        if self.simulate is not None and (self.path or self.published):
            raise DataError("a data set of the plan is simulated and has a path or a published name; give one of them")
        if self.simulate is None and not self.path and not self.published:
            raise DataError("a data set of the plan needs path:, simulate: or published:")
        self._fill_in()
        self._check_split()
        self._check_qc()
        if self.simulate is not None:
            from cradlevae.data.simulation.simulate import simulate

            _check_options(f"simulate: of data set {self.name!r}", self.simulate, simulate)
        for name in ("max_genes", "max_cells_per_condition"):
            if getattr(self, name) is not None:
                check_at_least(1, **{f"{name} of data set {self.name!r}": getattr(self, name)})

    def _fill_in(self) -> None:
        """Set the name, the recipe, the thresholds and the batches of published data that are left open."""
        if self.published:
            from cradlevae.data.datasets.published import published

            dataset = published(self.published)
            name, recipe = dataset.name, dataset.split
            named = (*self.fields.covariate_keys, self.fields.context_key)
            if self.fields.batch_key is None and BATCH_COLUMN not in named:
                object.__setattr__(self, "fields", replace(self.fields, batch_key=BATCH_COLUMN))
        elif self.path:
            name, recipe = Path(self.path).stem, "cells"
        else:
            name, recipe = "simulated", "combinations"
        defaults: dict[str, Any] = {"name": name, "recipe": recipe}
        if not self.path or self.published:
            defaults["n_mads"] = (3.0,)
        for entry, value in defaults.items():
            if not getattr(self, entry):
                object.__setattr__(self, entry, value)

    def _check_split(self) -> None:
        """Raise :class:`DataError` for an option that the recipe does not take."""
        for option in self.recipe_options:
            if option == "seed":
                raise DataError(f"recipe_options of data set {self.name!r} has a seed; give the plan split_seeds")
            if option not in OPTIONS_OF_RECIPES:
                options = closest(option, list(OPTIONS_OF_RECIPES))
                raise DataError(f"recipe_options of data set {self.name!r} has no {option!r}{options}")
            if self.recipe != OPTIONS_OF_RECIPES[option]:
                raise DataError(
                    f"recipe_options of data set {self.name!r} has {option!r}, which means nothing to the recipe "
                    f"{self.recipe!r}; it belongs to {OPTIONS_OF_RECIPES[option]!r}"
                )

    def _check_qc(self) -> None:
        """Raise :class:`DataError` for QC that is not done, or that the models would not see."""
        check_distinct(f"n_mads of data set {self.name!r}", self.n_mads)
        if self.qc and not self.n_mads:
            raise DataError(f"data set {self.name!r} has qc: but no n_mads:, so nothing is annotated; add n_mads: [3]")
        for name, place in ELSEWHERE.items():
            if name in self.qc:
                raise DataError(f"qc: of data set {self.name!r} has {name}; say so by {place}")
        if self.qc:
            from cradlevae.data.qc.annotate import annotate_qc

            _check_options(f"qc: of data set {self.name!r}", self.qc, annotate_qc)
        if self.n_mads and not isinstance(self.fields.artifact_key, str):
            from cradlevae.data.qc.criteria import CRITERIA

            other = [name for name in self.fields.artifact_key if name.removeprefix("qc_") not in CRITERIA]
            if other:
                raise DataError(
                    f"data set {self.name!r} is annotated for n_mads, but its artifact_key names {other[0]!r}, which "
                    "the annotation does not write; name columns such as 'qc_umi', or leave n_mads out"
                )

    @property
    def annotated_key(self) -> str:
        """Column of ``obs`` that the annotation writes: the one that the models read."""
        key = self.fields.artifact_key
        return key if isinstance(key, str) else ARTIFACT_COLUMN


def source_of(content: Mapping[str, Any]) -> DataSource:
    """A data set from plain values."""
    return from_plain(DataSource, content, "a data set of the plan")


def check_distinct(what: str, values: tuple[Any, ...]) -> None:
    """Raise :class:`DataError` if a value stands in a list twice: its scores would count twice."""
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise DataError(f"{what} has {twice[0]!r} twice; its scores would count twice")


def _check_options(what: str, options: dict[str, Any], function: Any) -> None:
    """Raise :class:`DataError` for an option that a function does not take by keyword."""
    known = [
        name for name, parameter in signature(function).parameters.items() if parameter.kind.name == "KEYWORD_ONLY"
    ]
    for name in options:
        if name not in known:
            raise DataError(f"{what} has no {name!r}{closest(name, known)}")

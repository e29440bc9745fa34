"""One cell of a benchmark: data, split, training, scores."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cradlevae.benchmarking.jobs import FLOORS, Cell
from cradlevae.benchmarking.plan import DataSource
from cradlevae.data.experiment import DataFields, condition_labels
from cradlevae.data.labels import CONTROL
from cradlevae.errors import DataError
from cradlevae.evaluation.reference_effects import NO_ANSWER, scored_conditions
from cradlevae.utils.types import AnnDataLike, IndexArray

CONTROLS = 10
"""Times as many controls as cells of another condition are kept where cells are left out."""


def compute(cell: Cell, source: DataSource) -> dict[str, Any]:
    """Scores of a cell, with facts of the run and how long it took.

    Returns
    -------
    ``scores`` (rows of :func:`cradlevae.evaluate`), ``facts`` and ``seconds``; all plain numbers and text.
    """
    from cradlevae.data.split import split as make_split

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        started = time.perf_counter()
        adata = _data(json.dumps([cell.key["data"], cell.n_mads], sort_keys=True), source)
        recipe = dict(cell.key["split"])
        split = make_split(adata, recipe.pop("recipe"), fields=source.fields, **recipe)
        if cell.key["scoring"]["references"] == ["validation"]:  # what is chosen by validation must not see the test
            adata = adata[np.flatnonzero((split.parts.reindex(adata.obs_names) != "test").to_numpy())]
        seconds = {"reading": time.perf_counter() - started}
        model, facts = _trained(cell, adata, split, source.fields, seconds)
        started = time.perf_counter()
        scores, unanswered = _scores(cell, model, adata)
        seconds["scores"] = time.perf_counter() - started
    messages = sorted({str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)})
    facts |= {"split_hash": split.hash, "unanswered": unanswered, "warnings": messages}
    return {"scores": scores.to_dict(orient="records"), "facts": facts, "seconds": seconds}


def _trained(
    cell: Cell, adata: AnnDataLike, split: Any, fields: DataFields, seconds: dict[str, float]
) -> tuple[Any, Any]:
    """The cell's model, trained, and facts of the training."""
    from cradlevae.catalogue import models

    started, cpu = time.perf_counter(), time.process_time()
    settings = dict(cell.key.get("model", {"model": "zero"}))  # the floors come with any floor
    entry = models()[settings.pop("model")]
    facts: dict[str, Any] = {}
    if cell.kind == "model":
        training = cell.key["training"]
        model = entry.make(adata, split=split, seed=cell.init_seed, **asdict(fields), **settings)
        if "held-out" in cell.key["scoring"]["references"]:
            _refuse_unanswerable(model)
        model.train(**training, seed=cell.init_seed, progress=False)
        facts["epochs"] = len(model.history)
    else:
        model = entry.make(adata, split=split, **asdict(fields))
        model.train()
    seconds |= {"training": time.perf_counter() - started, "training_cpu": time.process_time() - cpu}
    return model, facts


def _refuse_unanswerable(model: Any) -> None:
    """Raise :class:`DataError` before training if the model has no answer for any test condition."""
    test = model.split.rows(model.data.cells, "test")
    if len(test) and not scored_conditions(model.trained, model.data, test)[0]:
        raise DataError(NO_ANSWER)


def _scores(cell: Cell, model: Any, adata: AnnDataLike) -> tuple[pd.DataFrame, int]:
    """Rows of all references, those of the floors' cell apart from those of models, and conditions without answer."""
    from cradlevae.api import evaluate
    from cradlevae.evaluation.floors.registry import FLOORS as NAMES
    from cradlevae.evaluation.score_table import MODEL

    scoring = dict(cell.key["scoring"])
    all_floors = cell.kind == FLOORS
    tables: list[pd.DataFrame] = []
    unanswered = 0
    for reference in scoring.pop("references"):
        options = dict(scoring)
        if all_floors:
            options["generated"] = False
        if tables:  # generated cells, likelihood and the truth are scored once
            options |= {"generated": False, "truth": False}
        table = evaluate(model, adata, reference=reference, seed=cell.init_seed or 0, **options)
        unanswered = max(unanswered, len(table.attrs["unanswered"]))
        mine = ~table["predictor"].isin([*NAMES, "ceiling", "data"])
        if all_floors:
            mine = table["predictor"] != MODEL
        elif cell.kind == "floor":  # its effects are in the floors' cell
            mine &= ~table["metric"].isin(table.loc[table["predictor"].isin(NAMES), "metric"])
        tables.append(table[mine])
    return pd.concat(tables), unanswered


@lru_cache(maxsize=1)
def _held(key: str) -> dict[str, Any]:
    """A place for the last data set, so that cells of one split that follow each other read it once."""
    return {}


def _data(key: str, source: DataSource) -> Any:
    held = _held(key)
    if "adata" not in held:
        spec, n_mads = json.loads(key)
        held["adata"] = _read(spec, n_mads, source)
    return held["adata"]


def _read(spec: dict[str, Any], n_mads: float | None, source: DataSource) -> Any:
    """A data set, restricted and annotated."""
    from cradlevae.data.qc.annotate import annotate_qc
    from cradlevae.data.storage.stored_cells import open_cells
    from cradlevae.utils.machine import machine_memory

    adata: AnnDataLike
    if spec["simulate"] is not None:
        from cradlevae.data.simulation.simulate import simulate

        adata = simulate(**spec["simulate"])
    else:
        if source.published:
            from cradlevae.data.datasets import load

            adata = load(source.published, path=source.path, backed=True)
        else:
            adata = open_cells(Path(str(source.path)))
        restricted = source.max_genes or source.max_cells_per_condition
        if restricted or adata.memory(source.fields.layer) < machine_memory() / 3:
            adata = restrict(adata.to_memory(), source)
    if n_mads is not None:
        annotate_qc(adata, n_mads=n_mads, layer=source.fields.layer, **source.qc)
    return adata


def restrict(adata: AnnDataLike, source: DataSource) -> Any:
    """The cells and genes that a data set is restricted to, in their order."""
    if source.max_cells_per_condition:
        labels = condition_labels(adata, source.fields)
        adata = adata[_some(labels.to_numpy(), source.max_cells_per_condition)].copy()
    if source.max_genes and source.max_genes < adata.n_vars:
        counts = adata.X if source.fields.layer is None else adata.layers[source.fields.layer]
        total = np.asarray(counts.sum(axis=0)).ravel()
        adata = adata[:, np.sort(np.argsort(-total, kind="stable")[: source.max_genes])].copy()
    return adata


def _some(labels: npt.NDArray[Any], most: int) -> IndexArray:
    """Rows of at most so many cells of each condition, ascending."""
    rng = np.random.default_rng(0)
    kept = []
    for name in sorted(set(labels)):
        rows = np.flatnonzero(labels == name)
        kept.append(rng.permutation(rows)[: most * CONTROLS if name == CONTROL else most])
    return np.sort(np.concatenate(kept))

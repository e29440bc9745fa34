"""One job of a benchmark: data, split, training, scores."""

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

from cradlevae.benchmarking.data_source import DataSource
from cradlevae.benchmarking.jobs import FLOORS, Job
from cradlevae.data.experiment import DataFields, condition_labels
from cradlevae.data.labels import CONTROL
from cradlevae.errors import DataError
from cradlevae.evaluation.reference_effects import NO_ANSWER, scored_conditions
from cradlevae.utils.types import AnnDataLike, IndexArray

CONTROLS = 10
"""How many times as many controls as cells of another condition are kept where cells are left out."""


def compute(job: Job, source: DataSource) -> dict[str, Any]:
    """Scores of a job, with facts of its training and the time that it took.

    Returns
    -------
    ``scores`` (rows of :func:`cradlevae.evaluate`), ``facts`` and ``seconds``; all plain numbers and text.
    """
    from cradlevae.data.split import split as make_split

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        started = time.perf_counter()
        adata = _data(json.dumps([job.key["data"], job.n_mads], sort_keys=True), source)
        recipe = dict(job.key["split"])
        if recipe["recipe"] == "column":
            recipe.pop("seed")  # nothing is drawn
        split = make_split(adata, recipe.pop("recipe"), fields=source.fields, **recipe)
        if job.key["scoring"]["references"] == ["validation"]:  # what is chosen by validation must not see the test
            warnings.filterwarnings("ignore", message=r".* cells of the split are not in the data \(test ")
            adata = adata[np.flatnonzero((split.parts.reindex(adata.obs_names) != "test").to_numpy())]
        seconds = {"reading": time.perf_counter() - started}
        model, facts = _trained(job, adata, split, source.fields, seconds)
        started = time.perf_counter()
        scores, unanswered = _scores(job, model, adata)
        seconds["scores"] = time.perf_counter() - started
    messages = sorted({str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)})
    facts |= {"split_hash": split.hash, "unanswered": unanswered, "warnings": messages}
    return {"scores": scores.to_dict(orient="records"), "facts": facts, "seconds": seconds}


def _trained(
    job: Job, adata: AnnDataLike, split: Any, fields: DataFields, seconds: dict[str, float]
) -> tuple[Any, Any]:
    """The model of a job after training, and facts of the training."""
    from cradlevae.catalogue import models

    started, cpu = time.perf_counter(), time.process_time()
    settings = dict(job.key.get("model", {"model": "zero"}))  # the floors come with any floor
    entry = models()[settings.pop("model")]
    facts: dict[str, Any] = {}
    if job.kind == "model":
        training = job.key["training"]
        model = entry.make(adata, split=split, seed=job.init_seed, **asdict(fields), **settings)
        if "held-out" in job.key["scoring"]["references"]:
            _refuse_unanswerable(model)
        model.train(**training, seed=job.init_seed, progress=False)
        facts["epochs"] = len(model.history)
    else:
        model = entry.make(adata, split=split, **asdict(fields))
        model.train()
    seconds |= {"training": time.perf_counter() - started, "training_cpu": time.process_time() - cpu}
    return model, facts


def _refuse_unanswerable(model: Any) -> None:
    """Raise :class:`DataError` before training if the model has no answer for any test condition."""
    test = model.split.rows(model.data, "test")
    if len(test) and not scored_conditions(model.trained, model.data, test)[0]:
        raise DataError(NO_ANSWER)


def _scores(job: Job, model: Any, adata: AnnDataLike) -> tuple[pd.DataFrame, int]:
    """Scores against all references, and how many conditions the model cannot answer.

    The floors' job holds the effects of all floors, the other jobs what is their own.
    """
    from cradlevae.api import evaluate
    from cradlevae.evaluation.floors.registry import FLOORS as NAMES
    from cradlevae.evaluation.score_table import MODEL

    scoring = dict(job.key["scoring"])
    all_floors = job.kind == FLOORS
    tables: list[pd.DataFrame] = []
    unanswered = 0
    for reference in scoring.pop("references"):
        options = dict(scoring)
        if all_floors:
            options["generated"] = False
        if tables:  # generated cells, likelihood and the truth are scored once
            options |= {"generated": False, "truth": False}
        if options.get("generated") is False:
            options.pop("n_cells", None)
        table = evaluate(model, adata, reference=reference, seed=job.init_seed or 0, **options)
        unanswered = max(unanswered, len(table.attrs["unanswered"]))
        mine = ~table["predictor"].isin([*NAMES, "ceiling", "data"])
        if all_floors:
            mine = table["predictor"] != MODEL
        elif job.kind == "floor":  # its effects are in the floors' job
            mine &= ~table["metric"].isin(table.loc[table["predictor"].isin(NAMES), "metric"])
        tables.append(table[mine])
    return pd.concat(tables), unanswered


@lru_cache(maxsize=1)
def _cache(key: str) -> dict[str, Any]:
    """A place for the last data set, so that jobs on one split that follow each other read it once."""
    return {}


def _data(key: str, source: DataSource) -> Any:
    """The data set of a key, read once."""
    cache = _cache(key)
    if "adata" not in cache:
        spec, n_mads = json.loads(key)
        cache["adata"] = _read(spec, n_mads, source)
    return cache["adata"]


def _read(spec: dict[str, Any], n_mads: float | None, source: DataSource) -> Any:
    """A data set, restricted and annotated."""
    from cradlevae.data.guides.automatic import open_labelled
    from cradlevae.data.qc.annotate import annotate_qc
    from cradlevae.utils.machine import machine_memory

    adata: AnnDataLike
    if spec["simulate"] is not None:
        from cradlevae.data.simulation.simulate import simulate

        adata = restrict(simulate(**spec["simulate"]), source)
    else:
        if source.published:
            from cradlevae.data.datasets import load

            adata = load(source.published, path=source.path, backed=True)
        else:
            adata = open_labelled(Path(str(source.path)), source.fields)[0]
        restricted = source.max_genes or source.max_cells_per_condition
        if restricted or adata.memory(source.fields.layer) < machine_memory() / 3:
            adata = restrict(adata.to_memory(), source)
    if n_mads is not None:
        fields = source.fields
        options = {"gene_symbols": fields.gene_symbols, "batch_key": fields.batch_key, **source.qc}
        annotate_qc(adata, n_mads=n_mads, layer=source.fields.layer, key_added=source.annotated_key, **options)
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
    chosen = []
    for name in sorted(set(labels)):
        rows = np.flatnonzero(labels == name)
        chosen.append(rng.permutation(rows)[: most * CONTROLS if name == CONTROL else most])
    return np.sort(np.concatenate(chosen))

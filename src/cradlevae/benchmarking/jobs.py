"""The jobs of a plan: one model (or the floors) on one split of one data set, each known by a hash.

The hash covers all that determines the scores and nothing else: labels, names and the machine play no part.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cradlevae.benchmarking.data_source import DataSource
from cradlevae.benchmarking.plan import ModelRun, Plan, plan_dict
from cradlevae.data.storage.cell_files import cell_files
from cradlevae.errors import DataError

FORMAT = 3
"""Changes when jobs are computed otherwise than before."""

FLOORS = "floors"
"""Name of the job of all floors."""

IDLE = ("progress", "tensorboard", "seed")
"""Fields of the training that do not determine the scores (the seed is the job's)."""


@dataclass(frozen=True)
class Job:
    """A piece of work of a benchmark: one model, or all floors, on one split of one data set.

    Attributes
    ----------
    data, recipe, label
        Names in the tables.
    qc
        Name of the QC thresholds in the tables.
    n_mads
        QC threshold; with ``None`` the artifact column is taken as it is.
    split_seed, init_seed
        Seeds of the split and of the training; the floors have no ``init_seed``.
    kind
        ``model``, ``floor`` (cells that one floor generates), or ``floors`` (effects of all floors).
    key
        All that determines the scores.
    """

    data: str
    recipe: str
    label: str
    qc: str
    n_mads: float | None
    split_seed: int
    init_seed: int | None
    kind: str
    key: dict[str, Any]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the key."""
        return hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        seeds = f"split {self.split_seed}" + ("" if self.init_seed is None else f", seed {self.init_seed}")
        return f"{self.data} ({self.recipe}, {self.qc}), {self.label}, {seeds}"


def expand(plan: Plan) -> list[Job]:
    """The jobs of a plan, those of one split of one data set together, its floors first.

    Raises
    ------
    DataError
        If a data set is not there.
    """
    jobs: list[Job] = []
    for source in plan.data:
        runs = [run for run in plan.models if run.data is None or source.name in run.data]
        seeds = sorted({seed for run in runs for seed in _split_seeds(plan, source, run)})
        if not seeds:
            continue
        stem = {"data": _data_key(source)}
        for n_mads in source.n_mads or (None,):
            for seed in seeds:
                blank = Job(
                    source.name, source.recipe, FLOORS, qc_name(n_mads), n_mads, seed, None, FLOORS,
                    _key(plan, source, stem, n_mads, seed),
                )  # fmt: skip
                jobs.append(blank)
                for run in runs:
                    if seed in _split_seeds(plan, source, run):
                        jobs += _jobs_of(plan, source, blank, run)
    return jobs


def qc_name(n_mads: float | None) -> str:
    """Name of QC thresholds in the tables."""
    return "as given" if n_mads is None else f"MAD {n_mads:g}"


def _split_seeds(plan: Plan, source: DataSource, run: ModelRun) -> tuple[int, ...]:
    """Split seeds of a model on a data set; a split by column is the same for all, so one is enough."""
    seeds = plan.split_seeds if run.split_seeds is None else run.split_seeds
    return seeds[:1] if source.recipe == "column" else seeds


def _jobs_of(plan: Plan, source: DataSource, blank: Job, run: ModelRun) -> list[Job]:
    """The jobs of a model on one split."""
    if run.floor and not plan.scoring.generated:
        return []  # all that it adds to the floors' job are the cells that it generates
    if run.floor:
        key = {**blank.key, "model": {"model": run.model}}
        return [replace(blank, label=run.label, kind="floor", key=key)]
    training = {name: value for name, value in asdict(plan.train_config(run, source)).items() if name not in IDLE}
    key = {**blank.key, "model": asdict(plan.model_config(run)), "training": training}
    init_seeds = plan.init_seeds if run.init_seeds is None else run.init_seeds
    return [
        replace(blank, label=run.label, kind="model", init_seed=seed, key={**key, "init_seed": seed})
        for seed in init_seeds
    ]


def _key(plan: Plan, source: DataSource, stem: dict[str, Any], n_mads: float | None, seed: int) -> dict[str, Any]:
    """What determines the floors' scores on one split, as plain values: the same after a way through JSON."""
    key = {
        "format": FORMAT,
        "version": version("cradlevae"),
        **stem,
        "n_mads": n_mads,
        "split": {"recipe": source.recipe, "seed": seed, **source.recipe_options},
        "scoring": plan_dict(plan)["scoring"],
    }
    if source.simulate is not None and "seed" not in source.simulate:
        key["data"] = {**stem["data"], "simulate": {**source.simulate, "seed": seed}}
    plain_key: dict[str, Any] = json.loads(json.dumps(key))
    return plain_key


def _data_key(source: DataSource) -> dict[str, Any]:
    """What determines the counts and labels of a data set, wherever its file lies."""
    key = asdict(source)
    for name in ("name", "path", "recipe", "recipe_options", "n_mads", "training"):
        del key[name]
    if source.simulate is None:
        key["fingerprint"] = file_fingerprint(_file(source))
    return key


def _file(source: DataSource) -> Path:
    """The file of a data set; a published one is downloaded."""
    if source.path:
        path = Path(source.path)
        if not path.exists():
            raise DataError(f"no data at {path} (data set {source.name!r} of the plan)")
        return path
    from cradlevae.data.datasets.download import cache_folder, fetch
    from cradlevae.data.datasets.published import published

    return fetch(published(str(source.published)), cache_folder())


def file_fingerprint(path: Path) -> str:
    """SHA-256 of the content of a file, a zarr store or a folder of them."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(
        inner for top in cell_files(path) for inner in ([top] if top.is_file() else top.rglob("*")) if inner.is_file()
    )  # fmt: skip
    for file in files:
        if file != path:
            digest.update(f"\n{file.relative_to(path)}\n".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()

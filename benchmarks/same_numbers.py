"""Whether two checkouts give the same numbers, to the last digit: ``python benchmarks/same_numbers.py BEFORE AFTER``.

    git worktree add ../before main
    python benchmarks/same_numbers.py ../before .

Each checkout (a folder that holds ``src/cradlevae``) computes in a process of its own, on one thread and with the same
seeds: a short training of every model of the family on simulated and on planted data, what the trained model answers,
three floors, and the scores of all of them. The two sets of arrays are then compared: names, types, shapes and every
value. Nothing is stored, since the last digits are those of one machine.

Planted data are some 3,000 of the real cells of papalexi2021_299g_planted_artifacts.h5ad in the folder ``--data`` (by
default ``../shared/data`` beside AFTER, or beside this checkout); without the file, artifacts are planted into
simulated cells. What a clock tells (the seconds of an epoch) is left out, and so are settings (``uns``). The exit
status is 0 where all is equal, and 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]
"""Arrays by name: ``data/model/what/part``."""

PLANTED_FILE = "papalexi2021_299g_planted_artifacts.h5ad"
CLOCKS = ["seconds"]
"""Columns of the history that are no result."""

ERROR = "error"
"""Part under which a question is kept that raised instead of answering."""

SHOWN = 5
"""Differing arrays of a question that are listed, the others are counted."""


@dataclass(frozen=True)
class Model:
    """A model to train, with its settings and the questions that not every model answers."""

    kind: str
    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    artifact: bool = False
    mask: bool = False
    unseen_pairs: bool = True

    @property
    def label(self) -> str:
        """What it is called in the table."""
        return self.name or self.kind


MODELS = (
    Model("CradleVAE", artifact=True, mask=True),
    Model(
        "CradleVAE",
        "CradleVAE released",
        settings={"objective": "released"},
        training={"n_particles": 2, "averaging": 0.0},
        artifact=True,
        mask=True,
    ),
    Model("SAMSVAE", mask=True),
    Model("SVAEPlus", mask=True, unseen_pairs=False),
    Model("CPAVAE", training={"n_particles": 2}),
    Model("ConditionalVAE"),
)


@dataclass(frozen=True)
class Plan:
    """How much is computed: of each data set its models and floors, and the sizes of all."""

    simulation: dict[str, Any]
    models: dict[str, tuple[Model, ...]]
    floors: dict[str, tuple[str, ...]]
    settings: dict[str, Any]
    epochs: int
    n_cells: int


FULL = Plan(
    simulation={"n_cells": 1500, "n_genes": 200, "n_perturbations": 8, "n_combinations": 10},
    models={"simulated": MODELS, "planted": MODELS},
    floors={
        "simulated": ("additive", "additive_shrunk", "additive_hierarchical"),
        "planted": ("training_mean", "shrunk_mean", "hierarchical_mean"),
    },
    settings={},
    epochs=6,
    n_cells=100,
)
SMALL = Plan(
    simulation={"n_cells": 300, "n_genes": 60, "n_perturbations": 4, "n_combinations": 4, "n_latent": 6},
    models={"simulated": MODELS[:1], "planted": MODELS[2:3]},
    floors={"simulated": ("additive",), "planted": ("shrunk_mean",)},
    settings={"n_latent": 8, "width": 32, "basal_width": 32},
    epochs=2,
    n_cells=20,
)


def main() -> int:
    """Compute one checkout, or compare two; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="BEFORE", help="folder that holds src/cradlevae")
    parser.add_argument("after", type=Path, metavar="AFTER", nargs="?", help="another one, or the same")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help=f"holds {PLANTED_FILE}")
    parser.add_argument("--small", action="store_true", help="a moment's work, on simulated cells alone")
    parser.add_argument("--compute", type=Path, metavar="OUT.npz", help="only write the arrays of BEFORE")
    parser.add_argument("--planted", type=Path, metavar="FILE", help="of --compute: the planted data")
    options = parser.parse_args()
    if options.compute:
        compute(options.before, options.compute, SMALL if options.small else FULL, options.planted)
        return 0
    if options.after is None:
        parser.error("give two checkouts, BEFORE and AFTER")
    for folder in (options.before, options.after):
        if not (folder / "src" / "cradlevae").is_dir():
            parser.error(f"{folder} holds no src/cradlevae")
    return run(options)


# -- comparing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """What became of a question: its data, model and name, whether the answers are equal, and the words for it."""

    data: str
    model: str
    what: str
    equal: bool
    text: str


def run(options: argparse.Namespace) -> int:
    """Compute both sides, compare, print; the exit status."""
    started = time.perf_counter()
    planted = None if options.small else planted_file(options.data, options.after)
    print(f"before {options.before.resolve()}\nafter  {options.after.resolve()}")
    if planted is None:
        why = "" if options.small else f" ({PLANTED_FILE} is not there; give its folder with --data)"
        print(f"planted data: artifacts planted into simulated cells{why}")
    else:
        print(f"planted data: {planted}")
    print(flush=True)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / f"{side}.npz" for side in ("before", "after")]
        failures = compute_both((options.before, options.after), outputs, planted, small=options.small)
        if failures:
            print("\n".join(failures))
            return 1
        found = compare_files(*outputs)
    print(table(found))
    n_different = sum(not one.equal for one in found)
    took = f"{time.perf_counter() - started:.0f} s"
    if found and not n_different:
        print(f"\nall {len(found)} equal ({took})")
        return 0
    print(f"\n{n_different} of {len(found)} not equal ({took})")
    return 1


def planted_file(folder: Path | None, after: Path) -> Path | None:
    """The file of planted data, where it is there."""
    beside = [checkout.resolve().parent / "shared" / "data" for checkout in (after, Path(__file__).parents[1])]
    folders = beside if folder is None else [folder]
    return next((path.resolve() for path in (one / PLANTED_FILE for one in folders) if path.exists()), None)


def compute_both(checkouts: tuple[Path, Path], outputs: list[Path], planted: Path | None, *, small: bool) -> list[str]:
    """Let each checkout write its arrays, side by side; what went wrong, in words."""
    running: list[tuple[Path, Path, subprocess.Popen[bytes]]] = []
    try:
        for checkout, output in zip(checkouts, outputs, strict=True):
            source = str(checkout.resolve() / "src")
            path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
            environment = {
                **os.environ,
                "PYTHONPATH": path,
                "PYTHONHASHSEED": "0",
                "PYTHONWARNINGS": "ignore",
                "OMP_NUM_THREADS": "1",
            }
            command = [sys.executable, __file__, str(checkout.resolve()), "--compute", str(output)]
            command += ["--planted", str(planted)] if planted else []
            command += ["--small"] if small else []
            log = output.with_suffix(".log")
            with log.open("wb") as file:
                process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
            running.append((checkout, log, process))
        return [
            f"{checkout} could not be computed:\n{log.read_text(errors='replace')[-3000:]}"
            for checkout, log, process in running
            if process.wait() != 0
        ]
    finally:
        for _, _, process in running:
            if process.poll() is None:
                process.kill()
                process.wait()


def compare_files(before: Path, after: Path) -> list[Compared]:
    """Compare two files of arrays."""
    with np.load(before) as one, np.load(after) as other:
        return compare(dict(one), dict(other))


def compare(before: Arrays, after: Arrays) -> list[Compared]:
    """Compare two sets of arrays, question by question."""
    questions = dict.fromkeys(tuple(name.split("/")[:3]) for name in [*before, *after])
    return [_compare_question(key, before, after) for key in questions]


def _compare_question(key: tuple[str, ...], before: Arrays, after: Arrays) -> Compared:
    prefix = "/".join(key) + "/"
    one, other = ({name.removeprefix(prefix): value for name, value in side.items() if name.startswith(prefix)}
                  for side in (before, after))  # fmt: skip
    data, model, what = key
    sides = {"before": one, "after": other}
    lacking = [f"absent {side}" for side, arrays in sides.items() if not arrays]
    lacking += [f"no answer {side}: {arrays[ERROR]}" for side, arrays in sides.items() if ERROR in arrays]
    if lacking:
        return Compared(data, model, what, False, "; ".join(lacking))
    differing = {}
    for part in dict.fromkeys([*one, *other]):
        text = difference(one.get(part), other.get(part))
        if text:
            differing[part] = text
    if not differing:
        n_values = sum(value.size for value in one.values())
        return Compared(data, model, what, True, f"equal ({n_values:,} values)")
    lines = [f"{part}: {text}" for part, text in list(differing.items())[:SHOWN]]
    lines += [f"and {len(differing) - SHOWN} more arrays"] if len(differing) > SHOWN else []
    return Compared(data, model, what, False, "\n".join(lines))


def difference(one: npt.NDArray[Any] | None, other: npt.NDArray[Any] | None) -> str:
    """How two arrays differ, in words; empty where they are equal (a missing value is equal to a missing value)."""
    if one is None or other is None:
        return f"absent {'before' if one is None else 'after'}"
    text = "U" in (one.dtype.kind, other.dtype.kind)
    found = []
    if one.dtype.kind != other.dtype.kind or (one.dtype != other.dtype and not text):
        found.append(f"type {one.dtype} before, {other.dtype} after")
    if one.shape != other.shape:
        found.append(f"shape {one.shape} before, {other.shape} after")
    elif text:
        different = one.astype(str) != other.astype(str)
        if different.any():
            place = np.unravel_index(int(np.argmax(different)), different.shape)
            found.append(f"{_share(different)}, first {str(one[place])!r} before, {str(other[place])!r} after")
    else:
        missing = np.isnan(one), np.isnan(other)
        different = (one != other) & ~(missing[0] & missing[1])
        if different.any():
            found.append(f"{_share(different)}, {_size(one[different], other[different])}")
    return "; ".join(found)


def _share(different: npt.NDArray[np.bool_]) -> str:
    return f"{int(different.sum()):,} of {different.size:,} values differ"


def _size(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> str:
    """Largest absolute and relative difference; a number that is missing on one side differs without bound."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(all="ignore"):
        apart = np.nan_to_num(np.abs(a - b), nan=np.inf)
        relative = np.nan_to_num(apart / np.maximum(np.abs(a), np.abs(b)), nan=np.inf)
    return f"by {apart.max():.3g} at most (relative {relative.max():.3g})"


def table(found: list[Compared]) -> str:
    """A line for each question, and for each array that differs."""
    rows = [("data", "model", "what", "")]
    for one in found:
        first, *rest = one.text.splitlines()
        rows.append((one.data, one.model, one.what, first))
        rows += [("", "", "", line) for line in rest]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*(f"{row[i]:{widths[i]}}" for i in range(3)), row[3]]).rstrip() for row in rows)


# -- computing ---------------------------------------------------------------------------------------------------------


class Recorder:
    """Arrays by name, as they are computed."""

    def __init__(self) -> None:
        self.arrays: dict[str, npt.NDArray[Any]] = {}

    def ask(self, data: str, model: str, what: str, question: Callable[[], Any]) -> Any:
        """Keep the answer to a question and return it; where it raises, keep what was raised and return ``None``."""
        prefix = f"{data}/{model}/{what}"
        try:
            answer = question()
            self.arrays.update(flat(prefix, answer))
        except Exception as error:  # whatever it is, it is a difference between the checkouts or a fault to report
            self.arrays[f"{prefix}/{ERROR}"] = np.array(f"{type(error).__name__}: {error}")
            return None
        return answer


def flat(name: str, value: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The arrays that an answer is made of, by name."""
    import anndata as ad
    import pandas as pd

    if isinstance(value, ad.AnnData):
        parts = {f"layers/{key}": layer for key, layer in value.layers.items()}
        parts |= {f"obsm/{key}": matrix for key, matrix in value.obsm.items()}
        if value.X is not None:
            parts["X"] = value.X
        parts |= {"obs": value.obs, "genes": value.var_names}
    elif isinstance(value, pd.DataFrame):
        parts = {str(column): value[column] for column in value} | {"index": value.index}
        parts |= {f"attrs/{key}": one for key, one in value.attrs.items()}
    elif isinstance(value, pd.Series):
        parts = {"values": np.asarray(value), "index": value.index}
    elif isinstance(value, Mapping):
        parts = {str(key): one for key, one in value.items()}
    else:
        yield name, plain(value.toarray() if hasattr(value, "toarray") else value)
        return
    for key, part in parts.items():
        leaf = isinstance(value, pd.DataFrame) and isinstance(part, pd.Series)
        yield from flat(f"{name}/{key}", np.asarray(part) if leaf else part)


def plain(value: Any) -> npt.NDArray[Any]:
    """An array of numbers, or else of text."""
    array = np.asarray(value)
    return array if array.dtype.kind in "biufU" else np.array([str(one) for one in array.ravel()]).reshape(array.shape)


def compute(checkout: Path, output: Path, plan: Plan, planted: Path | None) -> None:
    """Write the arrays of a checkout, which must be the one that is imported."""
    warnings.simplefilter("ignore")
    import cradlevae as cv

    if not Path(cv.__file__).resolve().is_relative_to(checkout.resolve() / "src"):
        raise SystemExit(f"cradlevae comes from {cv.__file__}, not from {checkout}/src; set PYTHONPATH to that")
    recorder = Recorder()
    for data, (make, recipe) in {
        "simulated": (lambda: simulated(plan), "combinations"),
        "planted": (lambda: read_planted(planted) if planted else replanted(plan), "cells"),
    }.items():
        adata = recorder.ask(data, "data", "cells", make)
        if adata is None:
            continue
        for model in plan.models[data]:
            # conditions that it has not seen are none of its: it is scored on cells of those that it has
            ask_model(recorder, data, adata, model, recipe if model.unseen_pairs else "cells", plan)
        for name in plan.floors[data]:
            ask_floor(recorder, data, adata, name, recipe, plan)
    arrays: dict[str, Any] = dict(recorder.arrays)
    np.savez(output, **arrays)


def simulated(plan: Plan) -> Any:
    """Simulated cells with their quality control."""
    import cradlevae as cv

    adata = cv.simulate(seed=0, **plan.simulation)
    cv.annotate_qc(adata)
    return adata


def read_planted(path: Path, n_controls: int = 500, n_each: int = 100) -> Any:
    """Some 3,000 of the cells of the file: of every perturbation at most so many, drawn at random."""
    import anndata as ad

    adata = ad.read_h5ad(path)
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    rng = np.random.default_rng(0)
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[: n_controls if label == "control" else n_each]
        for label in np.unique(labels)
    ]
    return adata[np.sort(np.concatenate(chosen))].copy()


def replanted(plan: Plan) -> Any:
    """Simulated cells without damage, with artifacts planted into them."""
    import cradlevae as cv

    adata = cv.simulate(seed=1, **plan.simulation, artifact_rate=0.0)
    del adata.layers["clean"]
    return cv.plant_artifacts(adata, seed=0)


def ask_model(recorder: Recorder, data: str, adata: Any, model: Model, recipe: str, plan: Plan) -> None:
    """Train a model and keep its answers to every question."""
    import cradlevae as cv

    split: Any = None
    trained: Any = None

    def ask(what: str, question: Callable[[], Any]) -> Any:
        return recorder.ask(data, model.label, what, question)

    def train() -> Any:
        nonlocal split, trained
        split = cv.split(adata, recipe, seed=0)
        made = getattr(cv, model.kind)(adata, split=split, seed=0, **{**plan.settings, **model.settings})
        made.train(plan.epochs, seed=0, progress=False, accelerator="cpu", **model.training)
        trained = made
        return {"history": made.history.drop(columns=CLOCKS), "parts": split.parts}

    ask("training", train)
    if trained is None:
        return
    asked = conditions(adata, split, unseen=model.unseen_pairs)
    held_out = adata[adata.obs_names.isin(split.cells("test"))].copy()
    ask("effects", lambda: trained.effects(asked))
    ask("predict", lambda: trained.predict([*asked, "control"], n_cells=plan.n_cells, seed=1))
    ask("latents", lambda: trained.latents(adata))
    ask("log_likelihood", lambda: trained.log_likelihood(held_out, n_particles=20))
    ask("counterfactual", lambda: trained.counterfactual(held_out, perturbation=asked[0], n_draws=4))
    if model.mask:
        ask("mask_probabilities", trained.mask_probabilities)
    if model.artifact:
        ask("predict with artifact", lambda: trained.predict(asked, n_cells=plan.n_cells, artifact=True))
        ask("artifact_signature", trained.artifact_signature)
        ask("clean", lambda: trained.clean(adata))
    ask("evaluate", lambda: cv.evaluate(trained, adata, published=model.artifact, truth="clean", n_cells=plan.n_cells))

    def reloaded() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            trained.save(Path(folder) / "run")
            again = type(trained).load(Path(folder) / "run")
        return {"effects": again.effects(asked[:2]), "history": again.history.drop(columns=CLOCKS)}

    ask("save and load", reloaded)


def ask_floor(recorder: Recorder, data: str, adata: Any, name: str, recipe: str, plan: Plan) -> None:
    """Measure a floor and keep its answers."""
    import cradlevae as cv

    def ask(what: str, question: Callable[[], Any]) -> Any:
        return recorder.ask(data, f"floor {name}", what, question)

    floor: Any = None

    def effects() -> Any:
        nonlocal floor
        split = cv.split(adata, recipe, seed=0)
        made = cv.FloorModel(name, adata, split=split)
        made.train()
        floor = made
        return made.effects(made.perturbations)

    ask("effects", effects)
    if floor is None:
        return
    ask("predict", lambda: floor.predict(floor.perturbations[:3], n_cells=plan.n_cells, seed=1))
    ask("evaluate", lambda: cv.evaluate(floor, adata, truth="clean", n_cells=plan.n_cells))


def conditions(adata: Any, split: Any, *, unseen: bool) -> list[str]:
    """Three single perturbations and, of the combinations, one that was trained and one that was not."""
    labels = adata.obs["perturbation"].astype(str)
    seen = sorted(set(labels[split.cells("train")]) - {"control"})
    new = sorted(set(labels[split.cells("test")]) - {"control", *seen}) if unseen else []
    singles, pairs = [name for name in seen if "+" not in name], [name for name in seen if "+" in name]
    return [*singles[:3], *pairs[:1], *new[:1]]


if __name__ == "__main__":
    sys.exit(main())

"""Every public function and method says which argument is wrong, and takes NumPy's numbers for Python's."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv

NAN = float("nan")

WHOLE = [None, "5", 1.5, -1, NAN, True, [1], object()]
COUNT = [*WHOLE, 0]
NUMBER = [None, "5", NAN, True, [1.0], float("inf"), object()]
POSITIVE = [*NUMBER, 0, -5.0]
PROBABILITY = [None, "0.9", NAN, 0, 1, -0.5, [0.9], True, object()]
FLAG = [None, "yes", 1, 0, [True], object()]
TEXT = [None, 0, 1.5, [0], object()]
OPTIONAL_TEXT = [0, 1.5, [0], object()]
TEXTS = [None, 0, [0], [None], object()]
ADATA = [None, "screen.h5ad", Path("screen.h5ad"), 5, pd.DataFrame({"a": [1]}), np.ones((3, 3)), object()]
PATH = [None, 5, [1], True, object()]
OPTIONAL_PATH = [5, [1], True, object()]
LABELS = [None, 5, object(), [], [None]]
ARTIFACT = [1, 0, 1.0, "smudge", ["smudge"], [1], object()]
CHOICE = [None, "nonsense", 5, ["all"]]
SIZES = [None, -5, 0, NAN, True, "many", {"A": []}, {"A": [None]}, [500]]
LEVEL = [5, 1.5, True, [1], "nonsense", object()]
SPLIT = ["cells", 5, {"train": []}, pd.Series(["train"])]

QUERIES: dict[str, dict[str, list[Any]]] = {
    "predict": {
        "perturbations": LABELS, "n_cells": COUNT, "artifact": [None, *ARTIFACT], "library_size": SIZES,
        "basal": CHOICE, "batch": LEVEL, "context": LEVEL, "seed": WHOLE, "output": OPTIONAL_PATH, "overwrite": FLAG,
    },
    "effects": {
        "perturbations": LABELS[1:], "credible": PROBABILITY, "error": ["5", NAN, True, 0, -1, object()],
        "scale": CHOICE, "basal": CHOICE, "residual": FLAG, "batch": LEVEL, "context": LEVEL, "seed": WHOLE,
    },
    "contrast": {
        "first": TEXT, "second": [*TEXT, "A"], "credible": PROBABILITY, "error": ["5", NAN, True, 0, -1],
        "batch": LEVEL, "context": LEVEL, "seed": WHOLE,
    },
    "interactions": {
        "pairs": [5, object(), ["A"], "A", "control", "A+B+C"], "credible": PROBABILITY,
        "error": ["5", NAN, True, 0, -1], "batch": LEVEL, "context": LEVEL, "seed": WHOLE,
    },
    "expression": {
        "gene": [*TEXT, "nonsense"], "perturbations": LABELS[1:], "credible": PROBABILITY,
        "error": ["5", NAN, True, 0, -1], "seed": WHOLE,
    },
    "published_effects": {
        "perturbations": LABELS, "n_particles": COUNT, "library_size": POSITIVE, "scale": CHOICE, "seed": WHOLE,
    },
    "clean": {
        "adata": ADATA, "cells": CHOICE, "library_size": CHOICE, "batch": LEVEL, "n_draws": COUNT, "seed": WHOLE,
        "output": OPTIONAL_PATH, "overwrite": FLAG,
    },
    "counterfactual": {
        "adata": ADATA, "artifact": ARTIFACT, "perturbation": [5, ["A", "B"], "", object()], "cells": CHOICE,
        "library_size": CHOICE, "batch": LEVEL, "n_draws": COUNT, "seed": WHOLE, "output": OPTIONAL_PATH,
        "overwrite": FLAG,
    },
    "diagnose": {"adata": ADATA, "cells": CHOICE, "credible": PROBABILITY, "seed": WHOLE},
    "artifact_signature": {"credible": PROBABILITY, "n_draws": COUNT, "n_states": COUNT, "seed": WHOLE},
    "latents": {"adata": ADATA, "n_draws": COUNT, "sample": FLAG, "seed": WHOLE},
    "mask_probabilities": {},
    "log_likelihood": {"adata": ADATA, "n_particles": COUNT, "seed": WHOLE},
    "save": {"folder": PATH, "overwrite": FLAG},
    "load": {"folder": PATH, "adata": ADATA[1:]},
    "train": {
        "max_epochs": ["5", 1.5, -1, 0, NAN, True, object()], "output": OPTIONAL_PATH, "resume": FLAG,
        "overwrite": FLAG,
        "config": [
            {name: value}
            for name, values in {
                "batch_size": COUNT, "n_particles": COUNT, "learning_rate": POSITIVE, "weight_decay": [*NUMBER, -1],
                "averaging": [*NUMBER, 1, -1], "gradient_clip": [None, "5", NAN, 0], "patience": WHOLE, "seed": WHOLE,
                "accelerator": [None, 5], "devices": [*COUNT, "all"], "precision": CHOICE, "data_on_device": CHOICE,
                "tensorboard": [*FLAG, True], "progress": FLAG, "nonsense": [1],
            }.items()
            for value in values
        ],
    },
}  # fmt: skip
"""Wrong values of every parameter of the methods of a model; those of ``**config`` as mappings."""

INNER = ("of_trained",)
"""Methods that are for other parts of the package."""

FIELDS: dict[str, list[Any]] = {
    "perturbation_key": [None, 0, "", "nonsense", ["perturbation"]],
    "artifact_key": [None, 1, "", [], [1], ["artifact", "artifact"], "nonsense"],
    "layer": [0, "", "nonsense"],
    "control_labels": [None, 0, [0], [None]],
    "separator": [0, ""],
    "guides_key": [0, "", "nonsense"],
    "guide_min_count": POSITIVE,
    "gene_symbols": [0, "", "nonsense"],
}

CONFIG: dict[str, list[Any]] = {
    "n_latent": [1.5, 0, -1, "8", True, NAN],
    "width": COUNT,
    "decode": ["nonsense", 5],
    "counterfactual_weight": [-1, NAN, "5"],
    "gene_effects": ["yes", 1.5],
    "model": [None, "nonsense", "sams_vae", 5],
    "nonsense": [1],
}

FUNCTIONS: dict[str, dict[str, list[Any]]] = {
    "read_10x": {"path": [*PATH, "nonsense.h5"], "guide_targets": [5, [1], True, object()]},
    "assign_guides": {
        "adata": ADATA, "method": CHOICE, "min_count": COUNT[1:], "max_targets": COUNT,
        "guides_key": [*TEXT, "nonsense"], "guide_targets": [5, [1], True, "nonsense.csv", {}], "guide_key": TEXT,
        "perturbation_key": [*TEXT, "low_umi"],
    },
    "guide_effects": {
        "adata": ADATA, "guide_key": [*TEXT, "nonsense"], "credible": PROBABILITY, "fdr": PROBABILITY,
        "min_cells": [*COUNT, 1], "fields": ["perturbation"],
        "field_options": [{"nonsense": 1}, {"artifact_key": "nonsense"}, {"layer": "nonsense"}],
    },
    "split": {
        "adata": ADATA, "recipe": CHOICE, "seed": WHOLE, "n_shared": [*WHOLE, 1], "column": [5, "nonsense"],
        "held_out": [None, 5, [5], [("A",)], ["A"], ["A:nonsense"], [("A", None)]],
        "fields": ["perturbation", {"separator": "_"}],
        "field_options": [{"nonsense": 1}, {"separator": 0}, {"control_labels": 0}],
    },
    "annotate_qc": {
        "adata": ADATA, "criteria": [None, 5, [], ["nonsense"], [1]], "n_mads": POSITIVE,
        "layer": [*OPTIONAL_TEXT, "nonsense"], "batch_key": [*OPTIONAL_TEXT, "nonsense"],
        "gene_symbols": [*OPTIONAL_TEXT, "nonsense"], "max_fail_share": [*NUMBER, -0.1, 1.5], "key_added": TEXT,
        "scale": CHOICE, "seed": WHOLE,
    },
    "confounding_alarm": {
        "adata": ADATA, "fdr": PROBABILITY, "fields": ["perturbation"],
        "field_options": [{"nonsense": 1}, {"artifact_key": "nonsense"}, {"artifact_key": None}],
    },
    "plant_artifacts": {
        "adata": ADATA, "share": [*NUMBER, -0.1, 1.5], "kinds": [*TEXTS, "nonsense", []],
        "layer": [*OPTIONAL_TEXT, "nonsense"], "seed": WHOLE,
    },
    "simulate": {
        "n_cells": COUNT, "n_genes": COUNT, "n_perturbations": COUNT, "n_combinations": WHOLE,
        "n_interacting": WHOLE[1:], "n_latent": COUNT, "mask_probability": [*NUMBER, -1, 2],
        "effect_size": [*NUMBER, -1],
        "artifact_rate": [*NUMBER, -1, 2], "artifact_kinds": [*TEXTS, "nonsense"], "confounded": NUMBER,
        "n_batches": COUNT, "batch_sd": [*NUMBER, -1], "confounding": [*NUMBER, -1, 2, 0.5],
        "n_contexts": COUNT, "context_sd": [*NUMBER, -1, 0.5],
        "library_size": [None, 500, (500,), (NAN, 0.2), ("a", "b"), (0, 0.2)], "control_share": [*NUMBER, -1],
        "seed": WHOLE,
    },
    "evaluate": {
        "model": [None, "run", Path("run"), 5], "adata": ADATA, "reference": CHOICE, "published": FLAG,
        "generated": FLAG, "denoiser": FLAG, "truth": [None, 1, 5, "nonsense"], "n_cells": COUNT, "seed": WHOLE,
    },
    "to_cell_eval": {
        "model": [None, "run", 5], "adata": ADATA, "folder": PATH, "reference": CHOICE, "overwrite": FLAG,
        "seed": WHOLE,
    },
    "load": {"folder": PATH, "adata": ADATA[1:]},
    "open_cells": {"path": [*PATH, "nonsense.h5ad"], "guide_targets": [5, [1], True, object(), {}]},
    "benchmark": {
        "plan": [None, 5, {}, {"data": 5}, "nonsense.yaml"], "output": PATH, "workers": COUNT, "retry": FLAG,
        "part": [5, "0/2", "nonsense"],
    },
    "reproduce": {
        "dataset": CHOICE, "output": PATH, "budget": CHOICE, "path": OPTIONAL_PATH, "workers": COUNT, "retry": FLAG,
    },
    "models": {},
    "effects_table": {"effects": [*ADATA, ad.AnnData(np.ones((2, 3)))], "sort_by": [5, "nonsense", ["rank"]]},
}  # fmt: skip
"""Wrong values of every parameter of the public functions."""

FLOOR: dict[str, dict[str, list[Any]]] = {
    "train": {},
    "effects": {"perturbations": LABELS[1:], "credible": PROBABILITY, "batch": LEVEL, "context": LEVEL},
    "expression": {"gene": [*TEXT, "nonsense"], "perturbations": LABELS[1:], "credible": PROBABILITY},
    "contrast": {"first": ["A"], "second": ["B"]},
    "interactions": {"pairs": [None, "A+B"]},
    "predict": {
        "perturbations": LABELS,
        "n_cells": COUNT,
        "library_size": SIZES,
        "batch": LEVEL,
        "context": LEVEL,
        "seed": WHOLE,
    },
}

DATA = {
    "norman": {"options": [{"path": 5}, {"backed": 1}, {"cache": 5}, {"mirror": 5}]},
    "load": {"name": CHOICE, "path": OPTIONAL_PATH, "cache": OPTIONAL_PATH, "mirror": [5], "backed": FLAG},
}

ALSO = {"name": ("data set", "floor"), "path": ("no file",), "truth": ("layer",)}
"""Other words by which messages name an argument."""


def cases(table: dict[str, dict[str, list[Any]]]) -> list[Any]:
    """A parameter of a test for each function and parameter."""
    return [
        pytest.param(name, parameter, values, id=f"{name}-{parameter}")
        for name, parameters in table.items()
        for parameter, values in parameters.items()
    ]


def refused(call: Callable[..., Any], parameter: str, value: Any) -> str | None:
    """What is wrong with the answer of a call with a wrong value; ``None`` where it is a clear error."""
    options = value if parameter in ("config", "fields_", "field_options", "options") else {parameter: value}
    names = [word for name in options for word in (name, name.replace("_", " "), *ALSO.get(name, ()))]
    try:
        answer = call(**options)
    except cv.DataError as error:
        if any(name in str(error) for name in names):
            return None
        return f"{options!r}: the message names no argument: {error}"
    except Exception as error:  # what is wrong is what this test is about
        return f"{options!r}: {type(error).__name__}: {error}"
    return f"{options!r} was accepted: {answer!r:.80}"


def check(call: Callable[..., Any], parameter: str, values: list[Any]) -> None:
    wrong = [text for value in values if (text := refused(call, parameter, value)) is not None]
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def floor(simulated: ad.AnnData) -> cv.FloorModel:
    floor = cv.FloorModel("shrunk_mean", simulated, split=cv.split(simulated, "combinations", seed=0))
    floor.train()
    return floor


GIVEN: dict[str, dict[str, Any]] = {
    "predict": {"perturbations": "A", "n_cells": 2},
    "effects": {"perturbations": "A", "error": 1.0},
    "contrast": {"first": "A", "second": "B", "error": 1.0},
    "interactions": {"pairs": "A+B", "error": 1.0},
    "expression": {"gene": "G0001", "perturbations": "A", "error": 1.0},
    "published_effects": {"perturbations": "A", "n_particles": 2},
    "artifact_signature": {"n_draws": 2, "n_states": 2},
    "clean": {"n_draws": 2},
    "counterfactual": {"n_draws": 2},
    "latents": {"n_draws": 2},
    "log_likelihood": {"n_particles": 2},
    "train": {"max_epochs": 1, "accelerator": "cpu", "progress": False},
}
"""Right values of the other parameters, that cost little."""


@pytest.mark.parametrize(("name", "parameter", "values"), cases(QUERIES))
def test_methods_of_a_model(
    name: str, parameter: str, values: list[Any], model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path
) -> None:
    mine = model if name != "train" else copy.copy(model)

    def call(**options: Any) -> Any:
        others = {"adata": simulated} if "adata" in inspect.signature(getattr(mine, name)).parameters else {}
        others |= {"folder": tmp_path / "new"} if name in ("save", "load") else {}
        return getattr(mine, name)(**{**others, **GIVEN.get(name, {}), **options})

    check(call, parameter, values)


FLOOR_GIVEN = {"expression": {"gene": "G0001"}, "contrast": {"first": "A", "second": "B"}, "interactions": {}}


@pytest.mark.parametrize(("name", "parameter", "values"), cases(FLOOR))
def test_methods_of_a_floor(name: str, parameter: str, values: list[Any], floor: cv.FloorModel, tmp_path: Path) -> None:
    def call(**options: Any) -> Any:
        given = FLOOR_GIVEN.get(name, {"perturbations": "A"})
        return getattr(floor, name)(**{**given, **options})

    check(call, parameter, values)


CONSTRUCTOR = {"adata": ADATA, "split": SPLIT, "seed": WHOLE, **FIELDS, **CONFIG}


@pytest.mark.parametrize("parameter", CONSTRUCTOR)
def test_construction_of_a_model(parameter: str, simulated: ad.AnnData, tmp_path: Path) -> None:
    def call(**options: Any) -> Any:
        return cv.CradleVAE(**{"adata": simulated, "n_latent": 4, "width": 8, **options})

    check(call, parameter, CONSTRUCTOR[parameter])


@pytest.mark.parametrize("parameter", ["name", "adata", "split", *FIELDS, "nonsense"])
def test_construction_of_a_floor(parameter: str, simulated: ad.AnnData, tmp_path: Path) -> None:
    def call(**options: Any) -> Any:
        return cv.FloorModel(**{"name": "shrunk_mean", "adata": simulated, **options})

    values = {"name": [None, "nonsense", 5], "adata": ADATA, "split": SPLIT, **FIELDS, "nonsense": [1]}
    check(call, parameter, values[parameter])


@pytest.fixture(scope="module")
def tenx_folder(guide_screen: Any, written: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(guide_screen, "folder", tmp_path_factory.mktemp("tenx"))


@pytest.fixture
def guided(guide_screen: Any, simulated: ad.AnnData) -> ad.AnnData:
    """Cells with counts of guide RNAs, and without labels."""
    adata = guide_screen.genes.copy()
    adata.obs["low_umi"] = simulated.obs["low_umi"]
    adata.obsm["guides"], adata.uns["guides"] = guide_screen.guides, pd.DataFrame({"target": guide_screen.targets})
    return adata


@pytest.mark.parametrize(("name", "parameter", "values"), cases(FUNCTIONS))
def test_functions(
    name: str,
    parameter: str,
    values: list[Any],
    floor: cv.FloorModel,
    simulated: ad.AnnData,
    tenx_folder: Path,
    guided: ad.AnnData,
    tmp_path: Path,
) -> None:
    given: dict[str, Any] = {
        "split": {"adata": simulated},
        "annotate_qc": {"adata": simulated.copy(), "criteria": ["umi"]},
        "confounding_alarm": {"adata": simulated},
        "plant_artifacts": {"adata": simulated},
        "evaluate": {"model": floor, "adata": simulated},
        "to_cell_eval": {"model": floor, "adata": simulated, "folder": tmp_path / "new"},
        "benchmark": {"plan": {"data": [{"simulate": {"n_cells": 100}}], "models": ["zero"]}, "output": tmp_path / "b"},
        "reproduce": {"dataset": "norman", "output": tmp_path / "b"},
        "load": {"folder": tmp_path},
        "read_10x": {"path": tenx_folder},
        "open_cells": {"path": tenx_folder if parameter == "guide_targets" else tmp_path},
        "assign_guides": {"adata": guided},
        "effects_table": {"effects": floor.effects("A")},
        "guide_effects": {"adata": simulated, "guide_key": "perturbation"},
        "simulate": {"n_cells": 60, "n_genes": 20, "n_perturbations": 3, "n_combinations": 2},
    }

    def call(**options: Any) -> Any:
        return getattr(cv, name)(**{**given.get(name, {}), **options})

    check(call, parameter, values)


@pytest.mark.parametrize(("name", "parameter", "values"), cases(DATA))
def test_data_sets(name: str, parameter: str, values: list[Any], tmp_path: Path) -> None:
    given = {"name": "norman"} if name == "load" else {}
    given |= {"cache": tmp_path, "mirror": "http://127.0.0.1:9"}

    def call(**options: Any) -> Any:
        return getattr(cv.datasets, name)(**{**given, **options})

    check(call, parameter, values)


def test_nothing_public_is_left_out(model: cv.CradleVAE) -> None:
    functions = {name for name in cv.__all__ if inspect.isfunction(getattr(cv, name))}
    assert functions == set(FUNCTIONS)
    methods = {name for name, _ in inspect.getmembers(model, inspect.ismethod) if not name.startswith("_")}
    assert methods - set(INNER) == set(QUERIES)
    floors = {name for name, _ in inspect.getmembers(cv.FloorModel, inspect.isfunction) if not name.startswith("_")}
    assert floors == set(FLOOR)
    tables = [(getattr(cv, name), FUNCTIONS[name]) for name in functions]
    tables += [(getattr(model, name), QUERIES[name]) for name in QUERIES]
    tables += [(getattr(cv.FloorModel, name), FLOOR[name]) for name in FLOOR]
    for function, table in tables:
        assert set(inspect.signature(function).parameters) - {"self"} == set(table), function

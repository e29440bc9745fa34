"""The public names of the data folder: documented, with examples that run."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import pytest

import cradlevae as cv

PUBLIC = {
    "DataFields": cv.DataFields,
    "Split": cv.Split,
    "StoredCells": cv.StoredCells,
    "annotate_qc": cv.annotate_qc,
    "assign_guides": cv.assign_guides,
    "confounding_alarm": cv.confounding_alarm,
    "datasets.load": cv.datasets.load,
    "open_cells": cv.open_cells,
    "guide_effects": cv.guide_effects,
    "plant_artifacts": cv.plant_artifacts,
    "read_10x": cv.read_10x,
    "simulate": cv.simulate,
    "split": cv.split,
}


@pytest.mark.parametrize("name", PUBLIC)
def test_examples_run_and_errors_are_documented(name: str) -> None:
    public: Any = PUBLIC[name]
    text = inspect.getdoc(public) or ""
    assert "Raises\n------" in text
    examples = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert len(examples.examples) >= 3
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples, out=failures.append)
    assert not failures, "".join(failures)

"""Figures in a notebook: shown where they are the value of a cell, once, with and without pyplot."""

from __future__ import annotations

import warnings
from typing import Any

import nbformat
from nbclient import NotebookClient

MAKE = """
import anndata as ad, numpy as np
import cradlevae as cv
effects = ad.AnnData(np.array([[1.5, -0.2]]), layers={"lfsr": np.array([[0.001, 0.3]])})
"""
CELLS = (
    MAKE,
    "cv.pl.volcano(effects)",
    "figure = cv.pl.volcano(effects)",
    "import matplotlib.pyplot as plt",
    "cv.pl.volcano(effects)",
    "_, ax = plt.subplots()\ncv.pl.volcano(effects, ax=ax)",
    "figure",
)


def pictures(outputs: list[Any]) -> int:
    """Number of pictures that a cell shows."""
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_a_figure_is_shown_once_without_matplotlib_magic() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the machinery that runs notebooks
        NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    assert [pictures(cell.outputs) for cell in notebook.cells] == [0, 1, 0, 0, 1, 1, 1]
    data = notebook.cells[1].outputs[0]
    assert data["metadata"]["image/png"]["width"] == 402  # 85 mm at 120 pixels per inch

"""A small notebook, run by a kernel: bars end full, nothing warns, and objects show themselves as HTML."""

from __future__ import annotations

import copy
import pickle
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import cradlevae as cv

BLOCK = "import sys; sys.modules['ipywidgets'] = None"
"""What makes a kernel believe that widgets are not installed."""

CELLS = [
    "import warnings; warnings.simplefilter('always', UserWarning)",
    "import cradlevae as cv; from cradlevae.utils import progress; progress.PATIENCE = -1.0",
    "adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=2, n_latent=4, seed=0)\n"
    "report = cv.annotate_qc(adata, max_fail_share=1)",
    "split = cv.split(adata, seed=0); split",
    "model = cv.CradleVAE(adata, split=split, n_latent=4, width=16, basal_width=16)\n"
    "model.train(3, batch_size=64, accelerator='cpu')",
    "model",
    "floor = cv.FloorModel('shrunk_mean', adata, split=split); floor.train(); floor",
    "effects = model.effects(['A', 'B'], error=1.0); effects",
    "scores = cv.evaluate(model, adata, n_cells=20, denoiser=False)",
]


def run(cells: list[str]) -> list[list[dict[str, Any]]]:
    """Outputs of each cell, in the state in which the notebook leaves them."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra 'dev')")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


@pytest.mark.filterwarnings("ignore")  # what the client of another package warns of
@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook(widgets: bool) -> None:
    if widgets:
        pytest.importorskip("ipywidgets", reason="ipywidgets is not installed (extra 'dev')")
    outputs = run(CELLS if widgets else [BLOCK, *CELLS])[-len(CELLS) :]
    for cell, found in zip(CELLS, outputs, strict=True):
        for output in found:
            assert output["output_type"] in ("display_data", "execute_result"), (cell, output)
    bars = [output["data"] for found in outputs for output in found if output["output_type"] == "display_data"]
    assert any(bar["text/plain"].startswith("training: epoch 3/3, loss") for bar in bars)
    assert len(bars) > 2
    for bar in bars:
        done, total = re.findall(r'<progress value="(\d+)" max="(\d+)">', bar["text/html"])[0]
        assert done == total
        assert "took" in bar["text/plain"]
    results = [found[-1]["data"] for found in outputs if found and "execution_count" in found[-1]]
    for word, data in zip(("Split", "CradleVAE", "FloorModel"), results[:3], strict=True):
        assert word.lower() in data["text/html"].lower()
    assert results[3]["text/plain"].startswith("AnnData object")


class Balanced(HTMLParser):
    """Whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_what_objects_show_of_themselves(model: cv.CradleVAE, untrained: cv.CradleVAE, simulated: Any) -> None:
    floor = cv.FloorModel("zero", simulated, split=model.split)
    for shown, texts in (
        (model, ("60", "3 epochs", "artifact", "best val_loss")),
        (untrained, ("not trained",)),
        (model.split, ("combinations", "cells", model.split.hash[:12])),
        (floor, ("zero", "not trained")),
    ):
        text = shown._repr_html_()
        assert not Balanced(text).open
        for part in texts:
            assert part in text
    odd = cv.Split(model.split.parts, "<own>", 0)
    assert "&lt;own&gt;" in odd._repr_html_()


def test_copies_are_as_good_as_the_original(model: cv.CradleVAE, simulated: Any) -> None:
    floor = cv.FloorModel("shrunk_mean", simulated, split=model.split)
    floor.train()
    for original in (model, floor):
        expected = original.effects(["A"]).X
        for again in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
            np.testing.assert_array_equal(again.effects(["A"]).X, expected)
            assert again._repr_html_() == original._repr_html_()
    assert pickle.loads(pickle.dumps(model.split)).hash == copy.deepcopy(model.split).hash == model.split.hash

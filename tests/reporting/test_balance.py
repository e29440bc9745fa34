"""Figures of batches and contexts, and the report that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from matplotlib.figure import Figure

import cradlevae as cv
from cradlevae.data.experiment import DataFields, Experiment, read_experiment
from cradlevae.data.qc.balance import association, cells_lost, level_counts, perturbation_balance
from cradlevae.reporting.report import write_report
from cradlevae.reporting.screen.balance import MAX_ROWS, balance_figure, batches_figure, contexts_figure


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    adata = cv.simulate(
        n_cells=2000, n_genes=30, n_perturbations=5, n_combinations=0, n_latent=3, n_batches=4, batch_sd=0.4,
        confounding=0.7, n_contexts=2, seed=0,
    )  # fmt: skip
    adata.obs["artifact"] = adata.obs["true_artifact"]
    return adata


def read(adata: ad.AnnData, **fields: Any) -> Experiment:
    return read_experiment(adata, DataFields(**fields))


def caption(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


def ticks(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_without_batches_there_are_no_figures(adata: ad.AnnData) -> None:
    data = read(adata)
    assert [draw(data) for draw in (batches_figure, balance_figure, contexts_figure)] == [None] * 3


def test_batches_with_their_controls_and_differences(adata: ad.AnnData) -> None:
    figure = batches_figure(read(adata, batch_key="batch"))
    assert figure is not None
    assert sorted(ticks(figure)) == ["batch1", "batch2", "batch3", "batch4"]
    assert "4 batches: their controls differ by 0." in figure.get_suptitle()
    assert "No controls" not in caption(figure)
    heights = [bar.get_width() for bar in figure.axes[0].patches]
    assert sum(heights[:4]) == int((~adata.obs["artifact"].astype(bool)).sum())
    lacking = adata[~((adata.obs["batch"] == "batch2") & (adata.obs["perturbation"] == "control"))].copy()
    figure = batches_figure(read(lacking, batch_key="batch"))
    assert figure is not None
    assert "No controls in 'batch2'" in caption(figure)
    both = batches_figure(read(adata, batch_key="batch", covariate_keys=("context",)))
    assert both is not None
    assert "context: context1" in ticks(both)


def test_balance_gives_shares_and_the_cells_lost(adata: ad.AnnData) -> None:
    data = read(adata, batch_key="batch")
    figure = balance_figure(data)
    assert figure is not None
    assert data.batch is not None
    assert ticks(figure)[0] == "control"
    assert len(ticks(figure)) == 6
    assert f"cost {cells_lost(perturbation_balance(data)):.0%} of the cells" in figure.get_suptitle()
    assert f"V {association(level_counts(data, data.batch)):.2f}" in figure.get_suptitle()
    shares = [text.get_text() for text in figure.axes[0].texts]
    assert len(shares) == 6 * 4
    assert all(share.endswith("%") for share in shares)


def test_perturbations_that_cannot_be_measured_are_named(adata: ad.AnnData) -> None:
    lonely = (adata.obs["perturbation"] == "A") & (adata.obs["batch"] != "batch1")
    control = (adata.obs["perturbation"] == "control") & (adata.obs["batch"] == "batch1")
    figure = balance_figure(read(adata[~(lonely | control)].copy(), batch_key="batch"))
    assert figure is not None
    assert "so that no effect can be measured: 'A'." in caption(figure)


def test_many_perturbations_and_batches_are_cut() -> None:
    random = np.random.default_rng(0)
    labels = np.array(["control", *(f"p{place}" for place in range(60))])[random.integers(61, size=3000)]
    cells = ad.AnnData(random.poisson(2.0, size=(3000, 5)).astype(np.float32))
    cells.obs["perturbation"], cells.obs["artifact"] = labels, False
    cells.obs["lane"] = random.integers(50, size=3000).astype(str)
    data = read(cells, batch_key="lane")
    balance, batches = balance_figure(data), batches_figure(data)
    assert balance is not None
    assert batches is not None
    assert len(ticks(balance)) == MAX_ROWS + 1
    assert "Shown: the 40 most uneven of 60 perturbations" in caption(balance)
    assert not balance.axes[0].texts
    assert "Shown: the 40 largest of 50" in caption(batches)


def test_contexts_give_the_cells_of_each_pair(adata: ad.AnnData) -> None:
    figure = contexts_figure(read(adata, context_key="context"))
    assert figure is not None
    assert figure.get_suptitle() == "5 perturbations in 2 contexts: all pairs have cells"
    missing = (adata.obs["perturbation"] == "B") & (adata.obs["context"] == "context2")
    control = (adata.obs["perturbation"] == "control") & (adata.obs["context"] == "context2")
    figure = contexts_figure(read(adata[~(missing | control)].copy(), context_key="context"))
    assert figure is not None
    assert "1 of 10 pairs have no cell" in figure.get_suptitle()
    assert "Without controls, so that no effect can be measured in them: 'context2'" in caption(figure)
    assert "0" in [text.get_text() for text in figure.axes[0].texts]


def test_the_report_shows_batches_and_contexts(
    adata: ad.AnnData, tmp_path: Path, tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    model = cv.CradleVAE(
        adata, split=cv.split(adata, "cells"), batch_key="batch", context_key="context", **tiny_options
    )
    model.train(1, **quick)
    scores = cv.evaluate(model, adata, generated=False, truth=False)
    names = {path.name for path in write_report(model.trained, adata, scores, tmp_path)}
    assert {"batches.png", "balance.png", "contexts.png"} <= names
    page = (tmp_path / "report.html").read_text()
    for text in ("Sizes of batches", "Cells of perturbations", "cells lost to uneven batches", "not measured"):
        assert text in page

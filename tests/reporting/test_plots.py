"""The public figures: what they show of small and large inputs, whether they can be read, and who owns the axes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

import cradlevae as cv
from cradlevae.errors import DataError
from cradlevae.evaluation.evaluate import measured_effects_of
from cradlevae.reporting.cell_map import cell_map
from cradlevae.reporting.effects import effects_figure

SMALLEST = 6.0
"""Points below which text cannot be read on paper."""
LONG = "a-perturbation-whose-name-is-far-longer-than-any-column+and-another-of-that-kind"


# -- answers of the shapes that a model gives ----------------------------------------------------------------------


def effects(n: int = 6, genes: int = 50, seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    value = rng.standard_t(2, size=(n, genes)) * 0.3
    sd = np.full((n, genes), 0.2)
    names = [f"P{row}" for row in range(n)]
    names[-1] = LONG if n > 1 else names[-1]
    return ad.AnnData(
        value,
        obs=pd.DataFrame({"n_cells": np.arange(n) * 10}, index=names),
        var=pd.DataFrame(index=[f"GENE{gene}" for gene in range(genes)]),
        layers={
            "low": value - 1.6 * sd, "high": value + 1.6 * sd, "sd": sd, "mc_error": sd / 10,
            "lfsr": 0.5 * np.exp(-4 * np.abs(value)),
        },
    )  # fmt: skip


def expression(n: int = 6) -> pd.DataFrame:
    value = np.linspace(0.5, 3.0, n + 1)
    names = ["control", *(f"P{row}" for row in range(n))]
    names[-1] = LONG if n > 1 else names[-1]
    table = pd.DataFrame({"expression": value, "low": value - 0.2, "high": value + 0.3, "n_cells": 1000}, index=names)
    table.attrs["gene"] = "STAT1"
    return table


class Responders:
    """What ``responders`` returns."""

    def __init__(self, n: int = 6) -> None:
        share = np.linspace(0.2, 0.95, n)
        names = [f"P{row}" for row in range(n)]
        names[0:1] = [LONG][: min(n, 1)]
        self.shares = pd.DataFrame({"share": share, "low": share - 0.1, "high": share + 0.05, "n_cells": 80}, names)


def interactions(n: int = 30) -> ad.AnnData:
    rng = np.random.default_rng(0)
    kinds = np.array(["additive", "synergistic", "suppressive", "epistatic"])[np.arange(n) % 4]
    obs = pd.DataFrame(
        {
            "magnitude": rng.normal(1.4, 0.3, n), "similarity": rng.uniform(0.4, 1.0, n), "n_cells": 50,
            "measured": np.arange(n) % 3 > 0, "interaction": kinds,
            **{f"p_{kind}": np.where(kinds == kind, 0.7, 0.1) for kind in set(kinds)},
        },
        index=[f"GENE{row}+TARGET{row}" for row in range(n)],
    )  # fmt: skip
    return ad.AnnData(np.zeros((n, 4)), obs=obs)


def history(terms: int = 9) -> pd.DataFrame:
    fall = 100 + 400 * np.exp(-np.arange(40.0))
    table = pd.DataFrame({"epoch": np.arange(40), "train_loss": fall, "val_loss": fall + 1})
    return table.assign(**{f"{part}_term_{i}": fall / (i + 1) for i in range(terms) for part in ("train", "val")})


def scores() -> pd.DataFrame:
    floors = ["zero", "additive_hierarchical", "lowrank_shrunk_mean", "multivariate_shrunk_mean"]
    return pd.DataFrame(
        [
            {"reference": reference, "metric": metric, "predictor": name, "value": 0.1 * place, "low": 0.0, "high": 0.6,
             "ceiling": 0.95 if metric.startswith("ate") else np.nan}
            for reference in ("held-out passing cells", "held-out clean counts (truth)", "simulated truth")
            for metric in ("ate_rho", "ate_r2", "jaccard_20", "pearson_delta", "discrimination_l2")
            for place, name in enumerate([*floors, "model"])
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    """Cells of two batches and contexts, annotated; clean counts are a layer."""
    adata = cv.simulate(
        n_cells=900, n_genes=60, n_perturbations=4, n_combinations=2, n_interacting=0, n_batches=2, n_contexts=2, seed=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cv.annotate_qc(adata, criteria=["umi", "genes", "mito", "ribo", "haemo"], max_fail_share=1.0)
    return adata


def twins(adata: ad.AnnData) -> ad.AnnData:
    """Clean counts of the simulation in the shape of what ``clean`` returns."""
    obs = adata.obs.assign(failed_qc=adata.obs["artifact"], confounded=False)
    return ad.AnnData(sp.csr_matrix(adata.layers["clean"]), obs=obs, var=adata.var)


@pytest.fixture(scope="module")
def floor(screen: ad.AnnData) -> cv.FloorModel:
    model = cv.FloorModel("shrunk_mean", screen, split=cv.split(screen, "cells", seed=0))
    model.train()
    return model


@pytest.fixture(scope="module")
def drawn(screen: ad.AnnData, floor: cv.FloorModel) -> dict[str, Figure]:
    """Every figure of several panels or one, of inputs with long names and many rows."""
    return {
        "volcano": cv.pl.volcano(effects(), LONG),
        "effect_heatmap": cv.pl.effect_heatmap(effects(12)),
        "effect_heatmap of many": cv.pl.effect_heatmap(effects(400, 120), n_genes=100),
        "expression": cv.pl.expression(expression()),
        "expression of many": cv.pl.expression(expression(300)),
        "responders": cv.pl.responders(Responders()),
        "responders of many": cv.pl.responders(Responders(300)),
        "interactions": cv.pl.interactions(interactions()),
        "interactions of many": cv.pl.interactions(interactions(600)),
        "training": cv.pl.training(history()),
        "scores": cv.pl.scores(scores()),
        "qc": cv.pl.qc(screen),
        "confounding": cv.pl.confounding(cv.confounding_alarm(screen)),
        "cleaned": cv.pl.cleaned(screen, twins(screen)),
        "given axes": two_of_one(),
        "cleaned without labels": cv.pl.cleaned(screen, twins(screen), perturbation_key=None),
        "effects": cv.pl.effects(floor, screen),
        "batches": cv.pl.batches(screen, batch_key="batch"),
        "balance": cv.pl.balance(screen, batch_key="batch"),
        "contexts": cv.pl.contexts(screen, context_key="context"),
    }


def two_of_one() -> Figure:
    """A user's figure with two of ours in it."""
    figure = Figure(figsize=(180 / 25.4, 3.4), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    cv.pl.responders(Responders(12), ax=left)
    cv.pl.interactions(interactions(30), ax=right)
    return figure


# -- legible on paper ------------------------------------------------------------------------------------------------


def written(figure: Figure) -> list[Text]:
    """All text that is seen."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    hidden = [label for ax in figure.findobj(Axes) for axis in (ax.xaxis, ax.yaxis) for label in _unseen(ax, axis)]
    return [text for text in texts if text not in hidden]


def _unseen(ax: Any, axis: Any) -> list[Text]:
    """Tick labels that are outside the limits, or of axes that are off."""
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    slack = 1e-6 * (high - low)
    lost = [tick for tick in ticks if not ax.axison or not low - slack <= tick.get_loc() <= high + slack]
    off = [label for tick in ticks for label in (tick.label1, tick.label2) if not label.get_visible()]
    return [label for tick in lost for label in (tick.label1, tick.label2)] + off


def box(text: Text) -> Any:
    """Place of the letters, without lines to what they name, in pixels."""
    return Text.get_window_extent(text, text.figure.figure.canvas.get_renderer())


def test_text_is_large_enough_inside_the_figure_and_not_overprinted(drawn: dict[str, Figure]) -> None:
    wrong = []
    for name, figure in drawn.items():
        texts = written(figure)
        boxes = [box(text) for text in texts]
        frame = figure.bbox
        for place, (text, own) in enumerate(zip(texts, boxes, strict=True)):
            if text.get_fontsize() < SMALLEST:
                wrong.append(f"{name}: {text.get_text()!r} has {text.get_fontsize()} points")
            if own.x0 < -2 or own.y0 < -2 or own.x1 > frame.x1 + 2 or own.y1 > frame.y1 + 2:
                wrong.append(f"{name}: {text.get_text()!r} leaves the figure")
            for other, theirs in zip(texts[:place], boxes[:place], strict=True):
                width = min(own.x1, theirs.x1) - max(own.x0, theirs.x0)
                height = min(own.y1, theirs.y1) - max(own.y0, theirs.y0)
                if width > 2 and height > 2:
                    wrong.append(f"{name}: {text.get_text()!r} over {other.get_text()!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["volcano", "interactions", "interactions of many", "effects"])
def test_names_cover_no_point(drawn: dict[str, Figure], name: str) -> None:
    figure = drawn[name]
    figure.canvas.draw()
    n_named = 0
    for ax in figure.axes:
        points = [
            ax.transData.transform(np.ma.getdata(dots.get_offsets()))
            for dots in ax.collections
            if isinstance(dots, PathCollection) and len(dots.get_offsets())
        ]
        places = np.concatenate(points)
        for text in ax.texts:
            own = box(text)
            n_named += 1
            inside = ((places > own.min) & (places < own.max)).all(axis=1)
            assert not inside.any(), text.get_text()
    assert n_named >= (1 if name == "interactions of many" else 3)


def test_figures_have_the_width_of_one_column_or_two(drawn: dict[str, Figure]) -> None:
    for name, figure in drawn.items():
        width, height = 25.4 * figure.get_size_inches()
        assert width <= 180.001, name
        assert height <= 247, name  # a page
    assert 25.4 * drawn["volcano"].get_figwidth() == pytest.approx(85)


# -- axes of the user ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: cv.pl.volcano(effects(), "P1", ax=ax),
        lambda ax: cv.pl.expression(expression(), ax=ax),
        lambda ax: cv.pl.responders(Responders(), ax=ax),
        lambda ax: cv.pl.interactions(interactions(), ax=ax),
        lambda ax: cv.pl.confounding(cv.confounding_alarm(_plain()), ax=ax),
    ],
    ids=["volcano", "expression", "responders", "interactions", "confounding"],
)
def test_axes_that_are_given_are_drawn_into_and_returned(draw: Callable[[Any], Any]) -> None:
    figure = Figure(figsize=(8, 3))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    assert draw(right) is right
    assert figure.axes == [left, right]
    assert right.has_data()
    assert not left.has_data()
    assert figure.get_suptitle() == ""
    with pytest.raises(DataError, match="ax is 'left'"):
        draw("left")


def _plain() -> ad.AnnData:
    adata = cv.simulate(n_cells=200, n_genes=20, n_perturbations=3, n_combinations=0, seed=0)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    return adata


# -- what they show --------------------------------------------------------------------------------------------------


def test_volcano_counts_called_genes_names_them_and_their_target() -> None:
    table = ad.AnnData(
        np.array([[2.0, -1.0, 0.5, 0.01]]), layers={"lfsr": np.array([[1e-30, 0.01, 0.2, 0.5]])},
        obs=pd.DataFrame({"n_cells": [0]}, index=["A+B"]), var=pd.DataFrame(index=["up", "down", "none", "B"]),
    )  # fmt: skip
    figure = cv.pl.volcano(table)
    assert figure.get_suptitle() == "A+B: 1 gene up, 1 down"
    assert {text.get_text() for text in figure.axes[0].texts} == {"up", "down", "B"}
    caption = " ".join(figure.get_supxlabel().split())
    assert caption.startswith("Unseen: no training cells.")
    assert "Triangles: rates below 1e-20." in caption
    assert cv.pl.volcano(table, lfsr=0.005).get_suptitle() == "A+B: 1 gene up, 0 down"
    assert not cv.pl.volcano(table, n_labels=0).axes[0].texts


def test_volcano_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(DataError, match="the effects have 6 rows; name one"):
        cv.pl.volcano(effects())
    with pytest.raises(DataError, match="'P11', which is not among the effects"):
        cv.pl.volcano(effects(), "P11")
    without = effects()
    del without.layers["lfsr"]
    with pytest.raises(DataError, match="no layer 'lfsr'"):
        cv.pl.volcano(without, "P1")
    with pytest.raises(DataError, match="there is nothing"):
        cv.pl.volcano(effects()[:0], "P1")


def test_heatmap_lays_like_conditions_side_by_side() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(3, 30))
    value = np.repeat(kinds, 5, axis=0) + 0.01 * rng.normal(size=(15, 30))
    order = rng.permutation(15)
    names = np.repeat(["a", "b", "c"], 5)[order]
    table = ad.AnnData(
        value[order], layers={"lfsr": np.full((15, 30), 0.01)},
        obs=pd.DataFrame(index=[f"{name}{row}" for row, name in enumerate(names)]),
    )  # fmt: skip
    figure = cv.pl.effect_heatmap(table)
    rows = "".join(label.get_text()[0] for label in figure.axes[2].get_yticklabels())
    assert rows in {"".join(5 * kind for kind in order) for order in ("abc", "acb", "bac", "bca", "cab", "cba")}


def test_heatmap_of_what_was_asked_for_and_of_one_row() -> None:
    figure = cv.pl.effect_heatmap(effects(), perturbations=["P1", "P3"], genes=["GENE7", "GENE1", "GENE2"])
    assert sorted(label.get_text() for label in figure.axes[2].get_yticklabels()) == ["P1 (10)", "P3 (30)"]
    assert sorted(label.get_text() for label in figure.axes[2].get_xticklabels()) == ["GENE1", "GENE2", "GENE7"]
    cv.pl.effect_heatmap(effects(1)).canvas.draw()
    with pytest.raises(DataError, match="'P9' is not among the effects"):
        cv.pl.effect_heatmap(effects(), perturbations="P9")


def test_heatmap_of_many_conditions_names_those_with_room() -> None:
    figure = cv.pl.effect_heatmap(effects(2500, 40))
    assert "2,000 of 2,500 conditions" in figure.get_suptitle()
    assert 20 < len(figure.axes[2].get_yticklabels()) < 80
    assert figure.axes[2].images[0].get_array().shape == (2000, 40)


def test_expression_is_sorted_below_the_control_with_cells_and_coloured_where_it_differs() -> None:
    table = pd.DataFrame(
        {"expression": [1.0, 0.2, 3.0, 1.1], "low": [0.9, 0.1, 2.0, 0.5], "high": [1.1, 0.4, 4.0, 1.6], "n_cells": 50},
        index=["control", "less", "more", "same"],
    )
    figure = cv.pl.expression(table, "STAT1")
    assert figure.get_suptitle() == "STAT1: up in 1, down in 1 of 3\nperturbations"
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["control", "more", "same", "less"]
    assert [label.get_text() for label in ax.child_axes[0].get_yticklabels()] == ["n = 50"] * 4
    colours = [tuple(colour) for colour in ax.collections[-1].get_facecolors()]
    assert len(set(colours)) == 4  # control, up, unclear, down
    cv.pl.expression(table.iloc[:1]).canvas.draw()
    with pytest.raises(DataError, match="no row"):
        cv.pl.expression(table.iloc[:0])


def test_responders_of_a_table_none_and_one() -> None:
    assert cv.pl.responders(Responders(1)).get_suptitle() == "Responding cells: 20% of one\nperturbation's"
    assert "there is no perturbation" in [text.get_text() for text in cv.pl.responders(Responders(0)).axes[0].texts]
    with pytest.raises(DataError, match="give what model"):
        cv.pl.responders(5)


def test_interactions_tell_classes_and_what_was_measured() -> None:
    figure = cv.pl.interactions(interactions(8))
    labels = sorted(text.get_text() for text in figure.axes[0].get_legend().get_texts())
    assert labels == ["additive (2)", "epistatic (2)", "suppressive (2)", "synergistic (2)"]
    assert "Hollow" in figure.get_supxlabel()
    without = interactions(3)
    without.obs["magnitude"] = np.nan
    assert "no pair has a fit" in cv.pl.interactions(without).axes[0].texts[0].get_text()
    with pytest.raises(DataError, match=r"no obs\['similarity'\]"):
        cv.pl.interactions(ad.AnnData(np.zeros((1, 1)), obs=pd.DataFrame({"magnitude": [1.0]}, index=["A+B"])))


def test_effects_are_drawn_where_they_are_measured_best() -> None:
    rng = np.random.default_rng(0)
    n_cells = np.array([5.0] * 10 + [500.0] * 3)
    truth = np.where(np.arange(13) < 10, 0.0, 0.5)[:, None] * rng.normal(size=(13, 40))
    error = np.repeat(1 / np.sqrt(n_cells), 40).reshape(13, 40)
    measured = ad.AnnData(
        truth + error * rng.normal(size=error.shape), layers={"standard_error": error},
        obs=pd.DataFrame({"n_cells": n_cells}, index=[f"P{row}" for row in range(13)]),
    )  # fmt: skip
    predicted = ad.AnnData(truth, obs=measured.obs[[]], var=measured.var)
    figure = effects_figure(measured, predicted)
    first = {ax.get_title(loc="left").split(" (n")[0] for ax in figure.axes[:3]}
    assert first == {"P10", "P11", "P12"}
    assert "(n = 500)" in figure.axes[0].get_title(loc="left")
    assert "95 % intervals of the measurement" in " ".join(figure.get_supxlabel().split())


def test_effects_of_a_model_are_those_measured_with_their_errors(screen: ad.AnnData, floor: cv.FloorModel) -> None:
    measured = measured_effects_of(floor.trained, screen)
    assert (measured.layers["standard_error"] > 0).any()
    assert (measured.obs["n_cells"] >= 2).all()
    name = str(measured.obs_names[0])
    figure = cv.pl.effects(floor, screen, perturbations=name)
    assert len(figure.axes) == 1
    with pytest.raises(DataError, match="perturbations: 'nobody' is not among those measured"):
        cv.pl.effects(floor, screen, perturbations=["nobody"])
    with pytest.raises(DataError, match="must be a trained model or a floor"):
        cv.pl.effects(5, screen)


def test_qc_shows_few_failing_cells_far_away(screen: ad.AnnData) -> None:
    adata = screen.copy()
    adata.obs["qc_pct_haemo"] = 0.5 * np.arange(adata.n_obs) / adata.n_obs
    adata.obs["qc_haemo"] = False
    adata.obs.iloc[0, adata.obs.columns.get_loc("qc_pct_haemo")] = 80.0
    adata.obs.iloc[0, adata.obs.columns.get_loc("qc_haemo")] = True
    ax = cv.pl.qc(adata).axes[4]
    bars = [bar for bars in ax.containers for bar in bars if bar.get_height() > 0]
    last = max(bars, key=lambda bar: bar.get_x())
    assert last.get_x() <= 80.0 <= last.get_x() + last.get_width()  # where it is, and not in a bin of all that is far
    frame = ax.get_ylim()
    assert np.log(last.get_height() / frame[0]) / np.log(frame[1] / frame[0]) > 0.04


def test_cleaned_colours_the_perturbations_that_stand_out(screen: ad.AnnData) -> None:
    figure = cv.pl.cleaned(screen, twins(screen), perturbations=["A", "B"])
    legend = next(ax.get_legend() for ax in figure.axes if not ax.axison)
    failed = screen.obs.loc[screen.obs["artifact"].astype(bool), "perturbation"].astype(str)
    wanted = [f"{name} ({int((failed == name).sum()):,})" for name in ("A", "B")]
    assert [text.get_text() for text in legend.get_texts()] == [*wanted, "others"]
    with pytest.raises(DataError, match="no cell drawn is labelled 'nobody'"):
        cv.pl.cleaned(screen, twins(screen), perturbations="nobody")
    cells = cell_map(screen, twins(screen), "perturbation", "artifact", None)
    middle = np.array([np.linalg.norm(cells.passing[cells.passing_labels == name].mean(axis=0)) for name in "AB"])
    assert len(cells.distinct(2)) == 2
    assert middle.min() > 0


def test_cleaned_as_umap(screen: ad.AnnData) -> None:
    part = screen[:300].copy()
    figure = cv.pl.cleaned(part, twins(part), basis="umap")
    assert figure.axes[0].get_xlabel() == "UMAP 1"
    assert "UMAP of these" in " ".join(figure.get_supxlabel().split())
    with pytest.raises(DataError, match="basis is 'tsne'; choose one of pca, umap"):
        cv.pl.cleaned(part, twins(part), basis="tsne")  # type: ignore[arg-type]


def test_strata_that_are_not_there_are_said(screen: ad.AnnData) -> None:
    for draw, option in (
        (cv.pl.batches, "batch_key="),
        (cv.pl.balance, "batch_key="),
        (cv.pl.contexts, "context_key="),
    ):
        with pytest.raises(DataError, match=f"name their column with {option}"):
            draw(screen)


def test_training_takes_a_model_or_its_history_and_its_panels_are_equal() -> None:
    class Trained:
        history = history(5)

    figure = cv.pl.training(Trained())
    figure.canvas.draw()
    sizes = [ax.get_position().size for ax in figure.axes]
    assert len(sizes) == 6
    np.testing.assert_allclose(sizes, [sizes[0]] * 6, rtol=0.02)
    with pytest.raises(DataError, match="give a trained model, or its history"):
        cv.pl.training(5)


def test_names_are_listed_and_others_refused() -> None:
    assert set(cv.pl.__all__) <= set(dir(cv.pl))
    for name in cv.pl.__all__:
        function = getattr(cv.pl, name)
        assert function.__name__ == name
        assert "Returns" in function.__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        cv.pl.nonsense  # noqa: B018

"""Every figure on small inputs: the panels and numbers it must show, and what may be absent."""

from __future__ import annotations

import sys
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.figure import Figure
from matplotlib.text import Text

import cradlevae as cv
from cradlevae.data.qc.confounding import confounding_test
from cradlevae.errors import DataError
from cradlevae.reporting.cleaned import passing_distances
from cradlevae.reporting.figures import (
    cleaned_figure,
    confounding_figure,
    damage_figure,
    effects_figure,
    qc_figure,
    save_figure,
    scores_figure,
    signature_figure,
    training_figure,
)
from cradlevae.reporting.labels import label_points, settle
from cradlevae.reporting.style import panels, percent


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes]


def texts(figure: Figure) -> str:
    """All that is written in the panels, besides titles and axes."""
    return " ".join(text.get_text() for ax in figure.axes for text in ax.texts)


def caption(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


@pytest.fixture(scope="module")
def annotated() -> ad.AnnData:
    adata = cv.simulate(n_cells=600, n_genes=80, n_perturbations=4, n_combinations=2, n_interacting=0, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cv.annotate_qc(adata, criteria=["umi", "genes", "mito", "ribo", "haemo"], max_fail_share=1.0)
    return adata


# -- quality control ---------------------------------------------------------------------------------------------


def test_qc_panels_give_shares_thresholds_and_reasons(annotated):
    figure = qc_figure(annotated)
    assert len(figure.axes) == 6
    share = annotated.obs["qc_umi"].mean()
    assert titles(figure)[0] == f"UMI counts: {share:.1%} fail"
    threshold = annotated.uns["cradlevae_qc"]["criteria"]["mito"]["threshold"][0]
    assert [line.get_xdata()[0] for line in figure.axes[2].lines] == [threshold]
    assert titles(figure)[5] == "Predicted doublets"
    assert "not assessed: switched off" in texts(figure)
    assert f"{annotated.obs['artifact'].mean():.1%} of 600 cells" in figure.get_suptitle()


def test_qc_histograms_hold_every_cell_and_keep_failing_apart(annotated):
    ax = qc_figure(annotated).axes[2]
    passing, failing = (sum(patch.get_height() for patch in bars) for bars in ax.containers)
    assert passing == (~annotated.obs["qc_mito"]).sum()
    assert failing == annotated.obs["qc_mito"].sum()


def test_qc_by_batch_draws_a_threshold_of_each(annotated):
    adata = annotated.copy()
    adata.obs["batch"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    cv.annotate_qc(adata, criteria=["umi"], batch_key="batch", max_fail_share=1.0)
    assert len(qc_figure(adata).axes[0].lines) == 2


def test_qc_threshold_below_one_count_and_lost_columns_are_said(annotated):
    adata = annotated.copy()
    adata.uns["cradlevae_qc"]["criteria"]["umi"]["threshold"] = np.array([-5.0])
    adata.obs = adata.obs.drop(columns=["qc_n_genes", "qc_mito"])
    figure = qc_figure(adata)
    assert len(figure.axes[0].lines) == 0
    assert "threshold below 1" in texts(figure)
    assert "no column 'qc_n_genes'" in texts(figure)


def test_qc_thresholds_on_the_log_scale_are_drawn_and_said(annotated):
    adata = annotated.copy()
    dense = adata.X.toarray()
    dense[::2] = np.ceil(dense[::2] / 8)
    adata.X = sp.csr_matrix(dense)
    report = cv.annotate_qc(adata, criteria=["umi"], n_mads=5.0, max_fail_share=1.0).set_index("criterion")
    assert report.loc["umi", "note"] == "threshold on the log scale"
    figure = qc_figure(adata)
    assert "on the log scale" in texts(figure)
    assert len(figure.axes[0].lines) == (report.loc["umi", "threshold"] > 0)


def test_qc_of_identical_cells(annotated):
    adata = annotated.copy()
    adata.obs["qc_pct_haemo"] = 0.0
    adata.obs["qc_total_counts"] = 7.0
    settle(qc_figure(adata))


def test_qc_without_annotation_is_refused():
    with pytest.raises(DataError, match="run annotate_qc first"):
        qc_figure(ad.AnnData(np.ones((3, 2), dtype=np.float32)))


# -- training ----------------------------------------------------------------------------------------------------


def history(n: int = 60, validation: bool = True) -> pd.DataFrame:
    fall = 100 + 400 * np.exp(-np.arange(n))
    table = pd.DataFrame({"epoch": np.arange(n), "train_loss": fall, "train_reconstruction": fall, "train_mask": 1.0})
    if validation:
        loss = fall + 0.1 * (np.arange(n) - 20.0) ** 2
        table["val_loss"], table["val_reconstruction"] = loss, loss
    table["seconds"] = 2.0
    return table


def test_training_marks_the_best_epoch():
    table = history()
    figure = training_figure(table)
    assert titles(figure) == ["Loss", "Reconstruction", "Mask (KL)"]
    best = int(table["val_loss"].idxmin())
    assert f"at epoch {best}" in figure.get_suptitle()
    assert "60 epochs in 120 s" in figure.get_suptitle() or "60 epochs in 2 min" in figure.get_suptitle()
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["training", "validation", "best epoch"]


def test_training_of_a_long_run_leaves_out_the_first_fall_and_says_so():
    figure = training_figure(history())
    assert figure.axes[0].get_ylim()[1] < 400
    assert "first epochs lie above the frame" in caption(figure)
    short = training_figure(history(8))
    assert short.axes[0].get_ylim()[1] > 400
    assert "above the frame" not in caption(short)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_training_without_validation(n):
    figure = training_figure(history(n, validation=False))
    assert "no validation cells" in figure.get_suptitle()
    assert len(figure.axes[0].lines) == 1
    settle(figure)


def test_training_with_missing_values_and_unknown_terms():
    table = history(10).assign(train_my_term=2.0, train_nothing=0.0)
    table.loc[3, ["train_loss", "val_loss"]] = np.nan
    figure = training_figure(table.drop(columns=["seconds", "epoch"]))
    assert titles(figure)[-1] == "My term"
    settle(figure)
    training_figure(table.assign(val_loss=np.nan))


def test_training_without_an_epoch_is_refused():
    with pytest.raises(DataError, match="holds no epoch"):
        training_figure(pd.DataFrame())


# -- effects -----------------------------------------------------------------------------------------------------


def effect_tables(n: int, n_genes: int = 30) -> tuple[pd.DataFrame, ad.AnnData]:
    rng = np.random.default_rng(0)
    names, genes = [f"P{i}" for i in range(n)], [f"gene${i}" for i in range(n_genes)]
    measured = rng.normal(size=(n, n_genes)) * np.arange(1, n + 1)[:, None]
    predicted = (0.5 * measured).astype(np.float32)
    return pd.DataFrame(measured, index=names, columns=genes), ad.AnnData(
        predicted,
        obs=pd.DataFrame(index=names),
        var=pd.DataFrame(index=genes),
        layers={"low": predicted - 0.2, "high": predicted + 0.2},
        uns={"effects": {"scale": "perturbseq", "credible": 0.9}},
    )


@pytest.mark.parametrize(("n", "shown"), [(1, 1), (2, 2), (4, 4), (12, 9)])
def test_effects_shows_the_largest_first(n, shown):
    measured, predicted = effect_tables(n)
    figure = effects_figure(measured, predicted)
    assert len(figure.axes) == shown
    assert titles(figure)[0] == f"P{n - 1}   r = 1.00"
    assert ("largest of 12 conditions" in figure.get_suptitle()) == (n == 12)
    assert "90% credible intervals" in caption(figure)


def test_effects_names_the_five_genes_of_largest_effect():
    measured, predicted = effect_tables(3)
    ax = effects_figure(measured, predicted).axes[0]
    largest = measured.loc["P2"].abs().nlargest(5).index
    assert {text.get_text() for text in ax.texts} == set(largest)


def test_effects_matches_by_name_and_takes_an_anndata_and_no_intervals():
    measured, predicted = effect_tables(3)
    del predicted.layers["low"], predicted.layers["high"], predicted.uns["effects"]
    shuffled = measured.iloc[::-1, ::-1]
    as_anndata = ad.AnnData(
        sp.csr_matrix(shuffled.to_numpy()),
        obs=pd.DataFrame(index=shuffled.index),
        var=pd.DataFrame(index=shuffled.columns),
    )
    figure = effects_figure(as_anndata, predicted)
    assert titles(figure) == ["P2   r = 1.00", "P1   r = 1.00", "P0   r = 1.00"]
    assert "credible" not in caption(figure)


def test_effects_with_missing_and_constant_values():
    measured, predicted = effect_tables(3)
    measured.loc["P0"] = np.nan
    measured.loc["P1", "gene$0"] = np.nan
    predicted.X[2] = 0.0
    figure = effects_figure(measured, predicted)
    assert titles(figure) == ["P2   r = 0.00", "P1   r = 1.00"]


def test_effects_without_common_names_are_refused():
    measured, predicted = effect_tables(2)
    with pytest.raises(DataError, match="no gene in common"):
        effects_figure(measured.rename(columns=lambda name: f"x{name}"), predicted)
    with pytest.raises(DataError, match="no condition in common"):
        effects_figure(measured.rename(index=lambda name: f"x{name}"), predicted)


# -- cleaned cells -----------------------------------------------------------------------------------------------


def cleaned_of(adata: ad.AnnData) -> ad.AnnData:
    """Clean counts of the simulation in the shape of what ``clean`` returns."""
    return ad.AnnData(
        sp.csr_matrix(adata.layers["clean"]),
        obs=adata.obs.assign(failed_qc=adata.obs["artifact"], confounded=False),
        var=adata.var,
    )


def medians(figure: Figure) -> dict[str, float]:
    entries = [text.get_text() for text in figure.axes[2].get_legend().get_texts()]
    return {name: float(value) for name, value in (entry.split(": median ") for entry in entries)}


def test_cleaned_true_clean_counts_lie_with_the_passing_cells(annotated):
    figure = cleaned_figure(annotated, cleaned_of(annotated))
    n = int(annotated.obs["artifact"].sum())
    assert titles(figure)[0] == f"{n:,} failed cells as measured"
    found = medians(figure)
    assert found["cleaned"] < found["failed"]
    assert "expected counts are smoother than any real cell" in caption(figure)
    assert "may be biology" not in caption(figure)


def test_cleaned_matches_cells_and_genes_by_name(annotated):
    after = cleaned_of(annotated)
    failed, genes = np.flatnonzero(after.obs["failed_qc"])[::-1], list(after.var_names[::-1])
    after = after[failed][:, genes].copy()
    after.obs["confounded"] = True
    figure = cleaned_figure(annotated, after)
    assert medians(figure) == medians(cleaned_figure(annotated, cleaned_of(annotated)))
    assert "may be biology" in caption(figure)


def test_cleaned_without_perturbations_or_failed_cells(annotated):
    after = cleaned_of(annotated)
    assert len(medians(cleaned_figure(annotated, after, perturbation_key=None))) == 3
    none = annotated.copy()
    none.obs["artifact"] = False
    figure = cleaned_figure(none, cleaned_of(none))
    assert "no failed cell" in texts(figure)


def test_cleaned_refuses_what_does_not_fit(annotated):
    after = cleaned_of(annotated)
    with pytest.raises(DataError, match="no column 'guide'"):
        cleaned_figure(annotated, after, perturbation_key="guide")
    with pytest.raises(DataError, match="give what clean returns"):
        cleaned_figure(annotated, annotated)
    with pytest.raises(DataError, match="is not among the genes"):
        cleaned_figure(annotated[:, 1:], after)
    everyone = annotated.copy()
    everyone.obs["artifact"] = True
    with pytest.raises(DataError, match="at least three"):
        cleaned_figure(everyone, after)


def test_distances_against_a_plain_loop():
    rng = np.random.default_rng(0)
    passing, failed = rng.normal(size=(9, 3)), rng.normal(size=(5, 3))
    labels = np.array(list("aaaabbbbc"), dtype=object)
    wanted = np.array(list("abbxc"), dtype=object)
    own, distance = passing_distances(passing, labels, (failed,), wanted)
    expected = []
    for cell in range(8):  # the only c has no others to compare with
        others = (labels == labels[cell]) & (np.arange(9) != cell)
        expected.append(np.linalg.norm(passing[cell] - passing[others].mean(axis=0)))
    np.testing.assert_allclose(own, expected)
    known = [row for row in range(5) if wanted[row] != "x"]
    np.testing.assert_allclose(
        distance, [np.linalg.norm(failed[row] - passing[labels == wanted[row]].mean(axis=0)) for row in known]
    )


# -- scores ------------------------------------------------------------------------------------------------------


def scores(references: tuple[str, ...] = ("held-out",)) -> pd.DataFrame:
    values = {"zero": 0.0, "shrunk_mean": 0.5, "bad$floor": -3.0, "silent": np.nan, "model": 0.6}
    return pd.DataFrame(
        [
            {
                "reference": reference, "metric": metric, "predictor": predictor, "value": value,
                "low": value - 0.1, "high": value + 0.1, "ceiling": 0.8 if metric == "ate_rho" else np.nan, "note": "",
            }
            for reference in references
            for metric in ("ate_rho", "ate_r2", "jaccard_20", "pearson_delta", "discrimination_l2", "mse_delta")
            for predictor, value in values.items()
        ]
    )  # fmt: skip


@pytest.mark.parametrize("references", [("held-out",), ("held-out", "clean truth")])
def test_scores_panels_and_order(references):
    figure = scores_figure(scores(references))
    assert len(figure.axes) == 5 * len(references)
    assert titles(figure)[:5] == ["ATE-ρ", "ATE-R²", "Jaccard@20", "Pearson-Δ", "Discrimination"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["bad$floor", "zero", "shrunk mean", "model"]
    assert "cannot answer: silent" in caption(figure)
    assert "−3.0" in texts(figure)  # far below the axis, its value is written
    assert "0.80" in texts(figure)  # the ceiling


def test_scores_with_the_least_columns():
    table = scores()[["metric", "predictor", "value"]]
    figure = scores_figure(table[table["metric"] == "ate_r2"])
    assert titles(figure) == ["ATE-R²"]
    settle(figure)


def test_scores_say_what_their_notes_say_and_tell_protocols_apart():
    table = scores().assign(note="reference contains training cells, as published")
    published = table[table["predictor"] == "model"].assign(predictor="model (published protocol)", value=0.9)
    figure = scores_figure(pd.concat([table, published]))
    assert "reference contains training cells" in caption(figure)
    assert "Hollow" in caption(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-2:] == [
        "model (published protocol)",
        "model",
    ]
    best = [line for line in figure.axes[0].lines if list(line.get_ydata()) == [0, 1]]
    assert best[0].get_xdata()[0] == 0.5  # the best floor, not the other protocol


def test_scores_draw_the_interval_of_the_ceiling():
    plain = scores()
    band = {"reference": "held-out", "metric": "attainable_rho", "predictor": "ceiling", "value": 0.8}
    with_band = pd.concat([plain, pd.DataFrame([band | {"low": 0.7, "high": 0.85}])], ignore_index=True)
    count = [len(scores_figure(table).axes[0].patches) for table in (plain, with_band)]
    assert count == [0, 1]


def test_scores_without_a_main_metric_are_refused():
    with pytest.raises(DataError, match="none of the main metrics"):
        scores_figure(scores().query("metric == 'mse_delta'"))
    with pytest.raises(DataError, match="no column 'value'"):
        scores_figure(scores().drop(columns="value"))


# -- artifact signature ------------------------------------------------------------------------------------------


def signature(criteria: int = 1, n: int = 40) -> pd.DataFrame:
    fold = np.linspace(-2, 2, n)
    block = pd.DataFrame(
        {"log2_fold_change": fold, "low": fold - 0.5, "high": fold + 0.5, "share": np.geomspace(1e-6, 1e-1, n)},
        index=pd.Index([f"g{i}" for i in range(n)], name="gene"),
    )
    return pd.concat([block.assign(criterion=f"qc_{i}") for i in range(criteria)])


@pytest.mark.parametrize("criteria", [1, 2, 6])
def test_signature_has_a_panel_per_criterion(criteria):
    table = signature(criteria)
    figure = signature_figure(table)
    up = int((table["low"] > 0).sum()) // criteria
    assert titles(figure) == [f"qc_{i}: {up} up, {up} down" for i in range(criteria)]
    named = {text.get_text() for text in figure.axes[0].texts}
    assert {"g0", "g39"} <= named
    assert len(named) == (12 if criteria < 3 else 6)


def test_signature_names_what_is_sure_before_what_is_large():
    table = signature()
    table.loc["g39", ["low", "high"]] = [-3.0, 7.0]
    named = {text.get_text() for text in signature_figure(table).axes[0].texts}
    assert "g39" not in named
    assert "g38" in named


def test_signature_with_missing_values_and_the_least_columns():
    table = signature()[["log2_fold_change", "share"]]
    table.iloc[:3, 0] = np.nan
    table.iloc[3, 1] = 0.0
    figure = signature_figure(table)
    assert titles(figure) == ["artifact: 40 genes"]
    settle(figure)
    nothing = signature_figure(table.assign(log2_fold_change=np.nan))
    assert "no gene has a fold change" in texts(nothing)
    settle(nothing)


def test_signature_without_its_columns_is_refused():
    with pytest.raises(DataError, match="no column 'share'"):
        signature_figure(signature().drop(columns="share"))
    with pytest.raises(DataError, match="no gene"):
        signature_figure(signature().iloc[:0])


# -- confounding -------------------------------------------------------------------------------------------------


def alarm(n: int, hot: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    names = ["control", *(f"P${i}" for i in range(n))]
    codes = np.repeat(np.arange(n + 1), 100)
    rate = np.where((codes > 0) & (codes <= hot), 0.9, 0.2)
    return confounding_test(codes, names, rng.random(len(codes)) < rate)


def test_confounding_sorts_flags_and_counts():
    table = alarm(5, hot=1)
    figure = confounding_figure(table)
    ax = figure.axes[0]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == list(table.sort_values("log_odds", ascending=False)["perturbation"])
    assert names[0] == "P$0"
    assert ax.get_yticklabels()[-1].get_color() != ax.get_yticklabels()[0].get_color()
    assert figure.get_suptitle().startswith("1 of 5 perturbations changes")
    right = [label.get_text() for label in ax.child_axes[0].get_yticklabels()]
    assert right[0] == f"{table['n_failed'].max()} of 100 fail"


def test_confounding_of_many_keeps_every_flagged_one():
    table = alarm(60, hot=2)
    figure = confounding_figure(table)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(names) == 40
    assert {"P$0", "P$1"} <= set(names)
    assert "40 of 60" in caption(figure)


def test_confounding_leaves_out_what_was_not_compared_and_says_so():
    table = alarm(5, hot=1)
    table.loc[2:3, ["log_odds", "low", "high", "p_value", "q_value"]] = np.nan
    figure = confounding_figure(table)
    assert len(figure.axes[0].get_yticklabels()) == 3
    assert figure.get_suptitle().startswith("1 of 3 perturbations changes")
    assert "for want of controls in their batches: 2." in caption(figure)
    nothing = confounding_figure(table.iloc[2:4])
    assert "no perturbations to compare" in texts(nothing)


def test_confounding_of_one_or_none():
    assert "None of 1 perturbation" in confounding_figure(alarm(1)).get_suptitle()
    figure = confounding_figure(alarm(1).iloc[:0])
    assert "no perturbations" in texts(figure)
    settle(figure)
    with pytest.raises(DataError, match="no column 'flagged'"):
        confounding_figure(alarm(1).drop(columns="flagged"))


# -- all of them -------------------------------------------------------------------------------------------------


def test_labels_cover_neither_each_other_nor_leave_the_frame():
    figure, (ax,) = panels(1)
    x = np.array([0.99, 0.98, 0.985, 0.5, 7.0])
    ax.scatter(x, x)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    settle(figure)
    label_points(ax, x, x, [f"name{i}" for i in range(5)], np.arange(5))
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in ax.texts]  # without their lines
    frame = ax.get_window_extent(renderer)
    assert len(boxes) == 4  # the fifth point lies outside the axes
    for i, box in enumerate(boxes):
        assert (box.min >= frame.min).all()
        assert (box.max <= frame.max).all()
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_save_writes_the_format_of_the_suffix(tmp_path, suffix):
    path = save_figure(training_figure(history(3)), tmp_path / "new" / f"a.{suffix}")
    assert path.read_bytes()[:5] in {"png": [b"\x89PNG\r"], "svg": [b"<?xml"], "pdf": [b"%PDF-"]}[suffix]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_save_refuses_other_suffixes_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match=r"\.png, \.svg or \.pdf"):
        save_figure(training_figure(history(3)), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_figures_need_no_pyplot_and_change_no_setting(tmp_path):
    import matplotlib

    before, loaded = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    save_figure(training_figure(history(3)), tmp_path / "a.png")
    save_figure(effects_figure(*effect_tables(2)), tmp_path / "b.png")
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_percent_of_few_is_not_none():
    assert percent(0, 100) == "0.0%"
    assert percent(1, 100_000) == "<0.1%"
    assert percent(1, 8) == "12.5%"


# -- damage ------------------------------------------------------------------------------------------------------


def test_damage_has_a_row_for_each_kind_and_says_how_many(annotated):
    n = 40
    kinds = ["few_counts"] * 30 + ["doublet"] * 3 + ["none"] * 7
    table = pd.DataFrame({f"p_{kind}": np.equal(kinds, kind) * 0.9 for kind in ("few_counts", "doublet", "none")})
    table["damage"] = pd.Categorical(kinds)
    table["severity"] = np.linspace(0, 1, n)
    figure = damage_figure(table)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["doublet", "none", "few counts"]
    assert "27 (67.5%)" in texts(figure)
    assert f"{n} failed cells" in figure.get_suptitle()
    assert len(right.collections) == 1  # three doublets are points, and what is not damaged has no severity
    assert len(right.lines) == 1

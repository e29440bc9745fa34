"""The harness: what is scored against what, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.evaluation.evaluate import ALL_CELLS_NOTE, COLUMNS, measured_effects_of
from cradlevae.evaluation.floors.registry import FLOORS
from cradlevae.evaluation.metrics.registry import REGISTRY
from cradlevae.evaluation.reference_effects import VALIDATION_NOTE, reference_rows
from cradlevae.evaluation.score_table import LOW_CEILING_NOTE


@pytest.fixture(scope="module")
def scores(model: cv.CradleVAE, simulated: ad.AnnData) -> pd.DataFrame:
    return cv.evaluate(model, simulated, n_cells=20)


def one(scores: pd.DataFrame, reference: str, metric: str, predictor: str = "model") -> pd.Series:
    rows = scores[
        (scores["reference"] == reference) & (scores["metric"] == metric) & (scores["predictor"] == predictor)
    ]
    assert len(rows) == 1
    return rows.iloc[0]


def test_the_table_is_tidy_and_names_every_floor(scores: pd.DataFrame) -> None:
    assert list(scores.columns) == list(COLUMNS)
    assert not scores.duplicated(["reference", "metric", "predictor"]).any()
    rho = scores[(scores["metric"] == "ate_rho") & (scores["reference"] == "held-out passing cells")]
    of_one_context = {name for name, entry in FLOORS.items() if not entry.needs_contexts}
    assert set(rho["predictor"]) == {"model"} | of_one_context
    assert set(scores["reference"]) >= {"held-out passing cells", "held-out clean counts (truth)", "simulated truth"}


def test_a_fraction_is_nought_at_the_best_floor_and_one_at_the_ceiling(scores: pd.DataFrame) -> None:
    row = one(scores, "held-out passing cells", "ate_rho")
    assert one(scores, "held-out passing cells", "ate_rho", row["best_floor"])["fraction"] == 0
    floors = scores[(scores["metric"] == "ate_rho") & scores["predictor"].isin(list(FLOORS))]
    floors = floors[floors["reference"] == "held-out passing cells"]
    assert row["floor"] == floors["value"].max()
    assert row["fraction"] == pytest.approx((row["value"] - row["floor"]) / (row["ceiling"] - row["floor"]))
    assert row["ceiling"] == one(scores, "held-out passing cells", "attainable_rho", "ceiling")["value"]
    assert row["low"] <= row["value"] <= row["high"]


def test_truth_is_scored_where_the_data_hold_it(scores: pd.DataFrame, model: cv.CradleVAE, simulated) -> None:
    assert one(scores, "simulated truth", "ate_rho")["ceiling"] == 1
    for reference, metric in (
        ("simulated truth", "mask_f1"),
        ("simulated truth", "signature_correlation"),
        ("held-out clean counts (truth)", "clean_deviance"),
        ("held-out cells", "leakage_z_basal"),
        ("held-out cells", "leakage_z_basal_mean"),
        ("held-out cells", "leakage_z_perturbation_mean"),
        ("held-out cells", "iwelbo"),
    ):
        assert np.isfinite(one(scores, reference, metric)["value"]), metric
    assert "draws" in one(scores, "held-out cells", "leakage_z_basal")["note"]
    assert "means" in one(scores, "held-out cells", "leakage_z_basal_mean")["note"]
    without = simulated.copy()
    del without.uns["truth"], without.layers["clean"]
    plain = cv.evaluate(model, without, generated=False)
    assert set(plain["reference"]) == {"held-out passing cells", "held-out cells", "all cells"}


def test_only_held_out_cells_make_the_reference(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    rows = reference_rows(model.trained, model.data, "held-out").rows
    used = set(model.data.cells[rows])
    assert not used & set(model.split.cells("train"))
    # combinations hold no controls out, so those that only validated stand in
    labels = simulated.obs.loc[list(used), "perturbation"]
    assert set(labels[labels != "control"].index) == set(model.split.cells("test"))
    assert set(labels[labels == "control"].index) <= set(model.split.cells("val"))


def test_training_cells_are_refused_as_a_reference_under_any_name(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    trained_on = simulated[model.split.cells("train")]
    with pytest.raises(cv.DataError, match="no held-out cells"):
        cv.evaluate(model, trained_on)
    disguised = trained_on.copy()[:, list(simulated.var_names)[::-1]].copy()
    disguised.obs_names = [f"new{i}" for i in range(disguised.n_obs)]
    with pytest.raises(cv.DataError, match="have the counts of training cells"):
        cv.evaluate(model, disguised)


def test_the_published_reference_must_be_asked_for_and_says_so(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    scores = cv.evaluate(model, simulated, reference="all", published=True, n_cells=5)
    assert scores["note"].str.endswith(ALL_CELLS_NOTE).all()
    one(scores, "all passing cells", "ate_rho", "model (published protocol)")
    one(scores, "all passing cells", "de_overlap")
    one(scores, "all cells", "iwelbo")
    one(scores, "all clean counts (truth)", "clean_deviance")
    assert not scores["reference"].str.contains("held-out").any()
    assert scores.attrs["fingerprint_overlap"] > 0.5


def test_scores_on_validation_cells_are_labelled_as_such(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    scores = cv.evaluate(model, simulated, reference="validation", n_cells=5)
    assert scores["note"].str.endswith(VALIDATION_NOTE).all()
    one(scores, "validation passing cells", "de_direction")
    one(scores, "validation cells", "leakage_z_basal")
    assert not scores["reference"].str.contains("held-out").any()


def test_an_unknown_reference_is_refused_with_the_choices(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    with pytest.raises(cv.DataError, match=r"'heldout' is none of the choices \('held-out', .*mean 'held-out'"):
        cv.evaluate(model, simulated, reference="heldout")


def test_floors_need_the_training_cells(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    rows = reference_rows(model.trained, model.data, "held-out").rows
    with pytest.raises(cv.DataError, match=r"0 passing training controls .* pass the whole experiment"):
        cv.evaluate(model, simulated[model.data.cells[rows]])


def test_cells_of_few_genes_cannot_be_told_from_training_cells(
    model: cv.CradleVAE, simulated: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cv.evaluate(model, simulated, generated=False, truth=False).attrs["fingerprint_overlap"] == 0
    monkeypatch.setattr("cradlevae.data.identity.fingerprint.MIN_GENES", 61)
    with pytest.warns(UserWarning, match="100% of the reference cells .* could not be recognised"):
        cv.evaluate(model, simulated, generated=False, truth=False)


def test_without_any_effect_there_is_no_fraction(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    null = simulated.copy()
    rng = np.random.default_rng(0)
    null.X = null.X[rng.permutation(null.n_obs)]  # whatever was done to a cell, its counts are another one's
    split = replace(model.split, sketch=None)  # which would say that these are other cells
    trained = replace(model.trained, fingerprints=np.zeros(0, dtype=np.int64), split=split)
    del null.uns["truth"], null.layers["clean"]
    fresh = cv.CradleVAE.__new__(cv.CradleVAE)
    fresh.data, fresh.trained = model.data, trained
    rows = cv.evaluate(fresh, null, generated=False, truth=False)
    rows = rows[rows["metric"].isin(["ate_rho", "ate_r2"])]
    low = rows["ceiling"] <= rows["floor"]
    assert low.any()
    assert rows.loc[low, "fraction"].isna().all()
    assert (rows.loc[low, "note"] == LOW_CEILING_NOTE).all()


def test_every_score_is_registered_with_what_would_be_best(scores: pd.DataFrame) -> None:
    assert set(scores["metric"]) - set(REGISTRY) == {"attainable_rho", "confounded_perturbations"}
    assert {"de_overlap", "qc_pass_rate_mad3", "leakage_z_basal_mean"} <= set(REGISTRY)
    of_all = (scores["metric"] == "clean_deviance") & (scores["reference"] == "held-out clean counts (truth)")
    clean = scores[of_all].set_index("predictor")
    assert clean["floor"].iloc[0] == clean["value"].drop("model").min()


def test_the_models_means_over_perturbations_have_intervals(scores: pd.DataFrame) -> None:
    for metric in ("jaccard_20", "pearson_delta"):
        row = one(scores, "held-out passing cells", metric)
        assert row["low"] <= row["value"] <= row["high"]
    assert row["low"] < row["high"]  # the Jaccard index of few genes may be the same for all


def test_conditions_that_cannot_be_predicted_are_named(simulated: ad.AnnData, quick) -> None:
    # hold out every cell with a perturbation that then has no training cells
    pair = next(name for name in simulated.obs["perturbation"].unique() if "+" in name)
    gone = pair.split("+")[0]
    has = simulated.obs["perturbation"].map(lambda name: gone in name.split("+"))
    part = pd.Series("train", index=simulated.obs_names)
    part.iloc[::5], part.iloc[1::5] = "val", "test"
    part[has.to_numpy()] = "test"
    split = cv.Split(part, "perturbations", 0)
    with pytest.warns(UserWarning, match=f"no training cells for '{gone}'"):
        model = cv.CradleVAE(simulated, split=split, n_latent=4, width=8, basal_width=8)
    model.train(1, **quick)
    with pytest.warns(UserWarning, match="are not scored"):
        scores = cv.evaluate(model, simulated, generated=False, truth=False)
    assert pair in scores.attrs["unanswered"]
    with pytest.raises(cv.DataError, match="had no training cells"):
        model.predict(gone)
    with pytest.warns(UserWarning, match=f"cells are left out, because a part .*'{gone}'"):
        cleaned = model.clean(simulated)
    assert cleaned.n_obs == (~has).sum()
    with pytest.raises(cv.DataError, match="none of the cells"):
        model.clean(simulated[has.to_numpy()])


def test_several_artifact_classes_are_scored_alike(simulated: ad.AnnData, quick) -> None:
    model = cv.CradleVAE(simulated, artifact_key=["low_umi", "other_damage"], n_latent=4, width=8, basal_width=8)
    model.train(1, **quick)
    scores = cv.evaluate(model, simulated, n_cells=5)
    assert np.isfinite(one(scores, "held-out passing cells", "ate_rho")["value"])
    assert set(model.artifact_signature()["criterion"]) == {"low_umi", "other_damage"}


def test_measured_effects_are_those_of_passing_held_out_cells(model: cv.CradleVAE, simulated: ad.AnnData) -> None:
    measured = measured_effects_of(model.trained, simulated)
    test = simulated[model.split.cells("test")].obs["perturbation"].unique()
    assert set(measured.obs_names) <= set(test)
    assert list(measured.var_names) == list(simulated.var_names)


def test_cleaned_cells_are_scored_by_what_was_done_to_them(scores: pd.DataFrame, simulated) -> None:
    rows = scores[(scores["metric"] == "clean_deviance") & (scores["predictor"] == "model")]
    kinds = {reference.rpartition(", ")[2] for reference in rows["reference"] if ", " in reference}
    assert kinds <= set(simulated.obs["true_artifact_kind"].astype(str)) - {"none"}
    assert len(kinds) > 2
    whole = one(scores, "held-out clean counts (truth)", "clean_deviance")["value"]
    of_kinds = rows.loc[rows["reference"].str.contains(", "), "value"]
    assert of_kinds.min() < whole < of_kinds.max()


def test_target_genes_are_found_by_symbols(simulated: ad.AnnData, tiny_options, quick, tmp_path) -> None:
    plain = simulated.copy()
    plain.var_names = [*"ABCDE", *plain.var_names[5:]]
    ids = plain.copy()
    ids.var["symbol"] = plain.var_names
    ids.var_names = [f"ENSG{i:011d}.2" for i in range(ids.n_vars)]
    tables = []
    for adata, options in ((plain, {}), (ids, {"gene_symbols": "symbol"}), (ids, {})):
        model = cv.CradleVAE(adata, **options, **tiny_options)
        model.train(1, **quick)
        model.save(tmp_path / str(len(tables)))
        model = cv.load(tmp_path / str(len(tables)))
        table = cv.evaluate(model, adata, truth=False, generated=False)
        columns = ["reference", "metric", "predictor", "value", "note"]
        tables.append(table.loc[table["metric"].str.startswith("discrimination"), columns].reset_index(drop=True))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert "bilinear_ridge" in set(tables[1].dropna()["predictor"])
    assert not tables[0]["value"].equals(tables[2]["value"])
    assert tables[2]["note"].str.contains("gene_symbols=").all()
    with pytest.raises(cv.DataError, match=r"var has no column 'symbols'.*'symbol'"):
        cv.CradleVAE(ids, gene_symbols="symbols", **tiny_options)

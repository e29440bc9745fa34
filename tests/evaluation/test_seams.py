"""Where the evaluation grows: a metric of each kind and a floor, declared here, are computed, scored and listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.data.experiment import read_experiment
from cradlevae.errors import DataError
from cradlevae.evaluation.evaluate import evaluate, measured_effects_of
from cradlevae.evaluation.floors import fitted
from cradlevae.evaluation.floors import model as floor_model
from cradlevae.evaluation.floors.registry import FLOORS, floor
from cradlevae.evaluation.metrics.kinds import KINDS
from cradlevae.evaluation.metrics.registry import REGISTRY, metric
from cradlevae.model import trained as trained_model
from cradlevae.reporting.figures import own_scores_figure, save_figure
from cradlevae.reporting.tables import print_scores

OWN = "own_"


def of_one_context() -> set[str]:
    """Floors of data without contexts."""
    return {name for name, entry in FLOORS.items() if not entry.needs_contexts}


def register_one_of_each_kind() -> None:
    """Metrics whose values can be told from other rows of the table, or from the data."""

    @metric("own_effect", best=0.0, description="largest absolute error")
    def _effect(real: Any, predicted: Any, *, genes: Any) -> float:
        assert len(genes) == real.shape[1]
        return float(np.abs(real - predicted).max())

    @metric("own_response", kind="response", best=1.0, description="sum of the weights")
    def _response(real: Any, predicted: Any, *, weights: Any, hits: Any) -> float:
        assert real.shape == predicted.shape == weights.shape == hits.shape
        return float(weights.sum())

    @metric("own_counts", kind="counts", best=1.0, description="genes")
    def _counts(real: Any, predicted: Any) -> float:
        assert real.expression.shape == predicted.expression.shape
        return float(real.expression.shape[1])

    @metric("own_cells", kind="cells", best=0.0, description="squared error of means")
    def _cells(real: Any, generated: Any) -> float:
        assert real.coordinates.shape == generated.coordinates.shape
        assert real.counts.shape == real.expression.shape
        means = [np.asarray(sample.expression.mean(axis=0)).ravel() for sample in (real, generated)]
        return float(((means[0] - means[1]) ** 2).mean())

    @metric("own_de", kind="de", best=1.0, description="genes tested")
    def _de(real: Any, predicted: Any) -> float:
        assert real.names == predicted.names
        return float(real.z.shape[1])

    @metric("own_qc", kind="qc", best=0.0, on=5.0, description="share that fails")
    def _qc(fails: pd.DataFrame) -> float:
        return float(fails.any(axis=1).mean())

    @metric("own_calibration", kind="calibration", best=0.1, description="share outside of the intervals")
    def _calibration(real: Any, low: Any, high: Any) -> float:
        return float(((real < low) | (real > high)).mean())

    @metric("own_sharpness", kind="calibration", best=0.0, on=("credible", 50, "largest effects"), description="width")
    def _sharpness(*, low: Any, high: Any, where: Any) -> float:
        return float((high - low)[where].mean())

    @metric("own_likelihood", kind="likelihood", best=np.inf, description="median")
    def _likelihood(log_likelihood: Any) -> float:
        return float(np.median(log_likelihood))

    @metric("own_leakage", kind="leakage", best=0.0, on=("z_perturbation", "means"), description="failed cells")
    def _leakage(states: Any, failed: Any) -> float:
        assert states.shape[:2] == (1, len(failed))
        return float(failed.sum())

    @metric("own_mask", kind="mask", best=0.0, description="active entries of the truth")
    def _mask(true_mask: Any, probability: Any) -> float:
        assert len(true_mask) == len(probability)
        return float(np.sum(true_mask))

    @metric("own_signature", kind="signature", best=0.0, description="mean error")
    def _signature(truth: Any, log2_fold_change: Any) -> float:
        return float((truth - log2_fold_change).mean())

    @metric("own_clean", kind="clean", best=0.0, description="true counts of a cell", note="counts")
    def _clean(true_counts: Any, profile: Any) -> Any:
        assert profile.shape[1] == true_counts.shape[1]
        return np.asarray(true_counts.sum(axis=1)).ravel()

    @metric("own_mixing", kind="mixing", best=0.0, description="cells that failed, and kinds of cells")
    def _mixing(cells: Any, *, seed: int) -> float:
        assert cells.coordinates.shape[0] == len(cells.failed) == len(cells.condition)
        return float(cells.failed.sum())


@dataclass
class Scored:
    """A table of scores with the cells and the model that it is of."""

    model: cv.CradleVAE
    adata: ad.AnnData
    table: pd.DataFrame

    def value(self, name: str, predictor: str = "model", reference: str = "held-out passing cells") -> float:
        rows = self.table[(self.table["metric"] == name) & (self.table["predictor"] == predictor)]
        rows = rows[rows["reference"] == reference]
        assert len(rows) == 1, (name, predictor, reference)
        return float(rows["value"].iloc[0])

    @property
    def held_out(self) -> ad.AnnData:
        parts = self.model.split.parts.reindex(self.adata.obs_names)
        control = (self.adata.obs["perturbation"] == "control").to_numpy()
        chosen = (parts == "test").to_numpy() | ((parts == "val").to_numpy() & control)  # no controls are held out
        return self.adata[chosen]


@pytest.fixture(scope="module")
def scored(model: cv.CradleVAE, simulated: ad.AnnData) -> Iterator[Scored]:
    adata = simulated.copy()
    cv.annotate_qc(adata, criteria=("umi", "genes"), key_added="failed")
    try:
        register_one_of_each_kind()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cradlevae.evaluation.scorers.cells.MIN_CELLS", 4)  # there are few cells
            patch.setattr("cradlevae.evaluation.scorers.mixing.FEWEST_CELLS", 1)
            table = cv.evaluate(model, adata, n_cells=20)
        yield Scored(model, adata, table)
    finally:
        for name in [name for name in REGISTRY if name.startswith(OWN)]:
            del REGISTRY[name]


def test_every_kind_has_a_metric_here(scored: Scored) -> None:
    own = [entry for entry in REGISTRY.values() if entry.name.startswith(OWN)]
    assert {entry.kind for entry in own} == set(KINDS)
    assert {entry.name for entry in own} <= set(scored.table["metric"])
    assert not scored.table.duplicated(["reference", "metric", "predictor"]).any()


def test_a_metric_of_effects(scored: Scored) -> None:
    measured = measured_effects_of(scored.model.trained, scored.adata)
    predicted = scored.model.effects(list(measured.obs_names))
    assert scored.value("own_effect") == pytest.approx(np.abs(measured.X - predicted.X).max())
    assert scored.value("own_effect", "zero") == pytest.approx(np.abs(measured.X).max())
    rows = scored.table[scored.table["metric"] == "own_effect"]
    assert set(rows["predictor"]) == {"model", *of_one_context()}
    held_out = rows[rows["reference"] == "held-out passing cells"]
    assert (held_out["floor"] == held_out.loc[held_out["predictor"] != "model", "value"].min()).all()


def test_a_metric_of_cells(scored: Scored) -> None:
    for predictor in ("model", "controls", "real cells"):
        assert scored.value("own_cells", predictor) == pytest.approx(scored.value("mse_mean", predictor))


def test_a_metric_of_differential_expression(scored: Scored) -> None:
    assert scored.value("own_de") == scored.adata.n_vars


def test_a_metric_of_quality_control(scored: Scored) -> None:
    where = "QC thresholds of the data"
    for predictor in ("model", "model (published protocol)", "real cells"):
        share = scored.value("own_qc", predictor, where)
        assert share == pytest.approx(1 - scored.value("qc_pass_rate_mad5", predictor, where))


def test_metrics_of_calibration(scored: Scored) -> None:
    assert scored.value("own_calibration") == pytest.approx(1 - scored.value("predictive_coverage_90"))
    rows = scored.table[scored.table["metric"] == "own_calibration"]
    assert "simulated truth" not in set(rows["reference"])  # predictive intervals are for measured effects
    width = scored.value("own_sharpness", reference="simulated truth")
    assert width == pytest.approx(scored.value("credible_width_50_top20", reference="simulated truth"))


def test_metrics_of_latent_states_and_likelihood(scored: Scored) -> None:
    cells = scored.held_out
    likelihood = scored.model.log_likelihood(cells)
    assert scored.value("own_likelihood", reference="held-out cells") == pytest.approx(np.median(likelihood))
    assert scored.value("own_leakage", reference="held-out cells") == cells.obs["artifact"].sum() > 0


def test_metrics_of_simulated_truth(scored: Scored) -> None:
    truth = scored.adata.uns["truth"]
    assert scored.value("own_mask", reference="simulated truth") == np.sum(truth["mask"])
    change = scored.model.artifact_signature()["log2_fold_change"].to_numpy()
    expected = (truth["artifact_signature"] - change).mean()
    assert scored.value("own_signature", reference="simulated truth") == pytest.approx(expected, abs=1e-6)  # float32


def test_a_metric_of_cleaned_cells(scored: Scored) -> None:
    damaged = scored.held_out
    damaged = damaged[damaged.obs["artifact"].to_numpy()]
    total = np.asarray(damaged.layers["clean"].sum(axis=1)).mean()
    for predictor in ("model", "own_damaged_profile", "perturbation_mean", "overall_mean"):
        assert scored.value("own_clean", predictor, "held-out clean counts (truth)") == pytest.approx(total)
    assert (scored.table.loc[scored.table["metric"] == "own_clean", "note"] == "counts").all()


def test_a_metric_of_mixing(scored: Scored) -> None:
    rows = scored.table[scored.table["metric"] == "own_mixing"]
    assert scored.value("own_mixing") == scored.value("own_mixing", "real cells") >= 2
    assert {"model (label unused)", "as measured", "true counts"} < set(rows["predictor"])


def test_own_metrics_are_in_figures_and_tables(
    scored: Scored, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    figure = own_scores_figure(scored.table)
    assert figure is not None
    save_figure(figure, tmp_path / "own.png")
    titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes]
    print_scores(scored.table)
    printed = capsys.readouterr().out
    for entry in REGISTRY.values():
        if entry.name.startswith(OWN):
            n_references = scored.table.loc[scored.table["metric"] == entry.name, "reference"].nunique()
            assert titles.count(f"{entry.name.replace('_', ' ')}: {entry.description}") == n_references > 0
            assert entry.name in printed
    assert own_scores_figure(scored.table[~scored.table["metric"].str.startswith(OWN)]) is None
    assert not REGISTRY["ate_rho"].own
    assert not REGISTRY["qc_pass_rate_mad3"].own


@pytest.mark.parametrize(
    ("options", "function", "message"),
    [
        (
            {"kind": "effects"},
            lambda real, predicted: 0.0,
            r"'effects'; known kinds: effect, response, counts",
        ),
        ({"kind": "qc", "on": 2.0}, lambda fails: 0.0, r"cannot be computed on 2.0; inputs of kind 'qc': 3.0, 4.0"),
        ({"kind": "de", "on": 2.0}, lambda real, predicted: 0.0, r"'de': it has one only, leave on= out"),
        ({"kind": "mask"}, lambda mask: 0.0, r"are called as \(true_mask, probability\): too many positional"),
        ({"kind": "effect"}, lambda real, predicted, *, cells: 0.0, r"missing a required argument: 'cells'"),
        ({"kind": "calibration"}, lambda real, low, high, level: 0.0, r"called as \(\*, real, low, high, where\)"),
    ],
)
def test_what_cannot_be_computed_is_refused_at_once(
    options: dict[str, Any], function: Callable[..., float], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        metric("own_other", best=0.0, description="never", **options)(function)
    assert "own_other" not in REGISTRY


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for every call of ``read_experiment``."""
    calls: list[str] = []

    def counted(module: str) -> Callable[..., Any]:
        def read(*arguments: Any, **options: Any) -> Any:
            calls.append(module)
            return read_experiment(*arguments, **options)

        return read

    for module in (trained_model, fitted, floor_model):
        monkeypatch.setattr(module, "read_experiment", counted(module.__name__))
    return calls


def test_an_evaluation_reads_the_experiment_once(
    model: cv.CradleVAE, simulated: ad.AnnData, reads: list[str], tmp_path: Path
) -> None:
    adata = simulated.copy()
    cv.annotate_qc(adata, criteria=("umi", "genes"), key_added="failed")
    scores = cv.evaluate(model, adata, published=True, n_cells=5)
    asked = {"iwelbo", "leakage_z_basal", "clean_deviance", "mask_f1", "qc_pass_rate_mad3", "e_distance"}
    assert asked <= set(scores["metric"])
    assert len(reads) == 1
    measured_effects_of(model.trained, adata)
    assert len(reads) == 2
    cv.to_cell_eval(model, adata, tmp_path)
    assert len(reads) == 3


def test_an_evaluation_of_a_floor_reads_the_experiment_once(simulated: ad.AnnData, reads: list[str]) -> None:
    trained = cv.FloorModel("additive", simulated, split=cv.split(simulated, "combinations", seed=0))
    trained.train()
    assert reads == [floor_model.__name__]
    cv.evaluate(trained, simulated, n_cells=5)
    assert reads == [floor_model.__name__, fitted.__name__]


def test_a_floor_declared_here_is_trained_asked_scored_and_listed(simulated: ad.AnnData) -> None:
    n_genes = simulated.n_vars
    try:

        @floor("own_floor", "every gene doubles", error=lambda *asked: np.full((len(asked[2]), n_genes), 0.5))
        def _doubled(train: Any, validation: Any, conditions: Any) -> Any:
            assert train.genes == tuple(simulated.var_names)
            return np.ones((len(conditions), n_genes))

        entry = cv.models()["own_floor"]
        assert (entry.kind, entry.description) == ("floor", "every gene doubles")
        trained = entry.make(simulated, split=cv.split(simulated, "combinations", seed=0))
        trained.train()
        effects = trained.effects(["A", "control"])
        np.testing.assert_array_equal(effects.X, np.outer([1, 0], np.ones(n_genes)))
        np.testing.assert_array_equal(effects.layers["sd"], np.outer([0.5, 0], np.ones(n_genes)))
        assert trained.predict(["A", "control"], 3).shape == (6, n_genes)
        scores = cv.evaluate(trained, simulated, n_cells=5)
        errors = scores[(scores["metric"] == "mse_delta") & (scores["reference"] == "held-out passing cells")]
        errors = errors.set_index("predictor")["value"]
        real = measured_effects_of(trained.trained, simulated).X
        assert errors["own_floor"] == pytest.approx(((real - 1) ** 2).mean())
        assert errors["model"] == pytest.approx(errors["own_floor"])
    finally:
        FLOORS.pop("own_floor", None)


class Delegate:
    """A predictor of another class, which does what a floor does."""

    def __init__(self, predictor: Any) -> None:
        self.predictor = predictor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.predictor, name)


def test_a_predictor_of_any_class_is_scored(simulated: ad.AnnData) -> None:
    trained = cv.FloorModel("additive", simulated, split=cv.split(simulated, "combinations", seed=0))
    trained.train()
    tables = [evaluate(predictor, simulated) for predictor in (trained.trained, Delegate(trained.trained))]
    pd.testing.assert_frame_equal(*tables)


def test_a_floor_that_needs_validation_cells_is_not_scored_without_them(
    model: cv.CradleVAE, simulated: ad.AnnData
) -> None:
    def floors_scored(adata: ad.AnnData) -> set[str]:
        table = cv.evaluate(model, adata, generated=False, truth=False)
        return set(table.loc[table["metric"] == "ate_rho", "predictor"])

    try:
        floor("own_floor", "validated", needs_validation=True)(FLOORS["zero"].function)
        assert floors_scored(simulated) == {"model", *of_one_context()}
        validated = simulated.obs_names.isin(model.split.cells("val"))
        perturbed = (simulated.obs["perturbation"] != "control").to_numpy()
        assert floors_scored(simulated[~(validated & perturbed)]) == {"model", *of_one_context()} - {
            "own_floor",
            "lowrank_shrunk_mean",
        }
    finally:
        FLOORS.pop("own_floor", None)

"""Floors with the questions and answers of a model."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import cradlevae as cv
from cradlevae.data.moments import ConditionMoments, condition_moments, measured_effects, moderated_variance
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.registry import FLOORS, floor_effects, floor_errors


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    """3,000 cells, every gene seen in controls."""
    adata = cv.simulate(
        n_cells=3000, n_genes=40, n_perturbations=4, n_combinations=3, n_interacting=0, control_share=0.3,
        effect_size=1.5, seed=1,
    )  # fmt: skip
    adata.obs["artifact"] = adata.obs["true_artifact"]
    return adata


@pytest.fixture(scope="module")
def split(adata: ad.AnnData) -> cv.Split:
    return cv.split(adata, "combinations")


def trained(name: str, adata: ad.AnnData, split: cv.Split) -> cv.FloorModel:
    model = cv.FloorModel(name, adata, split=split)
    assert repr(model) == f"FloorModel({name!r}, 40 genes; not trained)"
    model.train()
    return model


def held_out(adata: ad.AnnData, split: cv.Split) -> str:
    return next(name for name in adata[split.cells("test")].obs["perturbation"].unique() if "+" in name)


def test_effects_are_the_floors(adata: ad.AnnData, split: cv.Split) -> None:
    pair = held_out(adata, split)
    of_one_context = {name for name, entry in FLOORS.items() if not entry.needs_contexts}
    for name in of_one_context - {"bilinear_ridge"}:  # perturbations are no genes here
        model = trained(name, adata, split)
        asked = [label for label in ("A", "B", pair) if label in model.perturbations or label == pair]
        if pair not in model.trained.answerable([pair]):
            assert name in (
                "training_mean",
                "shrunk_mean",
                "lowrank_shrunk_mean",
                "hierarchical_mean",
                "multivariate_shrunk_mean",
                "additive_hierarchical",
                "additive_multivariate",
            )
            with pytest.raises(DataError, match=rf"the floor '{name}' .* has no answer for '{pair[0]}\+"):
                model.effects([pair])
            asked.remove(pair)
        found = model.effects(asked)
        direct = floor_effects(name, model.trained.train, model.trained.validation, asked)
        np.testing.assert_allclose(found.X, direct, rtol=1e-5, atol=1e-6)
        assert list(found.obs_names) == asked
        assert ("sd" in found.layers) == (FLOORS[name].error is not None)


def test_errors_are_those_of_the_means(adata: ad.AnnData, split: cv.Split) -> None:
    pair = held_out(adata, split)
    moments = trained("training_mean", adata, split).trained.train
    of_means = dict(
        zip(moments.names, moderated_variance(moments) / np.maximum(moments.n_cells, 1)[:, None], strict=True)
    )
    of_control = of_means["control"]
    own = {name: np.sqrt(of_mean + of_control) for name, of_mean in of_means.items()}
    mean = trained("training_mean", adata, split).effects(["A", "control"], credible=0.5)
    np.testing.assert_allclose(mean.layers["sd"], [own["A"], np.zeros(40)], rtol=1e-5)
    np.testing.assert_allclose(mean.layers["high"] - mean.X, 0.6745 * mean.layers["sd"], rtol=1e-3, atol=1e-6)
    one, two = pair.split("+")
    both = trained("additive", adata, split).effects([pair]).layers["sd"][0]
    # independent cells of either single, the same controls twice
    np.testing.assert_allclose(both**2, own[one] ** 2 + own[two] ** 2 + 2 * of_control, rtol=1e-5)
    shrunk = trained("shrunk_mean", adata, split).effects(["A"]).layers["sd"][0]
    assert (shrunk <= own["A"] * (1 + 1e-6)).all()
    assert (shrunk < own["A"]).any()
    for name in ("additive_shrunk", "additive_hierarchical", "additive_multivariate"):
        sd = trained(name, adata, split).effects([one, two, pair]).layers["sd"]
        assert sd[2].mean() < both.mean()
        assert (sd[2] ** 2 >= (sd[0] ** 2 + sd[1] ** 2) * (1 - 1e-5)).all()


def test_errors_of_shrunk_sums_are_those_of_the_truth() -> None:
    """Effects of a prior whose scale is known, as they are many; controls are a tenth of the error of a sum."""
    random = np.random.default_rng(0)
    singles, n_genes = [f"P{number}" for number in range(200)], 400
    n_cells = np.array([200, *[40] * 200])
    effect = 0.2 * random.standard_normal((201, n_genes))
    effect[0] = 0
    mean = 2 + effect + random.standard_normal((201, n_genes)) / np.sqrt(n_cells)[:, None]
    train = ConditionMoments(("control", *singles), n_cells, mean, np.ones((201, n_genes)))
    pairs = ["+".join(sorted(singles[start : start + 2])) for start in range(0, 200, 2)]
    found, error = (floor("additive_shrunk", train, None, pairs) for floor in (floor_effects, floor_errors))
    truth = effect[1::2] + effect[2::2]
    ratio = ((found - truth) ** 2).mean() / (error**2).mean()
    assert ratio == pytest.approx(1, abs=0.06)  # 1.15 without what is shared


def test_predicted_cells_show_the_effect(adata: ad.AnnData, split: cv.Split) -> None:
    model = trained("additive", adata, split)
    pair = held_out(adata, split)
    cells = model.predict(["A", pair, "control"], 8000, seed=3)
    assert cells.shape == (24_000, 40)
    counts = cells.X
    assert (counts.data == np.round(counts.data)).all()
    np.testing.assert_allclose(
        np.asarray(counts.sum(axis=1)).ravel().mean(), cells.obs["library_size"].mean(), rtol=0.01
    )
    codes = np.repeat([1, 2, 0], 8000)
    moments = condition_moments(counts, codes, ["control", "A", pair])
    shown = measured_effects(moments)
    wanted = model.effects(["A", pair]).X
    assert np.corrcoef(shown.value.ravel(), wanted.ravel())[0, 1] > 0.98
    assert np.sqrt(np.mean((shown.value - wanted) ** 2)) < 0.15
    again = model.predict(["A", pair, "control"], 8000, seed=3)
    assert (counts != again.X).nnz == 0
    fixed = model.predict("control", 500, library_size=2000)
    assert np.asarray(fixed.X.sum(axis=1)).mean() == pytest.approx(2000, rel=0.01)
    given = model.predict(["A", "control"], 100, library_size={"A": [500, 1500], "control": [80]})
    assert sorted(given.obs["library_size"].unique()) == [80, 500, 1500]


def test_a_floor_is_scored_like_a_model(adata: ad.AnnData, split: cv.Split) -> None:
    scores = cv.evaluate(trained("additive_shrunk", adata, split), adata, published=True, n_cells=20)
    held = scores[(scores["reference"] == "held-out passing cells") & (scores["metric"] == "ate_rho")]
    values = held.set_index("predictor")["value"]
    assert values["model"] == pytest.approx(values["additive_shrunk"], abs=1e-6)
    assert "model (published protocol)" not in set(scores["predictor"])
    assert not {"iwelbo", "mask_f1", "signature_correlation", "clean_deviance"} & set(scores["metric"])
    with pytest.raises(DataError, match="none of the held-out conditions can be predicted"):
        cv.evaluate(trained("training_mean", adata, split), adata)


def test_what_does_not_fit_is_refused(adata: ad.AnnData, split: cv.Split) -> None:
    with pytest.raises(DataError, match=r"unknown floor 'shrunk'; did you mean 'shrunk_mean'"):
        cv.FloorModel("shrunk", adata)
    with pytest.raises(DataError, match="the floor 'zero' has not been trained"):
        cv.FloorModel("zero", adata, split=split).effects("A")
    with pytest.raises(DataError, match="library_size is 'big'"):
        trained("zero", adata, split).predict("A", library_size="big")

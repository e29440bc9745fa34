"""What a pair does beyond the sum of its single perturbations."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cradlevae as cv
from cradlevae.query.contrasts.interaction_fit import CLASSES, Fit, cosine, interaction_class, projection

pytestmark = pytest.mark.numeric


def test_it_is_the_pair_minus_its_single_perturbations(model: cv.CradleVAE) -> None:
    found = model.interactions(error=9)
    pairs = [name for name in model.data.conditions if "+" in name]
    assert sorted(found.obs_names) == sorted(pairs)
    trained = set(model.trained.residual.combinations)
    assert found.obs["measured"].tolist() == [name in trained for name in found.obs_names]
    assert ((found.obs["n_cells"] > 0) == found.obs["measured"]).all()
    effects = model.effects([*pairs, *"ABCDE"], error=9)
    for name in pairs:
        first, second = name.split("+")
        expected = effects[name].X - effects[first].X - effects[second].X
        np.testing.assert_allclose(found[name].X, expected, atol=1e-5)
        assert found.obs.loc[name, ["first", "second"]].tolist() == [first, second]


def test_company_and_spelling_have_no_say(model: cv.CradleVAE) -> None:
    alone, together = model.interactions("B+A", error=9), model.interactions(["C+D", "A+B"], error=9)
    assert list(alone.obs_names) == ["B+A"]
    np.testing.assert_array_equal(alone.X, together["A+B"].X)
    for layer in alone.layers:
        np.testing.assert_array_equal(alone.layers[layer], together["A+B"].layers[layer])
    assert alone.obs.iloc[0].to_dict() == together.obs.loc["A+B"].to_dict()


def test_classes_have_probabilities(model: cv.CradleVAE, tmp_path: object) -> None:
    found = model.interactions(error=9)
    shares = found.obs[[f"p_{name}" for name in CLASSES]]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (found.obs["interaction"] == shares.idxmax(axis=1).str.removeprefix("p_")).all()
    np.testing.assert_allclose(
        found.obs["magnitude"], np.hypot(found.obs["first_weight"], found.obs["second_weight"]), rtol=1e-6
    )
    found.write_h5ad(f"{tmp_path}/interactions.h5ad")
    table = cv.effects_table(ad.read_h5ad(f"{tmp_path}/interactions.h5ad"))
    assert table["rank"].is_monotonic_increasing


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 3), st.floats(-1, 3), st.integers(0, 1000))
def test_coefficients_are_those_of_the_pair(first: float, second: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 40))
    beyond = first * a + second * b - a - b
    fit = Fit(*(1 + projection(a, b) @ beyond))
    np.testing.assert_allclose([fit.first, fit.second], [first, second], atol=1e-8)
    np.testing.assert_allclose(fit.magnitude, np.hypot(first, second))
    swapped = Fit(*(1 + projection(b, a) @ beyond))
    assert swapped.equality == pytest.approx(fit.equality, abs=1e-6)


@pytest.mark.parametrize(
    ("coefficients", "name"),
    [((1, 1), "additive"), ((0.9, 1.1), "additive"), ((1.6, 1.5), "synergistic"), ((3, 0), "synergistic"),
     ((0.5, 0.6), "suppressive"), ((0, 0), "epistatic"), ((1, 0.1), "epistatic"), ((1, -0.5), "epistatic")],
)  # fmt: skip
def test_classes_go_by_magnitude_and_equality(coefficients: tuple[float, float], name: str) -> None:
    fit = Fit(*(np.array([value], dtype=float) for value in coefficients))
    assert CLASSES[int(interaction_class(fit)[0])] == name


def test_two_perturbations_of_one_effect_are_additive_unless_the_pair_says_otherwise() -> None:
    effect = np.random.default_rng(0).standard_normal(30)
    fitted = projection(effect, effect)
    np.testing.assert_allclose(1 + fitted @ np.zeros(30), [1, 1])
    np.testing.assert_allclose(1 + fitted @ effect, [1.5, 1.5], atol=1e-6)  # the pair has three times the effect
    assert cosine(effect, -effect) == pytest.approx(-1)
    assert cosine(effect, 0 * effect) == 0


def test_what_is_no_pair_is_refused(model: cv.CradleVAE, tiny_options: dict[str, Any], quick: dict[str, Any]) -> None:
    for pairs in ("A", "control", ["A+B+C"]):
        with pytest.raises(cv.DataError, match="is not a pair of perturbations; give pairs such as 'A\\+B'"):
            model.interactions(pairs)
    adata = cv.simulate(n_cells=200, n_genes=30, n_perturbations=3, n_combinations=0, n_latent=4)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    singles = cv.CradleVAE(adata, **tiny_options)
    with pytest.raises(cv.DataError, match="has not been trained"):
        singles.interactions()
    singles.train(1, **quick)
    with pytest.raises(cv.DataError, match="the data have no pair"):
        singles.interactions()
    assert not singles.interactions("A+B", error=9).obs["measured"].any()


def test_pairs_whose_singles_were_not_measured_are_refused(
    simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    cells = simulated[simulated.obs["perturbation"] != "A"].copy()
    model = cv.CradleVAE(cells, split=cv.split(cells, "cells", seed=0), **tiny_options)
    model.train(1, **quick)
    pairs = sorted({name for name in cells.obs["perturbation"] if "+" in name})
    with_a = next(name for name in pairs if name.startswith("A+"))
    with pytest.raises(cv.DataError, match="no training cell has A alone"):
        model.interactions(with_a, error=9)
    with pytest.warns(UserWarning, match=r"pairs are left out, because no training cell has .* alone: 'A\+"):
        found = model.interactions(error=9)
    assert list(found.obs_names) == [name for name in pairs if not name.startswith("A+")]
    with pytest.warns(UserWarning, match="no training cell has 'A' alone: the effect alone"):
        assert model.effects(["A", pairs[-1]], error=9).obs["n_cells"].tolist()[0] == 0
    assert model.effects(with_a, error=9).n_obs == 1  # measured, and without a warning


def test_they_are_nearer_to_the_truth_than_the_plain_difference(
    tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    found = []
    for seed in range(3):
        adata = cv.simulate(n_cells=1500, n_genes=60, n_perturbations=5, n_combinations=6, n_latent=6, seed=seed)
        adata.obs["artifact"] = adata.obs["true_artifact"]
        model = cv.CradleVAE(adata, split=cv.split(adata, "cells", seed=0), **tiny_options)
        model.train(3, **quick)
        floor = cv.FloorModel("training_mean", adata, split=model.split)
        floor.train()
        answer = model.interactions(error=0.1)
        truth = adata.uns["truth"]
        true = ad.AnnData(np.asarray(truth["effects"]))
        true.obs_names = truth["effect_conditions"]
        beyond = [
            np.concatenate([(one[name].X - one[name[0]].X - one[name[-1]].X).ravel() for name in answer.obs_names])
            for one in (true, floor.effects())
        ]
        found.append([np.corrcoef(beyond[0], values)[0, 1] for values in (np.asarray(answer.X).ravel(), beyond[1])])
    assert all(of_model > plain for of_model, plain in found)

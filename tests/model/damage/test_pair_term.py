"""The terms that counterfactual pairs add to the loss, against closed forms in float64, and what switches them off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from scipy.stats import norm

import cradlevae as cv
from cradlevae.data.loading.counterfactual_pairs import PairBatch
from cradlevae.model.damage import pair_term
from cradlevae.model.damage.pair_term import SIZE_SD, pair_terms
from cradlevae.model.training.fit import make_pairs


@pytest.fixture(scope="module")
def pairs(strong: cv.CradleVAE) -> PairBatch:
    assert strong.data is not None
    made = make_pairs(strong.data, np.arange(strong.data.n_cells), strong.trained.module, seed=0)
    assert made is not None
    batch = made.of_minibatch(np.arange(60))
    assert batch is not None
    return batch


def terms(model: cv.CradleVAE, pairs: PairBatch) -> dict[str, float]:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {name: float(value) for name, value in pair_terms(model.trained.module, pairs).items()}


def test_the_terms_are_finite_and_those_that_are_told(strong: cv.CradleVAE, pairs: PairBatch) -> None:
    found = terms(strong, pairs)
    assert list(found) == ["counterfactual", "pair_counts", "pair_damage"]
    assert np.isfinite(list(found.values())).all()
    assert found["counterfactual"] > 0


def test_counts_are_multinomial_of_a_lognormal_total() -> None:
    random = np.random.default_rng(0)
    counts, expected = random.poisson(3.0, (5, 8)).astype(float), random.gamma(2.0, 2.0, (5, 8))
    found = float(pair_term._counts_term(torch.from_numpy(counts), torch.from_numpy(expected)))
    shares = expected / expected.sum(axis=1, keepdims=True)
    of_genes = -(counts * np.log(shares)).sum(axis=1)
    of_total = -norm.logpdf(np.log1p(counts.sum(axis=1)), np.log1p(expected.sum(axis=1)), SIZE_SD)
    of_total -= np.log(SIZE_SD) + 0.5 * np.log(2 * np.pi)
    assert found == pytest.approx((of_genes + of_total).mean(), rel=1e-6)


def test_unharmed_copies_of_certain_guides_cost_no_divergence(strong: cv.CradleVAE, pairs: PairBatch) -> None:
    same = replace(pairs, damaged=pairs.counts)
    guide = strong.trained.module.damage_guide
    assert guide is not None
    weight, bias = guide.basal.weight.detach().clone(), guide.basal.bias.detach().clone()
    with torch.no_grad():
        guide.basal.weight.zero_()
        guide.basal.bias.zero_()
    try:
        assert terms(strong, same)["counterfactual"] == pytest.approx(0, abs=1e-6)
    finally:
        with torch.no_grad():
            guide.basal.weight.copy_(weight)
            guide.basal.bias.copy_(bias)


def test_the_order_of_pairs_does_not_matter(strong: cv.CradleVAE, pairs: PairBatch) -> None:
    order = torch.randperm(len(pairs.kind), generator=torch.Generator().manual_seed(1))
    names = ("counts", "damaged", "kind", "severity", "parent", "condition")
    moved = replace(pairs, **{name: getattr(pairs, name)[order] for name in names})
    first, second = terms(strong, pairs), terms(strong, moved)
    for name in ("counterfactual", "pair_damage"):  # the draws of basal states are by position
        assert second[name] == pytest.approx(first[name], rel=1e-4)


def test_settings_switch_the_terms_off(
    simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]
) -> None:
    split = cv.split(simulated, "combinations", seed=0)
    columns = {}
    for name, settings in {
        "term off": {"counterfactual_weight": 0.0, "reference": "damaged"},
        "pairs off": {"reference": "mean"},
        "both off": {"counterfactual_weight": 0.0},
    }.items():
        model = cv.CradleVAE(simulated, split=split, **settings, **tiny_options)
        model.train(1, **quick)
        columns[name] = {column.removeprefix("train_") for column in model.history}
        model.clean(simulated, cells="failed")
    assert "counterfactual" not in columns["term off"]
    assert {"pair_counts", "pair_damage"} <= columns["term off"]
    assert "counterfactual" in columns["pairs off"]
    assert not columns["pairs off"] & {"pair_counts", "pair_damage"}
    assert not columns["both off"] & {"counterfactual", "pair_counts", "pair_damage"}


def test_one_damage_is_enough(simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any]) -> None:
    split = cv.split(simulated, "combinations", seed=0)
    model = cv.CradleVAE(simulated, split=split, damages=("few_counts",), pair_share=0.1, **tiny_options)
    model.train(1, **quick)
    table = model.diagnose(simulated)
    assert (table["p_few_counts"] == 1).all()
    assert "second_parent" not in table

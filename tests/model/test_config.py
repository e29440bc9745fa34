"""The model's settings: defaults that follow the data, values that are refused."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from cradlevae.data.damage.operators import DAMAGES
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig
from cradlevae.model.family import FAMILY
from cradlevae.model.training.settings import TrainConfig


def test_defaults_follow_the_data() -> None:
    pairs, singles = ModelConfig().resolved(combinations=True), ModelConfig().resolved(combinations=False)
    assert (pairs.n_latent, pairs.basal_width, pairs.mask_prior, pairs.counterfactual_weight) == (200, 400, 0.01, 0.05)
    assert (singles.n_latent, singles.basal_width, singles.mask_prior) == (100, 200, 0.001)
    assert singles.counterfactual_weight == 0.05
    assert pairs.width == singles.width == 400


def test_what_is_given_stays() -> None:
    given = ModelConfig(n_latent=7, mask_prior=0.2, counterfactual_weight=0.0)
    resolved = given.resolved(combinations=True)
    assert (resolved.n_latent, resolved.mask_prior, resolved.counterfactual_weight) == (7, 0.2, 0.0)
    assert resolved.basal_width == 400
    assert given.basal_width is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decode": "add"}, "decode is 'add'; choose one of concat, sum"),
        ({"guide": "meanfield"}, "guide is 'meanfield'; choose one of correlated, mean-field"),
        ({"objective": "paper"}, "objective is 'paper'; choose one of corrected, released"),
        ({"reference": "max"}, "reference is 'max'; choose one of damaged, mean, median, cell"),
        ({"damages": ("few_counts", "fewcounts")}, "unknown damage 'fewcounts'; did you mean 'few_counts'"),
        ({"damages": ()}, "must name one or more damages, each once"),
        ({"damages": ("doublet", "doublet")}, "must name one or more damages, each once"),
        ({"pair_share": 0.0}, "pair_share is 0.0; it must be above 0"),
        ({"mask_prior": 0.0}, "mask_prior is 0.0; it must lie between 0 and 1"),
        ({"mask_prior": 1.0}, "mask_prior is 1.0; it must lie between 0 and 1"),
        ({"n_latent": 0}, "n_latent is 0; it must be at least 1"),
        ({"decoder_layers": 0}, "decoder_layers is 0; it must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ModelConfig(**options)


def test_epochs_make_the_steps_that_training_takes() -> None:
    assert TrainConfig().of_cells(12_800).max_epochs == 60
    assert TrainConfig().of_cells(100).max_epochs == 200
    assert TrainConfig().of_cells(1_000_000).max_epochs == 30
    assert TrainConfig(max_epochs=7).of_cells(100).max_epochs == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.3}, "objective='corrected' weighs cells by their class, so alpha means nothing"),
        ({"model": "sams_vae", "alpha": 0.3}, "SAMSVAE has no artifact latent, so alpha means nothing"),
        ({"model": "sams_vae", "reference": "cell"}, "SAMSVAE has no artifact latent, so reference means nothing"),
        (
            {"model": "cpa_vae", "artifact_model": "cell"},
            "so artifact_model means nothing",
        ),
        ({"model": "sams_vae", "counterfactual_weight": 0.1}, "so counterfactual_weight means nothing"),
        (
            {"model": "sams_vae", "balance_classes": True},
            "so balance_classes means nothing",
        ),
        ({"model": "cpa_vae", "embedding_layers": 2}, "CPAVAE has no embedding or artifact encoder"),
        ({"model": "svae_plus", "mask_prior": 0.1}, "SVAEPlus has no mask with a fixed prior"),
        (
            {"reference": "mean", "damages": ("doublet",)},
            "reference='mean' damages no copies, so damages means nothing",
        ),
        ({"reference": "cell", "pair_share": 0.1}, "reference='cell' damages no copies, so pair_share means nothing"),
        (
            {"counterfactual_weight": 0.0, "damages": ("doublet",)},
            "counterfactual_weight is 0, so damages means nothing",
        ),
        ({"objective": "released", "pair_share": 0.1}, "published model, which has none, so pair_share means nothing"),
        ({"counterfactual_weight": 0.0, "reference": "cell"}, "counterfactual_weight is 0, so reference means nothing"),
        ({"objective": "released", "gene_effects": True}, "which has none, so gene_effects means nothing"),
        ({"objective": "released", "linear_path": True}, "which has none, so linear_path means nothing"),
        ({"objective": "released", "weight_scale": 0.1}, "which has none, so weight_scale means nothing"),
        ({"objective": "released", "balance_classes": True}, "which has none, so balance_classes means nothing"),
        ({"objective": "released", "reference": "cell"}, "always takes medians, so reference means nothing"),
        ({"objective": "released", "artifact_model": "cell"}, "so artifact_model means nothing"),
        ({"objective": "released", "likelihood": "poisson"}, "whose likelihood is 'gamma-poisson'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ModelConfig(**options)


@pytest.mark.parametrize("model", list(FAMILY))
@pytest.mark.parametrize("objective", ["corrected", "released"])
@pytest.mark.parametrize("weight", [None, 0.0])
def test_a_resolved_configuration_is_one_itself(model: str, objective: str, weight: float | None) -> None:
    """What a saved model holds can be read again."""
    if objective not in FAMILY[model].objective:
        pytest.skip(f"{model} has no objective {objective}")
    resolved = ModelConfig(model, objective=objective, counterfactual_weight=weight).resolved(combinations=False)
    assert ModelConfig(**asdict(resolved)) == resolved
    assert resolved.resolved(combinations=True) == resolved


def test_types_are_pythons_own_or_refused() -> None:
    made = ModelConfig(n_latent=np.int64(5), mask_prior=np.float64(0.1), linear_path=np.bool_(False))
    assert (type(made.n_latent), type(made.mask_prior), type(made.linear_path)) == (int, float, bool)
    trained = TrainConfig(max_epochs=np.int64(3), learning_rate=np.float64(1e-3), patience=np.int32(4))
    assert (type(trained.max_epochs), type(trained.learning_rate), type(trained.patience)) == (int, float, int)
    with pytest.raises(DataError, match=r"max_epochs is 1.5; it must be a whole number"):
        TrainConfig(max_epochs=1.5)
    with pytest.raises(DataError, match="seed is None; it must be a whole number"):
        TrainConfig(seed=None)
    with pytest.raises(DataError, match="n_latent is '5'; it must be a whole number"):
        ModelConfig(n_latent="5")


def test_pairs_are_made_where_damaged_copies_are_the_reference() -> None:
    default, mean = ModelConfig().resolved(combinations=True), ModelConfig(reference="mean").resolved(combinations=True)
    assert default.reference == "damaged"
    assert default.damages == tuple(DAMAGES)
    assert default.pair_share
    assert mean.damages is mean.pair_share is None
    no_term = ModelConfig(counterfactual_weight=0.0, reference="damaged").resolved(combinations=True)
    assert no_term.pair_share == default.pair_share
    neither = ModelConfig(counterfactual_weight=0.0).resolved(combinations=True)
    assert neither.reference is neither.pair_share is None
    released = ModelConfig(objective="released").resolved(combinations=True)
    assert (released.reference, released.pair_share) == ("median", None)

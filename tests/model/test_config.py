"""The model's settings: defaults that follow the data, values that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig, TrainConfig


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
        ({"reference": "max"}, "reference is 'max'; choose one of mean, median, cell"),
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
    assert TrainConfig().of_cells(12_800).max_epochs == 120
    assert TrainConfig().of_cells(100).max_epochs == 200
    assert TrainConfig().of_cells(1_000_000).max_epochs == 30
    assert TrainConfig(max_epochs=7).of_cells(100).max_epochs == 7

"""Effects: exact where they are known, in line with sampling, and with intervals that enclose them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch

import cradlevae as cv
from cradlevae.errors import DataError
from cradlevae.query.effects import published_effects
from cradlevae.query.states import draw_basal, draw_globals, seeded


def test_shapes_labels_and_settings(model: cv.CradleVAE) -> None:
    effects = model.effects(["B+A", "C", "ctrl"], credible=0.8, n_draws=6, n_states=8)
    assert effects.shape == (3, 60)
    assert list(effects.obs_names) == ["A+B", "C", "control"]
    assert list(effects.var_names) == list(model.trained.genes)
    assert set(effects.layers) == {"low", "high", "sd"}
    assert effects.uns["effects"]["credible"] == 0.8
    assert effects.uns["effects"]["scale"] == "perturbseq"
    assert np.isfinite(effects.X).all()


@pytest.mark.parametrize("scale", ["perturbseq", "mean"])
@pytest.mark.parametrize("basal", ["controls", "prior"])
def test_the_paired_effect_of_the_control_is_exactly_zero(strong: cv.CradleVAE, scale: str, basal: str) -> None:
    effects = strong.effects(["control", "A"], n_draws=5, n_states=8, scale=scale, basal=basal)
    assert (effects["control"].X == 0).all()
    for layer in ("low", "high", "sd"):
        assert (effects["control"].layers[layer] == 0).all()
    assert np.abs(effects["A"].X).max() > 0.1


def test_intervals_enclose_the_mean_and_widen_with_credibility(strong: cv.CradleVAE) -> None:
    wide, narrow = (strong.effects(["A", "A+B"], credible=c, n_draws=15, n_states=8) for c in (0.95, 0.5))
    np.testing.assert_array_equal(wide.X, narrow.X)
    mean = wide.X
    assert (wide.layers["low"] <= mean).all()
    assert (mean <= wide.layers["high"]).all()
    assert (wide.layers["low"] <= narrow.layers["low"]).all()
    assert (narrow.layers["high"] <= wide.layers["high"]).all()
    assert (wide.layers["sd"] > 0).all()


def test_the_seed_decides(strong: cv.CradleVAE) -> None:
    one, two, other = (strong.effects("A", n_draws=5, n_states=8, seed=seed).X for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_what_else_is_asked_has_no_say(strong: cv.CradleVAE) -> None:
    alone = strong.effects("B", n_draws=5, n_states=8).X[0]
    np.testing.assert_array_equal(strong.effects(["A", "B"], n_draws=5, n_states=8)["B"].X[0], alone)


def test_sampling_agrees_at_the_same_states(strong: cv.CradleVAE) -> None:
    """The same basal states and posterior draws, with counts drawn by numpy."""
    n_draws, n_states, repeats = 4, 5, 4000
    found = strong.effects("A+B", n_draws=n_draws, n_states=n_states, seed=3)
    trained = strong.trained
    with seeded(3):
        z_b, library = draw_basal(trained, (n_states,), "controls", np.random.default_rng(3))
        draw = draw_globals(trained, n_draws)
        z_p = draw.mask[:, :2].mul(draw.embedding[:, :2]).sum(1)  # A and B come first
        none = torch.zeros(1, 1, trained.module.n_latent)
        states = z_b[None]
        treated = trained.module.decode_share(states.expand(n_draws, -1, -1), z_p[:, None].expand(-1, n_states, -1),
                                              none.expand(n_draws, n_states, -1)).double().numpy()  # fmt: skip
        control = trained.module.decode_share(states, none.expand(1, n_states, -1), none.expand(1, n_states, -1))
        theta = trained.module.concentration.double().numpy()
    rng = np.random.default_rng(0)

    def expression(share: np.ndarray, times: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean over draws and states, and its squared standard error, per gene."""
        mean = share * library[:, None]
        counts = rng.poisson(rng.gamma(theta, mean / theta, size=(times, *mean.shape)))
        logs = np.log2(1 + 1e4 * counts / library[:, None])
        n = share.shape[0] * n_states
        return logs.mean(axis=(0, 1, 2)), logs.var(axis=0).sum(axis=(0, 1)) / (times * n**2)

    one, error_one = expression(treated, repeats)
    two, error_two = expression(control.double().numpy(), 4 * repeats)
    error = np.sqrt(error_one + error_two)
    difference = found.X[0] - (one - two)
    assert np.abs(one - two).max() > 0.5
    assert np.abs(difference / np.maximum(error, 1e-4)).max() < 5, np.abs(difference).max()


def test_raw_count_effects_are_differences_of_means(strong: cv.CradleVAE) -> None:
    found = strong.effects("C", n_draws=60, n_states=200, scale="mean").X[0]
    treated, control = (strong.predict(name, 4000, seed=7).X.toarray().astype(np.float64) for name in ("C", "control"))
    error = np.sqrt((treated.var(axis=0) + control.var(axis=0)) / 4000)
    # posterior draws and states of the effect are finite too: allow for as much again
    assert np.abs((found - (treated.mean(axis=0) - control.mean(axis=0))) / error).max() < 8


def test_published_effects_sample_at_one_library_size(strong: cv.CradleVAE) -> None:
    sampled = published_effects(strong.trained, ["A", "A+B"], n_particles=2000)
    assert sampled.shape == (2, 60)
    assert list(sampled.obs_names) == ["A", "A+B"]
    # the same in expectation as a paired effect from the prior at that library size
    large = strong.trained
    bank = large.controls
    same_size = type(bank)(bank.loc, bank.scale, np.full_like(bank.library_size, 10_000))
    paired = cv.CradleVAE.__new__(cv.CradleVAE)
    paired.trained = type(large)(**(vars(large) | {"controls": same_size}))
    expected = paired.effects(["A", "A+B"], n_draws=40, n_states=60, basal="prior").X
    assert np.corrcoef(sampled.X.ravel(), expected.ravel())[0, 1] > 0.95
    assert np.abs(sampled.X - expected).mean() < 0.25
    again = published_effects(strong.trained, ["A", "A+B"], n_particles=2000)
    np.testing.assert_array_equal(sampled.X, again.X)


def test_bad_requests_are_refused(model: cv.CradleVAE, untrained: cv.CradleVAE) -> None:
    for credible in (0.0, 1.0, 90):
        with pytest.raises(DataError, match=rf"credible is {credible}; it must lie between 0 and 1"):
            model.effects("A", credible=credible)
        with pytest.raises(DataError, match=rf"credible is {credible}; it must lie between 0 and 1"):
            model.artifact_signature(credible=credible)
    with pytest.raises(DataError, match="unknown perturbation 'X'"):
        model.effects("X")
    with pytest.raises(DataError, match="has not been trained"):
        untrained.effects("A")


def test_effects_are_written_and_read(model: cv.CradleVAE, tmp_path: object) -> None:
    effects = model.effects(["A"], n_draws=3, n_states=4)
    effects.write_h5ad(f"{tmp_path}/effects.h5ad")
    np.testing.assert_array_equal(ad.read_h5ad(f"{tmp_path}/effects.h5ad").X, effects.X)

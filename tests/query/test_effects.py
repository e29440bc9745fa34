"""Effects: exact where they are known, in line with sampling, and with intervals that enclose them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import cradlevae as cv
from cradlevae.errors import DataError
from cradlevae.model.estimation.effect_estimator import BLOCKS
from cradlevae.model.estimation.integration_design import PARTICLES
from cradlevae.model.estimation.latent_draws import draw_basal, draw_globals
from cradlevae.model.estimation.streams import seeded
from cradlevae.nn.log_expression import expected_log_expression
from cradlevae.query.effects import published_effects

pytestmark = pytest.mark.numeric


def test_shapes_labels_and_settings(model: cv.CradleVAE) -> None:
    effects = model.effects(["B+A", "C", "ctrl"], credible=0.8)
    assert effects.shape == (3, 60)
    assert list(effects.obs_names) == ["B+A", "C", "ctrl"]  # as they were asked for
    assert list(effects.var_names) == list(model.trained.genes)
    assert set(effects.layers) == {"low", "high", "sd", "mc_error", "lfsr"}
    assert effects.uns["effects"]["credible"] == 0.8
    assert effects.uns["effects"]["scale"] == "perturbseq"
    assert effects.uns["effects"]["error"] == 0.02
    assert (effects.obs["n_particles"] % PARTICLES == 0).all()
    assert np.isfinite(effects.X).all()


@pytest.mark.parametrize("scale", ["perturbseq", "mean"])
@pytest.mark.parametrize("basal", ["controls", "prior"])
def test_the_paired_effect_of_the_control_is_exactly_zero(strong: cv.CradleVAE, scale: str, basal: str) -> None:
    effects = strong.effects(["control", "A"], error=9, scale=scale, basal=basal)
    assert (effects["control"].X == 0).all()
    for layer in ("low", "high", "sd", "mc_error"):
        assert (effects["control"].layers[layer] == 0).all()
    assert (effects["control"].layers["lfsr"] == 0.5).all()
    assert np.abs(effects["A"].X).max() > 0.1


def test_intervals_enclose_the_mean_and_widen_with_credibility(strong: cv.CradleVAE) -> None:
    wide, narrow = (strong.effects(["A", "A+B"], credible=c, error=9) for c in (0.95, 0.5))
    np.testing.assert_array_equal(wide.X, narrow.X)
    mean = wide.X
    assert (wide.layers["low"] <= mean).all()
    assert (mean <= wide.layers["high"]).all()
    assert (wide.layers["low"] <= narrow.layers["low"]).all()
    assert (narrow.layers["high"] <= wide.layers["high"]).all()
    assert (wide.layers["sd"] > 0).all()


def test_signs_are_the_less_certain_the_nearer_the_interval_comes_to_none(strong: cv.CradleVAE) -> None:
    effects = strong.effects(["A", "A+B"], error=9)
    lfsr = effects.layers["lfsr"]
    assert (lfsr >= 0).all()
    assert (lfsr <= 0.5).all()
    z = np.abs(effects.X) / np.hypot(effects.layers["sd"], effects.layers["mc_error"])
    assert spearmanr(lfsr.ravel(), z.ravel()).statistic < -0.95


def test_all_conditions_with_training_cells_are_asked_for_by_default(
    model: cv.CradleVAE, simulated: ad.AnnData
) -> None:
    effects = model.effects(error=9)
    train = simulated[model.split.cells("train")].obs
    labels = train["perturbation"].astype(str)
    assert set(effects.obs_names) == set(labels) - {"control"}
    passing = labels[~train["artifact"].to_numpy(dtype=bool)].value_counts()
    assert effects.obs["n_cells"].to_dict() == {name: passing.get(name, 0) for name in effects.obs_names}
    unseen = next(iter(set(simulated.obs["perturbation"]) - set(labels)))
    assert model.effects([unseen], error=9).obs["n_cells"].tolist() == [0]


def test_the_seed_decides(strong: cv.CradleVAE) -> None:
    one, two, other = (strong.effects("A", error=9, seed=seed).X for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_what_else_is_asked_has_no_say(strong: cv.CradleVAE) -> None:
    alone = strong.effects("B", error=9).X[0]
    np.testing.assert_array_equal(strong.effects(["A", "B"], error=9)["B"].X[0], alone)


def brute_force(model: cv.CradleVAE, members: list[int], n_draws: int = 600, n_states: int = 128) -> torch.Tensor:
    """Effects from a full cross of many draws with many states, by direct expectation, (draws, states, genes)."""
    trained = model.trained
    module = trained.module
    with seeded(99):
        states = draw_basal(trained, (n_states,), "controls", np.random.default_rng(5))
        z_b, library = states.state, states.library_size
        shift = draw_globals(trained, n_draws).shift[:, members].sum(1)
        none = torch.zeros(1, n_states, module.n_latent)
        value = module.gene_effects.value[members]
        deviation = module.gene_effects.deviation(
            torch.tensor(members), module.likelihood.information(module.gene_effects.mean_count)
        )
        offset = (value + deviation * torch.randn(n_draws, *value.shape)).sum(1)

        def expression(z_p: torch.Tensor, offset: torch.Tensor | None = None) -> torch.Tensor:
            share = module.decode_share(z_b[None], z_p, offset=offset)[0]
            return expected_log_expression(share, module.likelihood, torch.from_numpy(library))

        control = expression(none)
        both = zip(shift, offset, strict=True)
        return torch.stack([expression(z_p.expand(1, n_states, -1), moved) - control for z_p, moved in both])


@pytest.fixture(scope="module", params=["model", "strong"])
def repeated(request: pytest.FixtureRequest) -> tuple[cv.CradleVAE, list[ad.AnnData]]:
    """Effects of A+B at thirty seeds, the first particles only."""
    model = request.getfixturevalue(request.param)
    return model, [model.effects("A+B", error=float("inf"), residual=False, seed=seed) for seed in range(30)]


def test_the_stated_error_is_the_spread_over_runs(repeated: tuple[cv.CradleVAE, list[ad.AnnData]]) -> None:
    runs = repeated[1]
    stated = np.sqrt(np.mean([run.layers["mc_error"] ** 2 for run in runs]))
    spread = np.sqrt(np.var([run.X for run in runs], axis=0, ddof=1).mean())
    assert stated == pytest.approx(spread, rel=0.2)
    assert spread > 0.01


def test_mean_and_interval_are_those_of_many_more_particles(repeated: tuple[cv.CradleVAE, list[ad.AnnData]]) -> None:
    """Neither the noise of a draw's few states nor the ties between draws widen or narrow the interval."""
    model, runs = repeated
    crossed = brute_force(model, [0, 1]).numpy()
    drawn, by_state = crossed.mean(axis=1), crossed.mean(axis=0)
    error = np.sqrt((drawn.var(axis=0) / len(drawn) + by_state.var(axis=0) / len(by_state)).mean())
    mean = np.mean([run.X[0] for run in runs], axis=0)
    assert np.sqrt(((mean - drawn.mean(axis=0)) ** 2).mean()) < 2 * error
    assert error < 0.1 * drawn.std(axis=0).mean()
    sd = np.sqrt(np.mean([run.layers["sd"][0] ** 2 for run in runs], axis=0))
    assert np.median(sd / drawn.std(axis=0)) == pytest.approx(1, abs=0.05)
    width = np.mean([run.layers["high"][0] - run.layers["low"][0] for run in runs], axis=0)
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    assert np.median(width / (high - low)) == pytest.approx(1, abs=0.08)  # quantiles of 56 draws lie a little inwards


def test_a_target_is_met_or_its_failure_said(strong: cv.CradleVAE) -> None:
    loose, tight = (strong.effects(["A"], error=error) for error in (0.2, 0.03))
    assert tight.obs["n_particles"].iloc[0] > 2 * loose.obs["n_particles"].iloc[0]
    assert np.quantile(tight.layers["mc_error"], 0.98) <= 0.03
    with pytest.warns(UserWarning, match=r"error of the effects of 'A' is above 0.0001 after 4,032 particles"):
        given_up = strong.effects(["A", "control"], error=1e-4)
    assert given_up.obs["n_particles"].tolist() == [4032, PARTICLES * BLOCKS]
    # and the error is what it says: two estimates differ by no more
    error = np.sqrt(tight.layers["mc_error"] ** 2 + given_up["A"].layers["mc_error"] ** 2)
    assert np.sqrt((((tight.X - given_up["A"].X) / error) ** 2).mean()) < 1.6


def test_a_certain_posterior_has_no_interval(strong: cv.CradleVAE) -> None:
    """The states differ in their effects, the draws do not: that must not show as uncertainty."""
    certain = cv.CradleVAE.__new__(cv.CradleVAE)
    module = copy.deepcopy(strong.trained.module)
    with torch.no_grad():
        module.mask.logits.copy_(100 * module.mask.logits.sign())
        head = module.embedding.encoder.head.linear
        head.weight[module.n_latent :].zero_()
        head.bias[module.n_latent :].fill_(-30)
        module.gene_effects.log_spread.fill_(-10)
    certain.trained = replace(strong.trained, module=module)
    found = certain.effects("A", error=float("inf"), residual=False)
    assert np.abs(found.X).max() > 0.5
    assert np.median(found.layers["sd"]) < 0.03
    # the states that a mean is taken over are still few
    assert np.median(found.layers["mc_error"]) > 0.005


def test_raw_count_effects_are_differences_of_means(strong: cv.CradleVAE) -> None:
    found = strong.effects("C", error=1, scale="mean").X[0]
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
    expected = paired.effects(["A", "A+B"], error=0.1, basal="prior").X
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
    effects = model.effects(["A"])
    effects.write_h5ad(f"{tmp_path}/effects.h5ad")
    np.testing.assert_array_equal(ad.read_h5ad(f"{tmp_path}/effects.h5ad").X, effects.X)


def test_every_spelling_has_a_row_of_its_own(model: cv.CradleVAE) -> None:
    effects = model.effects(["B+A", "A", "A+B", "ctrl"], error=9)
    assert list(effects.obs_names) == ["B+A", "A", "A+B", "ctrl"]
    np.testing.assert_array_equal(effects["B+A"].X, effects["A+B"].X)
    np.testing.assert_array_equal(effects["A+B"].X, model.effects("A+B", error=9).X)
    sampled = model.published_effects(["B+A", "A+B"], n_particles=50)
    np.testing.assert_array_equal(sampled["B+A"].X, sampled["A+B"].X)


@pytest.mark.parametrize("label", ["", "  ", "+", "nan", [], ["A", ""]])
def test_what_names_no_condition_is_refused(model: cv.CradleVAE, label: Any) -> None:
    for ask in (model.effects, model.predict, model.published_effects):
        with pytest.raises(cv.DataError):
            ask(label)

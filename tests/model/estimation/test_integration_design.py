"""The layout of a batch of particles, and what is told from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cradlevae as cv
from cradlevae.model.estimation.integration_design import (
    DRAWS,
    OFFSETS,
    PARTICLES,
    deviation_noise,
    draw_effects,
    draw_shifts,
    draw_states,
    latin_hypercube,
    met,
    residual_freedom,
)
from cradlevae.model.estimation.latent_draws import draw_globals
from cradlevae.model.estimation.streams import seeded

DRAW = (np.arange(DRAWS)[:, None] - np.array(OFFSETS)).ravel() % DRAWS
STATE = np.repeat(np.arange(DRAWS), len(OFFSETS))


def test_any_two_draws_have_one_state_in_common() -> None:
    met = np.zeros((DRAWS, DRAWS))
    met[DRAW, STATE] = 1
    assert met.sum() == PARTICLES
    np.testing.assert_array_equal(met @ met.T, 1 + 2 * np.eye(DRAWS))


def test_draws_are_told_from_states() -> None:
    rng = np.random.default_rng(0)
    draw, state = rng.normal(size=(2, DRAWS, 30))
    values = torch.from_numpy(3 + draw[DRAW] + 10 * state[STATE]).float()
    deviations, residual = draw_effects(values)
    np.testing.assert_allclose(deviations, draw - draw.mean(axis=0), atol=1e-4)
    assert residual.max() < 1e-2  # of sums of squares of about 2,000


def test_the_noise_of_a_particle_is_found_and_what_it_does_to_the_draws() -> None:
    noise = torch.randn(PARTICLES, 20_000, generator=torch.Generator().manual_seed(0))
    deviations, residual = draw_effects(noise)
    assert float(residual.mean()) / residual_freedom() == pytest.approx(1, abs=0.02)
    assert float(deviations.square().sum(0).mean()) == pytest.approx(deviation_noise(), rel=0.02)


def test_a_latin_hypercube_has_one_point_in_each_stratum() -> None:
    points = latin_hypercube(np.random.default_rng(0), 9, 40)
    assert ((points > 0) & (points < 1)).all()
    np.testing.assert_array_equal(np.sort(np.floor(points * 9), axis=0), np.tile(np.arange(9)[:, None], (1, 40)))


def test_states_are_spread_over_the_library_sizes_of_controls(strong: cv.CradleVAE) -> None:
    states = draw_states(strong.trained, "controls", 0, range(2, 4))
    assert states.basal.shape == (2 * DRAWS, 8)
    sizes = np.sort(strong.trained.bank().library_size)
    rank = np.searchsorted(sizes, states.library_size.view(2, DRAWS).numpy())
    middle = np.arange(DRAWS) + 0.5
    assert np.abs(np.sort(rank * DRAWS / len(sizes), axis=1) - middle).max() < 0.7  # a half, and ties


@pytest.mark.parametrize("guide", ["correlated", "mean-field"])
def test_shifts_are_draws_from_the_guide(simulated, tiny_options, guide: str) -> None:
    model = cv.CradleVAE(simulated, guide=guide, **tiny_options).trained
    module = model.module
    with torch.no_grad():
        module.mask.logits.copy_(torch.linspace(-3, 3, 8).expand(5, -1))
        head = [parameter for name, parameter in module.named_parameters() if name.startswith("embedding")][-4:]
        for parameter in head:
            parameter.add_(torch.linspace(-0.5, 0.5, parameter.shape[-1]))
    with seeded(0):
        own = draw_globals(model, 20_000).shift[:, [1, 3]].sum(1)
        ours = draw_shifts(model, torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]]), 0, range(600))[:, :, 0]
    assert ours.shape == (600, DRAWS, 8)
    assert met(ours).shape == (600 * DRAWS, len(OFFSETS), 8)
    ours = ours.flatten(0, 1)
    spread = own.std(0)
    assert ((ours.mean(0) - own.mean(0)).abs() < 5 * spread / 4000**0.5).all()
    np.testing.assert_allclose(ours.std(0), spread, rtol=0.1)

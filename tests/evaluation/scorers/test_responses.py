"""Which genes respond to a perturbation, and how specifically, by the noise of the measurement."""

from __future__ import annotations

import numpy as np
import pytest

from cradlevae.evaluation.reference_effects import Noise
from cradlevae.evaluation.scorers import responses as module
from cradlevae.evaluation.scorers.responses import Responses, responses

GENES = ["A", *(f"g{place}" for place in range(1, 20))]


def of(effects: np.ndarray, error: np.ndarray | float = 1.0, names: list[str] | None = None) -> Responses:
    standard_error = np.broadcast_to(np.asarray(error, dtype=float), effects.shape)
    half = (effects, standard_error)
    noise = Noise(np.full(len(effects), 100.0), standard_error, (half, half))
    return responses(effects, noise, names or [f"P{row}" for row in range(len(effects))], GENES, None)


def test_hits_are_beyond_chance_and_not_the_target() -> None:
    effects = np.zeros((2, 20))
    effects[0, [0, 1]], effects[1, 2] = 10.0, -10.0
    found = of(effects, names=["A", "B"])
    assert np.argwhere(found.hits).tolist() == [[0, 1], [1, 2]]  # gene A is the target of A
    assert found.real[0, 0] == found.weights[0, 0] == 0.0
    assert not of(effects, error=10.0).hits.any()


def test_weights_are_squares_of_how_far_an_effect_is_from_the_mean_effect() -> None:
    effects = np.zeros((2, 20))
    effects[:, 1] = 5.0  # shared by all
    effects[0, 2], effects[0, 3] = 4.0, 2.0
    weights = of(effects).weights
    np.testing.assert_allclose(weights[0, [1, 2, 3]], [0.0, 0.8, 0.2])
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    np.testing.assert_allclose(of(effects[:1]).weights, 1 / 20)  # one alone has nothing of its own
    error = np.ones(20)
    error[2] = 2.0  # measured half as well
    np.testing.assert_allclose(of(effects, error).weights[0, [2, 3]], 0.5)


def test_of_many_perturbations_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    effects = np.random.default_rng(0).normal(size=(9, 20))
    found = of(effects)
    assert found.rows.tolist() == [0, 4, 8]
    assert found.scores(effects)["wmse"] == 0.0
    assert np.isnan(list(found.scores(np.full_like(effects, np.nan)).values())).all()

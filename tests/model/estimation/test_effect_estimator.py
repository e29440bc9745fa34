"""Effects of many conditions at once are those of each alone, up to their Monte-Carlo error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cradlevae as cv
from cradlevae.model.estimation import effect_estimator
from cradlevae.model.estimation.effect_estimator import effects_of, estimate_effects, mean_effects
from cradlevae.model.estimation.effect_posterior import LAYERS


@pytest.fixture(scope="module", params=["plain", "contexts"])
def strong(request: pytest.FixtureRequest, tiny_options: dict[str, Any], quick: dict[str, Any]) -> cv.CradleVAE:
    contexts = {} if request.param == "plain" else {"n_contexts": 2, "context_sd": 0.5}
    adata = cv.simulate(n_cells=900, n_genes=50, n_perturbations=6, n_combinations=2, n_latent=6, seed=1, **contexts)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    key = {} if request.param == "plain" else {"context_key": "context"}
    model = cv.CradleVAE(adata, split=cv.split(adata, "cells", seed=0), **key, **tiny_options)
    model.train(max_epochs=3, **quick)
    return model


def test_means_are_those_of_the_full_estimate_up_to_their_error(strong: cv.CradleVAE) -> None:
    names = [name for name in strong.trained.answerable(strong.data.conditions) if name != "control"]
    dosage = strong.trained.dosage(tuple(names))
    full = estimate_effects(strong.trained, effects_of(names, dosage), lambda _, one: one.layers(), error=0.02)
    found = mean_effects(strong.trained, names, dosage)
    particles = np.array(full.n_particles)[:, None]
    error = full.layers["mc_error"] * np.sqrt(particles / 7)  # seven particles instead, which are less well spread
    away = (found - full.layers["X"]) / np.maximum(error, 0.01)
    assert np.sqrt((away**2).mean()) < 1.5
    assert np.corrcoef(found.ravel(), full.layers["X"].ravel())[0, 1] > 0.8


def test_company_does_not_matter(strong: cv.CradleVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in strong.trained.answerable(strong.data.conditions) if name != "control"]
    dosage = strong.trained.dosage(tuple(names))
    together = mean_effects(strong.trained, names, dosage)
    monkeypatch.setattr(effect_estimator, "CONDITIONS", 2)
    np.testing.assert_allclose(mean_effects(strong.trained, names, dosage), together, atol=1e-4)
    alone = mean_effects(strong.trained, names[3:4], dosage[3:4])
    np.testing.assert_allclose(alone[0], together[3], atol=1e-4)


def test_only_the_layers_that_are_wanted(strong: cv.CradleVAE) -> None:
    names = strong.trained.own_treatments[:2]
    dosage = strong.trained.dosage(tuple(names))
    found, every = (
        estimate_effects(
            strong.trained,
            effects_of(names, dosage),
            lambda _, one, wanted=wanted: one.layers(wanted=wanted),
            error=0.05,
        )
        for wanted in (("sd", "X"), LAYERS)
    )
    assert set(found.layers) == {"sd", "X"}
    np.testing.assert_array_equal(found.layers["X"], every.layers["X"])

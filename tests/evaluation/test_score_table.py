"""Best floor and fraction, whichever way a metric is better."""

from __future__ import annotations

import numpy as np
import pytest

from cradlevae.evaluation.metrics import latents  # noqa: F401  registers leakage and likelihood
from cradlevae.evaluation.metrics.effects import ate_rho
from cradlevae.evaluation.metrics.registry import REGISTRY
from cradlevae.evaluation.score_table import LOW_CEILING_NOTE, best_of, fraction_of


@pytest.mark.parametrize(
    ("metric", "best"),
    [("ate_r2", 0.9), ("mse_delta", -1.0), ("leakage_z_basal", 0.45), ("iwelbo", 0.9), ("clean_deviance", -1.0)],
)
def test_the_best_floor_is_the_one_nearest_to_the_best_value(metric: str, best: float) -> None:
    low = 0.1 if REGISTRY[metric].best == 0 else -1.0
    values = {"a": low, "b": 0.45, "c": 0.9, "missing": np.nan}
    assert best_of(metric, values) == ((low, "a") if best == -1.0 else (best, {0.45: "b", 0.9: "c"}[best]))
    assert best_of(metric, {"missing": np.nan})[1] == ""


def test_a_fraction_needs_a_ceiling_above_the_floor() -> None:
    assert fraction_of("ate_rho", 0.5, 0.4, 0.8) == (pytest.approx(0.25), "")
    for ceiling in (0.4, 0.3):
        fraction, note = fraction_of("ate_rho", 0.5, 0.4, ceiling)
        assert np.isnan(fraction)
        assert note == LOW_CEILING_NOTE
    null = np.zeros((2, 5))
    fraction, note = fraction_of("ate_rho", ate_rho(null, null), 0.0, 0.0)  # floor and ceiling are both nought
    assert np.isnan(fraction)
    assert note == LOW_CEILING_NOTE
    assert np.isnan(fraction_of("ate_rho", 0.5, 0.4, np.nan)[0])
    assert fraction_of("ate_rho", 0.5, np.nan, 0.8)[1] == ""
    assert fraction_of("mse_delta", 0.5, 0.6, 0.2) == (pytest.approx(0.25), "")

"""What the decoder leaves of effects: sums of it, and what their errors have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cradlevae.data.labels import condition_name
from cradlevae.model.estimation.effect_residual import EffectResidual, MeasurementNoise

GENES = 7


def residual(**changes: Any) -> EffectResidual:
    """That of three treatments and the combination of the first two."""
    rng = np.random.default_rng(0)
    within = rng.uniform(0.5, 2, GENES).astype(np.float32)
    noise = MeasurementNoise(np.array([40.0, 80.0, 60.0]), np.array([50.0]), 100.0, within)
    kept = rng.uniform(0.2, 0.9, (4, GENES)).astype(np.float32)
    cells = np.array([*noise.n_cells, *noise.combined_cells])[:, None]
    sd = np.sqrt(kept * within * (1 / cells + 1 / 100)).astype(np.float32)
    mean = rng.standard_normal((4, GENES)).astype(np.float32)
    table: dict[str, Any] = {
        "mean": mean[:3], "sd": sd[:3], "part": np.ones(3, dtype=np.float32), "combinations": ("A+B",),
        "combined_mean": mean[3:], "combined_sd": sd[3:], "combined_part": 1.0,
        "unmeasured_sd": np.full(GENES, 0.1, dtype=np.float32), "noise": noise,
        "control_mean": np.zeros(GENES, dtype=np.float32),
    }  # fmt: skip
    return EffectResidual(**(table | changes))


NAMES = {"A": (1, 0, 0), "B": (0, 1, 0), "C": (0, 0, 1), "A+B": (1, 1, 0), "B+C": (0, 1, 1)}


def asked(one: EffectResidual, weights: dict[str, float], **options: Any) -> tuple[np.ndarray, np.ndarray]:
    conditions = [condition_name(name.split("+")) for name in weights]
    dosage = np.array([NAMES[name] for name in weights], dtype=np.float32)
    return one.of_contrast(conditions, list(weights.values()), dosage, **options)


def drawn(one: EffectResidual, n: int = 200_000) -> dict[str, np.ndarray]:
    """Errors of conditions, (draws,) of one gene: those of the controls, of a treatment's own cells, and the rest."""
    rng = np.random.default_rng(1)
    noise = one.noise
    base = rng.standard_normal(n) * noise.of_controls[0]
    errors = {}

    def of(cells: float, sd: float) -> np.ndarray:
        kept = noise.kept(cells, np.full(GENES, sd**2, dtype=np.float32))[0]
        shared = kept * base
        own = np.sqrt(max(sd**2 - kept**2 * noise.of_controls[0] ** 2, 0))
        return np.asarray(shared + own * rng.standard_normal(n))

    for place, name in enumerate("ABC"):
        errors[name] = of(noise.n_cells[place], one.sd[place, 0])
    kept = noise.kept(noise.combined_cells[0], one.combined_sd[0] ** 2)[0]
    errors["A+B"] = of(noise.combined_cells[0], one.combined_sd[0, 0]) + (1 - kept) * (errors["A"] + errors["B"])
    errors["B+C"] = errors["B"] + errors["C"] + one.unmeasured_sd[0] * rng.standard_normal(n)
    errors["controls"] = -base
    return errors


@pytest.mark.parametrize(
    "weights",
    [{"A": 1}, {"A+B": 1}, {"B+C": 1}, {"A": 1, "B": -1}, {"A+B": 1, "A": -1, "B": -1}, {"B+C": 1, "B": -1, "C": -1},
     {"A+B": 1, "B+C": -1}],
)  # fmt: skip
def test_errors_that_conditions_have_in_common_are_counted_once(weights: dict[str, float]) -> None:
    one = residual()
    errors = drawn(one)
    _, variance = asked(one, weights)
    total = sum(weight * errors[name] for name, weight in weights.items())
    assert variance[0] == pytest.approx(total.var(), rel=0.02)
    _, expressed = asked(one, weights, from_control=True)
    assert expressed[0] == pytest.approx((total + errors["controls"]).var(), rel=0.02)


def test_means_add_up() -> None:
    one = residual()
    a, b, both = (asked(one, {name: 1})[0] for name in ("A", "B", "A+B"))
    np.testing.assert_allclose(asked(one, {"A+B": 1, "A": -1, "B": -1})[0], both - a - b, atol=1e-6)
    np.testing.assert_allclose(asked(one, {"B+C": 1, "B": -1, "C": -1})[0], 0, atol=1e-6)
    np.testing.assert_allclose(asked(one, {"B+C": 1, "B": -1, "C": -1})[1], one.unmeasured_sd**2, rtol=1e-5)
    np.testing.assert_allclose(both, one.combined_mean[0])


def test_a_single_effect_has_its_own_variance_and_many_rows_are_each_alone() -> None:
    one = residual()
    conditions = [condition_name(name.split("+")) for name in NAMES]
    dosage = np.array(list(NAMES.values()), dtype=np.float32)
    mean, variance = one.of(conditions, dosage)
    np.testing.assert_allclose(variance[:3], one.sd**2, rtol=1e-5)
    for row, name in enumerate(NAMES):
        found = asked(one, {name: 1})
        np.testing.assert_array_equal(mean[row], found[0])
        np.testing.assert_array_equal(variance[row], found[1])


def test_what_was_not_measured_shares_nothing() -> None:
    one = residual(sd=np.zeros((3, GENES), dtype=np.float32))
    assert not asked(one, {"A": 1, "C": -1})[1].any()

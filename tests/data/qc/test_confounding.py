from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, fisher_exact

from cradlevae.data.qc.confounding import confounding_test
from cradlevae.errors import DataError

NAMES = ["A", "B", "control", "nobody"]


def cells(table: dict[int, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Condition codes and failures from {code: (failed, passed)}."""
    codes = np.concatenate([np.repeat(code, sum(pair)) for code, pair in table.items()])
    failed = np.concatenate([np.repeat([True, False], pair) for pair in table.values()])
    return codes, failed


def test_by_hand():
    codes, failed = cells({0: (30, 70), 1: (12, 88), 2: (50, 450)})
    found = confounding_test(codes, NAMES, failed)
    assert list(found["perturbation"]) == ["A", "B"]  # a condition without cells has no row
    assert list(found["n_cells"]) == [100, 100]
    assert list(found["n_failed"]) == [30, 12]
    np.testing.assert_allclose(found["share_failed"], [0.3, 0.12])
    p = [fisher_exact([[30, 70], [50, 450]])[1], fisher_exact([[12, 88], [50, 450]])[1]]
    np.testing.assert_allclose(found["p_value"], p)
    np.testing.assert_allclose(found["q_value"], false_discovery_control(p))
    assert list(found["flagged"]) == [True, False]
    odds = np.log((30.5 / 70.5) / (50.5 / 450.5))
    error = np.sqrt(1 / 30.5 + 1 / 70.5 + 1 / 50.5 + 1 / 450.5)
    row = found.iloc[0]
    expected = [odds, odds - 1.96 * error, odds + 1.96 * error]
    np.testing.assert_allclose(row[["log_odds", "low", "high"]].astype(float), expected, atol=1e-4)


def test_no_failures_or_only_failures_stay_finite():
    codes, failed = cells({0: (40, 0), 1: (0, 40), 2: (0, 200)})
    found = confounding_test(codes, NAMES, failed)
    assert np.isfinite(found[["log_odds", "low", "high", "p_value"]].to_numpy()).all()
    assert list(found["flagged"]) == [True, False]


def test_both_directions_are_flagged_and_the_sign_tells():
    codes, failed = cells({0: (2, 198), 1: (120, 80), 2: (200, 300)})
    found = confounding_test(codes, NAMES, failed)
    assert found["flagged"].all()
    assert list(np.sign(found["log_odds"])) == [-1, 1]


def test_order_of_cells_and_cells_left_out_do_not_matter():
    codes, failed = cells({0: (30, 70), 1: (12, 88), 2: (50, 450)})
    base = confounding_test(codes, NAMES, failed)
    order = np.random.default_rng(0).permutation(len(codes))
    more = np.r_[codes[order], [-1] * 50]
    shuffled = confounding_test(more, NAMES, np.r_[failed[order], [True] * 50])
    assert base.equals(shuffled)


def test_few_false_alarms_and_intervals_that_cover():
    random = np.random.default_rng(0)
    codes = np.r_[np.repeat(np.arange(200), 80), np.repeat(200, 2000)]
    names = [*(f"p{row}" for row in range(200)), "control"]
    failed = random.random(len(codes)) < 0.25
    found = confounding_test(codes, names, failed)
    assert not found["flagged"].any()
    share = ((found["low"] < 0) & (found["high"] > 0)).mean()
    assert 0.88 < share <= 1.0


def test_bad_input_is_named():
    codes, failed = cells({0: (3, 7), 1: (1, 8)})
    with pytest.raises(DataError, match="no 'control' cells"):
        confounding_test(codes, NAMES, failed)
    with pytest.raises(DataError, match="one of each per cell"):
        confounding_test(codes, NAMES, failed[1:])

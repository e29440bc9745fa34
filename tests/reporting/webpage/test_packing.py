"""Numbers in the page: short, and right to their step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cradlevae.errors import DataError
from cradlevae.reporting.webpage.packing import packed, unpacked

NUMBERS = st.lists(st.one_of(st.floats(-1e4, 1e4), st.just(float("nan"))), max_size=50)


@given(NUMBERS, st.sampled_from([1.0, 0.5, 0.002]), st.booleans())
def test_numbers_come_back_right_to_half_a_step(numbers, step, delta):
    values = np.array(numbers, dtype=np.float64)
    back = unpacked(packed(values, step, delta=delta))
    assert np.array_equal(np.isnan(back), np.isnan(values))
    assert np.nanmax(np.abs(back - values), initial=0.0) <= step / 2 * 1.001


def test_small_numbers_take_two_bytes_and_large_ones_four():
    assert packed([1, -2])["bytes"] == 2
    assert packed([1, 40_000])["bytes"] == 4


def test_the_same_numbers_give_the_same_text():
    assert packed(np.arange(100)) == packed(np.arange(100))


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e12])
def test_what_no_step_holds_is_refused(value):
    with pytest.raises(DataError, match="cannot be kept"):
        packed([value], 0.01)

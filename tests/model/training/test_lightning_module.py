"""The record of an epoch: means over cells, and the first batch that went wrong, however late one looks."""

from __future__ import annotations

import math

import pytest
import torch

from cradlevae.model.training.lightning_module import EpochRecord

NAMES = ("reconstruction", "basal")


def record(rows: list[list[float]], cells: list[int]) -> EpochRecord:
    made = EpochRecord()
    for row, n_cells in zip(rows, cells, strict=True):
        made.add(NAMES, torch.tensor(row), n_cells)
    return made


def test_means_are_over_cells() -> None:
    made = record([[1.0, 4.0], [3.0, 8.0], [100.0, 100.0]], [3, 1, 0])  # the last batch had none of this process's
    assert made.means() == {"reconstruction": 1.5, "basal": 5.0}
    assert EpochRecord().means() == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_wrong_batch_is_named_however_late_one_looks(bad: float) -> None:
    made = record([[1.0, 1.0]] * 3, [2, 2, 2])
    assert made.first_not_finite() is None
    made.add(NAMES, torch.tensor([2.0, 2.0]), 2)
    made.add(NAMES, torch.tensor([3.0, bad]), 2)
    made.add(NAMES, torch.tensor([math.nan, math.nan]), 2)
    found = made.first_not_finite()
    assert found is not None
    assert found[0] == 4
    torch.testing.assert_close(torch.tensor(list(found[1].values())), torch.tensor([3.0, bad]), equal_nan=True)
    assert list(found[1]) == list(NAMES)
    assert made.first_not_finite() is None


def test_large_but_finite_losses_are_let_pass() -> None:
    assert record([[3e38, 3e38]], [1]).first_not_finite() is None

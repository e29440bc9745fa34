"""Rows of a table: the same values and gradients, whether these are held whole or by rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cradlevae.nn import rows
from cradlevae.nn.rows import dosed_rows, rows_of, sparse_row_gradients


def gradient(by_rows: bool, chosen_rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    table = torch.nn.Parameter(torch.arange(12.0).view(4, 3))
    chosen = torch.tensor(chosen_rows)
    if by_rows:
        with sparse_row_gradients():
            values = rows_of(table, chosen)
    else:
        values = rows_of(table, chosen)
    (values**2).sum().backward()
    assert table.grad is not None
    assert table.grad.is_sparse == by_rows
    return values.detach(), table.grad.to_dense() if by_rows else table.grad


def test_values_and_gradients_are_the_same() -> None:
    for found, expected in zip(gradient(True, [3, 1, 3]), gradient(False, [3, 1, 3]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_all_rows_are_the_table() -> None:
    table = torch.nn.Parameter(torch.ones(2, 2))
    assert rows_of(table, None) is table


def test_outside_gradients_are_whole_again() -> None:
    with sparse_row_gradients():
        pass
    gradient(False, [0])


def test_sums_by_dosage_are_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "SMALL", 0)
    generator = torch.Generator().manual_seed(0)
    dosage = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0.5, 1], [0, 0, 0]])
    table = torch.randn(3, 5, generator=generator).requires_grad_()
    weight = torch.randn(4, 5, generator=generator)
    found, expected = dosed_rows(dosage, table), dosage @ table
    np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-6)
    gradients = [torch.autograd.grad((one * weight).sum(), table)[0] for one in (found, expected)]
    np.testing.assert_allclose(*gradients, rtol=1e-6)

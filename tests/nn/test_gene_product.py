"""Sparse cells and dense profiles times a matrix, against the dense product."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cradlevae.nn import gene_product as room
from cradlevae.nn.counts import SparseCounts
from cradlevae.nn.gene_product import gene_product

pytestmark = pytest.mark.numeric


def sparse(dense: Tensor) -> SparseCounts:
    positives = dense.nonzero()
    starts = torch.cat([torch.zeros(1, dtype=torch.long), (dense != 0).sum(1).cumsum(0)])
    return SparseCounts(dense[positives[:, 0], positives[:, 1]], positives[:, 1], starts, dense.shape[1])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), cells=st.integers(1, 6), genes=st.integers(1, 8), profiles=st.integers(0, 3),
    width=st.integers(1, 5), threshold=st.sampled_from([0.0, 2.0]), taken_out=st.integers(0, 3),
)  # fmt: skip
def test_value_and_gradient_are_those_of_the_dense_product(
    seed: int, cells: int, genes: int, profiles: int, width: int, threshold: float, taken_out: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dense = torch.where(normal(cells, genes) > 0.5, normal(cells, genes).exp(), 0.0)  # some cells without a count
    rows, weight, shift = normal(profiles, genes), normal(genes, width).requires_grad_(), normal(genes)
    table, row = normal(taken_out, genes), torch.randint(max(taken_out, 1), (cells,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "SPARSE_BELOW", threshold)  # dense always, or sparse always
        found = torch.cat(gene_product(sparse(dense), rows, weight, shift, (table, row) if taken_out else None))
    left = dense - table[row] if taken_out else dense
    expected = (torch.cat([left, rows]) - shift) @ weight
    np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-10, atol=1e-12)
    by = normal(cells + profiles, width)
    (one,), (two,) = torch.autograd.grad(found, weight, by), torch.autograd.grad(expected, weight, by)
    np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)

"""The count likelihood in one pass against the direct formulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cradlevae.nn import fused
from cradlevae.nn.counts import AddedRates, SparseCounts, decoded_share
from cradlevae.nn.fused import linear_gamma_poisson
from cradlevae.nn.gamma_poisson import gamma_poisson_log_prob
from cradlevae.nn.matmul import matmul_precision

pytestmark = pytest.mark.numeric


def sparse(dense: Tensor) -> SparseCounts:
    cells, genes = dense.nonzero(as_tuple=True)
    starts = torch.cat([torch.zeros(1, dtype=torch.long), (dense > 0).sum(1).cumsum(0)])
    return SparseCounts(dense[cells, genes], genes, starts, dense.shape[1])


@dataclass
class Problem:
    """A linear decoder and counts, in float64."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    log_concentration: Tensor
    dense: Tensor
    library_size: Tensor
    cell_weight: Tensor | None
    added: AddedRates | None = None

    @property
    def parameters(self) -> list[Tensor]:
        own = [self.hidden, self.weight, self.bias, self.log_concentration]
        return own if self.added is None else [*own, self.added.table, self.added.scale]

    def direct(self) -> tuple[Tensor, Tensor]:
        rates = self.hidden @ self.weight.T + self.bias
        share = torch.softmax(rates if self.added is None else rates + self.added.of(slice(None)), dim=-1)
        mean = self.library_size[:, None] * share
        concentration = self.log_concentration.exp()
        rate = (concentration / (mean + 1e-4)).clamp_min(1e-6)
        per_cell = gamma_poisson_log_prob(self.dense, concentration, rate).sum(-1)
        weight = torch.ones_like(self.library_size) if self.cell_weight is None else self.cell_weight
        return (per_cell.mean(0) * weight).sum(), per_cell

    def fast(self) -> tuple[Tensor, Tensor]:
        own = self.hidden, self.weight, self.bias, self.log_concentration
        return linear_gamma_poisson(*own, sparse(self.dense), self.library_size, self.cell_weight, self.added)


def problem(
    *,
    particles: int = 3,
    cells: int = 9,
    genes: int = 6,
    seed: int = 0,
    floored: bool = False,
    weighted: bool = True,
    added: int = 0,
) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dense = torch.poisson(normal(cells, genes).exp(), generator=generator)
    dense[cells // 2] = 0
    dense[cells // 2, 0] = 1  # a cell with a single count
    library = dense.sum(1)
    log_concentration = normal(genes)
    if floored:  # θ / μ under 1e-6 for some genes and cells, not for others
        library = library * torch.logspace(0, 4, cells, dtype=torch.float64)
        log_concentration = log_concentration - torch.linspace(0, 12, genes, dtype=torch.float64)
    rates = None
    if added:  # rows that cells share, one for all particles or one for each
        row = torch.randint(3, (cells,), generator=generator)
        rates = AddedRates(normal(3, genes).requires_grad_(), row, normal(added, cells).requires_grad_())
    return Problem(
        *(tensor.requires_grad_() for tensor in (normal(particles, cells, 4), normal(genes, 4), normal(genes))),
        log_concentration.requires_grad_(), dense, library, normal(cells).exp() if weighted else None, rates,
    )  # fmt: skip


def share_floored(case: Problem) -> float:
    with torch.no_grad():
        mean = case.library_size[:, None] * decoded_share(case.hidden, case.weight, case.bias)
        return float((case.log_concentration.exp() / (mean + 1e-4) < 1e-6).double().mean())


@pytest.mark.parametrize("added", [0, 1, 3])
@pytest.mark.parametrize("floored", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("block_values", "chunk_values"), [(1, 1), (40, 13), (8_000_000, 60), (100, 500_000)])
def test_fast_is_direct_in_values_and_gradients(
    added: int, floored: bool, weighted: bool, block_values: int, chunk_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "PRODUCT_VALUES", block_values)
    monkeypatch.setattr(fused, "CHUNK_VALUES", chunk_values)
    case = problem(floored=floored, weighted=weighted, added=added)
    assert added or (0.05 < share_floored(case) < 0.95) == floored
    total, per_cell = case.fast()
    expected_total, expected_per_cell = case.direct()
    np.testing.assert_allclose(per_cell.detach(), expected_per_cell.detach(), rtol=1e-9)
    np.testing.assert_allclose(total.item(), expected_total.item(), rtol=1e-9)
    assert not per_cell.requires_grad
    names = ("hidden", "weight", "bias", "log_concentration", "table", "scale")[: len(case.parameters)]
    found = torch.autograd.grad(3 * total, case.parameters)
    expected = torch.autograd.grad(3 * expected_total, case.parameters)
    for name, one, two in zip(names, found, expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-7, atol=1e-9 * float(two.abs().max()), err_msg=name)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), particles=st.integers(1, 4), cells=st.integers(1, 7), genes=st.integers(1, 9),
    floored=st.booleans(), added=st.booleans(), block_values=st.integers(1, 200), chunk_values=st.integers(1, 200),
)  # fmt: skip
def test_fast_is_direct_for_any_shape(
    seed: int, particles: int, cells: int, genes: int, floored: bool, added: bool, block_values: int, chunk_values: int
) -> None:
    rows = particles if added else 0
    case = problem(particles=particles, cells=cells, genes=genes, seed=seed, floored=floored, added=rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "PRODUCT_VALUES", block_values)
        patch.setattr(fused, "CHUNK_VALUES", chunk_values)
        total, per_cell = case.fast()
    expected_total, expected_per_cell = case.direct()
    np.testing.assert_allclose(per_cell.detach(), expected_per_cell.detach(), rtol=1e-8)
    found = torch.autograd.grad(total, case.parameters)
    expected = torch.autograd.grad(expected_total, case.parameters)
    scale = max(float(gradient.abs().max()) for gradient in expected)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-8 * scale)


@pytest.mark.parametrize("name", ["hidden", "weight", "bias", "log_concentration"])
def test_a_gradient_of_one_parameter_alone(name: str) -> None:
    case = problem()
    for parameter in case.parameters:
        parameter.requires_grad_(False)
    parameter = getattr(case, name).requires_grad_()
    (found,) = torch.autograd.grad(case.fast()[0], parameter)
    (expected,) = torch.autograd.grad(case.direct()[0], parameter)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_without_gradients_the_value_is_the_same() -> None:
    case = problem()
    with torch.no_grad():
        total, per_cell = case.fast()
    assert not total.requires_grad
    np.testing.assert_allclose(total, case.fast()[0].detach(), rtol=1e-12)
    np.testing.assert_allclose(per_cell, case.fast()[1], rtol=1e-12)


def test_single_precision_is_near_enough() -> None:
    case = problem(cells=40, genes=200)
    single = Problem(*(tensor.detach().float().requires_grad_() for tensor in case.parameters), case.dense.float(),
                     case.library_size.float(), case.cell_weight.float())  # fmt: skip
    total, expected = single.fast()[0], case.direct()[0]
    np.testing.assert_allclose(total.item(), expected.item(), rtol=1e-5)
    found = torch.autograd.grad(total, single.parameters)
    for one, two in zip(found, torch.autograd.grad(expected, case.parameters), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4 * float(two.abs().max()))


def test_bfloat16_products_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "PRODUCT_VALUES", 2000)
    case = problem(cells=40, genes=200)
    single = Problem(*(tensor.detach().float().requires_grad_() for tensor in case.parameters), case.dense.float(),
                     case.library_size.float(), case.cell_weight.float())  # fmt: skip
    with matmul_precision("bf16"):
        total, expected = single.fast()[0], case.direct()[0]
        found = torch.autograd.grad(total, single.parameters)
    assert total.item() != single.fast()[0].item()
    np.testing.assert_allclose(total.item(), expected.item(), rtol=3e-3)
    for one, two in zip(found, torch.autograd.grad(expected, case.parameters), strict=True):
        np.testing.assert_allclose(one, two, rtol=0.1, atol=0.02 * float(two.abs().max()))


def test_a_large_concentration_loses_no_precision() -> None:
    case = problem(cells=40, genes=200)
    log_concentration = torch.full_like(case.log_concentration, 9.0)
    double = Problem(case.hidden, case.weight, case.bias, log_concentration, case.dense, case.library_size, None)
    single = Problem(case.hidden.float(), case.weight.float(), case.bias.float(), log_concentration.float(),
                     case.dense.float(), case.library_size.float(), None)  # fmt: skip
    # a positive count adds lgamma(θ + x) − lgamma(θ), each of which float32 knows to an ulp of its size; the error of
    # lgamma(θ) is the same for all genes here, so errors add up
    ulp = np.spacing(np.float32(torch.lgamma(torch.tensor(9.0).exp()).item()))
    rounding = 2 * ulp * (case.dense > 0).sum(1).max().item()
    np.testing.assert_allclose(single.fast()[1].detach(), double.direct()[1].detach(), rtol=2e-5, atol=rounding)


def test_the_gradient_can_be_asked_for_once() -> None:
    case = problem()
    total, _ = case.fast()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        total.backward()


def test_genes_may_stand_in_any_order() -> None:
    case = problem()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = Problem(case.hidden, case.weight[order], case.bias[order], case.log_concentration[order],
                       case.dense[:, order], case.library_size, case.cell_weight)  # fmt: skip
    np.testing.assert_allclose(shuffled.fast()[1], case.fast()[1], rtol=1e-9)

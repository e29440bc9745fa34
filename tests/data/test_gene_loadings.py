"""Genes that vary together between cells: against a dense correlation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cradlevae.data import gene_loadings as module
from cradlevae.data.gene_loadings import gene_loadings


def counts(n_cells: int = 600, n_genes: int = 42, seed: int = 0) -> tuple[sp.csr_matrix, np.ndarray]:
    random = np.random.default_rng(seed)
    group = random.integers(0, 3, n_cells)
    state = random.standard_normal((n_cells, 3)) @ np.eye(3)[np.arange(n_genes) % 3].T
    rate = np.exp(0.5 * state + np.linspace(0, 2, n_genes) + random.standard_normal((3, n_genes))[group])
    return sp.csr_matrix(random.poisson(rate)), group


def test_they_are_components_of_the_correlation_within_groups() -> None:
    table, group = counts()
    found = gene_loadings(table, np.arange(600), group)
    dense = table.toarray()
    value = np.log2(1 + 1e4 * dense / dense.sum(axis=1, keepdims=True))
    for code in range(3):
        value[group == code] -= value[group == code].mean(axis=0)
    size, direction = np.linalg.eigh(np.corrcoef(value.T))
    wanted = direction[:, -6:] * np.sqrt(size[-6:])
    wanted *= np.sqrt(0.5 * 597 / (597 + 5 * 42)) / np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=2e-3)


def test_what_groups_differ_by_does_not_count() -> None:
    table, group = counts()
    other = gene_loadings(table, np.arange(600), np.zeros(600, dtype=int))
    found = gene_loadings(table, np.arange(600), group)
    alike = np.arange(42)[:, None] % 3 == np.arange(42) % 3
    apart = [(one @ one.T)[alike].mean() - (one @ one.T)[~alike].mean() for one in (found, other)]
    assert apart[0] > apart[1]


def test_few_cells_or_genes_tell_little() -> None:
    table, group = counts()
    few, many = (gene_loadings(table, np.arange(n), group[:n]) for n in (60, 600))
    assert (few**2).sum(axis=1).max() < 0.5 * (many**2).sum(axis=1).max()
    assert gene_loadings(table[:, :6], np.arange(600), group).shape == (6, 0)
    assert gene_loadings(table, np.arange(5), group[:5]).shape == (42, 0)


def test_genes_without_counts_have_none_and_order_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table, group = counts()
    dense = table.toarray()
    dense[:, 5] = 0
    found = gene_loadings(sp.csr_matrix(dense), np.arange(600), group)
    assert not found[5].any()
    genes = np.random.default_rng(1).permutation(42)
    other = gene_loadings(sp.csr_matrix(dense[:, genes]), np.arange(600), group)
    np.testing.assert_allclose(other @ other.T, (found @ found.T)[genes][:, genes], atol=2e-3)
    monkeypatch.setattr(module, "CELLS", 100)
    assert np.isfinite(gene_loadings(table, np.arange(600), group)).all()


@pytest.mark.parametrize("shown", [0, 6])
def test_where_few_genes_vary_there_are_none(shown: int) -> None:
    table, group = counts()
    dense = table.toarray()
    dense[:, shown:] = 0
    assert gene_loadings(sp.csr_matrix(dense), np.arange(600), group).shape == (42, 0)
    same = sp.csr_matrix(np.ones((600, 42)))
    assert gene_loadings(same, np.arange(600), group).shape == (42, 0)
    assert gene_loadings(table, np.arange(0), group[:0]).shape == (42, 0)
    assert gene_loadings(table, np.arange(600), np.arange(600)).shape == (42, 0)  # no group has two cells


def test_of_many_small_groups_neighbours_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tenth cell of groups of ten would leave each alone in its group."""
    random = np.random.default_rng(0)
    state = random.standard_normal((6000, 3)) @ np.eye(3)[np.arange(42) % 3].T
    table = sp.csr_matrix(random.poisson(np.exp(0.5 * state + 1)))
    group = np.repeat(np.arange(600), 10)
    whole = gene_loadings(table, np.arange(6000), group)
    monkeypatch.setattr(module, "CELLS", 600)
    found = gene_loadings(table, np.arange(6000), group)
    assert found.shape == whole.shape
    likeness = [(one @ one.T)[np.triu_indices(42, 1)] for one in (found, whole)]
    assert np.corrcoef(*likeness)[0, 1] > 0.8
    shuffled = random.permutation(6000)
    other = gene_loadings(table, shuffled, group[shuffled])
    assert np.corrcoef((other @ other.T)[np.triu_indices(42, 1)], likeness[1])[0, 1] > 0.8

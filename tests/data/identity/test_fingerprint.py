"""Cells known again by their counts."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from cradlevae.data.identity.fingerprint import MIN_GENES, cell_fingerprints
from cradlevae.data.storage import stored_matrix as stored


@pytest.fixture
def counts() -> sp.csr_matrix:
    dense = np.random.default_rng(0).poisson(1.0, (50, 80)).astype(np.float32)
    dense[7, MIN_GENES - 1 :] = 0
    return sp.csr_matrix(dense)


def test_a_cell_is_known_again_whatever_the_order_of_genes_and_cells(counts: sp.csr_matrix) -> None:
    genes = [f"gene{i}" for i in range(80)]
    rows, order = np.arange(50), np.random.default_rng(1).permutation(80)
    found = cell_fingerprints(counts, genes, rows)
    shuffled = sp.csr_matrix(counts.toarray()[:, order])
    np.testing.assert_array_equal(cell_fingerprints(shuffled, [genes[i] for i in order], rows), found)
    np.testing.assert_array_equal(cell_fingerprints(counts, genes, rows[::3]), found[::3])
    assert len(np.unique(found)) == 50


def test_one_count_more_or_another_gene_is_another_cell(counts: sp.csr_matrix) -> None:
    genes = [f"gene{i}" for i in range(80)]
    rows = np.array([0])
    more = counts.copy()
    more.data[0] += 1
    one = cell_fingerprints(counts, genes, rows)
    assert cell_fingerprints(more, genes, rows) != one
    assert cell_fingerprints(counts, ["other", *genes[1:]], np.array([0])) != one or counts[0, 0] == 0


def test_cells_of_few_genes_have_no_fingerprint_of_their_own(counts: sp.csr_matrix) -> None:
    assert cell_fingerprints(counts, [f"gene{i}" for i in range(80)], np.array([7])) == 0


def test_blocks_do_not_matter(counts: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    genes = [f"gene{i}" for i in range(80)]
    whole = cell_fingerprints(counts, genes, np.arange(50))
    monkeypatch.setattr(stored, "BLOCK_CELLS", 7)
    np.testing.assert_array_equal(cell_fingerprints(counts, genes, np.arange(50)), whole)

"""Statistics of the training cells against plain numpy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cradlevae.data.experiment import Experiment
from cradlevae.data.identity.fingerprint import cell_fingerprints
from cradlevae.data.statistics import cell_statistics


@pytest.mark.parametrize("n_cells", [2, 60, 9000])
def test_moments_totals_and_fingerprints(n_cells: int) -> None:
    counts = np.random.default_rng(0).poisson([0.1, 1, 5, 0, 0, 40], (n_cells, 6)).astype(np.float32)
    counts[:, 4] = 3  # a constant gene; gene 3 is silent
    data = Experiment(
        pd.Index([str(i) for i in range(n_cells)]), pd.Index(list("abcdef")), sp.csr_matrix(counts),
        np.zeros(n_cells, int), ("control",), (), np.zeros((n_cells, 1), np.float32), ("artifact",),
        counts.sum(axis=1),
    )  # fmt: skip
    rows = np.arange(0, n_cells, 1 if n_cells < 10 else 2)
    found = cell_statistics(data, rows)
    logs = np.log1p(counts[rows].astype(np.float64))
    np.testing.assert_allclose(found.log_mean, logs.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.log_std, logs.std(axis=0, ddof=1), rtol=1e-5, atol=1e-7)
    assert found.log_std[3] == found.log_std[4] == 0
    np.testing.assert_array_equal(found.total, counts[rows].sum(axis=0))
    np.testing.assert_array_equal(found.fingerprints, cell_fingerprints(data.counts, list("abcdef"), rows))

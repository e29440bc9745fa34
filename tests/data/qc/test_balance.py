"""How batches stand to perturbations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data.experiment import DataFields, Experiment, read_experiment
from cradlevae.data.qc.balance import (
    association,
    batch_balance,
    batch_shares,
    cells_lost,
    level_counts,
    level_differences,
    perturbation_balance,
)

N_GENES = 400


def experiment(
    counts: np.ndarray, labels: np.ndarray, batch: np.ndarray, *, donor: np.ndarray | None = None
) -> Experiment:
    adata = ad.AnnData(sp.csr_matrix(counts.astype(np.float32)))
    adata.obs["perturbation"], adata.obs["lane"], adata.obs["artifact"] = labels, batch, False
    adata.obs["donor"] = "d" if donor is None else donor
    return read_experiment(adata, DataFields(batch_key="lane", context_key=None if donor is None else "donor"))


def design(seed: int, shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, labels and lanes of cells; a lane's log2 rates differ from the others' by ``shift``."""
    random = np.random.default_rng(seed)
    labels = np.repeat(["control", "A", "B"], (300, 60, 60))
    batch = np.array(["x", "y", "z"])[np.arange(len(labels)) % 3]
    rate = 30 * 2 ** (shift * random.normal(size=N_GENES) * (batch == "x")[:, None])
    return random.poisson(rate), labels, batch


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
def test_differences_between_batches_are_those_of_the_rates_without_noise(shift: float) -> None:
    data = experiment(*design(0, shift))
    assert data.batch is not None
    found = level_differences(data, data.batch)
    assert found[0] == pytest.approx(shift, abs=0.03 + 0.1 * shift)
    assert found[1] == pytest.approx(shift / 2, abs=0.03 + 0.1 * shift)  # half of the others are of lane x


def test_contexts_are_no_differences_between_batches() -> None:
    random = np.random.default_rng(0)
    labels, donor = np.repeat(["control"], 400), np.repeat(["p", "q"], 200)
    batch = np.where(random.random(400) < np.where(donor == "p", 0.8, 0.2), "x", "y")
    rate = 30 * 2 ** (random.normal(size=N_GENES) * (donor == "p")[:, None])
    counts = random.poisson(rate)
    labels[:4] = "A"
    within = experiment(counts, labels, batch, donor=donor)
    assert within.batch is not None
    assert level_differences(within, within.batch).max() < 0.05
    assert batch_balance(within)["column"].unique().tolist() == ["lane"]
    pooled = experiment(counts, labels, batch)
    assert pooled.batch is not None
    assert level_differences(pooled, pooled.batch).min() > 0.3


def test_sizes_and_cells_that_can_be_compared() -> None:
    counts, labels, batch = design(1, 0.2)
    batch = np.where((labels == "control") & (batch == "z"), "y", batch)
    batch = np.where(labels == "B", "z", batch)
    data = experiment(counts, labels, batch)
    table = batch_balance(data).set_index("level")
    assert table.loc["z", "n_controls"] == 0
    assert table.loc["z", "n_cells"] == 60 + 20
    assert table.loc["z", "n_conditions"] == 2
    assert np.isnan(table.loc["z", "difference"])
    rows = perturbation_balance(data).set_index("condition")
    assert rows["n_cells"].tolist() == [60, 60]
    assert rows["n_compared"].tolist() == [40, 0]
    assert rows.loc["B", ["n_effective", "lost"]].tolist() == [0, 1]
    assert 0.3 < rows.loc["A", "lost"] < 0.5
    assert cells_lost(perturbation_balance(data)) == pytest.approx(1 - rows["n_effective"].sum() / 120)


def test_contexts_are_compared_with_their_own_controls() -> None:
    donor = np.tile(["p", "q", "r", "s"], 100)
    labels, batch = np.repeat(["control", "A"], 200), np.full(400, "x")
    counts = np.random.default_rng(0).poisson(5.0, (400, 20))
    even = perturbation_balance(experiment(counts, labels, batch, donor=donor))
    assert even["n_compared"].tolist() == [50] * 4
    np.testing.assert_allclose(even["lost"], 0, atol=1e-9)
    batch[np.flatnonzero((labels == "A") & (donor == "p"))[:25]] = "y"  # without controls there
    uneven = perturbation_balance(experiment(counts, labels, batch, donor=donor)).set_index("condition")
    assert uneven.loc["A in p", "n_compared"] == 25
    np.testing.assert_allclose(uneven["lost"], [0.5, 0, 0, 0], atol=0.02)


def test_one_batch_has_no_table_and_costs_nothing() -> None:
    counts, labels, batch = design(2, 0.0)
    data = experiment(counts, labels, np.full_like(batch, "x"))
    assert batch_balance(data).empty
    assert cells_lost(perturbation_balance(data)) == pytest.approx(0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(["x", "y", "z"]))
def test_neither_order_nor_names_matter(seed: int, names: list[str]) -> None:
    counts, labels, batch = design(3, 0.2)
    order = np.random.default_rng(seed).permutation(len(labels))
    new = dict(zip(["x", "y", "z"], names, strict=True))
    one = experiment(counts[:, :20], labels, batch)
    other = experiment(counts[order, :20], labels[order], np.array([new[lane] for lane in batch[order]]))
    first, second = (batch_balance(data).set_index("level") for data in (one, other))
    pd.testing.assert_frame_equal(
        first.rename(index=new).sort_index(), second.sort_index(), check_exact=False, rtol=1e-6
    )
    pd.testing.assert_frame_equal(perturbation_balance(one), perturbation_balance(other))


def test_association_is_0_where_all_are_spread_alike_and_1_where_each_has_its_own() -> None:
    even = pd.DataFrame(np.outer([30, 60, 90], [1, 2, 3]))
    assert association(even) == 0
    assert association(pd.DataFrame(np.diag([50, 60, 70]))) == pytest.approx(1)
    random = np.random.default_rng(0)
    by_chance = pd.DataFrame(random.multinomial(40, np.full(20, 1 / 20), size=200))
    assert association(by_chance) < 0.05
    assert association(pd.DataFrame([[5, 6]])) == 0


def test_shares_of_the_controls_come_first() -> None:
    data = experiment(*design(4, 0.0))
    assert data.batch is not None
    shares = batch_shares(data, data.batch)
    assert list(shares.index) == ["control", "A", "B"]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert level_counts(data, data.batch).loc["control"].tolist() == [100, 100, 100]


def test_replicates_of_real_cells_differ(data_file: Callable[[str], Path]) -> None:
    adata = ad.read_h5ad(data_file("papalexi2021_299g.h5ad"))
    adata.obs["artifact"] = False
    data = read_experiment(adata, DataFields(batch_key="batch"))
    table = batch_balance(data).set_index("level")
    assert 0.2 < table.loc["rep_1", "difference"] < 0.3
    assert cells_lost(perturbation_balance(data)) < 0.02

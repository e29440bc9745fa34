"""Effects as a table."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cradlevae as cv
from cradlevae.query.effects_table import COLUMNS


def made(seed: int, n_rows: int = 3, n_genes: int = 8) -> ad.AnnData:
    """Effects of which C targets the second gene."""
    rng = np.random.default_rng(seed)
    effects = ad.AnnData(rng.standard_normal((n_rows, n_genes)).astype(np.float32))
    effects.obs_names, effects.var_names = list("ABCDE")[:n_rows], [f"g{place}" for place in range(n_genes)]
    effects.layers["sd"] = rng.uniform(0.5, 2, effects.shape).astype(np.float32)
    effects.layers["low"], effects.layers["high"] = effects.X - effects.layers["sd"], effects.X + effects.layers["sd"]
    effects.layers["lfsr"] = rng.uniform(0, 0.5, effects.shape).astype(np.float32)
    effects.obs["n_cells"] = range(n_rows)
    effects.uns["targets"] = {"perturbation": np.array(["C", "X"]), "gene": np.array(["g1", "g2"])}
    return effects


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_q_is_the_mean_false_sign_rate_down_to_a_rank(seed: int) -> None:
    effects = made(seed)
    table = cv.effects_table(effects)
    assert tuple(table.columns) == COLUMNS
    assert table["rank"].tolist() == list(range(1, 25))
    assert table["lfsr"].is_monotonic_increasing
    for place in (0, 5, 23):
        assert table["q"][place] == pytest.approx(table["lfsr"][: place + 1].mean(), abs=1e-6)
    assert (table["q"] <= table["lfsr"] + 1e-6).all()
    plain = cv.effects_table(effects, sort_by=None)
    assert plain["perturbation"].tolist() == [name for name in "ABC" for _ in range(8)]
    np.testing.assert_array_equal(plain["effect"], effects.X.ravel())
    together = plain.merge(table, on=["perturbation", "gene"])
    np.testing.assert_array_equal(together["q_x"], together["q_y"])


def test_it_is_sorted_by_any_column() -> None:
    effects = made(0)
    assert cv.effects_table(effects, "effect")["effect"].abs().is_monotonic_decreasing
    assert cv.effects_table(effects, "n_cells")["n_cells"].is_monotonic_decreasing
    assert cv.effects_table(effects, "gene")["gene"].is_monotonic_increasing
    by_target = cv.effects_table(effects, "is_target")
    assert by_target.loc[by_target["is_target"], ["perturbation", "gene"]].to_numpy().tolist() == [["C", "g1"]]
    assert by_target["is_target"][0]


def test_a_subset_has_ranks_of_its_own() -> None:
    effects = made(1)
    table = cv.effects_table(effects[["C", "A"], ["g1", "g5"]])
    assert len(table) == 4
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert table["q"].iloc[-1] == pytest.approx(table["lfsr"].mean(), abs=1e-6)


def test_equal_rates_go_by_effect_over_sd() -> None:
    effects = made(2)
    effects.layers["lfsr"][:] = 0
    table = cv.effects_table(effects)
    assert (table["effect"].abs() / table["sd"]).is_monotonic_decreasing


def test_targets_go_by_name_and_symbol(simulated: ad.AnnData) -> None:
    adata = simulated.copy()
    adata.var["symbol"] = ["A", "C", *(f"S{place}" for place in range(2, adata.n_vars))]
    floor = cv.FloorModel("shrunk_mean", adata, gene_symbols="symbol")
    floor.train()
    table = cv.effects_table(floor.effects(["C+A", "B", "A"]), sort_by=None)
    found = table.loc[table["is_target"], ["perturbation", "gene"]].to_numpy().tolist()
    first, second = adata.var_names[:2]
    assert found == [["C+A", first], ["C+A", second], ["A", first]]


@pytest.mark.parametrize("name", ["hierarchical_mean", "zero"])
def test_floors_have_what_they_know(simulated: ad.AnnData, name: str) -> None:
    floor = cv.FloorModel(name, simulated, split=cv.split(simulated, "combinations", seed=0))
    floor.train()
    effects = floor.effects()
    train = simulated[floor.split.cells("train")].obs
    cells = train["perturbation"][~train["artifact"].to_numpy(dtype=bool)].value_counts()
    cells = cells[cells > 0]
    assert set(effects.obs_names) == set(floor.perturbations) & set(cells.index)
    assert effects.obs["n_cells"].to_dict() == {label: cells[label] for label in effects.obs_names}
    table = cv.effects_table(effects)
    if name == "zero":
        assert table[["low", "high", "sd", "lfsr", "q"]].isna().all(axis=None)
        assert table["rank"].tolist() == list(range(1, len(table) + 1))
    else:
        assert table["lfsr"].between(0, 0.5).all()
        assert table["q"].is_monotonic_increasing


def test_what_are_no_effects_is_refused(simulated: ad.AnnData) -> None:
    with pytest.raises(cv.DataError, match=r"effects has no uns\['targets'\]"):
        cv.effects_table(simulated)

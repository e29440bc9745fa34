"""Batches, covariates and contexts: what is read of their columns, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.data.experiment import read_experiment
from cradlevae.data.factors import MAX_LEVELS, read_factors, strata_codes

MakeAnnData = Callable[..., ad.AnnData]

LABELS = ["control", "A", "A", "control", "B", "control"] * 2
COUNTS = np.arange(1, 49).reshape(12, 4) % 5 + 1


@pytest.fixture
def cells(make_adata: MakeAnnData) -> ad.AnnData:
    adata = make_adata(COUNTS, LABELS)
    adata.obs["lane"] = [1, 2, 10] * 4
    adata.obs["donor"] = pd.Categorical(["d2", "d1"] * 6)
    return adata


def fields(**keys: Any) -> cv.DataFields:
    return cv.DataFields(**keys)


@pytest.mark.parametrize("form", [int, float, str, "category", "Int64"])
def test_lanes_may_be_numbers_or_texts(cells: ad.AnnData, form: Any) -> None:
    cells.obs["lane"] = cells.obs["lane"].astype(form)
    (lane,) = read_factors(cells, fields(batch_key="lane"))
    assert (lane.role, lane.key, lane.levels) == ("batch", "lane", ("1", "2", "10"))
    assert [lane.levels[code] for code in lane.codes] == ["1", "2", "10"] * 4


def test_factors_come_batch_first_and_context_last(cells: ad.AnnData) -> None:
    cells.obs["sex"] = ["f", "f", "f", "f", "m", "m"] * 2
    factors = read_factors(cells, fields(context_key="donor", covariate_keys="sex", batch_key="lane"))
    assert [factor.role for factor in factors] == ["batch", "covariate", "context"]
    strata = strata_codes(factors, cells.n_obs)
    assert len(np.unique(strata)) == len(cells.obs[["lane", "sex", "donor"]].drop_duplicates())


def test_conditions_of_a_context_know_it(cells: ad.AnnData) -> None:
    data = read_experiment(cells, fields(context_key="donor"))
    assert data.conditions == ("control", "A in d1", "A in d2", "B in d2")
    assert [name.context for name in data.conditions] == [None, "d1", "d2", "d2"]
    assert [name.base for name in data.conditions] == ["control", "A", "A", "B"]
    codes, names = data.plain
    assert [names[code] for code in codes] == LABELS


def test_one_context_changes_no_condition(cells: ad.AnnData) -> None:
    cells.obs["donor"] = "only"
    assert read_experiment(cells, fields(context_key="donor")).conditions == ("control", "A", "B")


def unknown(adata: ad.AnnData) -> Any:
    known = {"lane": ("1", "2")}
    return read_experiment(adata, fields(batch_key="lane"), genes=list(adata.var_names), levels=known)


@pytest.mark.parametrize(
    ("change", "keys", "message"),
    [
        ({"lane": [np.nan, *range(11)]}, {"batch_key": "lane"}, r"missing for 1 cells, first 'cell0'.*leave batch_key"),
        ({"lane": ["", *"abcabcabcab"]}, {"batch_key": "lane"}, "empty for 1 cells"),
        ({"age": np.linspace(0, 1, 12)}, {"covariate_keys": "age"}, r"obs\['age'\] holds 0.09.*pandas.cut"),
        ({"age": [np.inf] * 12}, {"covariate_keys": "age"}, "holds inf"),
        ({"lane": [f"c{i}" for i in range(12)]}, {"batch_key": "lane"}, "12 different values for 12 cells.*barcodes"),
        ({"batch": ["x", "y"] * 6}, {"batch_key": "batch", "context_key": "donor"}, "divide the cells alike.*leave"),
        ({}, {"batch_key": "lines"}, r"no column 'lines' in obs; did you mean 'lane'\?.*batch_key="),
    ],
)
def test_columns_that_are_no_batches_are_refused(
    cells: ad.AnnData, change: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    for name, values in change.items():
        cells.obs[name] = values
    with pytest.raises(cv.DataError, match=message):
        read_experiment(cells, fields(**keys))


def test_a_column_of_thousands_is_refused_with_the_count(make_adata: MakeAnnData) -> None:
    n = 2 * (MAX_LEVELS + 1)
    adata = make_adata(np.ones((n, 3)), ["control", "A"] * (n // 2))
    adata.obs["batch"] = [f"b{i // 2}" for i in range(n)]
    with pytest.raises(cv.DataError, match=rf"{MAX_LEVELS + 1:,} different values"):
        read_experiment(adata, fields(batch_key="batch"))


def test_a_batch_that_a_model_does_not_know_is_named(cells: ad.AnnData) -> None:
    with pytest.raises(cv.DataError, match=r"holds the batch '10'.*unknown ones: 4.*'1', '2'"):
        unknown(cells)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_key": "donor", "context_key": "donor"}, "both 'donor'.*leave batch_key out"),
        ({"batch_key": "a", "covariate_keys": ("a",)}, "covariate_keys and batch_key both name the column 'a'"),
        ({"batch_key": "perturbation"}, "batch_key and perturbation_key both name"),
        ({"context_key": "artifact"}, "context_key and artifact_key both name"),
        ({"batch_key": ""}, "batch_key is empty"),
        ({"covariate_keys": 3}, "covariate_keys is 3"),
    ],
)
def test_one_column_cannot_be_two_things(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(cv.DataError, match=message):
        fields(**keys)


def test_covariates_that_say_the_same_are_worth_a_warning(cells: ad.AnnData) -> None:
    cells.obs["place"] = cells.obs["lane"].map({1: "a", 2: "b", 10: "c"})
    with pytest.warns(UserWarning, match="divide the cells alike; one of them is enough"):
        read_factors(cells, fields(batch_key="lane", covariate_keys="place"))


def test_cells_without_a_guide_need_no_batch(make_adata: MakeAnnData) -> None:
    adata = make_adata(COUNTS, LABELS)
    guides = pd.DataFrame({"A": [0, 1, 1, 0] * 3, "control": [1, 0, 0, 0] * 3}, index=adata.obs_names)
    adata.obsm["guides"] = guides
    adata.obs["batch"] = ["x", "y", "x", None] * 3
    with pytest.warns(UserWarning, match="without a guide RNA"):
        data = read_experiment(adata, fields(guides_key="guides", batch_key="batch"))
    assert data.n_cells == 9
    assert data.batch is not None
    assert data.batch.levels == ("x", "y")

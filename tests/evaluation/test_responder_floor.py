"""The floor of responders: signatures, a direction and two normal distributions."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
from scipy.stats import rankdata

import cradlevae as cv
from cradlevae.errors import DataError
from cradlevae.evaluation.responder_floor import RESPONDER_FLOORS, responder_floor


@pytest.fixture(scope="module")
def escaping() -> ad.AnnData:
    adata = cv.simulate(
        n_cells=1500, n_genes=100, n_perturbations=3, n_combinations=0, effect_size=5, library_size=(1500, 0.2),
        control_share=0.3, artifact_rate=0.1, escaping={"A": 0.5, "B": 0.2}, seed=2,
    )  # fmt: skip
    adata.obs["artifact"] = adata.obs["true_artifact"]
    return adata


@pytest.mark.parametrize("direction", RESPONDER_FLOORS)
def test_escaping_cells_are_found(escaping: ad.AnnData, direction: str) -> None:
    found = responder_floor(escaping, direction)
    cells = found.cells.join(escaping.obs["true_escaped"])
    own = cells[cells["perturbation"] == "A"]
    responds = ~own["true_escaped"].to_numpy()
    ranks = rankdata(own["p_responding"])
    n, m = responds.sum(), (~responds).sum()
    assert (ranks[responds].sum() - n * (n + 1) / 2) / (n * m) > 0.85
    assert found.shares.loc["A", "share"] == pytest.approx(0.5, abs=0.15)
    assert found.shares.loc["C", "share"] > found.shares.loc["A", "share"]
    assert not found.cells["held_out"].any()


def test_cells_may_stand_in_any_order(escaping: ad.AnnData) -> None:
    found = responder_floor(escaping)
    order = np.random.default_rng(0).permutation(escaping.n_obs)
    again = responder_floor(escaping[order].copy())
    same = again.cells.loc[found.cells.index, "p_responding"]
    assert np.corrcoef(same, found.cells["p_responding"])[0, 1] > 0.999  # principal components are found by iteration


def test_a_perturbation_of_few_cells_has_missing_values(escaping: ad.AnnData) -> None:
    of_c = np.flatnonzero(escaping.obs["perturbation"] == "C")
    few = escaping[np.setdiff1d(np.arange(escaping.n_obs), of_c[3:])].copy()
    found = responder_floor(few)
    assert found.shares.loc["C", ["share", "low", "high"]].isna().all()
    assert found.cells.loc[found.cells["perturbation"] == "C", "p_responding"].isna().all()
    assert found.shares.loc[["A", "B"], "share"].notna().all()


def test_neighbours_are_of_the_same_batch(screen: ad.AnnData) -> None:
    found = responder_floor(screen, batch_key="batch", context_key="context", n_neighbours=5)
    assert set(found.shares.index) == set(screen.obs["perturbation"].astype(str)) - {"control"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "nonsense"}, "direction"),
        ({"n_neighbours": 0}, "n_neighbours"),
        ({"n_neighbours": 2000}, "lower"),
        ({"n_components": 1.5}, "n_components"),
        ({"credible": 2}, "credible"),
    ],
)
def test_wrong_arguments_are_refused(escaping: ad.AnnData, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        responder_floor(escaping, **options)

"""Guide RNAs of several batches: measured and compared within them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.errors import DataError

N_GENES = 60


def lanes(
    seed: int = 0, *, n_cells: int = 45, n_targets: int = 8, n_lanes: int = 3, even: bool = False,
    deviating: tuple[str, ...] = (), interaction: float = 0.0, effect_sd: float = 0.6,
) -> ad.AnnData:  # fmt: skip
    """Cells of three guide RNAs per target in lanes that shift expression, most of each guide RNA in a lane of its own.

    ``deviating`` do something else than their siblings; by ``interaction`` the effect of a target differs between
    lanes.
    """
    rng = np.random.default_rng([seed, n_cells, n_lanes])
    level, common = rng.normal(0, 1, N_GENES), rng.normal(0, 0.25, (2, N_GENES))
    shift = rng.normal(0, 0.3, (n_lanes, N_GENES))
    rows, obs = [], []
    for target in ["control", *(f"T{index}" for index in range(n_targets))]:
        moved = (target != "control") * (rng.random(N_GENES) < 0.2)
        effect = moved * (rng.normal(0, effect_sd, N_GENES) + interaction * rng.normal(size=(n_lanes, N_GENES)))
        for number in range(3):
            guide = f"{target}_{number}"
            share = np.ones(n_lanes) if even else rng.dirichlet(np.full(n_lanes, 0.7)) + 0.05
            lane = rng.choice(n_lanes, n_cells, p=share / share.sum())
            own = rng.normal(0, 0.8, N_GENES) * (rng.random(N_GENES) < 0.3) if guide in deviating else effect[lane]
            state = level + shift[lane] + own + rng.normal(size=(n_cells, 2)) @ common
            part = np.exp(state) / np.exp(state).sum(axis=1, keepdims=True)
            rows.append(rng.poisson(part * rng.lognormal(6, 0.4, (n_cells, 1))))
            obs += [(guide, target, f"lane{number}") for number in lane]
    table = pd.DataFrame(
        obs, columns=["guide", "perturbation", "lane"], index=[f"c{index}" for index in range(len(obs))]
    )
    return ad.AnnData(sp.csr_matrix(np.concatenate(rows).astype(np.float32)), obs=table)


def p_values(adatas: list[ad.AnnData], **fields: Any) -> tuple[Any, int]:
    tables = [cv.guide_effects(adata, **fields).obs for adata in adatas]
    return np.concatenate([table["p_value"] for table in tables]), sum(int(table["flagged"].sum()) for table in tables)


def test_lanes_are_no_deviation_within_lanes() -> None:
    screens = [lanes(seed) for seed in range(10)]
    pooled, n_pooled = p_values(screens)
    within, n_within = p_values(screens, batch_key="lane")
    assert (pooled < 0.01).mean() > 0.3
    assert n_pooled > 30
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        error = np.sqrt(level * (1 - level) / (10 * 9 * 2))  # 9 targets of two free deviations each
        assert abs((within < level).mean() - level) < 3.5 * error
    assert (within < 0.001).mean() < 0.01
    assert n_within <= 3


def test_a_lone_cell_in_a_lane_is_no_deviation() -> None:
    within, n_flagged = p_values([lanes(seed, n_cells=24, n_lanes=12) for seed in range(10)], batch_key="lane")
    for level in (0.05, 0.25, 0.5):
        assert abs((within < level).mean() - level) < 3.5 * np.sqrt(level * (1 - level) / (10 * 9 * 2))
    assert n_flagged <= 3


def test_an_effect_that_differs_between_lanes_is_no_deviation() -> None:
    within, n_flagged = p_values([lanes(seed, interaction=0.5) for seed in range(6)], batch_key="lane")
    assert abs((within < 0.1).mean() - 0.1) < 0.1
    assert n_flagged <= 3


def test_what_deviates_within_lanes_is_flagged() -> None:
    flagged = [
        set(cv.guide_effects(lanes(seed, deviating=("T3_1", "control_2")), batch_key="lane").obs.query("flagged").index)
        for seed in range(5)
    ]
    assert all({"T3_1", "control_2"} <= names for names in flagged)
    assert sum(map(len, flagged)) <= 12


def test_effects_are_differences_from_the_controls_of_the_lane() -> None:
    adata = lanes(n_targets=2)
    effects = cv.guide_effects(adata, batch_key="lane")
    counts = adata.X.toarray()
    log = np.log2(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True))
    obs = adata.obs
    for guide in effects.obs_names:
        total, weights = np.zeros(N_GENES), 0.0
        for lane in obs["lane"].unique():
            own = log[((obs["guide"] == guide) & (obs["lane"] == lane)).to_numpy()]
            controls = log[((obs["perturbation"] == "control") & (obs["lane"] == lane)).to_numpy()]
            if len(own) and len(controls):
                weight = len(own) * len(controls) / (len(own) + len(controls))
                total, weights = total + weight * (own.mean(axis=0) - controls.mean(axis=0)), weights + weight
        np.testing.assert_allclose(effects[guide].layers["raw"][0], total / weights, atol=1e-5)
    assert effects.obs["n_cells"].sum() == adata.n_obs


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = []
    for seed in range(6):
        effects = cv.guide_effects(lanes(seed, effect_sd=0.0), batch_key="lane")
        targeted = (effects.obs["target"] != "control").to_numpy()
        held.append(((effects.layers["low"] < 0) & (effects.layers["high"] > 0))[targeted])
    assert 0.86 < np.mean(held) < 0.96


def test_one_lane_gives_the_numbers_without_lanes() -> None:
    adata = lanes(n_targets=3, even=True)
    adata.obs["one"] = "lane1"
    plain = cv.guide_effects(adata)
    for fields in ({"batch_key": "one"}, {"context_key": "one"}, {"covariate_keys": ("one",)}):
        effects = cv.guide_effects(adata, **fields)
        np.testing.assert_array_equal(effects.X, plain.X)
        for name in plain.layers:
            np.testing.assert_array_equal(effects.layers[name], plain.layers[name])
        pd.testing.assert_frame_equal(effects.obs, plain.obs, check_exact=True)


def test_the_order_of_the_cells_does_not_matter_nor_where_they_are(tmp_path: Path) -> None:
    adata = lanes(n_cells=120, n_targets=3)
    one = cv.guide_effects(adata, batch_key="lane")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    order = np.random.default_rng(0).permutation(adata.n_obs)
    for other in (adata[order].copy(), cv.open_cells(tmp_path / "cells.h5ad")):
        effects = cv.guide_effects(other, batch_key="lane")
        np.testing.assert_allclose(effects.X, one.X, atol=1e-5)
        pd.testing.assert_frame_equal(effects.obs, one.obs, rtol=1e-3)
    adata.obs["lane"] = adata.obs["lane"].map({"lane0": 10, "lane1": 2, "lane2": 7})  # other names, in another order
    pd.testing.assert_frame_equal(cv.guide_effects(adata, batch_key="lane").obs, one.obs, rtol=1e-9)


def test_guide_rnas_without_controls_in_their_lanes_are_named_and_missing() -> None:
    adata = lanes(n_targets=3)
    lane = adata.obs["lane"].to_numpy(dtype=object)
    apart = (adata.obs["guide"] == "T1_0").to_numpy()
    adata.obs["lane"] = np.where(apart, "lane9", lane)
    with pytest.warns(UserWarning, match=r"1 guide RNAs have fewer than 10 .* of obs\['lane'\], .* missing: 'T1_0'"):
        effects = cv.guide_effects(adata, batch_key="lane")
    assert np.isnan(effects["T1_0"].X).all()
    assert all(np.isnan(effects["T1_0"].layers[name]).all() for name in effects.layers)
    row = effects.obs.loc["T1_0"]
    assert row[["deviation", "p_value", "q_value"]].isna().all()
    assert (row["n_cells"], row["n_siblings"], row["flagged"]) == (0, 0, False)
    others = cv.guide_effects(adata[~apart].copy(), batch_key="lane")
    np.testing.assert_array_equal(effects[others.obs_names].X, others.X)
    pd.testing.assert_frame_equal(effects.obs.loc[others.obs_names], others.obs)
    assert effects.obs["flagged"].dtype == bool
    everyone = adata.obs["perturbation"] != "control"
    adata.obs["lane"] = np.where(everyone, "treated", "controls")
    adata = adata[everyone | (adata.obs["guide"] != "")].copy()
    adata.obs.loc[~everyone, "guide"] = "unassigned"
    with pytest.raises(DataError, match="no guide RNA has 10 passing cells where there are controls"):
        cv.guide_effects(adata, batch_key="lane")


def test_siblings_in_other_lanes_only_cannot_be_compared() -> None:
    adata = lanes(n_targets=2, even=True)
    lane = adata.obs["lane"].to_numpy(dtype=object)
    for number, name in enumerate(("lane0", "lane1", "lane1")):
        lane[(adata.obs["guide"] == f"T0_{number}").to_numpy()] = name
    adata.obs["lane"] = lane
    effects = cv.guide_effects(adata, batch_key="lane")
    assert np.isfinite(effects.X).all()
    assert effects.obs.loc[["T0_0", "T0_1", "T0_2"], "n_siblings"].tolist() == [0, 1, 1]
    assert effects.obs["p_value"].isna().sum() == 1
    assert not effects.obs.loc["T0_0", "flagged"]


def test_lanes_of_failed_cells_may_be_missing() -> None:
    adata = lanes(n_targets=2)
    adata.obs["artifact"] = np.arange(adata.n_obs) % 5 == 0
    adata.obs["lane"] = adata.obs["lane"].where(~adata.obs["artifact"])
    assert np.isfinite(cv.guide_effects(adata, batch_key="lane").X).all()
    adata.obs["artifact"] = False
    with pytest.raises(DataError, match=r"obs\['lane'\] is missing for"):
        cv.guide_effects(adata, batch_key="lane")


@pytest.mark.filterwarnings("ignore:.*fewer than 10 passing cells:UserWarning")
def test_real_guide_rnas_within_replicates(data_file: Any) -> None:
    adata = ad.read_h5ad(data_file("papalexi2021_299g.h5ad"))
    obs = cv.guide_effects(adata, batch_key="batch").obs
    assert {"IRF1g3", "IRF1g4", "IFNGR1g4", "BRD4g1"} <= set(obs.index[obs["flagged"]])
    assert obs["flagged"].sum() < 0.2 * len(obs)
    assert not obs.loc[obs["target"] == "control", "flagged"].any()
    shares = {}
    for name, fields in (("pooled", {}), ("within", {"batch_key": "batch"})):
        p_value = []
        for seed in range(3):
            rng, guide = np.random.default_rng(seed), adata.obs["guide"].astype(str).to_numpy()
            for rows in adata.obs.groupby(["perturbation", "batch"], observed=True).indices.values():
                guide[rows] = rng.permutation(guide[rows])
            shuffled = adata.copy()
            shuffled.obs["guide"] = guide
            p_value.append(cv.guide_effects(shuffled, **fields).obs["p_value"])
        shares[name] = (np.concatenate(p_value) < 0.05).mean()
    assert shares["pooled"] > 0.08
    assert shares["within"] < 0.08

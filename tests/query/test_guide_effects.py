"""Effects of guide RNAs: as measured, shrunk, and compared with each other."""

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


def screen(
    n_guides: int = 3,
    n_targets: int = 10,
    n_cells: int = 40,
    n_genes: int = 80,
    seed: int = 0,
    off: tuple[str, ...] = (),
) -> ad.AnnData:
    """Cells of guide RNAs whose genes vary together; guide RNAs in ``off`` do something else than their siblings.

    Each target changes a fifth of the genes; the controls have as many guide RNAs as a target.
    """
    truth, rng = np.random.default_rng(seed), np.random.default_rng([seed, n_cells])  # one truth, whatever n_cells
    targets = ["control", *(f"T{index}" for index in range(n_targets))]
    level, common = truth.normal(0, 1, n_genes), truth.normal(0, 0.25, (2, n_genes))
    rows, obs = [], []
    for target in targets:
        effect = truth.normal(0, 0.6, n_genes) * (truth.random(n_genes) < 0.2) * (target != "control")
        for number in range(n_guides):
            guide = f"{target}_{number}"
            other = truth.normal(0, 0.8, n_genes) * (truth.random(n_genes) < 0.3)
            state = level + (other if guide in off else effect) + rng.normal(size=(n_cells, 2)) @ common
            share = np.exp(state) / np.exp(state).sum(axis=1, keepdims=True)
            rows.append(rng.poisson(share * rng.lognormal(6, 0.4, (n_cells, 1))))
            obs += [(guide, target)] * n_cells
    table = pd.DataFrame(obs, columns=["guide", "perturbation"], index=[f"cell{index}" for index in range(len(obs))])
    return ad.AnnData(sp.csr_matrix(np.concatenate(rows).astype(np.float32)), obs=table)


def test_raw_effects_are_differences_of_means() -> None:
    adata = screen(n_targets=2)
    effects = cv.guide_effects(adata)
    counts = adata.X.toarray()
    log = np.log2(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True))
    control = log[(adata.obs["perturbation"] == "control").to_numpy()].mean(axis=0)
    for guide in effects.obs_names:
        own = log[(adata.obs["guide"] == guide).to_numpy()].mean(axis=0)
        np.testing.assert_allclose(effects[guide].layers["raw"][0], own - control, atol=1e-5)
    assert list(effects.obs["target"]) == ["control"] * 3 + ["T0"] * 3 + ["T1"] * 3
    assert (effects.obs["n_cells"] == 40).all()
    assert list(effects.var_names) == list(adata.var_names)
    assert (effects.layers["low"] < effects.X).all()
    assert (effects.layers["high"] > effects.X).all()


def test_failed_cells_and_cells_without_a_guide_rna_are_left_out() -> None:
    adata = screen(n_targets=2)
    rng = np.random.default_rng(0)
    adata.obs["artifact"] = rng.random(adata.n_obs) < 0.2
    passing = adata[~adata.obs["artifact"].to_numpy()].copy()
    del passing.obs["artifact"]
    np.testing.assert_allclose(cv.guide_effects(adata).X, cv.guide_effects(passing).X, atol=1e-6)
    adata.obs["guide"] = adata.obs["guide"].where(rng.random(adata.n_obs) < 0.8, "unassigned")
    adata.obs.loc[adata.obs["guide"] == "unassigned", "perturbation"] = "unassigned"
    n_cells = cv.guide_effects(adata, min_cells=5).obs["n_cells"]
    usable = adata.obs[~adata.obs["artifact"] & (adata.obs["guide"] != "unassigned")]
    assert n_cells.to_dict() == usable["guide"].value_counts().to_dict()
    with pytest.raises(DataError, match="no column 'qc' in obs"):
        cv.guide_effects(adata, artifact_key="qc")


def test_shrinkage_brings_effects_nearer_to_the_truth_and_keeps_outliers() -> None:
    few, many = screen(n_cells=15, n_targets=20, seed=1), screen(n_cells=600, n_targets=20, seed=1)
    noisy, truth = cv.guide_effects(few), cv.guide_effects(many).layers["raw"]
    assert ((noisy.X - truth) ** 2).mean() < 0.6 * ((noisy.layers["raw"] - truth) ** 2).mean()
    outlier = screen(n_cells=200, off=("T3_1",))
    effects = cv.guide_effects(outlier)
    own, sibling = effects["T3_1"], effects["T3_0"]
    strong = np.abs(own.layers["raw"][0] - sibling.layers["raw"][0]) > 0.7
    kept = (own.X - sibling.X)[0] / (own.layers["raw"] - sibling.layers["raw"])[0]
    assert strong.sum() > 5
    assert np.median(kept[strong]) > 0.8
    others = effects[effects.obs["target"] == "T4"]
    assert others.X.std(axis=0).mean() < 0.5 * others.layers["raw"].std(axis=0).mean()


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    few, many = screen(n_cells=30, n_targets=20, seed=2), screen(n_cells=1500, n_targets=20, seed=2)
    effects, truth = cv.guide_effects(few, credible=0.9), cv.guide_effects(many).layers["raw"]
    held = (effects.layers["low"] < truth) & (truth < effects.layers["high"])
    targeted = (effects.obs["target"] != "control").to_numpy()
    assert 0.85 < held[targeted].mean() < 0.96


def test_a_target_of_one_guide_rna_keeps_its_raw_effect() -> None:
    effects = cv.guide_effects(screen(n_guides=1))
    np.testing.assert_allclose(effects.X, effects.layers["raw"])
    assert effects.obs[["deviation", "p_value", "q_value"]].isna().all(axis=None)
    assert not effects.obs["flagged"].any()
    assert (effects.obs["n_siblings"] == 0).all()


@pytest.mark.parametrize(("n_guides", "n_cells"), [(2, 40), (3, 12), (4, 30)])
def test_p_values_are_uniform_where_siblings_do_the_same(n_guides: int, n_cells: int) -> None:
    effects = [cv.guide_effects(screen(n_guides=n_guides, n_cells=n_cells, seed=seed)) for seed in range(10)]
    p_value = np.concatenate([one.obs.loc[one.obs["n_siblings"] > 0, "p_value"] for one in effects])
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        error = np.sqrt(level * (1 - level) / (10 * 11 * (n_guides - 1)))  # 11 targets of as many free deviations each
        assert abs((p_value < level).mean() - level) < 3.5 * error
    assert (p_value < 0.001).mean() < 0.01
    assert sum(one.obs["flagged"].sum() for one in effects) <= 3


def test_the_guide_rna_that_the_others_contradict_is_flagged() -> None:
    flagged = [
        set(cv.guide_effects(screen(off=("T3_1", "control_2"), seed=seed)).obs.query("flagged").index)
        for seed in range(5)
    ]
    assert all({"T3_1", "control_2"} <= names for names in flagged)
    assert sum(len(names) for names in flagged) <= 12


def test_of_two_that_differ_both_are_flagged() -> None:
    obs = cv.guide_effects(screen(n_guides=2, off=("T3_1",))).obs
    assert list(obs.index[obs["flagged"]]) == ["T3_0", "T3_1"]
    assert obs.loc["T3_0", "p_value"] == pytest.approx(obs.loc["T3_1", "p_value"])


def test_the_order_of_the_cells_does_not_matter_nor_where_they_are(tmp_path: Path) -> None:
    adata = screen(n_cells=150, n_guides=2, n_targets=3)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    one = cv.guide_effects(adata)
    for other in (adata[order].copy(), cv.open_cells(tmp_path / "cells.h5ad")):
        effects = cv.guide_effects(other)
        assert list(effects.obs_names) == list(one.obs_names)
        np.testing.assert_allclose(effects.X, one.X, atol=1e-5)
        pd.testing.assert_frame_equal(effects.obs, one.obs, rtol=1e-3)


def test_cells_of_several_guide_rnas_and_rare_ones_are_counted() -> None:
    adata = screen(n_targets=3)
    guide = adata.obs["guide"].to_numpy(dtype=object)
    guide[120:130], guide[130:140] = "T0_0+T0_1", "T0_2+T1_0"
    adata.obs["guide"] = guide
    label = adata.obs["perturbation"].to_numpy(dtype=object)
    label[130:140] = "T0+T1"
    adata.obs["perturbation"] = label
    crowded = pytest.warns(UserWarning, match="10 cells with more guide RNAs than targets are left out")
    with crowded, pytest.warns(UserWarning, match="1 guide RNAs with fewer than 11 passing cells are left out: 'T0_2"):
        effects = cv.guide_effects(adata, min_cells=11)
    assert "T0_0+T0_1" not in effects.obs_names
    with pytest.warns(UserWarning, match="10 cells with more"):
        effects = cv.guide_effects(adata, min_cells=10)
    assert effects.obs.loc["T0_2+T1_0", "target"] == "T0+T1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda obs: obs.drop(columns="guide"), "no column 'guide' in obs"),
        (lambda obs: obs.assign(guide="one"), "cells of guide RNA 'one' have different perturbations"),
        (lambda obs: obs.assign(guide=obs.index), "no guide RNA in .* has 10 passing cells"),
        (lambda obs: obs.assign(perturbation=obs["perturbation"].replace("control", "T9")), "0 passing control cells"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*are left out:UserWarning")
def test_bad_columns(change: Any, message: str) -> None:
    adata = screen(n_targets=2)
    adata.obs = change(adata.obs)
    with pytest.raises(DataError, match=message):
        cv.guide_effects(adata)


def test_after_assign_guides(guide_screen: Any) -> None:
    adata = guide_screen.genes.copy()
    adata.obsm["guides"], adata.uns["guides"] = guide_screen.guides, pd.DataFrame({"target": guide_screen.targets})
    cv.assign_guides(adata)
    with pytest.warns(UserWarning, match="fewer than 10 passing cells"):
        effects = cv.guide_effects(adata)
    assert set(effects.obs["target"]) <= set(guide_screen.labels)
    assert np.isfinite(effects.X).all()


# -- real counts -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fewer than 10 passing cells:UserWarning")
def test_real_guide_rnas(data_file: Any) -> None:
    adata = ad.read_h5ad(data_file("papalexi2021_299g.h5ad"))
    obs = cv.guide_effects(adata).obs
    assert 0 < obs["flagged"].sum() < 0.25 * len(obs)
    assert not obs.loc[obs["target"] == "control", "flagged"].any()
    rng = np.random.default_rng(0)
    guide = adata.obs["guide"].astype(str).to_numpy()
    for rows in adata.obs.groupby("perturbation", observed=True).indices.values():
        guide[rows] = rng.permutation(guide[rows])
    adata.obs["guide"] = guide
    shuffled = cv.guide_effects(adata).obs
    assert shuffled["flagged"].sum() <= 1
    assert 0.35 < shuffled["p_value"].median() < 0.65

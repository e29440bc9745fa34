"""Artifacts planted into given counts."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data.simulation.plant import PLANTED_KINDS, plant_artifacts
from cradlevae.errors import DataError


def real_like(n_cells: int = 1000, n_genes: int = 50, seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    means = np.exp(rng.normal(0.0, 1.5, n_genes))
    counts = sp.csr_matrix(rng.poisson(means, (n_cells, n_genes)), dtype=np.float32)
    obs = pd.DataFrame(index=pd.Index([f"c{i}" for i in range(n_cells)]))
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=pd.Index([f"g{i}" for i in range(n_genes)])))


def totals(counts: sp.csr_matrix) -> np.ndarray:
    return np.asarray(counts.sum(axis=1)).ravel()


def test_planting_keeps_the_truth_and_the_input() -> None:
    adata = real_like()
    before = adata.X.copy()
    planted = plant_artifacts(adata, share=0.5, kinds=PLANTED_KINDS)
    assert (before != adata.X).nnz == 0
    assert "artifact" not in adata.obs
    assert (planted.layers["clean"] != before).nnz == 0
    assert planted.obs["artifact"].sum() == 500
    kind = planted.obs["artifact_kind"].astype(str).to_numpy()
    np.testing.assert_array_equal(planted.obs["artifact"] == 1, kind != "none")
    assert set(kind) == {"none", *PLANTED_KINDS}
    assert (planted.X[kind == "none"] != before[kind == "none"]).nnz == 0
    low, double = kind == "low_umi", kind == "doublet"
    kept = totals(planted.X[low]) / totals(before[low])
    assert 0.0 < kept.min() < kept.max() < 0.6
    np.testing.assert_allclose(kept, 1.0 - planted.obs["true_severity"][low], atol=0.2)
    assert (planted.X[low] - before[low]).max() <= 0
    assert (planted.X[double] - before[double]).min() >= 0
    for name in ("ambient", "low_genes"):
        np.testing.assert_array_equal(totals(planted.X[kind == name]), totals(before[kind == name]))


def test_ambient_counts_come_from_one_pool() -> None:
    planted = plant_artifacts(real_like(4000), share=1.0, kinds=("ambient",))

    def foreign(cells: slice) -> np.ndarray:
        severity = planted.obs["true_severity"].to_numpy()[cells, None]
        kept = planted.layers["clean"][cells].toarray() * (1.0 - severity)
        added = (planted.X[cells].toarray() - kept).sum(axis=0)
        return np.asarray(added / added.sum())

    first, second = foreign(slice(0, 2000)), foreign(slice(2000, 4000))
    clean = totals(planted.layers["clean"].T) / planted.layers["clean"].sum()
    assert np.corrcoef(first, second)[0, 1] > 0.99
    assert np.corrcoef(first, clean)[0, 1] < 0.9


def test_a_layer_takes_the_damage_where_the_counts_are_there() -> None:
    adata = real_like()
    adata.layers["counts"] = adata.X.toarray()
    adata.X = sp.csr_matrix(np.log1p(adata.layers["counts"]))
    planted = plant_artifacts(adata, layer="counts")
    assert (planted.X != adata.X).nnz == 0
    failed = planted.obs["artifact"].to_numpy() == 1
    changed = np.asarray((planted.layers["counts"] != planted.layers["clean"]).sum(axis=1)).ravel() > 0
    np.testing.assert_array_equal(changed, failed)


def test_a_backed_file_is_read_and_left_alone(tmp_path: object) -> None:
    path = f"{tmp_path}/counts.h5ad"
    adata = real_like(100)
    adata.write_h5ad(path)
    backed = ad.read_h5ad(path, backed="r")
    planted = plant_artifacts(backed, seed=3)
    backed.file.close()
    again = plant_artifacts(adata, seed=3)
    assert (planted.X != again.X).nnz == 0
    assert planted.obs.equals(again.obs)
    assert "artifact" not in ad.read_h5ad(path).obs


def test_the_same_seed_plants_the_same_artifacts_and_another_others() -> None:
    adata = real_like()
    first, again, other = (plant_artifacts(adata, seed=seed) for seed in (0, 0, 1))
    assert (first.X != again.X).nnz == 0
    assert first.obs.equals(again.obs)
    assert not first.obs.equals(other.obs)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0.0, 1.0),
    st.sets(st.sampled_from(PLANTED_KINDS), min_size=1).map(sorted),
    st.integers(2, 40),
    st.integers(0, 99),
)
def test_any_share_and_kinds_give_whole_counts(share: float, kinds: list[str], n_cells: int, seed: int) -> None:
    planted = plant_artifacts(real_like(n_cells, 8, seed), share=share, kinds=kinds, seed=seed)
    assert planted.obs["artifact"].sum() == round(share * n_cells)
    assert planted.X.has_canonical_format
    assert (planted.X.data >= 1).all()
    assert (planted.X.data == np.round(planted.X.data)).all()


def test_bad_arguments_are_named() -> None:
    adata = real_like(20)
    with pytest.raises(DataError, match=r"share=1.5 must lie between 0 and 1"):
        plant_artifacts(adata, share=1.5)
    with pytest.raises(DataError, match=r"kinds=.*must name one or more of low_umi"):
        plant_artifacts(adata, kinds=("mito",))
    with pytest.raises(DataError, match="kinds="):
        plant_artifacts(adata, kinds=())
    with pytest.raises(DataError, match=r"layers\['clean'\] is there already"):
        plant_artifacts(plant_artifacts(adata))
    with pytest.raises(DataError, match="doublet needs two cells"):
        plant_artifacts(adata[:1].copy())
    adata.X = adata.X * 0.3
    with pytest.raises(DataError, match="fractional"):
        plant_artifacts(adata)

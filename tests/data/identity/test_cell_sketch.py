"""Cells are known by name and counts: in splits, models, scores and labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.data.identity.cell_sketch import PROBES, sketch_of

OTHER = "of the 200 cells have the name of a cell of the split but other counts"
SMALL: dict[str, Any] = {"n_latent": 4, "width": 8, "basal_width": 8}


def lane(seed: int, n_genes: int = 150) -> ad.AnnData:
    """200 cells with the same names for every seed."""
    adata = cv.simulate(n_cells=200, n_genes=n_genes, n_perturbations=3, n_combinations=0, n_latent=3, seed=seed)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    return adata


def mixed(counts: Any, others: Any, rows: Any) -> Any:
    """Counts with some rows of others."""
    return sp.csr_matrix(
        np.where(np.isin(np.arange(counts.shape[0]), rows)[:, None], others.toarray(), counts.toarray())
    )


@pytest.fixture(scope="module")
def first() -> ad.AnnData:
    return lane(0)


@pytest.fixture(scope="module")
def split(first: ad.AnnData) -> cv.Split:
    return cv.split(first, "cells", seed=0)


def test_a_second_lane_with_the_same_names_is_not_trained_on(split: cv.Split) -> None:
    with pytest.raises(cv.DataError, match=r"was it made for other data\? \(200 cells have the name of a cell"):
        cv.CradleVAE(lane(1), split=split, **SMALL)
    with pytest.raises(cv.DataError, match="was it made for other data"):
        cv.FloorModel("zero", lane(1), split=split)


def test_cells_with_other_counts_are_unknown_and_counted(first: ad.AnnData, split: cv.Split) -> None:
    changed = first.copy()
    rows = np.flatnonzero((split.parts == "train").to_numpy())[:20]
    changed.X = mixed(first.X, lane(1).X, rows)
    with pytest.warns(UserWarning, match=f"20 {OTHER}: they belong to no part"):
        model = cv.CradleVAE(changed, split=split, **SMALL)
    assert not np.isin(rows, model.split.rows(model.data, "train")).any()
    assert len(model.split.rows(model.data, "train")) == len(split.cells("train")) - 20


def test_cells_in_no_part_and_cells_that_are_absent_are_counted(first: ad.AnnData) -> None:
    half = first[:120].copy()
    with pytest.warns(UserWarning, match="80 of the 200 cells are in no part of the split"):
        cv.CradleVAE(first, split=cv.split(half, "cells"), **SMALL)
    with pytest.warns(UserWarning, match=r"80 of the 200 cells of the split are not in the data \(train \d+, val"):
        cv.CradleVAE(half, split=cv.split(first, "cells"), **SMALL)


@pytest.mark.parametrize("genes", [slice(None, None, -1), slice(0, 100), slice(0, None, 4), slice(60, 80)])
def test_a_subset_of_the_genes_is_the_same_cells(first: ad.AnnData, split: cv.Split, genes: slice) -> None:
    some = first[:, genes].copy()
    assert set(some.obs_names) == set(split.parts.index)
    model = cv.CradleVAE(some, split=split, **SMALL)
    assert list(model.data.cells[model.split.rows(model.data, "train")]) == [
        cell for cell in split.cells("train") if cell in some.obs_names
    ]


def test_few_genes_and_few_counts_are_told_apart(make_adata: Any) -> None:
    rng = np.random.default_rng(0)
    labels = ["control", "A"] * 50
    one, other = (make_adata(rng.poisson(2.0, (100, 6)) + 1, labels) for _ in range(2))
    one.obs["artifact"] = other.obs["artifact"] = [False, False, True, True] * 25
    split = cv.split(one, "cells")
    cv.CradleVAE(one, split=split, **SMALL)
    with pytest.raises(cv.DataError, match="was it made for other data"):
        cv.CradleVAE(other, split=split, **SMALL)


def test_a_manifest_keeps_the_sketches_and_older_ones_know_names_alone(
    first: ad.AnnData, split: cv.Split, tmp_path: Path
) -> None:
    split.save(tmp_path / "split.json")
    loaded = cv.Split.load(tmp_path / "split.json")
    assert loaded.hash == split.hash
    model = cv.CradleVAE(first, split=loaded, **SMALL)
    np.testing.assert_array_equal(model.split.rows(model.data, "val"), split.rows(first.obs_names, "val"))
    with pytest.raises(cv.DataError, match="was it made for other data"):
        cv.CradleVAE(lane(1), split=loaded, **SMALL)
    manifest = json.loads((tmp_path / "split.json").read_text())
    plain = {name: value for name, value in manifest.items() if name != "sketch"}
    (tmp_path / "old.json").write_text(json.dumps(plain))
    old = cv.CradleVAE(lane(1), split=cv.Split.load(tmp_path / "old.json"), **SMALL)
    assert len(old.split.rows(old.data, "train")) == len(split.cells("train"))
    manifest["sketch"]["sha256"] = "0"
    (tmp_path / "changed.json").write_text(json.dumps(manifest))
    with pytest.raises(cv.DataError, match="sketch of its cells was changed"):
        cv.Split.load(tmp_path / "changed.json")


def test_a_manifest_grows_by_few_bytes_a_cell(first: ad.AnnData, split: cv.Split, tmp_path: Path) -> None:
    split.save(tmp_path / "split.json")
    manifest = json.loads((tmp_path / "split.json").read_text())
    assert len(manifest["sketch"]["genes"]) == PROBES
    assert len(json.dumps(manifest["sketch"])) < 60 * first.n_obs


def test_a_split_by_another_layer_knows_the_cells(first: ad.AnnData) -> None:
    adata = first.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.copy()
    adata.X.data = np.log1p(adata.X.data)
    split = cv.split(adata, "cells")  # of X, which is normalised
    model = cv.CradleVAE(adata, split=split, layer="counts", **SMALL)
    assert len(model.split.rows(model.data, "train")) == len(split.cells("train"))
    alone = cv.CradleVAE(first, split=split, **SMALL)  # where X holds the counts
    assert len(alone.split.rows(alone.data, "train")) == len(split.cells("train"))
    moved = adata.copy()
    moved.layers["counts"] = lane(1).X
    assert model.split.namesakes(model.trained.read(moved)).all()


def test_cells_on_disk_are_sketched_alike(first: ad.AnnData, split: cv.Split, tmp_path: Path) -> None:
    first.write_h5ad(tmp_path / "lane.h5ad")
    stored = cv.split(cv.open_cells(tmp_path / "lane.h5ad"), "cells", seed=0)
    assert stored.sketch is not None
    assert split.sketch is not None
    assert stored.sketch.genes == split.sketch.genes
    np.testing.assert_array_equal(stored.sketch.values, split.sketch.values)
    model = cv.CradleVAE(cv.open_cells(tmp_path / "lane.h5ad"), split=split, **SMALL)
    assert not model.split.namesakes(model.data).any()


def test_scores_take_a_second_lane_for_unseen_cells(first: ad.AnnData, split: cv.Split) -> None:
    floor = cv.FloorModel("training_mean", first, split=split)
    floor.train()
    both = first.copy()
    rows = split.rows(first.obs_names, "val")
    both.X = mixed(first.X, lane(1).X, rows)
    del both.layers["clean"], both.uns["truth"]
    with pytest.warns(UserWarning, match=f"{len(rows)} {OTHER}: they are taken for cells that the model has not seen"):
        scores = cv.evaluate(floor, both, generated=False)
    assert scores.attrs["fingerprint_overlap"] == 0


def test_data_without_counts_have_no_sketch() -> None:
    assert sketch_of(ad.AnnData(obs=lane(0).obs), None) is None


@pytest.mark.parametrize("stored", [False, True])
def test_other_counts_in_all_genes_but_the_probes_are_other_cells(
    stored: bool, first: ad.AnnData, split: cv.Split, tmp_path: Path
) -> None:
    probes = first.var_names.isin(split.probes)
    changed = first.copy()
    rows = np.flatnonzero((split.parts == "train").to_numpy())[:20]
    counts, others = first.X.toarray(), lane(1).X.toarray()
    counts[np.ix_(rows, ~probes)] = others[np.ix_(rows, ~probes)]
    changed.X = sp.csr_matrix(counts)
    if stored:
        split.save(tmp_path / "split.json")
        split = cv.Split.load(tmp_path / "split.json")
    reordered = changed[:, ::-1].copy()  # the order of the genes says nothing
    with pytest.warns(UserWarning, match=f"20 {OTHER}: they belong to no part"):
        model = cv.CradleVAE(reordered, split=split, **SMALL)
    assert not np.isin(rows, model.split.rows(model.data, "train")).any()
    floor = cv.FloorModel("training_mean", first, split=split)
    floor.train()
    with pytest.warns(UserWarning, match=f"20 {OTHER}: they are taken"):
        cv.evaluate(floor, changed, generated=False, truth=False)


def test_stored_zeros_and_manifests_without_prints_are_the_same_cells(
    first: ad.AnnData, split: cv.Split, tmp_path: Path
) -> None:
    dense = first.X.toarray()
    cells, genes = np.indices(dense.shape).reshape(2, -1)
    explicit = first.copy()
    explicit.X = sp.csr_matrix((dense.ravel(), (cells, genes)), shape=dense.shape)
    assert explicit.X.nnz == dense.size
    assert len(cv.CradleVAE(explicit, split=split, **SMALL).trained.fingerprints) == len(split.cells("train"))
    assert split.sketch is not None
    earlier = replace(split, sketch=replace(split.sketch, values=split.sketch.values[:, :PROBES], gene_set=None))
    earlier.save(tmp_path / "split.json")
    model = cv.CradleVAE(first, split=cv.Split.load(tmp_path / "split.json"), **SMALL)
    assert len(model.trained.fingerprints) == len(split.cells("train"))

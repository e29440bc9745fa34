"""Copies of several files: each has its own columns and those that were added."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.data.storage.annotated_copy import write_annotated


def test_each_file_keeps_its_own_columns_as_they_were(simulated: ad.AnnData, tmp_path: Path) -> None:
    folder, output = tmp_path / "cells", tmp_path / "annotated"
    folder.mkdir()
    parts = {"a.h5ad": simulated[:250].copy(), "b.h5ad": simulated[250:].copy()}
    for part, kind in zip(parts.values(), (1, "x"), strict=True):
        part.obs = part.obs[["perturbation", "artifact"]].copy()
        part.obs["kind"] = pd.Categorical([kind] * part.n_obs)
    one = parts["a.h5ad"].obs
    one["flag"], one["number"], one["donor"] = True, 3, "d1"
    one["maybe"] = pd.Categorical([np.nan] * len(one), categories=["low", "high"], ordered=True)
    for name, part in parts.items():
        part.write_h5ad(folder / name)
    cells = cv.open_cells(folder)
    with pytest.warns(UserWarning, match="held other values"):
        cv.annotate_qc(cells, criteria=["umi", "genes"])
    write_annotated(cells, output, [QC_KEY])
    assert cells.X[:].nnz == simulated.X.nnz
    for name in parts:
        before, after = (ad.read_h5ad(at / name).obs for at in (folder, output))
        kept = list(before.columns.drop("artifact"))
        pd.testing.assert_frame_equal(after[kept], before[kept])
        added = set(after) - set(before)
        assert "qc_umi" in added
        assert not added & set(one)
        assert (after["artifact"] == cells.obs["artifact"][after.index]).all()

"""Links to nothing in a file of cells cost what they stand for, and nothing else."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import pytest

import cradlevae as cv


@pytest.mark.parametrize("place", ["uns", "uns/truth", "obsm", "layers"])
@pytest.mark.parametrize("kind", ["soft", "external"])
def test_a_link_to_nothing_is_left_out_with_a_warning(
    place: str, kind: str, simulated: ad.AnnData, tmp_path: Path
) -> None:
    path = tmp_path / "cells.h5ad"
    simulated[:9].copy().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file[f"{place}/gone"] = h5py.SoftLink("/nowhere") if kind == "soft" else h5py.ExternalLink("no.h5", "/x")
    with pytest.warns(UserWarning, match=r"\['gone'\] is left out: .*gone of .*cells\.h5ad cannot be read"):
        cells = cv.open_cells(path)
    assert cells.n_obs == 9
    assert "gone" not in {*cells.uns, *cells.uns["truth"], *cells.obsm, *cells.layers}
    assert cells[:3].X.shape == (3, 60)

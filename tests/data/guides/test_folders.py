"""10x folders as they come: Matrix Market files of every kind, and features with names that need care."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import cradlevae as cv
from cradlevae.errors import DataError

COUNTS = np.array([[1, 0, 2, 0], [0, 3, 0, 0], [4, 0, 0, 5], [9, 0, 0, 0], [0, 8, 0, 1]])
GENES = ("E1\tA\tGene Expression", "E2\tA\tGene Expression", "E3\tB\tGene Expression")
GUIDES = ("g1\tA_1\tCRISPR Guide Capture", "g2\tNT_1\tCRISPR Guide Capture")
TARGETS = {"g1": "A", "g2": "control"}


def folder(
    path: Path, counts: np.ndarray = COUNTS, guides: Sequence[str] = GUIDES, *, field: str | None = None,
    array: bool = False, end: str = "\n", compressed: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write a 10x folder."""
    scipy.io.mmwrite(path / "matrix.mtx", counts if array else sp.coo_matrix(counts), field=field)
    (path / "features.tsv").write_bytes("".join(line + end for line in (*GENES, *guides)).encode())
    (path / "barcodes.tsv").write_bytes("".join(f"C{cell}-1{end}" for cell in range(counts.shape[1])).encode())
    for name in compressed:
        (path / f"{name}.gz").write_bytes(gzip.compress((path / name).read_bytes()))
        (path / name).unlink()
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"field": "integer"},
        {"field": "real"},
        {"array": True},
        {"end": "\r\n"},
        {"compressed": ("matrix.mtx",)},
        {"compressed": ("features.tsv", "barcodes.tsv")},
    ],
    ids=str,
)
def test_every_kind_of_counts(options: dict[str, object], tmp_path: Path) -> None:
    adata = cv.read_10x(folder(tmp_path, **options), guide_targets=TARGETS)  # type: ignore[arg-type]
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS[:3].T)
    np.testing.assert_array_equal(adata.obsm["guides"].toarray(), COUNTS[3:].T)
    assert list(adata.var_names) == ["A", "A-1", "B"]
    assert list(adata.obs_names) == ["C0-1", "C1-1", "C2-1", "C3-1"]
    assert adata.uns["guides"]["target"].to_dict() == {"A_1": "A", "NT_1": "control"}


def test_matrices_that_hold_no_counts(tmp_path: Path) -> None:
    for field in ("pattern", "complex"):
        with pytest.raises(DataError, match=f"of the kind {field!r}, which holds no counts"):
            cv.read_10x(folder(tmp_path, field=field), guide_targets=TARGETS)
    for counts in (0.5 * COUNTS, -COUNTS):
        with pytest.raises(DataError, match="guide RNAs are not whole numbers of 0 or more"):
            cv.read_10x(folder(tmp_path, counts), guide_targets=TARGETS)
    scipy.io.mmwrite(tmp_path / "matrix.mtx", sp.coo_matrix(COUNTS.T))
    with pytest.raises(DataError, match="the matrix has 4 features and 5 barcodes, but 5 features and 4 barcodes"):
        cv.read_10x(tmp_path, guide_targets=TARGETS)


def test_names_of_guide_rnas_that_are_empty_or_stand_twice(tmp_path: Path) -> None:
    kind = "CRISPR Guide Capture"
    empty = cv.read_10x(folder(tmp_path, guides=(f"g1\t\t{kind}", GUIDES[1])), guide_targets=TARGETS)
    assert list(empty.uns["guides"].index) == ["g1", "NT_1"]
    twice = cv.read_10x(folder(tmp_path, guides=(f"g1\tA_1\t{kind}", f"g2\tA_1\t{kind}")), guide_targets=TARGETS)
    assert list(twice.uns["guides"].index) == ["g1", "g2"]
    with pytest.raises(DataError, match="guide RNA 'g1' occurs twice"):
        cv.read_10x(folder(tmp_path, guides=(GUIDES[0], GUIDES[0])), guide_targets=TARGETS)

"""The demonstration, on a smaller experiment."""

from __future__ import annotations

import functools
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest

import cradlevae as cv
from cradlevae.demo import FILES, run_demo


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    design = {"n_cells": 500, "n_genes": 100, "n_perturbations": 4, "n_combinations": 5}
    monkeypatch.setattr(cv, "simulate", functools.partial(cv.simulate, **design))
    # so few genes are few for scrublet, and some criteria fail many cells: the warnings are not what is tested
    monkeypatch.setattr(cv, "annotate_qc", functools.partial(cv.annotate_qc, criteria=("umi", "genes", "mito")))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_demonstration_writes_every_file_that_it_names_and_runs_again(small: None, tmp_path: Path, capsys) -> None:
    output = tmp_path / "demo"
    for _ in range(2):
        run_demo(output, max_epochs=1)
        for name in FILES:
            assert (output / name).exists(), name
    printed = capsys.readouterr().out
    assert "ate_rho" in printed
    assert all(name in printed for name in FILES)
    assert ad.read_h5ad(output / "cleaned.h5ad").obs["failed_qc"].all()
    assert set(ad.read_h5ad(output / "predicted.h5ad").obs["perturbation"]) <= set(
        pd.read_csv(output / "effects.csv")["perturbation"]
    )
    assert cv.CradleVAE.load(output / "model").history.shape[0] == 1


def test_the_demonstration_leaves_other_peoples_files_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(cv.DataError, match="did not write"):
        run_demo(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"

"""What one evaluation works on: cells that are taken from an experiment that has been read."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cradlevae.data.experiment import DataFields, read_experiment
from cradlevae.evaluation import inputs
from cradlevae.evaluation.inputs import ScoringInputs, cells_alone


@pytest.mark.parametrize("left_out", [[], ["A"], ["control", "B"]])
def test_cells_alone_are_what_reading_them_alone_gives(simulated: ad.AnnData, left_out: list[str]) -> None:
    fields = DataFields()
    data = read_experiment(simulated, fields)
    rows = np.flatnonzero(~simulated.obs["perturbation"].isin(left_out))[::3]
    alone = cells_alone(data, rows)
    read = read_experiment(simulated[rows], fields, genes=list(data.genes), perturbations=data.perturbations)
    assert alone.conditions == read.conditions
    assert alone.perturbations == read.perturbations
    np.testing.assert_array_equal(alone.condition, read.condition)
    np.testing.assert_array_equal(alone.dosage, read.dosage)
    np.testing.assert_array_equal(alone.artifact, read.artifact)
    np.testing.assert_array_equal(alone.library_size, read.library_size)
    assert (alone.counts != read.counts).nnz == 0
    pd.testing.assert_frame_equal(pd.DataFrame(alone.obs), pd.DataFrame(read.obs), check_categorical=False)


def test_cells_are_generated_of_some_conditions_where_there_are_thousands(monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"P{number}" for number in range(50))
    few, many = (ScoringInputs(None, None, None, np.arange(0), names[:n], seed=0) for n in (10, 50))
    monkeypatch.setattr(inputs, "GENERATED_CONDITIONS", 10)
    assert few.generated_conditions == names[:10]
    chosen = many.generated_conditions
    assert len(chosen) == len(set(chosen)) == 10
    assert list(chosen) == sorted(chosen, key=names.index)
    assert ScoringInputs(None, None, None, np.arange(0), names, seed=0).generated_conditions == chosen

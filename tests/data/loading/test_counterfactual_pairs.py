"""Counterfactual pairs: passing cells and their damaged copies, the same for every process, anew in every epoch."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import torch

from cradlevae.data.experiment import DataFields, Experiment, read_experiment
from cradlevae.data.loading.counterfactual_pairs import CounterfactualPairs
from cradlevae.data.loading.shard import Shard


@pytest.fixture(scope="module")
def data(simulated: ad.AnnData) -> Experiment:
    return read_experiment(simulated, DataFields(perturbation_key="perturbation", artifact_key="artifact"))


def pairs_of(data: Experiment, share: float = 0.5) -> CounterfactualPairs:
    none = np.zeros((0, data.n_genes), dtype=np.float32)
    return CounterfactualPairs(
        data, np.arange(data.n_cells), damages=("few_counts", "doublet"), share=share, pools=none,
        retained=np.zeros(data.n_genes, dtype=bool), seed=0,
    )  # fmt: skip


def test_pairs_are_passing_cells_with_their_conditions(data: Experiment) -> None:
    pairs = pairs_of(data).of_minibatch(np.arange(100))
    assert pairs is not None
    assert len(pairs.counts) == len(pairs.damaged) == 50
    passing = {row.tobytes() for row in data.counts[~data.failed].toarray()}
    assert all(row.tobytes() in passing for row in pairs.counts.numpy())
    dosage = np.zeros((50, len(data.perturbations)), dtype=np.float32)
    dosage[:, pairs.treatments.numpy()] = pairs.treatment_dosage.numpy()[pairs.condition.numpy()]
    by_counts = {
        row.tobytes(): data.dosage[code] for row, code in zip(data.counts.toarray(), data.condition, strict=True)
    }
    np.testing.assert_array_equal(dosage, [by_counts[row.tobytes()] for row in pairs.counts.numpy()])


def test_a_doublet_says_of_which_condition_the_other_cell_is(data: Experiment) -> None:
    pairs = pairs_of(data).of_minibatch(np.arange(100))
    assert pairs is not None
    two = pairs.kind == 1
    assert ((pairs.parent >= 0) == two).all()
    assert int(pairs.parent.max()) < len(data.plain[1])


def test_epochs_differ_and_repeat(data: Experiment) -> None:
    one, other = pairs_of(data), pairs_of(data)
    first = one.of_minibatch(np.arange(64))
    one.set_epoch(1)
    second = one.of_minibatch(np.arange(64))
    other.set_epoch(1)
    again = other.of_minibatch(np.arange(64))
    assert first is not None
    assert second is not None
    assert again is not None
    assert not torch.equal(first.damaged, second.damaged)
    assert torch.equal(second.damaged, again.damaged)


def test_processes_share_the_pairs_of_a_minibatch(data: Experiment) -> None:
    pairs, rows = pairs_of(data), np.arange(101)
    whole = pairs.of_minibatch(rows)
    parts = [pairs.of_minibatch(rows, Shard(rank, 3)) for rank in range(3)]
    assert whole is not None
    assert torch.equal(whole.damaged, torch.cat([part.damaged for part in parts if part is not None]))
    assert {part.whole for part in parts if part is not None} == {len(whole.kind)}


def test_without_passing_cells_there_are_none(data: Experiment) -> None:
    failed = replace(data, artifact=np.ones_like(data.artifact))
    assert pairs_of(failed).of_minibatch(np.arange(10)) is None

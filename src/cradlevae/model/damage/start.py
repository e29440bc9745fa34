"""What the guide of damage knows before training: ambient pools that failed cells show, and sizes of passing cells."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from cradlevae.data.damage.ambient import CELLS, FEWEST_CELLS, VALUES, ambient_pools
from cradlevae.data.experiment import Experiment
from cradlevae.data.storage.stored_matrix import cells_within, group_sums
from cradlevae.model.damage.guide import DamageGuide
from cradlevae.utils.types import Float32Array, FloatArray, IndexArray, IntArray

WEIGHT_OF_MEAN = 300.0
"""Counts of the mean profile that are added to those of a condition in a stratum, where it may have few cells."""

MOST_VALUES = 40_000_000
"""Profiles are those of conditions in strata while they have fewer values; else those of strata."""


def failed_pools(data: Experiment, rows: IndexArray) -> Float32Array:
    """Profiles of ambient RNA that the failed ones of some cells show, (pools, genes)."""
    failed, passing = rows[data.failed[rows]], rows[~data.failed[rows]]
    if not len(failed) or not len(passing):
        return np.zeros((0, data.n_genes), dtype=np.float32)
    group, n_groups = _groups(data)
    sums = group_sums(data.counts, passing, group[passing], n_groups, "averaging passing cells")
    overall = sums.sum(axis=0, dtype=np.float64) + 1e-3
    overall /= overall.sum()
    profiles = sums + WEIGHT_OF_MEAN * overall
    profiles = (profiles / profiles.sum(axis=1, keepdims=True)).astype(np.float32)
    random = np.random.default_rng(0)
    most = cells_within(data.counts, CELLS, VALUES, least=FEWEST_CELLS)
    failed, passing = (np.sort(random.permutation(some)[:most]) for some in (failed, passing))
    cells = [(sp.csr_matrix(data.counts[some]), group[some]) for some in (failed, passing)]
    return ambient_pools(cells[0], cells[1], profiles)


def _groups(data: Experiment) -> tuple[IntArray, int]:
    """Groups of cells that should have one profile: conditions in strata, as far as there are not too many."""
    n_strata = int(data.strata.max(initial=0)) + 1
    n_conditions = len(data.conditions)
    if n_conditions * n_strata * data.n_genes <= MOST_VALUES:
        return data.condition * n_strata + data.strata, n_conditions * n_strata
    return data.strata, n_strata


def start_guide(guide: DamageGuide, pools: Float32Array, total: FloatArray, sizes: Float32Array) -> None:
    """Let a guide know ambient pools, total counts of the genes, (genes,), and library sizes of passing cells."""
    with torch.no_grad():
        guide.pools.copy_(torch.from_numpy(pools))
        guide.log_size.fill_(float(np.log(np.maximum(sizes, 1)).mean()))
        guide.foreign_genes.bias.copy_(torch.from_numpy(np.log(total / total.sum())).float())
        guide.foreign_genes.weight.mul_(0.3)

"""A floor of ``clean``: a plain network that has learned to undo random damage of passing training cells.

It knows nothing of perturbations, batches and real failed cells: passing training cells are damaged at random
(:mod:`cradlevae.evaluation.floors.random_damage`), and the network predicts the undamaged cell from the damaged one. A
model that cleans cells must know more than that.

Two hidden layers of 256 units say what the cell expresses, and how far to believe its own counts: the prediction is a
weighted mean of a profile and of the cell's own. Without that, much of the training goes into learning to copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from cradlevae.data.experiment import Experiment
from cradlevae.data.storage.stored_matrix import CountMatrix, tracked_blocks
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.random_damage import randomly_damaged
from cradlevae.utils.types import AnyIntArray, Float32Array, FloatArray, IndexArray

WIDTH = 256
"""Units of each of the two hidden layers."""

STEPS, BATCH, LEARNING_RATE = 2500, 256, 1e-3
"""Most steps of training, cells of a step, and learning rate of Adam at the start (it falls to 0)."""

MAX_CELLS = 20_000
"""Most passing training cells that are learned from; of more, a random choice."""

MAX_GENES = 2_000
"""Genes that the network knows one by one, those of most counts; all others together are one more to it."""

MAX_EPOCHS = 200
"""Most times that a cell comes: few cells would be learned by heart."""

MAX_WORK = STEPS * 1_000
"""Largest product of steps and genes."""

PREDICTED = 1_024
"""Cells that are predicted together."""

SMALLEST_SD, TINY = 1e-2, 1e-9


class _Network(torch.nn.Module):
    """Shares of genes in the undamaged cell.

    Parameters
    ----------
    log_mean
        Logarithm of the mean profile, (inputs,): the prediction at the start.
    rng
        Draws the weights.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, log_mean: FloatArray, rng: np.random.Generator) -> None:
        super().__init__()
        n_inputs = len(log_mean)
        self.hidden = torch.nn.ParameterList()
        for n_in, n_out in ((n_inputs + 1, WIDTH), (WIDTH, WIDTH)):
            self.hidden.extend([_weight(n_in, n_out, rng), torch.zeros(n_out, dtype=torch.float32)])
        self.profile = torch.nn.Parameter(_weight(WIDTH, n_inputs, rng))
        self.base = torch.nn.Parameter(torch.from_numpy(log_mean.astype(np.float32)))
        self.raised = torch.nn.Parameter(torch.full((n_inputs,), 0.3, dtype=torch.float32))
        self.belief = torch.nn.Parameter(_weight(WIDTH, 1, rng))
        self.register_buffer("centre", torch.zeros(n_inputs + 1, dtype=torch.float32))
        self.register_buffer("scale", torch.ones(n_inputs + 1, dtype=torch.float32))

    def standardise(self, counts: Float32Array) -> None:
        """Take the centre and the scale of inputs from some damaged cells, (cells, inputs)."""
        inputs = _logarithms(torch.from_numpy(counts))
        self.centre.copy_(inputs.mean(dim=0))
        self.scale.copy_(inputs.std(dim=0).clamp_min(SMALLEST_SD))

    def forward(self, counts: Tensor) -> Tensor:
        """Shares of the inputs in the undamaged cells, (cells, inputs), from the damaged cells' counts."""
        inputs = (_logarithms(counts) - self.centre) / self.scale
        state = inputs
        for weight, bias in zip(self.hidden[::2], self.hidden[1::2], strict=True):
            state = torch.relu(torch.addmm(bias, state, weight))
        expressed = torch.softmax(torch.addmm(self.base, state, self.profile) + self.raised * inputs[:, :-1], dim=1)
        total = counts.sum(dim=1, keepdim=True)
        own = counts / total.clamp_min(1)
        believed = torch.sigmoid(state @ self.belief) * (total > 0)  # an empty cell has no profile of its own
        shares: Tensor = torch.lerp(expressed, own, believed)
        return shares


def _logarithms(counts: Tensor) -> Tensor:
    """Log counts and log library size, (cells, inputs + 1)."""
    return torch.log1p(torch.column_stack([counts, counts.sum(dim=1)]))


def _weight(n_in: int, n_out: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal((n_in, n_out), dtype=np.float32) / np.float32(np.sqrt(n_in)))


@dataclass(frozen=True)
class Denoiser:
    """A trained denoiser.

    Attributes
    ----------
    grouping
        Which genes each input of the network is the sum of, (genes, inputs), 0 and 1.
    spreading
        Share of each gene in the counts of its input, (inputs, genes).
    network
        Takes counts of inputs, returns their shares.
    """

    grouping: sp.csr_matrix
    spreading: sp.csr_matrix
    network: _Network

    def profiles(self, counts: sp.csr_matrix | FloatArray) -> FloatArray:
        """Expected share of each gene in the undamaged cell, (cells, genes); rows sum to 1.

        Parameters
        ----------
        counts
            Counts of damaged cells, (cells, genes), sparse or dense.
        """
        matrix = sp.csr_matrix(counts)
        answer = np.empty(matrix.shape, dtype=np.float64)
        for start in range(0, matrix.shape[0], PREDICTED):
            part = slice(start, start + PREDICTED)
            with torch.no_grad():
                shares = self.network(torch.from_numpy(_grouped(matrix[part], self.grouping).toarray()))
            answer[part] = shares.numpy().astype(np.float64) @ self.spreading
        return answer


def denoised_profiles(data: Experiment, train: IndexArray, rows: IndexArray, *, seed: int = 0) -> FloatArray:
    """Profiles that a denoiser predicts for damaged cells, (cells, genes).

    Parameters
    ----------
    data
        The experiment.
    train
        Training cells, ascending; the denoiser learns from the passing ones.
    rows
        Damaged cells.
    seed
        As of :func:`train_denoiser`.
    """
    return train_denoiser(data.counts, train[~data.failed[train]], seed=seed).profiles(data.counts[rows])


def train_denoiser(counts: CountMatrix, passing: AnyIntArray, *, seed: int = 0) -> Denoiser:
    """Learn to undo damage from some cells.

    Memory holds the counts of at most :data:`MAX_CELLS` cells on :data:`MAX_GENES` genes. Torch's random numbers are
    left as they are.

    Parameters
    ----------
    counts
        Counts of all cells, (cells, genes), in memory or on disk.
    passing
        Positions of the passing training cells, ascending; at least one.
    seed
        Seed of the choice of cells, the weights and the damage.

    Raises
    ------
    DataError
        If there is no cell.
    """
    rng = np.random.default_rng(seed)
    passing = np.asarray(passing)
    if not len(passing):
        raise DataError("a denoiser learns from passing training cells, but there are none")
    if len(passing) > MAX_CELLS:
        passing = np.sort(rng.choice(passing, MAX_CELLS, replace=False))
    total = np.full(counts.shape[1], 1e-3)
    for _, block in tracked_blocks(counts, passing, "counting for the denoiser"):
        total += np.asarray(block.sum(axis=0), dtype=np.float64).ravel()
    grouping, spreading = _groups(total)
    blocks = tracked_blocks(counts, passing, "reading cells for the denoiser")
    cells = sp.csr_matrix(sp.vstack([_grouped(block, grouping) for _, block in blocks]))
    return Denoiser(grouping, spreading, _trained(cells, total @ grouping / total.sum(), rng))


def _groups(total: FloatArray) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Inputs by genes with their total counts: each of most counts is one, the others are one together."""
    n_genes = len(total)
    group = np.full(n_genes, min(n_genes, MAX_GENES), dtype=np.int64)
    known = np.sort(np.argsort(-total, kind="stable")[:MAX_GENES])
    group[known] = np.arange(len(known))
    share = total / np.bincount(group, total)[group]
    shape = n_genes, int(group.max()) + 1
    grouping = sp.csr_matrix((np.ones(n_genes, dtype=np.float32), (np.arange(n_genes), group)), shape=shape)
    return grouping, sp.csr_matrix((share, (group, np.arange(n_genes))), shape=shape[::-1])


def _grouped(counts: sp.csr_matrix, grouping: sp.csr_matrix) -> sp.csr_matrix:
    """Counts of the inputs, (cells, inputs)."""
    return sp.csr_matrix(counts.astype(np.float32) @ grouping)


def _trained(cells: sp.csr_matrix, mean_profile: FloatArray, rng: np.random.Generator) -> _Network:
    """The network after training on damaged copies of cells, (cells, inputs), of this mean profile, (inputs,)."""
    n_cells, n_inputs = cells.shape
    log_mean = np.log(mean_profile)

    def drawn(n: int) -> tuple[Float32Array, Float32Array]:
        """Damaged cells and the same cells whole."""
        whole, others = (cells[rng.integers(0, n_cells, n)].toarray() for _ in range(2))
        return randomly_damaged(whole, others, log_mean, rng), whole

    network = _Network(log_mean, rng)
    network.standardise(drawn(4 * BATCH)[0])
    optimiser = torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
    n_steps = min(STEPS, MAX_WORK // n_inputs, -(-MAX_EPOCHS * n_cells // BATCH))
    for step in range(n_steps):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / n_steps)
        damaged, whole = (torch.from_numpy(counts) for counts in drawn(BATCH))
        # the deviance of a Poisson distribution with the cell's total given, but for a constant
        loss = -(torch.log(network(damaged) + TINY) * whole).sum(dim=1).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return network

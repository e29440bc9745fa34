"""Counts that a trained model predicts for any combination of known perturbations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from cradlevae.data.identity.marks import made_by
from cradlevae.data.labels import Condition, context_of, in_context
from cradlevae.data.storage.block_writer import Block, check_cells_output, from_blocks
from cradlevae.model.estimation.latent_draws import Basal, draw_basal, draw_cell_artifact, draw_condition
from cradlevae.model.estimation.streams import reseed, seeded, stream_seed
from cradlevae.model.globals import Globals
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import artifact_indicator, asked_conditions, asked_level
from cradlevae.query.library_sizes import Batches, LibrarySize, chosen_batches, chosen_sizes
from cradlevae.utils.checks import check_choice, flag, optional_output, seed_number, whole_number
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import Float32Array, IntArray

CELLS_AT_A_TIME = 500


def predict(
    model: TrainedModel,
    perturbations: str | Sequence[str],
    *,
    n_cells: int = 500,
    artifact: bool | str | Sequence[str] = False,
    library_size: LibrarySize = "controls",
    basal: Basal = "controls",
    batch: Batches | None = None,
    context: str | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> ad.AnnData:
    """Generate cells.

    Parameters
    ----------
    model
        A trained model.
    perturbations
        Conditions, e.g. ``["A+B", "C", "control"]``; combinations need not have been seen.
    n_cells
        Cells for each condition.
    artifact
        ``False`` for artifact-free cells, ``True`` for damaged ones, or the names of artifact classes.
    library_size
        Total count that each cell is expected to have: a number, ``"controls"`` to draw those of real passing training
        controls, or sizes to draw from by condition, e.g. those of real cells, ``{"A": [1800, 2400], "A+B": [2100]}``.
    basal
        Basal states: of real passing controls, or from the ``"prior"``.
    batch
        Experimental batch of the cells, or batches to draw from by condition, as of library sizes; by default each
        cell is in the batch of the control that its state comes from.
    context
        Context of the cells; by default that of the control.
    seed
        Seed of the draws.
    output
        ``.h5ad`` file to write the cells into as they are generated; memory then does not grow with their number.
    overwrite
        Whether to replace a file that is there.

    Returns
    -------
    anndata.AnnData
        Counts (CSR; with ``output``, those in the file), ``obs``: ``perturbation``, ``artifact``, ``library_size``, and
        batch, covariates and context where the training cells differed in them; ``var`` as in training.

    Raises
    ------
    DataError
        If a perturbation, batch or context is unknown or had no training cells, or damaged cells are asked of a model
        without artifact, or ``output`` is there already or cannot be written.
    """
    n_cells, seed = whole_number("n_cells", n_cells, 1), seed_number(seed)
    check_choice("basal", basal, ("controls", "prior"))
    output, overwrite = optional_output("output", output), flag("overwrite", overwrite)
    if output is not None:
        check_cells_output(output, overwrite=overwrite)
    asked = asked_conditions(model, perturbations, context)
    conditions = tuple(asked.values())
    known = asked_level(model.fields, model.levels, "context", context)
    wanted = _Wanted(
        conditions,
        n_cells,
        artifact_indicator(model, artifact),
        chosen_sizes(library_size, conditions, model.fields, n_cells, seed),
        chosen_batches(batch, conditions, model, n_cells, seed),
        tuple(context_of(condition) or known for condition in conditions),
    )
    total = n_cells * len(conditions)
    sizes = np.empty(total, dtype=np.float32)
    levels = np.tile(np.array([column.first for column in model.columns], dtype=np.int64), (total, 1))

    def obs() -> pd.DataFrame:
        table = pd.DataFrame(
            {
                "perturbation": pd.Categorical(np.repeat(np.array(list(asked), dtype=object), n_cells)),
                "artifact": bool(wanted.indicator.any()),
                "library_size": sizes,
            },
            index=[f"predicted{i}" for i in range(total)],
        )
        for place, column in enumerate(model.columns):
            table[column.key] = pd.Categorical.from_codes(
                (levels[:, place] - column.first).tolist(), pd.Index(column.levels)
            )
        return table

    with seeded(seed):
        blocks = _blocks(model, wanted, basal, seed, sizes, levels)
        return from_blocks(blocks, obs, model.var, total, output, uns=made_by("predict"), overwrite=overwrite)


@dataclass(frozen=True)
class _Wanted:
    """What cells are wanted: ``n_cells`` of each condition."""

    conditions: tuple[Condition, ...]
    n_cells: int
    indicator: Tensor  # artifact classes, (C,)
    sizes: Float32Array | None  # library sizes, (conditions, n_cells); None for those of the controls
    batches: IntArray | None  # numbers of batches, (conditions, n_cells); None for those of the controls
    contexts: tuple[str | None, ...]  # of each condition


def _blocks(
    model: TrainedModel, wanted: _Wanted, basal: Basal, seed: int, sizes: Float32Array, levels: IntArray
) -> Iterator[Block]:
    """Counts of cells, condition after condition; their library sizes and levels are put into the two arrays."""
    n_cells, indicator, module = wanted.n_cells, wanted.indicator, model.module
    steps = [
        (row, start, min(CELLS_AT_A_TIME, n_cells - start))
        for row in range(len(wanted.conditions))
        for start in range(0, n_cells, CELLS_AT_A_TIME)
    ]
    generator = np.random.default_rng(seed)
    for row, start, n in track_slow(steps, len(steps), "predicting"):
        condition = wanted.conditions[row]
        if start == 0:  # a condition has random numbers of its own, whichever are asked for beside it
            reseed(seed, condition)
            generator = np.random.default_rng([seed, stream_seed(seed, condition)])
        dosage = model.dosage((condition,))
        draw, z_p = draw_condition(model, dosage[0], n)
        states = draw_basal(model, (n, 1), basal, generator, wanted.contexts[row])
        library, of_states = states.library_size, states.levels
        if wanted.sizes is not None:
            library = wanted.sizes[row, start : start + n, None]
        if wanted.batches is not None:
            numbers = torch.from_numpy(wanted.batches[row, start : start + n, None])
            of_states = model.in_batch(of_states, numbers)
        offset = module.offset(dosage)
        if model.pairs and wanted.contexts[row] is None:  # each cell has the effect of its own context
            of_cells = _in_own_context(model, condition, of_states[:, 0])
            z_p = torch.einsum("nt,ntk->nk", of_cells, _all_shifts(model, draw, dosage[0], n))
            moved = module.offset(of_cells)
            offset = None if moved is None else moved.unsqueeze(1)
        z_a = None if draw.artifact is None else (indicator @ draw.artifact).unsqueeze(1)
        if z_a is not None and indicator.any():
            z_a = draw_cell_artifact(model, z_a, indicator)
        share = module.decode_share(states.state, z_p.unsqueeze(1), z_a, offset, module.of_levels(of_states))[:, 0]
        counts = module.likelihood.sample(share * torch.from_numpy(library))
        place = slice(row * n_cells + start, row * n_cells + start + n)
        sizes[place], levels[place] = library[:, 0], of_states[:, 0].numpy()
        yield {"X": sp.csr_matrix(counts.numpy())}


def _in_own_context(model: TrainedModel, condition: Condition, levels: Tensor) -> Tensor:
    """Dosages of a condition in the context of each cell, whose levels are given, (n, columns) → (n, T)."""
    column = model.column("context")
    assert column is not None
    contexts, own = torch.unique(levels[:, model.columns.index(column)] - column.first, return_inverse=True)
    return model.dosage(tuple(in_context(condition, column.levels[code]) for code in contexts.tolist()))[own]


def _all_shifts(model: TrainedModel, draw: Globals, dosage: Tensor, n: int) -> Tensor:
    """What each treatment adds to z^p in each draw, (n, T, W); 0 for those that were not drawn."""
    treatments = torch.nonzero(dosage).squeeze(1)
    drawn = draw.shift.expand(n, -1, -1)
    shifts = drawn.new_zeros(n, len(dosage), drawn.shape[-1])
    shifts[:, treatments] = drawn
    return shifts

"""Counts that a trained model predicts for any combination of known perturbations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from cradlevae.data.marks import made_by
from cradlevae.data.storage.block_writer import Block, check_cells_output, from_blocks
from cradlevae.model.estimation.latent_draws import Basal, draw_basal, draw_cell_artifact, draw_condition
from cradlevae.model.estimation.streams import reseed, seeded, stream_seed
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import artifact_indicator, asked_conditions
from cradlevae.query.library_sizes import LibrarySize, chosen_sizes
from cradlevae.utils.checks import check_choice, flag, optional_output, seed_number, whole_number
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import Float32Array

CELLS_AT_A_TIME = 500


def predict(
    model: TrainedModel,
    perturbations: str | Sequence[str],
    *,
    n_cells: int = 500,
    artifact: bool | str | Sequence[str] = False,
    library_size: LibrarySize = "controls",
    basal: Basal = "controls",
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
    seed
        Seed of the draws.
    output
        ``.h5ad`` file to write the cells into as they are generated; memory then does not grow with their number.
    overwrite
        Whether to replace a file that is there.

    Returns
    -------
    anndata.AnnData
        Counts (CSR; with ``output``, those in the file), ``obs``: ``perturbation``, ``artifact``, ``library_size``;
        ``var`` as in training.

    Raises
    ------
    DataError
        If a perturbation is unknown or had no training cells, or damaged cells are asked of a model without artifact,
        or ``output`` is there already or cannot be written.
    """
    n_cells, seed = whole_number("n_cells", n_cells, 1), seed_number(seed)
    check_choice("basal", basal, ("controls", "prior"))
    output, overwrite = optional_output("output", output), flag("overwrite", overwrite)
    if output is not None:
        check_cells_output(output, overwrite=overwrite)
    asked = asked_conditions(model, perturbations)
    conditions = tuple(asked.values())
    chosen = chosen_sizes(library_size, conditions, model.fields, n_cells, seed)
    indicator = artifact_indicator(model, artifact)
    dosage = model.dosage(conditions)
    sizes = np.empty(n_cells * len(conditions), dtype=np.float32)

    def obs() -> pd.DataFrame:
        return pd.DataFrame(
            {
                "perturbation": pd.Categorical(np.repeat(np.array(list(asked), dtype=object), n_cells)),
                "artifact": bool(indicator.any()),
                "library_size": sizes,
            },
            index=[f"predicted{i}" for i in range(n_cells * len(conditions))],
        )

    with seeded(seed):
        blocks = _blocks(model, conditions, dosage, n_cells, indicator, chosen, basal, seed, sizes)
        return from_blocks(
            blocks, obs, model.var, n_cells * len(conditions), output, uns=made_by("predict"), overwrite=overwrite
        )


def _blocks(
    model: TrainedModel,
    conditions: Sequence[str],
    dosage: Tensor,
    n_cells: int,
    indicator: Tensor,
    chosen: Float32Array | None,
    basal: Basal,
    seed: int,
    sizes: Float32Array,
) -> Iterator[Block]:
    """Counts of cells, condition after condition; their library sizes are put into ``sizes``."""
    steps = [
        (row, start, min(CELLS_AT_A_TIME, n_cells - start))
        for row in range(len(dosage))
        for start in range(0, n_cells, CELLS_AT_A_TIME)
    ]
    generator = np.random.default_rng(seed)
    for row, start, n in track_slow(steps, len(steps), "predicting"):
        if start == 0:  # a condition has random numbers of its own, whichever are asked for beside it
            reseed(seed, conditions[row])
            generator = np.random.default_rng([seed, stream_seed(seed, conditions[row])])
        draw, z_p = draw_condition(model, dosage[row], n)
        z_b, library = draw_basal(model, (n, 1), basal, generator)
        if chosen is not None:
            library = chosen[row, start : start + n, None]
        z_a = None if draw.artifact is None else (indicator @ draw.artifact).unsqueeze(1)
        if z_a is not None and indicator.any():
            z_a = draw_cell_artifact(model, z_a, indicator)
        share = model.module.decode_share(z_b, z_p.unsqueeze(1), z_a, model.module.offset(dosage[row : row + 1]))[:, 0]
        counts = model.module.likelihood.sample(share * torch.from_numpy(library))
        sizes[row * n_cells + start :][:n] = library[:, 0]
        yield {"X": sp.csr_matrix(counts.numpy())}

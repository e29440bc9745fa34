"""What a real cell would have looked like otherwise: without its artifact, or under another perturbation.

All that is the cell's own is kept: its basal state, and its Gamma factors, by which its genes are above or below what
the decoder expects. Given counts x of a cell of expected counts μ, the factor of a gene is Gamma(θ + x, θ + μ): the
counts of a gene that the model hardly disperses tell little, those of a variable one much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import anndata as ad
import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from cradlevae.data.experiment import Experiment
from cradlevae.data.identity.marks import made_by, warn_if_made
from cradlevae.data.labels import CONTROL, Condition, base_of, in_context
from cradlevae.data.storage.block_writer import Block, check_cells_output, from_blocks, rounded
from cradlevae.errors import DataError
from cradlevae.model.estimation.latent_draws import draw_globals
from cradlevae.model.estimation.streams import CellStreams, seeded
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import (
    answerable_cells,
    artifact_indicator,
    asked_batch,
    asked_conditions,
    need_artifact,
)
from cradlevae.query.diagnose import diagnosis_table
from cradlevae.query.twins import Target, Twins, decoded_twins
from cradlevae.query.unlabelled import OwnConditions
from cradlevae.utils.checks import check_choice, flag, optional_output, seed_number, text, whole_number
from cradlevae.utils.constants import BLOCK_VALUES, ENCODED_CELLS, MADE_MARK
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import AnnDataLike, BoolArray, Float32Array, IntArray

OWN = "own"
"""What keeps each cell in its own batch."""

SIZE = 5
"""Purpose of the streams of cells: the library sizes of their counts."""

BITS = 17
"""Bits of the mantissa that are written: a relative error of 4e-6 at most, for smaller files."""


def clean(
    model: TrainedModel,
    adata: AnnDataLike | Experiment,
    *,
    cells: Literal["all", "failed"] = "all",
    use_label: bool = True,
    library_size: Literal["passing", "own"] = "passing",
    batch: str = OWN,
    n_draws: int = 16,
    seed: int = 0,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> ad.AnnData:
    """The artifact-free twin of each cell: counts to stand beside real cells, and expected ones to look at.

    A twin is the cell's basal state and Gamma factors, decoded with the artifact off. A model that has learned from
    counterfactual pairs (the default) takes a failed cell's counts apart: foreign counts are taken out, and lost ones
    are filled in by what the cell's basal state expects. Twins are no evidence of what a perturbation does:
    ``docs/cleaning.md`` says which twin serves what.

    Parameters
    ----------
    model
        A trained model.
    adata
        Cells with counts, perturbation labels and the artifact columns of the training data.
    cells
        ``"all"``, or only those that ``"failed"`` QC.
    use_label
        Whether a cell is decoded with its perturbation label. A twin that is repeats what the model believes of the
        label, so effects of perturbations measured on such twins are circular. If not, labels are not looked at, and
        need not be there: every draw takes a condition of the experiment, as probable as the cell's own counts make it
        (:mod:`cradlevae.query.unlabelled`).
    library_size
        Total of a failed cell: its ``"own"``, or that of ``"passing"`` cells, which is the median of the training cells
        for expected counts, and for counts that of a training control at random. Passing cells keep their own.
    batch
        ``"own"`` keeps each cell in its experimental batch; a name gives the cell as if it had been in that batch.
    n_draws
        Posterior draws that are averaged.
    seed
        Seed of the draws.
    output
        ``.h5ad`` file to write the cells into as they are decoded; memory then does not grow with their number. Columns
        of ``obs`` that a file cannot hold as they are are written as text or left out, with a warning.
    overwrite
        Whether to replace a file that is there; a file that ``adata`` is read from never is.

    Returns
    -------
    anndata.AnnData
        ``X`` integer counts (CSR), drawn from the twin, to stand beside the raw counts of passing cells; layers
        ``expected`` (expected counts given the cell's own, float32, dense), which are smoother than any real cell, and
        ``uncertainty`` (standard deviation of the natural log of these over the posterior of the latents); ``obs`` as
        given plus ``failed_qc``, ``clean_library_size`` (total of ``expected``), ``clean_batch`` (where all are put
        into one batch; the batch column stays the cell's own), ``information`` (nats that the counts say about its
        basal state), ``confounded`` (its perturbation changes the failure rate, so its "artifact" may be biology;
        missing where the data hold no controls to compare with, left out where labels are not used), and for failed
        cells what :func:`~cradlevae.query.diagnose.diagnose` tells, of a cell without a label as of a control. ``uns``
        has a mark, ``cradlevae_made``, by which functions that need raw data warn. Layers are rounded to 17 bits (a
        relative error of 4e-6), for smaller files. A cell gets the same twin in whatever company it is cleaned. With
        ``output``, all three are those in the file.

    Raises
    ------
    DataError
        If genes or perturbations do not fit the model, a column is absent, the model has no artifact, or ``output`` is
        there already, is what is read, or cannot be written.
    """
    need_artifact(model, "clean cells")
    return counterfactual(
        model, adata, artifact=False, cells=cells, use_label=use_label, library_size=library_size, batch=batch,
        n_draws=n_draws, seed=seed, output=output, overwrite=overwrite,
    )  # fmt: skip


def counterfactual(
    model: TrainedModel,
    adata: AnnDataLike | Experiment,
    *,
    artifact: bool | str | Sequence[str] | None = None,
    perturbation: str | None = None,
    cells: Literal["all", "failed"] = "all",
    use_label: bool = True,
    library_size: Literal["passing", "own"] = "own",
    batch: str = OWN,
    n_draws: int = 16,
    seed: int = 0,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> ad.AnnData:
    """Each cell, had its artifact, its perturbation or its batch been another.

    Parameters
    ----------
    model, adata, cells, use_label, library_size, batch, n_draws, seed, output, overwrite
        As in :func:`clean`.
    artifact
        ``False`` (off), ``True``, names of classes, or ``None`` to keep each cell's own.
    perturbation
        A condition such as ``"A+B"`` or ``"control"``, or ``None`` to keep each cell's own.

    Returns
    -------
    anndata.AnnData
        As from :func:`clean`.
    """
    if artifact is not None:
        need_artifact(model, "change that of cells")
    check_choice("cells", cells, ("all", "failed"))
    check_choice("library_size", library_size, ("passing", "own"))
    n_draws, seed, use_label = whole_number("n_draws", n_draws, 1), seed_number(seed), flag("use_label", use_label)
    output, overwrite = optional_output("output", output), flag("overwrite", overwrite)
    if output is not None:
        check_cells_output(output, overwrite=overwrite, read_from=adata)
    if perturbation is not None:
        text("perturbation", perturbation, empty=True)
    model.bank()  # an untrained model has none, and says so
    number = None if batch == OWN and OWN not in _batches(model) else asked_batch(model, batch)
    asked = None if perturbation is None else next(iter(asked_conditions(model, perturbation).values()))
    made = made_by("clean" if artifact is False and perturbation is None else "counterfactual", label=use_label)
    warn_if_made(adata, made[MADE_MARK]["made_by"])
    data = model.read(adata, labelled=use_label)
    every = np.ones(data.n_cells, dtype=bool)
    known = answerable_cells(model, data, every, "the model cannot decode them")
    dosage, group = _asked_dosage(model, data, asked, known)
    target = Target(None if artifact is None else artifact_indicator(model, artifact), dosage, group, number)
    rows = np.flatnonzero(known & data.failed if cells == "failed" else known)
    if len(rows) == 0:
        raise DataError("no cell failed QC, so there is none to clean; use cells='all'")
    sizes = data.library_size[rows].copy()
    redrawn = data.failed[rows] & (library_size == "passing")
    sizes[redrawn] = model.passing_library_size
    information = np.empty(len(rows), dtype=np.float32)

    def blocks() -> Iterator[Block]:
        draw = draw_globals(model, n_draws)
        conditions = None if use_label else OwnConditions(model, data, draw)
        step = max(1, min(ENCODED_CELLS, BLOCK_VALUES // (n_draws * data.n_genes)))
        starts = range(0, len(rows), step)
        for start in track_slow(starts, len(starts), "decoding cells"):
            part = slice(start, min(start + step, len(rows)))
            streams = CellStreams(data, rows[part], seed)
            decoded = decoded_twins(model, data, rows[part], step, draw, streams, target, conditions)
            information[part] = decoded.information.numpy()
            yield _block(model, decoded, sizes[part], redrawn[part], streams)

    def obs() -> pd.DataFrame:
        table: pd.DataFrame = data.obs.iloc[rows].copy()
        table["failed_qc"] = data.failed[rows]
        table["clean_library_size"] = sizes
        if batch != OWN or number is not None:
            table["clean_batch"] = batch
        table["information"] = information
        if use_label:
            confounded = _confounded(model, data.conditions)[data.condition[rows]]
            table["confounded"] = pd.Series(confounded, index=table.index, dtype="boolean")
        undone = rows[data.failed[rows]] if artifact is False and model.module.damage_guide is not None else rows[:0]
        if len(undone):
            found = diagnosis_table(model, data, undone)
            table = table.drop(columns=[name for name in found if name in table]).join(found)
        return table

    with seeded(seed):
        return from_blocks(blocks(), obs, model.var, len(rows), output, uns=made, overwrite=overwrite)


def _block(model: TrainedModel, decoded: Twins, sizes: Float32Array, redrawn: BoolArray, streams: CellStreams) -> Block:
    """Matrices of a block of twins of these library sizes, (cells,); counts of some have sizes of their own."""
    library = torch.from_numpy(sizes).unsqueeze(1)
    mean, sample = decoded.drawn * _drawn_sizes(model, sizes, redrawn, streams), model.module.likelihood.sample_twin
    counts = torch.cat([sample(mean[row : row + 1], decoded.counts[row : row + 1]) for row in streams.each(2)])
    return {
        "X": sp.csr_matrix(counts.numpy()),
        "expected": rounded((decoded.share * library).numpy(), BITS),
        "uncertainty": rounded(decoded.log_sd.numpy(), BITS),
    }


def _drawn_sizes(model: TrainedModel, sizes: Float32Array, redrawn: BoolArray, streams: CellStreams) -> Tensor:
    """Library sizes of drawn counts, (cells, 1): of some cells, those of passing training controls at random."""
    known = model.bank().library_size
    drawn = [known[int(torch.randint(len(known), (1,)))] for _ in streams.each(SIZE)]
    return torch.from_numpy(np.where(redrawn, np.array(drawn, dtype=np.float32), sizes)).unsqueeze(1)


def _batches(model: TrainedModel) -> tuple[str, ...]:
    """The batches that a model knows; none where it knows no batches."""
    return () if model.fields.batch_key is None else model.levels[model.fields.batch_key]


def _asked_dosage(
    model: TrainedModel, data: Experiment, asked: Condition | None, known: BoolArray
) -> tuple[Tensor | None, IntArray]:
    """Dosages of a condition in each context, (groups, T), and the group of each cell: a control is of a context, too.

    Contexts without cells that can be decoded are left out, for they may have no controls.
    """
    group = np.zeros(data.n_cells, dtype=np.int64)
    if asked is None:
        return None, group
    if not model.pairs or asked.context is not None or data.context is None:
        return model.dosage((asked,)), group
    present, of_known = np.unique(data.context.codes[known], return_inverse=True)
    group[known] = of_known
    return model.dosage(tuple(in_context(asked, data.context.levels[code]) for code in present.tolist())), group


def _confounded(model: TrainedModel, conditions: Sequence[str]) -> npt.NDArray[np.object_]:
    """Whether the alarm rang for each condition in the model's experiment; ``None`` where it was not tested."""
    flagged = dict(zip(model.confounding["perturbation"], model.confounding["flagged"], strict=True))
    known = {CONTROL: False} | {name: bool(flag) for name, flag in flagged.items()}
    return np.array([known.get(base_of(name)) for name in conditions], dtype=object)

"""What a real cell would have looked like otherwise: without its artifact, or under another perturbation.

All that is the cell's own is kept: its basal state, and its Gamma factors, by which its genes are above or below what
the decoder expects. Given counts x of a cell of expected counts μ, the factor of a gene is Gamma(θ + x, θ + μ): the
counts of a gene that the model hardly disperses tell little, those of a variable one much.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from cradlevae.data.labels import CONTROL, listed
from cradlevae.data.loading.minibatch import make_minibatch
from cradlevae.data.marks import made_by
from cradlevae.data.storage.block_writer import Block, check_cells_output, from_blocks, rounded
from cradlevae.errors import DataError
from cradlevae.model.globals import artifact_state, perturbation_state
from cradlevae.model.latent_draws import draw_globals, seeded
from cradlevae.model.module import failed_cells, sparse_counts
from cradlevae.model.trained import TrainedModel
from cradlevae.nn.mlp import Gaussian
from cradlevae.query.arguments import artifact_indicator, asked_conditions, need_artifact
from cradlevae.utils.checks import check_choice
from cradlevae.utils.constants import BLOCK_VALUES, ENCODED_CELLS
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import AnnDataLike, BoolArray, IndexArray

EXPECTED_BITS = 12
UNCERTAINTY_BITS = 8
"""Bits of the mantissa that are kept; a standard deviation over 16 draws is itself known to a fifth."""


@dataclass(frozen=True)
class _Decoded:
    """Counterfactuals of a block of cells.

    Attributes
    ----------
    share
        Expected share of each gene, mean over draws, (cells, genes).
    log_sd
        Standard deviation of its logarithm over draws.
    drawn
        Gene shares in one random draw.
    counts
        Counts of the cells, (cells, genes).
    information
        What the counts say about z^b, in nats, (cells,).
    """

    share: Tensor
    log_sd: Tensor
    drawn: Tensor
    counts: Tensor
    information: Tensor


def clean(
    model: TrainedModel,
    adata: AnnDataLike | Experiment,
    *,
    cells: Literal["all", "failed"] = "all",
    library_size: Literal["passing", "own"] = "passing",
    n_draws: int = 16,
    seed: int = 0,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> ad.AnnData:
    """The artifact-free twin of each cell: its basal state and Gamma factors, decoded with the artifact off.

    Parameters
    ----------
    model
        A trained model.
    adata
        Cells with counts, perturbation labels and the artifact columns of the training data.
    cells
        ``"all"``, or only those that ``"failed"`` QC.
    library_size
        Total of a failed cell's expected counts: the median of ``"passing"`` training cells, or its ``"own"``.
        Passing cells keep their own.
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
        ``X`` expected counts given the cell's own (float32, dense); layers ``sampled`` (integer counts, CSR) and
        ``uncertainty`` (standard deviation of the natural log of ``X`` over the posterior of the latents); ``obs`` as
        given plus ``failed_qc``, ``clean_library_size``, ``information`` (nats that the counts say about its basal
        state), ``confounded`` (its perturbation changes the failure rate, so its "artifact" may be biology; missing
        where the data hold no controls to compare with). ``X`` and ``uncertainty`` are rounded to 12 and 8 bits
        (relative error 1e-4 and 2e-3, a fraction of their own uncertainty), for files of half the size. With
        ``output``, all three are those in the file.

    Raises
    ------
    DataError
        If genes or perturbations do not fit the model, a column is absent, the model has no artifact, or ``output`` is
        there already, is what is read, or cannot be written.
    """
    need_artifact(model, "clean cells")
    return counterfactual(
        model, adata, artifact=False, cells=cells, library_size=library_size, n_draws=n_draws, seed=seed,
        output=output, overwrite=overwrite,
    )  # fmt: skip


def counterfactual(
    model: TrainedModel,
    adata: AnnDataLike | Experiment,
    *,
    artifact: bool | str | Sequence[str] | None = None,
    perturbation: str | None = None,
    cells: Literal["all", "failed"] = "all",
    library_size: Literal["passing", "own"] = "own",
    n_draws: int = 16,
    seed: int = 0,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> ad.AnnData:
    """Each cell, had its artifact or its perturbation been another.

    Parameters
    ----------
    model, adata, cells, library_size, n_draws, seed, output, overwrite
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
    if output is not None:
        check_cells_output(output, overwrite=overwrite, read_from=adata)
    if artifact is not None:
        need_artifact(model, "change that of cells")
    check_choice("cells", cells, ("all", "failed"))
    check_choice("library_size", library_size, ("passing", "own"))
    model.bank()  # an untrained model has none, and says so
    if n_draws < 1:
        raise DataError(f"n_draws is {n_draws}; it must be at least 1")
    data = model.read(adata)
    known = _known(model, data)
    rows = np.flatnonzero(known & data.failed if cells == "failed" else known)
    if len(rows) == 0:
        raise DataError("no cell failed QC, so there is none to clean; use cells='all'")
    target_artifact = None if artifact is None else artifact_indicator(model, artifact)
    target_dosage = None
    if perturbation is not None:
        target_dosage = model.dosage(tuple(asked_conditions(model, perturbation).values()))[0]
    confounded = _confounded(model, data.conditions)
    sizes = data.library_size[rows].copy()
    if library_size == "passing":
        sizes[data.failed[rows]] = model.passing_library_size
    information = np.empty(len(rows), dtype=np.float32)

    def blocks() -> Iterator[Block]:
        for part, decoded in _decoded(model, data, rows, target_artifact, target_dosage, n_draws):
            library = torch.from_numpy(sizes[part]).unsqueeze(1)
            information[part] = decoded.information.numpy()
            counts = model.module.likelihood.sample_twin(decoded.drawn * library, decoded.counts)
            yield {
                "X": rounded((decoded.share * library).numpy(), EXPECTED_BITS),
                "sampled": sp.csr_matrix(counts.numpy()),
                "uncertainty": rounded(decoded.log_sd.numpy(), UNCERTAINTY_BITS),
            }

    def obs() -> pd.DataFrame:
        table: pd.DataFrame = data.obs.iloc[rows].copy()
        table["failed_qc"] = data.failed[rows]
        table["clean_library_size"] = sizes
        table["information"] = information
        table["confounded"] = pd.Series(confounded[data.condition[rows]], index=table.index, dtype="boolean")
        return table

    with seeded(seed):
        made = made_by("clean" if artifact is False and perturbation is None else "counterfactual")
        return from_blocks(blocks(), obs, model.var, len(rows), output, uns=made, overwrite=overwrite)


def _decoded(
    model: TrainedModel,
    data: Experiment,
    rows: IndexArray,
    artifact: Tensor | None,
    dosage: Tensor | None,
    n_draws: int,
) -> Iterator[tuple[slice, _Decoded]]:
    module = model.module
    draw = draw_globals(model, n_draws)
    step = max(1, min(ENCODED_CELLS, BLOCK_VALUES // (n_draws * data.n_genes)))
    starts = range(0, len(rows), step)
    for start in track_slow(starts, len(starts), "decoding cells"):
        part = slice(start, min(start + step, len(rows)))
        minibatch = make_minibatch(data, rows[part])
        z_p = perturbation_state(draw, minibatch.dosage, minibatch.condition)
        offset = module.offset_of_cells(minibatch.dosage, minibatch.condition)
        encoded = module.encode_counts(sparse_counts(minibatch))[0]
        classes = minibatch.artifact, minibatch.artifact if artifact is None else artifact.expand_as(minibatch.artifact)
        shared = [artifact_state(draw, one) for one in classes]
        posterior, own = module.encode(encoded, z_p, shared[0], offset)
        z_b = posterior.sample(torch.randn(n_draws, minibatch.n_cells, module.n_latent))
        before, after = _with_own(shared, own, classes)
        counts = sparse_counts(minibatch).dense()
        mean = module.decode_share(z_b, z_p, before, offset).mul_(minibatch.library_size.unsqueeze(1))
        factor = module.likelihood.own_factors(counts, mean)  # (draws, cells, genes)
        if dosage is not None:
            z_p = torch.einsum("t,dtk->dk", dosage, draw.shift).unsqueeze(1)
            offset = module.offset(dosage.unsqueeze(0))
        share = factor.mul_(module.decode_share(z_b, z_p, after, offset))
        share = share.div_(share.sum(-1, keepdim=True))
        chosen = torch.randint(n_draws, (minibatch.n_cells,))
        yield (
            part,
            _Decoded(
                share=share.mean(0),
                log_sd=share.clamp_min(1e-12).log().std(0, correction=min(1, n_draws - 1)),
                drawn=share[chosen, torch.arange(minibatch.n_cells)],
                counts=counts,
                information=posterior.kl_to_standard().sum(-1).mean(0),
            ),
        )


def _with_own(
    shared: list[Tensor | None], posterior: Gaussian | None, classes: tuple[Tensor, Tensor]
) -> list[Tensor | None]:
    """z^a from its shared parts, of cells of these classes, (N, C), and of the same cells of others.

    Their own part is the same: what the counts tell of a damaged cell, a draw from the prior for one that is to be
    damaged.
    """
    if posterior is None:
        return shared
    damaged = [failed_cells(one).unsqueeze(1) for one in classes]
    own = damaged[0] * posterior.sample() + (1 - damaged[0]) * torch.randn_like(posterior.loc)
    return [None if one is None else one + of * own for one, of in zip(shared, damaged, strict=True)]


def _known(model: TrainedModel, data: Experiment) -> BoolArray:
    """Cells whose perturbations had training cells; the others are left out with a warning that names them."""
    answerable = set(model.answerable(data.conditions))
    able = np.array([name in answerable for name in data.conditions])
    known = np.asarray(able[data.condition])
    if not known.any():
        raise DataError("none of the cells has a perturbation with training cells, so the model cannot decode them")
    if not known.all():
        names = [name for name, can in zip(data.conditions, able, strict=True) if not can]
        warnings.warn(
            f"{int((~known).sum())} cells are left out, because a part of their perturbation had no training cells: "
            f"{listed(names)}",
            stacklevel=4,
        )
    return known


def _confounded(model: TrainedModel, conditions: Sequence[str]) -> npt.NDArray[np.object_]:
    """Whether the alarm rang for each condition in the model's experiment; ``None`` where it was not tested."""
    flagged = dict(zip(model.confounding["perturbation"], model.confounding["flagged"], strict=True))
    known = {CONTROL: False} | {name: bool(flag) for name, flag in flagged.items()}
    return np.array([known.get(name) for name in conditions], dtype=object)

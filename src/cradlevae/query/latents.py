"""Latent states of cells, mask probabilities, and how well a model explains cells it has not seen."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch

from cradlevae.data.experiment import Experiment
from cradlevae.data.identity.marks import warn_if_made
from cradlevae.data.loading.minibatch import make_minibatch
from cradlevae.errors import DataError
from cradlevae.model.estimation.latent_draws import draw_globals
from cradlevae.model.estimation.streams import CellStreams, padding, seeded
from cradlevae.model.globals import Globals, artifact_state, perturbation_state
from cradlevae.model.module import failed_cells, sparse_counts
from cradlevae.model.objective import iwelbo
from cradlevae.model.trained import TrainedModel
from cradlevae.utils.checks import flag, seed_number, whole_number
from cradlevae.utils.constants import ENCODED_CELLS
from cradlevae.utils.progress import track_slow
from cradlevae.utils.types import AnnDataLike, Float32Array, IndexArray

SCORED_CELLS = 256
"""Cells that are scored at a time."""


def latents(
    model: TrainedModel, adata: AnnDataLike | Experiment, *, n_draws: int = 16, sample: bool = False, seed: int = 0
) -> ad.AnnData:
    """Latent states of cells: posterior means, or a draw from the posterior.

    Parameters
    ----------
    model
        A trained model.
    adata
        Cells with counts, labels and artifact columns.
    n_draws
        Posterior draws of the globals that are averaged.
    sample
        Give one draw of each latent state instead of its mean. A latent that tells nothing about a cell has a mean that
        hardly moves and a draw that is noise; whoever standardises the columns should take draws.
    seed
        Seed of the draws.

    Returns
    -------
    anndata.AnnData
        ``obsm``: ``z_basal``, ``z_perturbation`` and, of models with an artifact, ``z_artifact``, each (cells, K);
        ``obs`` as given. No counts. (Of a conditional VAE ``z_perturbation`` is the dosage; of SVAE+ the state z is
        ``z_basal`` + ``z_perturbation``.)
    """
    n_draws, sample, seed = whole_number("n_draws", n_draws, 1), flag("sample", sample), seed_number(seed)
    model.bank()  # an untrained model has none, and says so
    warn_if_made(adata, "latents")
    data = model.read(adata)
    model.need_known(data)
    names = ("z_basal", "z_perturbation", "z_artifact") if model.declaration.artifact else ("z_basal", "z_perturbation")
    states: dict[str, list[Any]] = {name: [] for name in names}
    with seeded(seed):
        draw = draw_globals(model, 1 if sample else n_draws)
        starts = range(0, data.n_cells, ENCODED_CELLS)
        for start in track_slow(starts, len(starts), "encoding cells"):
            rows = np.arange(start, min(start + ENCODED_CELLS, data.n_cells))
            for name, state in _states(model, data, rows, draw, seed if sample else None).items():
                states[name].append(state)
    obsm = {name: np.concatenate(parts) for name, parts in states.items()}
    return ad.AnnData(obs=data.obs.copy(), obsm=obsm)


def _states(
    model: TrainedModel, data: Experiment, rows: IndexArray, draw: Globals, seed: int | None
) -> dict[str, Float32Array]:
    """Latent states of some cells, (cells, K) each: means, or with a seed a draw by the streams of the cells."""
    module, n = model.module, len(rows)
    pad = padding(n, ENCODED_CELLS)
    minibatch = make_minibatch(data, rows[pad])
    z_p = perturbation_state(draw, minibatch.dosage, minibatch.condition)
    z_a = artifact_state(draw, minibatch.artifact)
    encoded = module.encode_counts(sparse_counts(minibatch))[0]
    offset = module.offset_of_cells(minibatch.dosage, minibatch.condition)
    posterior, own = module.encode(encoded, z_p, z_a, offset, minibatch.levels)
    noise = None if seed is None else CellStreams(data, rows, seed).normal(2, module.n_latent)[:, pad]
    z_b = posterior.loc if noise is None else posterior.sample(noise[:1])
    if z_a is not None and own is not None:
        state = own.loc if noise is None else own.sample(noise[1:])
        z_a = z_a + failed_cells(minibatch.artifact).unsqueeze(1) * state
    states = {"z_basal": z_b, "z_perturbation": z_p} | ({} if z_a is None else {"z_artifact": z_a})
    return {name: state.mean(0)[:n].numpy() for name, state in states.items()}


def mask_probabilities(model: TrainedModel) -> pd.DataFrame:
    """Posterior probability that each treatment touches each latent, treatments × latents.

    Raises
    ------
    DataError
        If the model has no mask, or has not been trained.
    """
    mask = model.module.mask
    if mask is None:
        raise DataError(f"{model.declaration.name} has no mask, so it has no mask probabilities; a SAMSVAE has")
    model.bank()  # an untrained model has none, and says so
    with torch.no_grad():
        probability = torch.sigmoid(mask.logits).numpy()
    return pd.DataFrame(probability, index=pd.Index(model.treatments, name="perturbation"))


def log_likelihood(
    model: TrainedModel, adata: AnnDataLike | Experiment, *, n_particles: int = 100, seed: int = 0
) -> pd.Series[float]:
    """IWELBO of each cell, in nats: an importance-weighted bound on log p(x) (100 particles, as published).

    Parameters
    ----------
    model
        A trained model.
    adata
        Cells with counts, labels and artifact columns.
    n_particles
        Particles of the bound.
    seed
        Seed of the draws.
    """
    n_particles, seed = whole_number("n_particles", n_particles, 1), seed_number(seed)
    model.bank()  # an untrained model has none, and says so
    warn_if_made(adata, "log_likelihood")
    data = model.read(adata)
    model.need_known(data)
    scores = []
    with seeded(seed):
        starts = range(0, data.n_cells, SCORED_CELLS)
        draw = draw_globals(model, n_particles)
        for start in track_slow(starts, len(starts), "scoring cells"):
            rows = np.arange(start, min(start + SCORED_CELLS, data.n_cells))
            pad = padding(len(rows), SCORED_CELLS)
            noise = CellStreams(data, rows, seed).normal(2 * n_particles, model.module.n_latent)[:, pad]
            score = iwelbo(model.module, make_minibatch(data, rows[pad]), draw, noise)
            scores.append(score[: len(rows)].numpy())
    return pd.Series(np.concatenate(scores), index=data.cells, name="iwelbo")

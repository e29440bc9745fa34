"""What the artifact does to each gene."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cradlevae.model.estimation.latent_draws import BasalStates, draw_basal, draw_cell_artifact, draw_globals
from cradlevae.model.estimation.streams import seeded
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import need_artifact, need_damaged_cells
from cradlevae.utils.checks import probability, seed_number, whole_number


def artifact_signature(
    model: TrainedModel, *, credible: float = 0.9, n_draws: int = 50, n_states: int = 256, seed: int = 0
) -> pd.DataFrame:
    """Log2 fold change of each gene's share of the counts by each artifact class, in control cells.

    Parameters
    ----------
    model
        A trained model.
    credible
        Probability of the intervals, from the posterior of the artifact embedding.
    n_draws
        Posterior draws.
    n_states
        Basal states of passing controls that the shares are averaged over.
    seed
        Seed of the draws.

    Returns
    -------
    pandas.DataFrame
        Indexed by gene: ``criterion`` (artifact class), ``log2_fold_change``, ``low``, ``high``, ``share`` (without
        artifact); with several classes, one block of rows for each. A class that no training cell had is left out, with
        a warning.

    Raises
    ------
    DataError
        If ``credible`` is no probability, or the model has no artifact, has not been trained, or not on damaged cells.
    """
    credible, seed = probability("credible", credible), seed_number(seed)
    n_draws, n_states = whole_number("n_draws", n_draws, 1), whole_number("n_states", n_states, 1)
    need_artifact(model, "tell its signature")
    need_damaged_cells(model, "tell the signature of the artifact")
    left_out = [criterion for criterion in model.criteria if criterion not in model.trained_criteria]
    if left_out:
        warnings.warn(f"left out, because no training cell had it: {', '.join(map(repr, left_out))}", stacklevel=3)
    tables = []
    with seeded(seed):
        basal = draw_basal(model, (1, n_states), "controls", np.random.default_rng(seed))
        artifact = draw_globals(model, n_draws).artifact  # (draws, classes, latent)
        assert artifact is not None
        only = torch.eye(len(model.criteria))
        clean = model.module.decode_share(basal.state, level=model.module.of_levels(basal.levels)).mean((0, 1))
        for index, criterion in enumerate(model.criteria):
            if criterion in left_out:
                continue
            shares = torch.stack([_damaged_share(model, basal, drawn[index], only[index]) for drawn in artifact])
            fold = torch.log2(shares.clamp_min(1e-12) / clean.clamp_min(1e-12)).numpy()
            low, high = np.quantile(fold, [(1 - credible) / 2, (1 + credible) / 2], axis=0)
            tables.append(
                pd.DataFrame(
                    {
                        "criterion": criterion,
                        "log2_fold_change": fold.mean(axis=0),
                        "low": low,
                        "high": high,
                        "share": clean.numpy(),
                    },
                    index=model.genes.rename("gene"),
                )
            )
    return pd.concat(tables)


def _damaged_share(model: TrainedModel, basal: BasalStates, artifact: Tensor, indicator: Tensor) -> Tensor:
    """Mean share of each gene over damaged cells of these basal states, (genes,)."""
    z_a = draw_cell_artifact(model, artifact.expand_as(basal.state), indicator)
    level = model.module.of_levels(basal.levels)
    return model.module.decode_share(basal.state, artifact=z_a, level=level).mean((0, 1))

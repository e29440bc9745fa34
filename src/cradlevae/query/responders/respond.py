"""Which cells respond to their perturbation, and the share of each perturbation's cells that do, by a trained model."""

from __future__ import annotations

import numpy as np

from cradlevae.data.experiment import Experiment
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import answerable_cells
from cradlevae.query.responders.evidence import FACTORS, log_odds, own_influence
from cradlevae.query.responders.result import Responders, responders_of
from cradlevae.query.responders.shares import fit_shares
from cradlevae.utils.checks import probability, seed_number, whole_number
from cradlevae.utils.types import AnnDataLike


def responders(
    model: TrainedModel,
    adata: AnnDataLike | Experiment,
    *,
    credible: float = 0.9,
    n_draws: int = 8,
    seed: int = 0,
) -> Responders:
    """Which cells respond to their perturbation, and the share of each perturbation's cells that do.

    A cell *escapes* where its perturbation did not take: it has the label and the state of a control. Its counts are
    compared under both hypotheses, label and control, over the same draws of its latent states (a failed cell keeps its
    artifact in both). The model was trained on responders and escaping cells together, so that its effects are diluted:
    those of responders are up to four times as large, by a factor of each perturbation that is estimated along
    with its share of responders. Shares are alike between perturbations as far as these say (empirical Bayes).

    A cell with a combination responds as a whole or not at all: a cell of ``A+B`` in which only A took is likely to be
    in between.

    Parameters
    ----------
    model
        A trained model.
    adata
        Cells with counts, perturbation labels and the artifact columns of the training data; controls may be absent.
    credible
        Probability of the intervals of the shares.
    n_draws
        Draws of the latent states under either hypothesis.
    seed
        Seed of the draws.

    Returns
    -------
    Responders
        ``cells``, a table of the perturbed cells by name, with ``p_responding``; ``shares``, a table of the
        perturbations with ``share``, ``low`` and ``high``; and ``effects(model.effects(...))``, the effects among the
        responders. A cell that the model was trained on (``held_out`` is false) has helped to learn the effect that it
        is judged by; what its log odds owe to that is taken off, on the average of its condition.

    Raises
    ------
    DataError
        If genes or perturbations do not fit the model, a column is absent, or no cell has a perturbation with training
        cells.

    Warns
    -----
    UserWarning
        Of cells that are left out, since a part of their perturbation had no training cells.
    """
    credible, seed = probability("credible", credible), seed_number(seed)
    n_draws = whole_number("n_draws", n_draws, 1)
    model.bank()  # an untrained model has none, and says so
    data = model.read(adata)
    known = answerable_cells(model, data, ~data.is_control, "there is none to judge")
    data = data.subset(np.flatnonzero(known))
    held_out = model.split.parts_of(data) != "train"
    rows = np.flatnonzero(~data.is_control)
    odds = log_odds(model, data, rows, n_draws=n_draws, seed=seed)
    odds -= np.where(held_out[rows], 0.0, own_influence(model, data)[data.condition[rows]])[:, None] * FACTORS
    condition, names = data.plain
    of_perturbation = {str(names[code]): odds[condition[rows] == code] for code in np.unique(condition[rows])}
    fits = fit_shares(of_perturbation, FACTORS, credible=credible)
    return responders_of(data, fits, held_out, credible)

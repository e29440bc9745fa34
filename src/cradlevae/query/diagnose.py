"""What happened to each failed cell: probabilities of kinds of damage, severity, and a doublet's second parent."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from cradlevae.data.damage.operators import damage_of
from cradlevae.data.experiment import Experiment
from cradlevae.data.identity.marks import warn_if_made
from cradlevae.errors import DataError
from cradlevae.model.damage.diagnosis import diagnosed
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import need_artifact
from cradlevae.utils.checks import check_choice, probability, seed_number
from cradlevae.utils.types import AnnDataLike, IndexArray

CREDIBLE = 0.9


def diagnose(
    model: TrainedModel,
    adata: AnnDataLike | Experiment,
    *,
    cells: Literal["failed", "all"] = "failed",
    credible: float = CREDIBLE,
    seed: int = 0,
) -> pd.DataFrame:
    """What happened to cells that failed quality control, as far as their counts tell.

    Parameters
    ----------
    model
        A trained model with counterfactual pairs (``reference="damaged"``, the default of CRADLE-VAE).
    adata
        Cells with counts, perturbation labels and the artifact columns of the training data.
    cells
        Those that ``"failed"`` QC, or ``"all"``: a cell that passed is then judged as if it had failed.
    credible
        Probability of the intervals of the severity.
    seed
        Seed of the draws of the perturbations' latent effects.

    Returns
    -------
    pandas.DataFrame
        A row for each cell, by its name:

        ``damage``
            the most probable kind (:data:`cradlevae.data.damage.operators.DAMAGES`);
        ``p_few_counts``, ``p_doublet``, …
            the probability of each kind, which sum to 1;
        ``severity``, ``severity_low``, ``severity_high``
            median and interval of its severity if the most probable kind is true: the share of the cell's molecules
            that are lost, or of its counts that are foreign, from 0 to 1;
        ``second_parent``, ``p_second_parent``
            the most probable perturbation of the second cell if the cell is a doublet, and its probability.

    Raises
    ------
    DataError
        If genes or perturbations do not fit the model, a column is absent, no cell failed, or the model has learned no
        damage.
    """
    need_artifact(model, "diagnose cells")
    check_choice("cells", cells, ("failed", "all"))
    credible, seed = probability("credible", credible), seed_number(seed)
    model.bank()  # an untrained model has none, and says so
    if model.module.damage_guide is None:
        raise DataError(
            f"this model has learned no damage (reference={model.config.reference!r}), so it cannot diagnose cells; "
            "train one with reference='damaged'"
        )
    warn_if_made(adata, "diagnose")
    data = model.read(adata)
    model.need_known(data)
    rows = np.flatnonzero(data.failed) if cells == "failed" else np.arange(data.n_cells)
    if not len(rows):
        raise DataError("no cell failed QC, so there is none to diagnose; use cells='all'")
    return diagnosis_table(model, data, rows, credible=credible, seed=seed)


def diagnosis_table(
    model: TrainedModel, data: Experiment, rows: IndexArray, *, credible: float = CREDIBLE, seed: int = 0
) -> pd.DataFrame:
    """The columns of :func:`diagnose` for some cells."""
    found = diagnosed(model, data, rows, seed)
    kind = found.most_probable
    table = pd.DataFrame(index=pd.Index([str(name) for name in data.cells[rows]]))
    table["damage"] = pd.Categorical.from_codes(kind, categories=pd.Index(found.kinds))
    for number, key in enumerate(found.kinds):
        table[f"p_{key}"] = found.probability[:, number]
    below = (1 - credible) / 2
    for column, quantile in (("severity", 0.5), ("severity_low", below), ("severity_high", 1 - below)):
        table[column] = found.severity_of(kind, quantile)
    if any(damage_of(key).by_another_cell for key in found.kinds):
        table["second_parent"] = pd.Categorical.from_codes(found.parent, categories=pd.Index(model.conditions))
        table["p_second_parent"] = found.parent_probability
    return table

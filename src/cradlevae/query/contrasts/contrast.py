"""The difference of two conditions."""

from __future__ import annotations

import anndata as ad

from cradlevae.errors import DataError
from cradlevae.model.estimation.effect_estimator import Contrast
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import asked_conditions
from cradlevae.query.effects import Settings, contrast_effects, n_cells_of
from cradlevae.query.effects_table import targets_of
from cradlevae.utils.checks import text


def contrast(
    model: TrainedModel,
    first: str,
    second: str,
    *,
    credible: float = 0.9,
    error: float | None = None,
    batch: str | None = None,
    context: str | None = None,
    seed: int = 0,
) -> ad.AnnData:
    """How much more the first of two conditions expresses each gene than the second, free of artifacts.

    Both are decoded from the same basal states by the same draws of what they have in common, and the controls that
    both were measured against cancel out: intervals are narrower than those of two independent effects would be.

    Parameters
    ----------
    model
        A trained model.
    first, second
        The conditions, e.g. ``"A"`` and ``"A+B"``.
    credible
        Probability of the credible intervals.
    error
        Monte-Carlo standard error of the difference to reach on 99 % of the genes, log2 units; 0.02 by default.
    batch
        Experimental batch that cells are taken to be in; by default an average over batches.
    context
        Context that the difference is asked for in, e.g. a cell line; by default an average over contexts.
    seed
        Seed of the draws.

    Returns
    -------
    anndata.AnnData
        One row, named ``"A − B"``, with the layers that effects have; ``obs["n_cells"]`` is the smaller number of
        passing training cells of the two.

    Raises
    ------
    DataError
        If the two are one condition, one of them is unknown or had no training cells, or so is batch or context.
    """
    settings = Settings.checked(model, credible=credible, error=error, batch=batch, context=context, seed=seed)
    labels = [text("first", first), text("second", second)]
    asked = asked_conditions(model, labels, context)
    conditions = tuple(asked[label] for label in labels)
    if conditions[0] == conditions[1]:
        raise DataError(f"first and second are the same condition, {str(conditions[0])!r}; name two")
    dosage = model.dosage(conditions)
    name = f"{labels[0]} − {labels[1]}"
    parts = tuple(settings.parts(conditions, dosage))
    answer = contrast_effects(model, [Contrast(name, conditions, dosage, (1.0, -1.0), parts)], settings)
    answer.obs["n_cells"] = [min(n_cells_of(model, condition) for condition in conditions)]
    targets = targets_of(model.fields, model.var, asked)
    targets["perturbation"][:] = name
    answer.uns["targets"] = targets
    return answer

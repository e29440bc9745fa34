"""The expected expression of one gene in every condition."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd

from cradlevae.data.labels import CONTROL
from cradlevae.errors import DataError
from cradlevae.model.estimation.effect_estimator import effects_of, estimate_effects
from cradlevae.model.estimation.effect_posterior import EffectPosterior
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import asked_conditions
from cradlevae.query.effects import Settings, measured_conditions, n_cells_of
from cradlevae.utils.checks import text
from cradlevae.utils.names import closest
from cradlevae.utils.types import Float32Array

COLUMNS = "expression", "low", "high"


def expression(
    model: TrainedModel,
    gene: str,
    perturbations: str | Sequence[str] | None = None,
    *,
    credible: float = 0.9,
    error: float | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Expected expression of a gene in controls and in each condition, free of artifacts, with credible intervals.

    Expression is E[log2(1 + 1e4·x/Σx)] over cells: in controls the mean of passing training cells, elsewhere that plus
    the effect. What the controls leave open moves both, so that much of it cancels out in conditions with many cells.

    Parameters
    ----------
    model
        A trained model.
    gene
        Name of the gene, or its symbol where the data name a column of symbols.
    perturbations
        Conditions; ``None`` for all that have training cells.
    credible
        Probability of the credible intervals.
    error
        Monte-Carlo standard error to reach on 99 % of all genes, log2 units; 0.02 by default.
    seed
        Seed of the draws.

    Returns
    -------
    pandas.DataFrame
        By perturbation, the control first: ``expression``, ``low``, ``high`` (log2 units, not below 0), and passing
        training cells, ``n_cells``; ``attrs["gene"]`` is the gene.

    Raises
    ------
    DataError
        If the gene or a perturbation is unknown, or the model was trained on too few cells to know the controls.
    """
    settings = Settings.checked(model, credible=credible, error=error, seed=seed)
    labels = measured_conditions(model) if perturbations is None else perturbations
    asked = asked_conditions(model, labels)
    residual = settings.residual
    if residual is None:
        raise DataError("the training cells measured no effect, so that the model does not know the controls' mean")
    column = model.fields.gene_symbols
    place = gene_position(gene, model.var, column)
    treated = {label: condition for label, condition in asked.items() if condition != CONTROL}
    rows = [(residual.control_mean[place], residual.noise.of_controls[place])]
    if treated:
        conditions = tuple(treated.values())
        dosage = model.dosage(conditions)
        contrasts = effects_of(conditions, dosage, residual.parts(conditions, dosage.numpy()))

        def of_gene(row: int, posterior: EffectPosterior) -> dict[str, Float32Array]:
            one = contrasts[row]
            moved, variance = residual.of_contrast(one.conditions, one.weights, one.dosage.numpy(), from_control=True)
            layers = posterior.layers(
                settings.credible, ("X", "sd"), moved=moved, variance=variance, widening=residual.widening
            )
            return {name: layer[place : place + 1] for name, layer in layers.items()}

        layers = estimate_effects(model, contrasts, of_gene, error=settings.error, seed=settings.seed).layers
        effect, sd = layers["X"][:, 0], layers["sd"][:, 0]
        rows += list(zip(residual.control_mean[place] + effect, sd, strict=True))
    names = [CONTROL, *treated]
    cells = [model.n_cells.get(CONTROL, 0), *(n_cells_of(model, condition) for condition in treated.values())]
    return expression_table(gene, names, np.array(rows, dtype=np.float64), cells, settings.credible)


def expression_table(
    gene: str,
    names: Sequence[str],
    expressed: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    n_cells: Sequence[int],
    credible: float,
) -> pd.DataFrame:
    """The table of a gene's expression, from its means and standard deviations, (conditions, 2)."""
    reach = NormalDist().inv_cdf((1 + credible) / 2) * expressed[:, 1]
    values = np.stack([expressed[:, 0], expressed[:, 0] - reach, expressed[:, 0] + reach], axis=1).clip(min=0)
    table = pd.DataFrame(values, index=pd.Index(names, name="perturbation"), columns=list(COLUMNS))
    table = table.assign(n_cells=np.asarray(n_cells, dtype=np.int64))
    table.attrs["gene"] = gene
    return table


def gene_position(gene: str, var: pd.DataFrame, column: str | None) -> int:
    """Position of a gene by its name or symbol; :class:`DataError` where there is none, or several of one symbol."""
    gene = text("gene", gene)
    names = [str(name) for name in var.index]
    if gene in names:
        return names.index(gene)
    symbols = [] if column is None or column not in var else [str(name) for name in var[column]]
    if symbols.count(gene) > 1:
        raise DataError(f"gene {gene!r} is the symbol of {symbols.count(gene)} genes; give a name from var_names")
    if gene not in symbols:
        raise DataError(f"unknown gene {gene!r}{closest(gene, [*symbols, *names])}")
    return symbols.index(gene)

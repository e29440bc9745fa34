"""What a pair of perturbations does beyond the sum of what each does alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

from cradlevae.data.labels import Condition, condition_name, singles_of
from cradlevae.errors import DataError
from cradlevae.model.estimation.effect_estimator import Contrast, effects_of
from cradlevae.model.estimation.effect_posterior import EffectPosterior
from cradlevae.model.estimation.streams import stream_seed
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import asked_conditions, asked_names, never_alone
from cradlevae.query.contrasts.interaction_fit import CLASSES, Fit, cosine, interaction_class, projection
from cradlevae.query.effects import Added, Settings, contrast_effects, n_cells_of
from cradlevae.query.effects_table import targets_of
from cradlevae.utils.checks import texts
from cradlevae.utils.names import listed
from cradlevae.utils.types import FloatArray

FITS = 500
"""At least so many draws of the coefficients of a fit."""


def interactions(
    model: TrainedModel,
    pairs: str | Sequence[str] | None = None,
    *,
    credible: float = 0.9,
    error: float | None = None,
    batch: str | None = None,
    context: str | None = None,
    seed: int = 0,
) -> ad.AnnData:
    """What each pair of perturbations does to each gene beyond the sum of its single perturbations.

    The pair and its single perturbations have the same draws and the same basal states, and what is not known of the
    single ones moves the pair with them. A pair that was not measured has the interaction that the decoder expects, and
    for uncertainty what measured pairs leave of the sum.

    Parameters
    ----------
    model
        A trained model.
    pairs
        Pairs, e.g. ``["A+B", "A+C"]``, measured or not; ``None`` for all pairs of the data whose single perturbations
        were measured alone, too (a warning names the others).
    credible
        Probability of the credible intervals.
    error
        Monte-Carlo standard error of the interaction to reach on 99 % of the genes, log2 units; 0.02 by default.
    batch
        Experimental batch that cells are taken to be in; by default an average over batches.
    context
        Context that interactions are asked for in; by default an average over contexts.
    seed
        Seed of the draws.

    Returns
    -------
    anndata.AnnData
        Pairs × genes: ``X`` the effect of the pair minus the sum of the two single effects, and the layers of effects.
        ``obs`` has

        - ``first``, ``second``: the single perturbations; ``measured``, ``n_cells``: whether the pair has training
          cells, and how many of them pass;
        - ``first_weight``, ``second_weight``: coefficients c of the fit δ_AB ≈ c_A δ_A + c_B δ_B over genes (after
          Norman et al., Science 2019), 1 and 1 for an additive pair;
        - ``magnitude``: √(c_A² + c_B²); ``equality``: the smaller coefficient over the larger, 0 where signs differ;
          ``similarity``: cosine between the single effects; ``linearity``: cosine of the pair's effect and its fit;
        - ``interaction``: the class of highest probability, and ``p_additive``, ``p_synergistic``, ``p_suppressive``,
          ``p_epistatic``: shares of the posterior draws of the fit in each class
          (:func:`cradlevae.query.contrasts.interaction_fit.interaction_class` has the rules).

    Raises
    ------
    DataError
        If there are no pairs, something else than a pair is asked for, or a perturbation is unknown or had no training
        cells alone.
    """
    settings = Settings.checked(model, credible=credible, error=error, batch=batch, context=context, seed=seed)
    asked = asked_conditions(model, _pairs_of_data(model) if pairs is None else texts("pairs", pairs), context)
    for label, condition in asked.items():
        if len(singles_of(condition)) != 2:
            raise DataError(f"pairs has {label!r}, which is not a pair of perturbations; give pairs such as 'A+B'")
        if unknown := never_alone(model, [condition]):
            raise DataError(
                f"no training cell has {' or '.join(unknown)} alone, so what {label} does beyond the sum of both "
                "cannot be told"
            )
    parts = {label: _with_singles(model, condition, context) for label, condition in asked.items()}
    singles = tuple(dict.fromkeys(single for conditions in parts.values() for single in conditions[1:]))
    alone = contrast_effects(model, _effects(model, singles, settings), settings)
    effect: dict[str, FloatArray] = {single: np.asarray(alone.X[row]) for row, single in enumerate(singles)}
    contrasts = [
        Contrast(label, conditions, dosage, (1.0, -1.0, -1.0), tuple(settings.parts(conditions, dosage)))
        for label, conditions in parts.items()
        for dosage in [model.dosage(conditions)]
    ]
    rows: list[dict[str, Any]] = []

    def look(row: int, posterior: EffectPosterior, added: Added) -> None:
        pair, first, second = contrasts[row].conditions
        rows.append(_summary(posterior, added, effect[first], effect[second], stream_seed(settings.seed, pair)))

    answer = contrast_effects(model, contrasts, settings, look)
    names = [[singles_of(condition)[0] for condition in conditions[1:]] for conditions in parts.values()]
    n_cells = [n_cells_of(model, conditions[0]) for conditions in parts.values()]
    measured = [str(conditions[0]) in model.n_cells for conditions in parts.values()]
    first, second = zip(*names, strict=True)
    obs = pd.DataFrame({"first": first, "second": second, "measured": measured, "n_cells": n_cells})
    obs = pd.concat([obs, pd.DataFrame(rows)], axis=1).set_axis(answer.obs_names)
    answer.obs = obs.assign(n_particles=answer.obs["n_particles"])
    answer.uns["targets"] = targets_of(model.fields, model.var, asked)
    return answer


def _pairs_of_data(model: TrainedModel) -> list[Condition]:
    """Pairs of the data, measured in training or held out, that the model can answer for; a warning names others."""
    model.bank()  # an untrained model has none, and says so
    known = asked_names(model.fields, list(model.conditions), model.perturbations).values()
    pairs = [condition for condition in known if len(singles_of(condition)) == 2]
    answerable = set(model.answerable(pairs))
    found = [pair for pair in pairs if pair in answerable and not never_alone(model, [pair])]
    if not found:
        raise DataError(
            "the data have no pair whose single perturbations both have training cells alone; name pairs of those that "
            "have, e.g. pairs=['A+B']"
        )
    if len(found) < len(pairs):
        left_out = [str(pair) for pair in pairs if pair not in found]
        warnings.warn(
            f"{len(left_out)} of {len(pairs)} pairs are left out, because no training cell has one of their "
            f"perturbations alone: {listed(left_out)}",
            stacklevel=4,
        )
    return found


def _with_singles(model: TrainedModel, pair: Condition, context: str | None) -> tuple[Condition, ...]:
    """A pair and its single perturbations, in the context that is asked for."""
    alone = [condition_name((single,)) for single in singles_of(pair)]
    return (pair, *asked_conditions(model, alone, context).values())


def _effects(model: TrainedModel, conditions: tuple[Condition, ...], settings: Settings) -> list[Contrast]:
    dosage = model.dosage(conditions)
    return effects_of(conditions, dosage, settings.parts(conditions, dosage))


def _summary(
    posterior: EffectPosterior, added: Added, first: FloatArray, second: FloatArray, seed: int
) -> dict[str, Any]:
    """The fit of a pair by its single effects, (genes,) each, and how probable each class is."""
    fitted = projection(first, second)
    interaction = posterior.mean.numpy().astype(np.float64) + added.moved
    here = Fit(*(1 + fitted @ interaction))
    rng = np.random.default_rng(seed)
    draws = fitted @ posterior.shrunk().numpy().T  # (2, draws)
    draws = np.tile(draws, -(-FITS // draws.shape[1]))
    spread = (fitted * np.broadcast_to(added.variance, fitted.shape[1:])) @ fitted.T
    draws = draws + np.linalg.cholesky(spread + 1e-12 * np.eye(2)) @ rng.standard_normal(draws.shape)
    classes = interaction_class(Fit(*(1 + (fitted @ interaction)[:, None] + added.widening * draws)))
    shares = np.bincount(classes, minlength=len(CLASSES)) / len(classes)
    return {
        "first_weight": float(here.first),
        "second_weight": float(here.second),
        "magnitude": float(here.magnitude),
        "equality": float(here.equality),
        "similarity": cosine(first, second),
        "linearity": cosine(first + second + interaction, here.first * first + here.second * second),
        "interaction": CLASSES[int(shares.argmax())],
        **{f"p_{name}": float(share) for name, share in zip(CLASSES, shares, strict=True)},
    }

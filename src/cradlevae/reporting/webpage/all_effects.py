"""Effects of all conditions of an experiment that a model can tell, computed once for tables, plots and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cradlevae.data.experiment import Experiment
from cradlevae.model.trained import TrainedModel
from cradlevae.query.effects import effects


def all_effects(
    model: TrainedModel, data: Experiment, measured: Sequence[str] = (), *, seed: int = 0
) -> tuple[Any, list[str]]:
    """Effects of the conditions of an experiment, held-out ones included.

    Parameters
    ----------
    model
        A trained model.
    data
        The experiment.
    measured
        Further conditions, such as those of one context.
    seed
        Seed of the draws.

    Returns
    -------
    Conditions × genes as :func:`cradlevae.query.effects.effects` returns them, and the conditions.
    """
    conditions = list(dict.fromkeys([*model.answerable(data.plain[1][1:]), *measured]))
    return effects(model, conditions, seed=seed), conditions

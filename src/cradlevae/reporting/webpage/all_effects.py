"""Effects of all conditions of an experiment that a model can tell, computed once for tables, plots and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cradlevae.data.experiment import Experiment
from cradlevae.data.labels import Condition
from cradlevae.model.trained import TrainedModel, training_rows
from cradlevae.query.effects import effects


def all_effects(
    model: TrainedModel, data: Experiment, measured: Sequence[str] = (), *, seed: int = 0
) -> tuple[Any, list[Condition]]:
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
    known = [name for name in data.plain[1][1:] if model.answerable([name])]
    conditions = list(dict.fromkeys([*known, *measured]))
    answer = effects(model, conditions, seed=seed)
    if "lfsr" not in answer.layers:
        from scipy.stats import norm

        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.abs(answer.X) / answer.layers["sd"]
        answer.layers["lfsr"] = norm.cdf(-np.nan_to_num(distance, nan=0.0)).astype(np.float32)
    if "n_cells" not in answer.obs:
        rows = training_rows(data, model.split, model.config)
        codes = data.plain[0][rows[~data.failed[rows]]]
        cells = dict(zip(map(str, data.plain[1]), np.bincount(codes, minlength=len(data.plain[1])), strict=True))
        answer.obs["n_cells"] = [int(cells.get(str(name), 0)) for name in conditions]
    return answer, conditions

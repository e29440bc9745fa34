"""What is said of responders: a table of cells, a table of perturbations, and effects among the responders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cradlevae.data.experiment import Experiment
from cradlevae.errors import DataError
from cradlevae.query.responders.shares import ShareFit
from cradlevae.utils.names import listed
from cradlevae.utils.types import BoolArray

if TYPE_CHECKING:
    import anndata as ad


@dataclass(frozen=True)
class Responders:
    """Which cells respond to their perturbation, and the share of each perturbation's cells that do.

    Attributes
    ----------
    cells
        A row for each perturbed cell, by its name; controls have none. ``perturbation``; ``failed_qc``;
        ``p_responding``, the probability that the perturbation took; ``log_odds``, what the counts say for it, in nats,
        whatever the share of the perturbation; ``held_out``, whether the model was not trained on the cell.
    shares
        A row for each perturbation: ``share`` of its cells that respond, ``low`` and ``high`` (interval); ``factor``,
        how much larger the responders' effect is on the log rates than the effect that was learned from all cells;
        ``n_cells``, and ``n_held_out``, how many of these the model was not trained on. Of a floor, a perturbation with
        too few cells has missing values.
    credible
        Probability of the intervals.
    """

    cells: pd.DataFrame
    shares: pd.DataFrame
    credible: float

    def effects(self, effects: ad.AnnData) -> ad.AnnData:
        """Effects among the responders, from effects of all cells with a label.

        An effect is a difference of means over cells, and those that do not respond differ by nothing, so that the
        effect of all cells is that of the responders times their share.

        Parameters
        ----------
        effects
            Perturbations × genes, as ``model.effects`` gives them; each perturbation has a row in :attr:`shares`.

        Returns
        -------
        anndata.AnnData
            The same with ``X`` divided by the share; ``low``, ``high`` and ``sd`` hold the error of the share as well.
            ``obs`` has the ``share`` that it was divided by. Other layers are scaled along (``mc_error``) or stay as
            they are (``lfsr``, for a share has no sign).

        Raises
        ------
        DataError
            If no share is known of a perturbation.
        """
        names = [str(name) for name in effects.obs_names]
        known = set(self.shares.index[self.shares["share"].notna()])
        unknown = [name for name in names if name not in known]
        if unknown:
            raise DataError(f"no share of responders is known of {listed(unknown)}; ask for effects of others")
        share, low, high = self.shares.loc[names, ["share", "low", "high"]].to_numpy(dtype=np.float64).T[:, :, None]
        reach = NormalDist().inv_cdf((1 + self.credible) / 2)
        x = np.asarray(effects.X, dtype=np.float64)
        of_share = np.abs(x / share) * np.log(high / low) / (2 * reach)  # what the error of the share adds, as an sd
        tables = {"X": x / share}
        for name in {"low", "high"} & set(effects.layers):
            away = (effects.layers[name] - x) / share
            tables[name] = tables["X"] + np.sign(away) * np.hypot(away, reach * of_share)
        if "sd" in effects.layers:
            tables["sd"] = np.hypot(effects.layers["sd"] / share, of_share)
        if "mc_error" in effects.layers:
            tables["mc_error"] = effects.layers["mc_error"] / share
        answer = effects.copy()
        answer.X = tables.pop("X").astype(np.float32)
        for name, table in tables.items():
            answer.layers[name] = table.astype(np.float32)
        answer.obs["share"] = share[:, 0]
        return answer


def responders_of(data: Experiment, fits: Mapping[str, ShareFit], held_out: BoolArray, credible: float) -> Responders:
    """Put the answer together.

    Parameters
    ----------
    data
        The cells.
    fits
        By perturbation, whose cells are those of the experiment in their order.
    held_out
        Which cells a model was not trained on, (cells,).
    credible
        Probability of the intervals.
    """
    codes, names = data.plain
    responding, log_odds = np.full((2, data.n_cells), np.nan)
    rows = {}
    for code in np.unique(codes[codes > 0]):
        own, name = codes == code, str(names[code])
        fit = fits.get(name)
        told = dict.fromkeys(("share", "low", "high", "factor"), np.nan)
        if fit is not None:
            responding[own], log_odds[own] = fit.responding, fit.log_odds
            told = {key: getattr(fit, key) for key in told}
        rows[name] = {**told, "n_cells": int(own.sum()), "n_held_out": int((own & held_out).sum())}
    perturbed = np.flatnonzero(codes > 0)
    labels = np.array([str(name) for name in names], dtype=object)
    cells = pd.DataFrame(
        {
            "perturbation": pd.Categorical(labels[codes[perturbed]], categories=pd.Index(list(rows))),
            "failed_qc": data.failed[perturbed],
            "p_responding": responding[perturbed],
            "log_odds": log_odds[perturbed],
            "held_out": held_out[perturbed],
        },
        index=pd.Index([str(name) for name in data.cells[perturbed]], name="cell"),
    )
    shares = pd.DataFrame.from_dict(rows, orient="index").rename_axis("perturbation")
    return Responders(cells, shares, credible)

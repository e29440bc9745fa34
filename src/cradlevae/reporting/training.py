"""The figure of a training: loss and terms of the loss by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cradlevae.errors import DataError
from cradlevae.reporting.style import (
    FAILED,
    INK,
    MODEL,
    MUTED,
    NOTE_SIZE,
    TICK_SIZE,
    headline,
    name_axes,
    panels,
)
from cradlevae.utils.checks import shown
from cradlevae.utils.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TITLES = {
    "loss": "Loss",
    "reconstruction": "Reconstruction",
    "basal": "Basal state (KL)",
    "mask": "Mask (KL)",
    "embedding": "Embedding (KL)",
    "artifact": "Artifact (KL)",
    "counterfactual": "Counterfactual",
    "pair_counts": "Counts of pairs",
    "pair_damage": "Damage of pairs",
    "gene_effects": "Gene effects (KL)",
    "level_effects": "Batch effects (KL)",
    "cell_artifact": "Cell artifact (KL)",
    "weights": "Prior of the weights",
}
"""Names of the loss and of its terms; other terms have the name of their column."""
COLUMNS = 4
WARM_UP = 0.05
"""Share of the epochs, at the beginning, that may lie outside of the y axes: their fall would flatten the others."""


def training(model: Any) -> Figure:
    """Loss of training and validation cells by epoch, the best epoch, and each term of the loss.

    Parameters
    ----------
    model
        A trained model; or its learning curves as :attr:`cradlevae.CradleVAE.history` holds them, one row per epoch:
        ``epoch``, ``train_loss``, ``train_<term>``; and, where cells were held out, ``val_loss``, ``val_<term>``.

    Returns
    -------
    matplotlib.figure.Figure
        A panel of the loss and one of each term that is not zero throughout, all of one size.

    Raises
    ------
    DataError
        If there is no epoch, or no training loss.
    """
    history = model if isinstance(model, pd.DataFrame) else getattr(model, "history", None)
    if not isinstance(history, pd.DataFrame):
        raise DataError(f"model is {shown(model)}; give a trained model, or its history")
    if "train_loss" not in history or len(history) == 0:
        raise DataError("the history holds no epoch with a 'train_loss'; train the model first")
    epoch = _values(history, "epoch") if "epoch" in history else np.arange(len(history), dtype=np.float64)
    terms = _terms(history)
    names = ["loss", *terms]
    figure, axes = panels(len(names), columns=COLUMNS, row_height=1.35, head=1.05)
    best = _best(history)
    zoomed = False
    for index, (name, ax) in enumerate(zip(names, axes, strict=True)):
        zoomed |= _curves(ax, epoch, history, name, best)
        last_row = index + COLUMNS >= len(names)
        title = TITLES.get(name, name.replace("_", " ").capitalize())
        name_axes(ax, x="epoch" if last_row else "", y="nats per cell" if index % COLUMNS == 0 else "", title=title)
    axes[0].legend(loc="upper right", fontsize=NOTE_SIZE, labelcolor=INK, frameon=False, handlelength=1.0)
    headline(figure, _title(history, epoch, best), _caption(history, zoomed=zoomed))
    return figure


def _terms(history: pd.DataFrame) -> list[str]:
    """Terms of the loss that are not zero throughout, the known ones first."""
    names = [name.removeprefix("train_") for name in map(str, history.columns) if name.startswith("train_")]
    names = [name for name in names if name != "loss" and (history[f"train_{name}"].fillna(0) != 0).any()]
    return [name for name in TITLES if name in names] + [name for name in names if name not in TITLES]


def _values(history: pd.DataFrame, column: str) -> FloatArray:
    return history[column].to_numpy(dtype=np.float64)


def _best(history: pd.DataFrame) -> int | None:
    """Row of the lowest validation loss, whose weights the model has; ``None`` without validation."""
    if "val_loss" not in history:
        return None
    loss = _values(history, "val_loss")
    return int(np.nanargmin(loss)) if np.isfinite(loss).any() else None


def _curves(ax: Axes, epoch: FloatArray, history: pd.DataFrame, name: str, best: int | None) -> bool:
    """Draw training and, where there is one, validation curve of a term; true if the first epochs are left out."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    curves = []
    for part, label, colour in (("train", "training", MODEL), ("val", "validation", FAILED)):
        column = f"{part}_{name}"
        if column in history and history[column].notna().any():
            values = _values(history, column)
            marker = "o" if np.isfinite(values).sum() < 3 else ""
            ax.plot(epoch, values, color=colour, linewidth=1.3, label=label, marker=marker, markersize=3)
            curves.append(values)
    zoomed = _zoom(ax, curves)
    if best is not None:
        ax.axvline(epoch[best], color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        if name == "loss":
            ax.plot(
                [epoch[best]], [history["val_loss"].iloc[best]], "o", color=FAILED, markersize=5,
                markeredgecolor="white", zorder=5,
                label="best epoch",
            )  # fmt: skip
    return zoomed


def _zoom(ax: Axes, curves: list[FloatArray]) -> bool:
    """Leave out the first epochs of a long training, if the curves fell a lot in them; true if they were left out."""
    if not curves:
        return False
    skip = round(WARM_UP * len(curves[0]))
    later = np.concatenate([values[skip:] for values in curves])
    every = np.concatenate(curves)
    later, every = later[np.isfinite(later)], every[np.isfinite(every)]
    if len(later) == 0 or np.ptp(later) == 0 or np.ptp(every) < 1.5 * np.ptp(later):
        return False
    margin = 0.06 * np.ptp(later)
    ax.set_ylim(later.min() - margin, later.max() + margin)
    ax.text(
        0.006,
        1.0,
        "▲",
        transform=ax.transAxes,
        ha="left",
        va="top",
        fontsize=TICK_SIZE,
        color=INK,
        alpha=0.6,
    )
    return True


def _title(history: pd.DataFrame, epoch: FloatArray, best: int | None) -> str:
    n = len(history)
    text = f"Training: {n:,} epoch{'s' if n > 1 else ''}"
    if "seconds" in history and np.isfinite(total := float(history["seconds"].sum())):
        text += f" in {_duration(total)}"
    if best is None:
        return f"{text}, no validation cells"
    return f"{text}, best validation loss {history['val_loss'].iloc[best]:,.1f} at epoch {epoch[best]:.0f}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _caption(history: pd.DataFrame, *, zoomed: bool) -> str:
    text = "Mean over cells; lower is better. The terms add up to the loss. "
    text += "▲: the first epochs lie above the frame. " if zoomed else ""
    if _best(history) is not None:
        text += (
            "Dashed: the best epoch, whose weights the model keeps. Mask, embedding and artifact are terms of the "
            "whole part, shared out over its cells: they are larger where there are fewer cells, as in validation."
        )
    return text.strip()

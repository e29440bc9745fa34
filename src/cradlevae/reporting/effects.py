"""The figure of predicted effects against measured ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cradlevae.errors import DataError
from cradlevae.evaluation.metrics.effects import pearson
from cradlevae.reporting.labels import label_points, settle
from cradlevae.reporting.style import FAILED, MODEL, MUTED, PASSING, dress, headline, name_axes, number, panels, shorten
from cradlevae.utils.types import AnnDataLike, FloatArray, IndexArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_CONDITIONS = 9
WITH_INTERVAL = 20
"""Number of genes of a condition, those of the largest measured effects, whose credible interval is drawn."""
ROW_HEIGHT = {1: 4.2, 2: 3.2, 3: 2.2}
"""Height of a row in inches, by the number of its panels."""
NAMED = 5
"""Number of genes of a condition that are named."""


def effects_figure(measured: AnnDataLike, predicted: AnnDataLike) -> Figure:
    """Predicted against measured effect of every gene, for the conditions of largest measured effect.

    Parameters
    ----------
    measured
        Measured effects, conditions × genes: a DataFrame, or an AnnData with the effects in ``X``. Conditions with a
        missing value throughout are left out.
    predicted
        Predicted effects as :meth:`cradlevae.CradleVAE.effects` returns them: an AnnData, with layers ``low`` and
        ``high`` if intervals are to be drawn. Conditions and genes are matched by name.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per condition, up to 9.

    Raises
    ------
    DataError
        If the two share no condition or no gene.
    """
    real = _frame(measured)
    layers = {name: _frame(predicted, name) for name in ("low", "high") if name in getattr(predicted, "layers", {})}
    forecast = _frame(predicted)
    genes = forecast.columns[forecast.columns.isin(real.columns)]
    shared = real.index[real.index.isin(forecast.index)]
    real = real.loc[shared, genes].dropna(how="all")
    if real.shape[0] == 0 or real.shape[1] == 0:
        what = "gene" if len(genes) == 0 else "condition"
        raise DataError(f"measured and predicted effects have no {what} in common; are their names the same?")
    size = np.sqrt((real**2).mean(axis=1)).sort_values(ascending=False, kind="stable")
    chosen = size.index[:MAX_CONDITIONS]
    real, forecast = real.loc[chosen], forecast.loc[chosen, genes]
    layers = {name: frame.loc[chosen, genes] for name, frame in layers.items()}

    figure, axes = panels(len(chosen), row_height=ROW_HEIGHT[min(3, len(chosen))])
    limit = _limit(real, forecast)
    columns = min(3, len(chosen))
    unit = _unit(predicted)
    for index, (condition, ax) in enumerate(zip(chosen, axes, strict=True)):
        x, y = real.loc[condition].to_numpy(), forecast.loc[condition].to_numpy()
        bounds = tuple(layers[name].loc[condition].to_numpy() for name in ("low", "high") if name in layers)
        _panel(ax, x, y, bounds, limit)
        bottom, left = index + columns >= len(chosen), index % columns == 0
        finite = np.isfinite(x) & np.isfinite(y)
        r = pearson(x[finite], y[finite]) if finite.any() else float("nan")
        name_axes(
            ax, x=f"measured ({unit})" if bottom else "", y=f"predicted ({unit})" if left else "",
            title=f"{shorten(str(condition))}   r = {number(r)}",
        )  # fmt: skip
    more = f"; the {len(chosen)} largest of {len(size)} conditions" if len(size) > len(chosen) else ""
    headline(
        figure,
        f"Predicted and measured effects, gene by gene{more}",
        _caption(predicted, len(chosen), intervals=bool(layers)),
    )
    settle(figure)
    for condition, ax in zip(chosen, axes, strict=True):
        x, y = real.loc[condition].to_numpy(), forecast.loc[condition].to_numpy()
        label_points(ax, x, y, list(genes.astype(str)), _largest(x, NAMED))
    return figure


def _frame(table: Any, layer: str | None = None) -> pd.DataFrame:
    """Effects as a float64 DataFrame, conditions × genes."""
    if isinstance(table, pd.DataFrame):
        return table.astype(np.float64)
    matrix = table.X if layer is None else table.layers[layer]
    dense = matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
    return pd.DataFrame(dense.astype(np.float64), index=table.obs_names, columns=table.var_names)


def _limit(real: pd.DataFrame, forecast: pd.DataFrame) -> float:
    """Half-width of all axes: the same for all conditions, so that they can be compared."""
    size = np.abs(np.concatenate([real.to_numpy().ravel(), forecast.to_numpy().ravel()]))
    size = size[np.isfinite(size)]
    return 1.12 * float(size.max()) if len(size) and size.max() > 0 else 1.0


def _largest(x: FloatArray, n: int) -> IndexArray:
    """Positions of the ``n`` largest |x|; missing values are left out."""
    order = np.argsort(-np.nan_to_num(np.abs(x), nan=-1.0), kind="stable")[:n]
    return order[np.isfinite(x[order])]


def _panel(ax: Axes, x: FloatArray, y: FloatArray, bounds: tuple[FloatArray, ...], limit: float) -> None:
    from matplotlib.ticker import MaxNLocator

    dress(ax)
    ax.axhline(0, color=MUTED, linewidth=0.5, zorder=1)
    ax.axvline(0, color=MUTED, linewidth=0.5, zorder=1)
    ax.plot([-limit, limit], [-limit, limit], color=MUTED, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    named, barred = _largest(x, NAMED), _largest(x, WITH_INTERVAL)
    ax.scatter(x, y, s=7, color=PASSING, alpha=0.55, linewidths=0, rasterized=True, zorder=2)
    if len(bounds) == 2:
        low, high = bounds
        ax.vlines(x[barred], low[barred], high[barred], color=MODEL, linewidth=0.7, alpha=0.6, zorder=3)
    ax.scatter(x[barred], y[barred], s=9, color=MODEL, linewidths=0, zorder=4)
    ax.scatter(x[named], y[named], s=13, color=FAILED, linewidths=0, zorder=5)
    ax.set_xlim(-limit, limit)
    ax.set_ylim(-limit, limit)
    ax.set_aspect("equal")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))


def _settings(predicted: AnnDataLike) -> dict[str, Any]:
    return dict(getattr(predicted, "uns", {}).get("effects", {}))


def _unit(predicted: AnnDataLike) -> str:
    return "Δ counts" if _settings(predicted).get("scale") == "mean" else "Δ log2"


def _caption(predicted: AnnDataLike, n: int, *, intervals: bool) -> str:
    settings = _settings(predicted)
    what = "mean count" if settings.get("scale") == "mean" else "mean of log2(1 + counts per 10,000)"
    text = f"Effect: difference to control cells of the {what}. Dashed: prediction = measurement. "
    text += f"Orange: the {NAMED} genes of largest measured effect; blue: the {WITH_INTERVAL} largest"
    if intervals:
        share = f"{settings['credible']:.0%} " if "credible" in settings else ""
        text += f", with {share}credible intervals of the prediction"
    return f"{text}. r: Pearson correlation over genes.{' All panels share their axes.' if n > 1 else ''}"

"""The figure of predicted effects against measured ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cradlevae.errors import DataError
from cradlevae.evaluation.evaluate import measured_effects_of
from cradlevae.evaluation.metrics.effects import pearson
from cradlevae.evaluation.reference_effects import ReferenceCells
from cradlevae.reporting.labels import label_points, settle
from cradlevae.reporting.style import FAILED, MODEL, MUTED, PASSING, dress, headline, name_axes, number, panels, shorten
from cradlevae.utils.checks import check_anndata, shown, texts
from cradlevae.utils.names import closest
from cradlevae.utils.types import AnnDataLike, FloatArray, IndexArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_CONDITIONS = 9
NORMAL_95 = 1.959963984540054
"""Half-width of a 95 % interval in standard errors."""
WITH_INTERVAL = 20
"""Number of genes of a condition, those of the largest measured effects, whose credible interval is drawn."""
ROW_HEIGHT = {1: 4.2, 2: 3.2, 3: 2.2}
"""Height of a row in inches, by the number of its panels."""
NAMED = 5
"""Number of genes of a condition that are named."""


def effects(
    model: Any,
    adata: AnnDataLike,
    *,
    perturbations: str | Sequence[str] | None = None,
    reference: ReferenceCells = "held-out",
) -> Figure:
    """Predicted against measured effect of every gene, in cells that the model has not seen.

    Parameters
    ----------
    model
        A trained model or a floor.
    adata
        The experiment.
    perturbations
        Up to 9 conditions to draw; ``None`` takes those whose measured effects stand out most from their noise.
    reference
        Cells to measure effects in, as for :func:`cradlevae.evaluate`.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per condition, up to 9.

    Raises
    ------
    DataError
        If no condition can be measured, or one that is asked for is not among those measured.
    """
    if not hasattr(model, "trained"):
        raise DataError(f"model is {shown(model)}; it must be a trained model or a floor")
    check_anndata(adata)
    names = None if perturbations is None else list(dict.fromkeys(texts("perturbations", perturbations)))
    if names == []:
        raise DataError("perturbations is empty; name conditions, or leave it out")
    measured = measured_effects_of(model.trained, adata, reference=reference)
    if names is not None:
        unknown = [name for name in names if name not in measured.obs_names]
        if unknown:
            known = [str(name) for name in measured.obs_names]
            raise DataError(f"perturbations: {unknown[0]!r} is not among those measured{closest(unknown[0], known)}")
        measured = measured[names]
    return effects_figure(measured, model.effects(list(measured.obs_names)))


def effects_figure(measured: AnnDataLike, predicted: AnnDataLike) -> Figure:
    """Predicted against measured effect of every gene, for the conditions that are measured best.

    Parameters
    ----------
    measured
        Measured effects, conditions × genes: a DataFrame, or an AnnData with the effects in ``X``, and where known the
        layer ``standard_error`` and ``obs["n_cells"]``. Conditions with a missing value throughout are left out.
    predicted
        Predicted effects as :meth:`cradlevae.CradleVAE.effects` returns them: an AnnData, with layers ``low`` and
        ``high`` if intervals are to be drawn. Conditions and genes are matched by name.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per condition, up to 9: those whose effects stand out most from their standard errors, or of the
        largest effects where these are not known.

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
    noise = _noise(measured, real)
    evidence = ((real if noise is None else real / noise) ** 2).mean(axis=1)
    chosen = evidence.sort_values(ascending=False, kind="stable").index[:MAX_CONDITIONS]
    n_cells = measured.obs["n_cells"] if "n_cells" in getattr(measured, "obs", {}) else None
    real, forecast = real.loc[chosen], forecast.loc[chosen, genes]
    layers = {name: frame.loc[chosen, genes] for name, frame in layers.items()}

    figure, axes = panels(len(chosen), row_height=ROW_HEIGHT[min(3, len(chosen))])
    limit = _limit(real, forecast)
    columns = min(3, len(chosen))
    unit = _unit(predicted)
    for index, (condition, ax) in enumerate(zip(chosen, axes, strict=True)):
        x, y = real.loc[condition].to_numpy(), forecast.loc[condition].to_numpy()
        bounds = tuple(layers[name].loc[condition].to_numpy() for name in ("low", "high") if name in layers)
        error = None if noise is None else NORMAL_95 * noise.loc[condition].to_numpy()
        _panel(ax, x, y, bounds, error, limit)
        bottom, left = index + columns >= len(chosen), index % columns == 0
        finite = np.isfinite(x) & np.isfinite(y)
        r = pearson(x[finite], y[finite]) if finite.any() else float("nan")
        name_axes(
            ax, x=f"measured ({unit})" if bottom else "", y=f"predicted ({unit})" if left else "",
            title=f"{shorten(str(condition), 22)}{_counted(n_cells, condition)}   r = {number(r)}",
        )  # fmt: skip
    best = "largest" if noise is None else "best measured"
    more = f"; the {len(chosen)} {best} of {len(evidence)} conditions" if len(evidence) > len(chosen) else ""
    headline(
        figure,
        f"Predicted and measured effects, gene by gene{more}",
        _caption(predicted, len(chosen), intervals=bool(layers), errors=noise is not None, counted=n_cells is not None),
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


def _noise(measured: AnnDataLike, real: pd.DataFrame) -> pd.DataFrame | None:
    """Standard errors of the measured effects; ``None`` where they are not known."""
    if "standard_error" not in getattr(measured, "layers", {}):
        return None
    return _frame(measured, "standard_error").loc[real.index, real.columns].replace(0.0, np.nan)


def _counted(n_cells: pd.Series[float] | None, condition: Any) -> str:
    """Number of cells of a condition, for its title."""
    return "" if n_cells is None else f" (n = {n_cells[condition]:,.0f})"


def _limit(real: pd.DataFrame, forecast: pd.DataFrame) -> float:
    """Half-width of all axes: the same for all conditions, so that they can be compared."""
    size = np.abs(np.concatenate([real.to_numpy().ravel(), forecast.to_numpy().ravel()]))
    size = size[np.isfinite(size)]
    return 1.12 * float(size.max()) if len(size) and size.max() > 0 else 1.0


def _largest(x: FloatArray, n: int) -> IndexArray:
    """Positions of the ``n`` largest |x|; missing values are left out."""
    order = np.argsort(-np.nan_to_num(np.abs(x), nan=-1.0), kind="stable")[:n]
    return order[np.isfinite(x[order])]


def _panel(
    ax: Axes, x: FloatArray, y: FloatArray, bounds: tuple[FloatArray, ...], error: FloatArray | None, limit: float
) -> None:
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
    if error is not None:
        ax.hlines(y[barred], (x - error)[barred], (x + error)[barred], color=MODEL, linewidth=0.7, alpha=0.6, zorder=3)
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


def _caption(predicted: AnnDataLike, n: int, *, intervals: bool, errors: bool, counted: bool) -> str:
    settings = _settings(predicted)
    what = "mean count" if settings.get("scale") == "mean" else "mean of log2(1 + counts per 10,000)"
    text = f"Effect: difference to control cells of the {what}. Dashed: prediction = measurement. "
    text += f"Orange: the {NAMED} genes of largest measured effect; blue: the {WITH_INTERVAL} largest"
    bars = ["95 % intervals of the measurement (across)"] if errors else []
    if intervals:
        share = f"{settings['credible']:.0%} " if "credible" in settings else ""
        bars.append(f"{share}credible intervals of the prediction" + (" (upright)" if errors else ""))
    text += f", with {' and '.join(bars)}" if bars else ""
    text += ". n: cells that the measurement is worth" if counted else ""
    return f"{text}. r: Pearson correlation over genes.{' All panels share their axes.' if n > 1 else ''}"

"""Tables on the terminal and in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cradlevae.data.files import atomic_path


def effects_table(found: Any) -> Any:
    """Effects as a tidy table: perturbation, gene, effect, low, high, sd."""
    import numpy as np
    import pandas as pd

    n_conditions, n_genes = found.shape
    return pd.DataFrame(
        {
            "perturbation": np.repeat(found.obs_names.to_numpy(), n_genes),
            "gene": np.tile(found.var_names.to_numpy(), n_conditions),
            "effect": np.asarray(found.X).ravel(),
            **{name: np.asarray(found.layers[name]).ravel() for name in ("low", "high", "sd")},
        }
    )


def print_scores(scores: Any) -> None:
    """The scores that matter most, as a table on the terminal."""
    chosen = ("ate_rho", "ate_r2", "jaccard_20", "pearson_delta", "discrimination_l2", "clean_deviance")
    wide = scores[scores["metric"].isin(chosen)].pivot_table(
        index=["reference", "metric"], columns="predictor", values="value", sort=False
    )
    first = [name for name in ("model", "model (published protocol)") if name in wide]
    wide = wide[[*first, *(name for name in wide if name not in first)]].dropna(axis=1, how="all")
    fraction = scores[scores["predictor"] == "model"].set_index(["reference", "metric"])
    wide.insert(1, "ceiling", fraction["ceiling"].reindex(wide.index))
    wide.insert(2, "fraction", fraction["fraction"].reindex(wide.index))
    show(wide.reset_index(), "scores (fraction: 0 = best floor, 1 = ceiling)")
    single = scores[~scores["metric"].isin(scores.loc[scores["predictor"] == "zero", "metric"])]
    single = single[~single["metric"].isin(("clean_deviance", "attainable_rho"))]
    show(single[["reference", "metric", "predictor", "value", "note"]], "further scores")


def write_csv(table: Any, path: Path) -> None:
    """Write a table atomically."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def show(table: Any, title: str) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left", header_style="bold")
    for name in table.columns:
        shown.add_column(str(name).replace("_", " "), justify="left" if table[name].dtype == object else "right")
    for row in table.itertuples(index=False):
        shown.add_row(*(_text(value) for value in row))
    Console(width=max(Console().width, 160) if not Console().is_terminal else None).print(shown)


def _text(value: Any) -> str:
    import pandas as pd

    if pd.isna(value):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)

"""The command that writes the report of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cradlevae.commands.files import check_outputs, check_suffix, load_with_cells, wrote
from cradlevae.errors import DataError


def report(
    run: Path,
    data: Path,
    *,
    output: Path = Path("report.html"),
    scores: Path | None = None,
    reference: Literal["held-out", "validation", "all"] = "held-out",
    guide_targets: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """One page about a trained model: verdict, effects, cells, quality control and scores.

    Parameters
    ----------
    data
        The cells that the model was trained on: an AnnData file (.h5ad), a zarr store, a folder of several; a 10x file
        (.h5) or folder, or a MuData file (.h5mu).
    output
        The page (.html) to write; it is one file, which opens in any browser and loads nothing.
    scores
        Table (.csv) that `cradlevae evaluate` wrote; without one, the model is scored first, which takes minutes.
    overwrite
        Replace a page that is there already; what is read is never replaced.
    """
    import pandas as pd

    from cradlevae.api.report import report as write

    check_suffix(output, "the report is", ".html")
    check_outputs(output, overwrite=overwrite, inputs=[run, data, *([] if scores is None else [scores])])
    if scores is not None and not scores.exists():
        raise DataError(f"{scores} is not there; `cradlevae evaluate` writes such a table")
    model, cells = load_with_cells(run, data, guide_targets)
    table = None if scores is None else pd.read_csv(scores).fillna({"note": "", "best_floor": ""})
    write(model, cells, output, table, reference=reference, seed=seed, overwrite=overwrite)
    wrote(output)

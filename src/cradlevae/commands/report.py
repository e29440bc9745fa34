"""The command that writes the report of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cradlevae.commands.files import check_outputs, load_run, open_data, with_labels, wrote
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
    run
        Folder of a trained model.
    data
        The cells that the model was trained on: an AnnData file (.h5ad), a zarr store, a folder of several; a 10x file
        (.h5) or folder, or a MuData file (.h5mu).
    output
        The page (.html) to write; it is one file, which opens in any browser and loads nothing.
    scores
        Table (.csv) that `cradlevae evaluate` wrote; without one, the model is scored first, which takes minutes.
    guide_targets
        Table of the targets of guide RNAs, as in training.
    overwrite
        Replace a page that is there already; what is read is never replaced.
    """
    import pandas as pd

    from cradlevae.api.report import report as write

    if output.suffix != ".html":
        raise DataError(f"{output} ends in {output.suffix!r}; the report is written as .html")
    check_outputs(output, overwrite=overwrite, inputs=[run, data, *([] if scores is None else [scores])])
    if scores is not None and not scores.exists():
        raise DataError(f"{scores} is not there; `cradlevae evaluate` writes such a table")
    model = load_run(run)
    cells = with_labels(open_data(data, model.trained.fields, guide_targets), model, run)
    table = None if scores is None else pd.read_csv(scores).fillna({"note": "", "best_floor": ""})
    write(model, cells, output, table, reference=reference, seed=seed, overwrite=overwrite)
    wrote(output)

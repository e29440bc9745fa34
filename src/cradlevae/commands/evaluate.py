"""The command that scores a model and writes the tables, the figures and the page about it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cradlevae.commands.files import check_outputs, load_run, open_data, with_labels, wrote
from cradlevae.commands.registry import SETTINGS_FILE
from cradlevae.errors import DataError
from cradlevae.reporting.tables import print_scores, print_verdict
from cradlevae.utils.atomic import make_folder, write_csv

SCORES_FILE, CONFOUNDING_FILE = "scores.csv", "confounding.csv"


def evaluate(
    run: Path,
    data: Path,
    *,
    output: Path,
    reference: Literal["held-out", "validation", "all"] = "held-out",
    published: bool = False,
    truth: bool | str = "auto",
    n_cells: int = 200,
    denoiser: bool = True,
    guide_targets: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Score a trained model on held-out cells, with floors, ceiling and intervals.

    Parameters
    ----------
    data
        The cells that the model was trained on: an AnnData file (.h5ad), a zarr store, a folder of several; a 10x file
        (.h5) or folder, or a MuData file (.h5mu).
    output
        Folder for scores.csv, confounding.csv, the figures and report.html.
    truth
        "auto" also scores against the truth of simulated and planted data; the name of a layer takes its counts for the
        true artifact-free ones; "false" does neither.
    overwrite
        Replace scores, figures and report of an earlier evaluation; what is read is never replaced.
    """
    import pandas as pd

    from cradlevae.api import evaluate as score
    from cradlevae.model.store import MODEL_FILE
    from cradlevae.reporting.report import REPORT_FILES, write_report

    if (output / MODEL_FILE).exists():
        raise DataError(f"{output} already holds {MODEL_FILE}; choose another folder for the scores")
    files = SCORES_FILE, CONFOUNDING_FILE, SETTINGS_FILE, *REPORT_FILES
    check_outputs(*(output / name for name in files), overwrite=overwrite, inputs=[run, data])
    model = load_run(run)
    make_folder(output)
    cells = with_labels(open_data(data, model.trained.fields, guide_targets), model, run)
    scores = score(
        model, cells, reference=reference, published=published, truth=truth, n_cells=n_cells, denoiser=denoiser,
        seed=seed,
    )  # fmt: skip
    write_csv(scores, output / SCORES_FILE)
    write_csv(pd.DataFrame(scores.attrs["confounding"]), output / CONFOUNDING_FILE)
    write_report(model.trained, cells, scores, output, reference=reference)
    print_scores(scores)
    wrote(output)
    print_verdict(scores)

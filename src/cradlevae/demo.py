"""The demonstration: a simulated experiment taken through every step, with files to look at."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cradlevae.errors import DataError
from cradlevae.utils.atomic import make_folder, write_text

MARKER = "made_by_cradlevae_demo.txt"
EPOCHS = 60


def run_demo(output: Path, *, max_epochs: int | None = None, seed: int = 0) -> None:
    """Simulate an experiment, annotate its cells, split them, train a model, score it, predict and clean.

    Parameters
    ----------
    output
        Folder to write into; what an earlier demo wrote there is replaced.
    max_epochs
        Epochs of training; ``None`` takes 60.
    seed
        Seed of every random number.

    Raises
    ------
    DataError
        If the folder holds anything else, or is not writable.
    """
    import cradlevae as cv
    from cradlevae.reporting.report import write_report
    from cradlevae.reporting.tables import print_scores, print_verdict, show
    from cradlevae.utils.atomic import write_csv, write_h5ad

    _empty(output)
    with _step("simulating 6,000 cells, a fifth of them damaged"):
        adata = cv.simulate(seed=seed)
    with _step("annotating quality control (six criteria)"):
        report = cv.annotate_qc(adata)
    show(report, "quality control")
    with _step("splitting: a quarter of the combinations is never trained on"):
        split = cv.split(adata, "combinations", seed=seed)
        split.save(output / "split.json")
        write_h5ad(adata, output / "data.h5ad")
    unseen = sorted(set(adata[split.cells("test")].obs["perturbation"]))
    conditions = sorted(set(adata.obs["perturbation"]) - {"control"})
    with _step("training CRADLE-VAE"):
        model = cv.CradleVAE(adata, split=split, seed=seed)
        model.train(EPOCHS if max_epochs is None else max_epochs, output=output / "model", seed=seed)
        model.save(output / "model")
    with _step("evaluating on cells and combinations that the model has not seen"):
        scores = cv.evaluate(model, adata, seed=seed)
        write_csv(scores, output / "scores.csv")
    with _step(f"predicting {len(unseen)} unseen combinations"):
        write_h5ad(model.predict(unseen, n_cells=200, seed=seed), output / "predicted.h5ad")
        write_csv(cv.effects_table(model.effects(conditions, seed=seed)), output / "effects.csv")
    with _step("cleaning the cells that failed quality control"):
        write_h5ad(model.clean(adata, cells="failed", seed=seed), output / "cleaned.h5ad")
        write_csv(model.artifact_signature(seed=seed).reset_index(), output / "artifact_signature.csv")
    with _step("drawing figures and the report"):
        write_report(model.trained, adata, scores, output)
    print_scores(scores)
    print("files in", output)
    for path, what in FILES.items():
        print(f"  {path:<40}{what}")
    print_verdict(scores)


FILES = {
    "report.html": "everything below on one page",
    "scores.csv": "every score with floors, ceiling and fraction",
    "predicted.h5ad": "predicted counts of the unseen combinations",
    "effects.csv": "effects of all conditions, the unseen too, on each gene, the surest first",
    "cleaned.h5ad": "artifact-free twins of the failed cells: counts, and expected ones",
    "artifact_signature.csv": "what the artifact does to each gene",
    "predicted_against_measured_effects.png": "predicted vs measured effects",
    "cleaned_cells.png": "failed cells before and after cleaning",
    "training.png": "training curves",
    "quality_control.png": "QC criteria with their thresholds",
    "model/": "the trained model: cradlevae.CradleVAE.load(...)",
    "data.h5ad": "the simulated, annotated data",
}
"""What the demonstration leaves behind."""


def _empty(output: Path) -> None:
    """Make the folder, and remove what an earlier demonstration left in it."""
    if output.exists() and any(output.iterdir()):
        if not (output / MARKER).exists():
            raise DataError(f"{output} holds files that the demo did not write; choose another --output")
        shutil.rmtree(output)
    make_folder(output)
    write_text(output / MARKER, "`cradlevae demo` made this folder and replaces it when run again.\n")


@contextmanager
def _step(what: str) -> Iterator[None]:
    started = time.perf_counter()
    print(f"▸ {what} …", flush=True)
    yield
    print(f"  {time.perf_counter() - started:.1f} s", flush=True)

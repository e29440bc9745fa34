"""What the command line does: one function per command; their signatures are its options.

A run folder holds the model (see :mod:`cradlevae.model.trained`), its checkpoints and what the run used.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from cradlevae.data.experiment import DataFields
from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.data.storage.stored_cells import open_cells
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig, TrainConfig
from cradlevae.tables import effects_table, print_scores, show
from cradlevae.utils.atomic import make_folder, write_csv, write_h5ad
from cradlevae.utils.types import AnnDataLike

LABELS_FILE = "labels.csv"
"""Artifact labels that `train` gave to the cells of a file without any."""

SCORES_FILE = "scores.csv"


def qc(
    data: Path,
    *,
    output: Path,
    criteria: list[str] | None = None,
    n_mads: float = 3.0,
    layer: str | None = None,
    batch_key: str | None = None,
    gene_symbols: str | None = None,
    max_fail_share: float = 0.2,
    key_added: str = "artifact",
    figure: Path | None = None,
    seed: int = 0,
) -> None:
    """Annotate cells that fail quality control.

    Args:
        data: Raw counts: an AnnData file (.h5ad), a zarr store, or a folder of several.
        output: Annotated copy to write: a file, or a folder for a zarr store or a folder.
        criteria: Which of umi, genes, mito, ribo, haemo, doublet; all by default.
        n_mads: Threshold is the median ± so many (unscaled) median absolute deviations.
        layer: Layer with the raw counts; X by default.
        batch_key: Column of obs within which thresholds are set.
        gene_symbols: Column of var with gene symbols, where var_names are not.
        max_fail_share: Warn about a criterion that more cells than this share fail.
        key_added: Column of obs to write.
        figure: Picture of the criteria with their thresholds to write (.png, .svg, .pdf).
        seed: Seed of the doublet simulation.
    """
    from cradlevae.data.qc.annotate import annotate_qc
    from cradlevae.data.qc.criteria import CRITERIA
    from cradlevae.data.storage.annotated_copy import check_output, write_annotated

    _refuse_file(output)
    if figure is not None:
        _refuse_file(figure)
        if figure.suffix not in (".png", ".svg", ".pdf"):
            raise DataError(f"{figure} ends in {figure.suffix!r}; pictures are written as .png, .svg or .pdf")
    adata = open_cells(data)
    check_output(data, output)
    report = annotate_qc(
        adata, criteria=tuple(criteria) if criteria else CRITERIA, n_mads=n_mads, layer=layer, batch_key=batch_key,
        gene_symbols=gene_symbols, max_fail_share=max_fail_share, key_added=key_added, seed=seed,
    )  # fmt: skip
    show(report, "quality control")
    write_annotated(adata, output, [QC_KEY])
    wrote = [output]
    if figure is not None:
        from cradlevae.reporting.figures import qc_figure, save_figure

        save_figure(qc_figure(adata), figure)
        wrote.append(figure)
    _wrote(*wrote)


def split(
    data: Path,
    *,
    output: Path,
    recipe: Literal["cells", "combinations", "perturbations", "column"] = "cells",
    seed: int = 0,
    n_shared: int = 0,
    column: str | None = None,
    fields: DataFields = DataFields(),  # noqa: B008
) -> None:
    """Assign cells to train, validation and test, and write the manifest.

    Args:
        data: AnnData file (.h5ad), zarr store, or folder of several.
        output: Manifest to write (.json).
        recipe: How to split.
        seed: Seed of the recipe.
        n_shared: For "perturbations": members of a held-out condition that are seen in training.
        column: For "column": the column of obs that names the parts.
        fields: Where labels and counts are.
    """
    from cradlevae.data.split import split as make_split

    _refuse_file(output)
    made = make_split(open_cells(data), recipe, seed=seed, n_shared=n_shared, column=column, fields=fields)
    made.save(output)
    print(made)
    _wrote(output)


def train(
    data: Path,
    *,
    output: Path,
    split: str = "auto",
    split_seed: int = 0,
    resume: bool = False,
    backed: bool | Literal["auto"] = "auto",
    fields: DataFields = DataFields(),  # noqa: B008
    model: ModelConfig = ModelConfig(),  # noqa: B008
    training: TrainConfig = TrainConfig(),  # noqa: B008
) -> None:
    """Train CRADLE-VAE or a sibling (--model); quality control is annotated first where the artifact column is absent.

    Args:
        data: Raw counts: an AnnData file (.h5ad), a zarr store, or a folder of several.
        output: Folder of the run; it must not hold another one.
        split: A manifest (.json), a recipe ("cells", "combinations", "perturbations"), or "auto": "combinations" where
            there are at least four, else "cells".
        split_seed: Seed of the recipe.
        resume: Go on from the last checkpoint in the output folder.
        backed: Leave the counts on disk, so that memory does not grow with the cells; "auto": where they would take
            more than a third of the machine's memory. Cells then come in another random order.
        fields: Where labels and counts are.
        model: Which model of the family, its architecture, priors and objective.
        training: How to train.
    """
    from cradlevae.api import CLASSES, refuse_existing_run
    from cradlevae.model.store import MODEL_FILE, SPLIT_FILE
    from cradlevae.utils.machine import machine_memory

    if not resume:
        refuse_existing_run(output)
    elif (output / MODEL_FILE).exists():
        raise DataError(f"the run in {output} is complete; there is nothing to resume")
    adata = open_cells(data)
    size = adata.memory(fields.layer)
    if backed is False or (backed == "auto" and size < machine_memory() / 3):
        adata.load(fields.layer)
    elif adata.by_genes(fields.layer):
        print(
            f"counts are stored by genes (CSC), so they are read whole ({size / 1e9:.1f} GB); "
            "written as CSR they could stay on disk"
        )
        adata.load(fields.layer)
    else:
        print(f"counts stay on disk (in memory they would take {size / 1e9:.1f} GB)")
    labels = _annotate(adata, fields)
    chosen = _split(adata, split, split_seed, fields)
    print(chosen)
    made = CLASSES[model.model](adata, split=chosen, seed=training.seed, **asdict(fields), **asdict(model))
    make_folder(output)
    chosen.save(output / SPLIT_FILE)
    if labels is not None:
        write_csv(labels.reset_index(names="cell"), output / LABELS_FILE)
    options = asdict(training)
    made.train(options.pop("max_epochs"), output=output, resume=resume, **options)
    made.save(output)
    from cradlevae.reporting.figures import save_figure, training_figure

    save_figure(training_figure(made.history), output / "training.png")
    print(made)
    _wrote(output)


def predict(
    run: Path,
    perturbations: list[str],
    *,
    output: Path,
    n_cells: int = 500,
    artifact: bool | str = False,
    library_size: float | Literal["controls"] = "controls",
    basal: Literal["controls", "prior"] = "controls",
    seed: int = 0,
) -> None:
    """Predict counts for perturbations and unseen combinations.

    Args:
        run: Folder of a trained model.
        perturbations: Conditions, e.g. '[A+B,C]'.
        output: AnnData file (.h5ad) to write.
        n_cells: Cells for each condition.
        artifact: False for artifact-free cells, true for damaged ones, or the name of an artifact class.
        library_size: Total count of the cells, or "controls" to take those of real passing controls.
        basal: Basal states of real controls, or from the prior.
        seed: Seed of the draws.
    """
    _refuse_file(output)
    model = _load(run)
    model.predict(
        perturbations, n_cells, artifact=artifact, library_size=library_size, basal=basal, seed=seed, output=output
    )
    _wrote(output)


def effects(
    run: Path,
    *,
    output: Path,
    perturbations: list[str] | None = None,
    credible: float = 0.9,
    error: float | None = None,
    seed: int = 0,
) -> None:
    """Effect of each perturbation on each gene, artifact-free, with credible intervals.

    Args:
        run: Folder of a trained model.
        output: Table (.csv: perturbation, gene, effect, low, high, sd, mc_error) or AnnData file (.h5ad) to write.
        perturbations: Conditions, e.g. '[A+B,C]'; all known single perturbations by default.
        credible: Probability of the intervals.
        error: Monte-Carlo standard error to reach on 99 % of the genes, log2 units; 0.02 by default.
        seed: Seed of the draws.
    """
    _refuse_file(output)
    if output.suffix not in (".csv", ".h5ad"):
        raise DataError(f"{output} ends in {output.suffix!r}; effects are written as .csv or .h5ad")
    model = _load(run)
    found = model.effects(perturbations or list(model.perturbations), credible, error=error, seed=seed)
    if output.suffix == ".h5ad":
        write_h5ad(found, output)
    else:
        write_csv(effects_table(found), output)
    _wrote(output)


def clean(
    run: Path,
    data: Path,
    *,
    output: Path,
    cells: Literal["all", "failed"] = "all",
    library_size: Literal["passing", "own"] = "passing",
    n_draws: int = 16,
    seed: int = 0,
) -> None:
    """The artifact-free twin of each cell.

    Args:
        run: Folder of a trained model.
        data: Raw counts: an AnnData file (.h5ad), a zarr store, or a folder of several.
        output: AnnData file (.h5ad) to write.
        cells: All cells, or only those that failed quality control.
        library_size: Total of a failed cell's expected counts: the median of passing cells, or its own.
        n_draws: Posterior draws that are averaged.
        seed: Seed of the draws.
    """
    _refuse_file(output)
    model = _load(run)
    adata = _labelled(open_cells(data), model, run)
    model.clean(adata, cells, library_size=library_size, n_draws=n_draws, seed=seed, output=output)
    _wrote(output)


def evaluate(
    run: Path,
    data: Path,
    *,
    output: Path,
    reference: Literal["held-out", "validation", "all"] = "held-out",
    published: bool = False,
    n_cells: int = 200,
    seed: int = 0,
) -> None:
    """Score a trained model on held-out cells, with floors, ceiling and intervals.

    Args:
        run: Folder of a trained model.
        data: The cells that it was trained on: AnnData file (.h5ad), zarr store, or folder of several.
        output: Folder for scores.csv, confounding.csv, the figures and report.html.
        reference: Held-out cells, validation cells, or (as published, and said so) all cells.
        published: Also score the effects as the released evaluation takes them.
        n_cells: Generated cells per condition.
        seed: Seed of the draws.
    """
    import pandas as pd

    from cradlevae.api import evaluate as score
    from cradlevae.model.store import MODEL_FILE
    from cradlevae.reporting.report import write_report

    for name in (SCORES_FILE, MODEL_FILE):
        if (output / name).exists():
            raise DataError(f"{output} already holds {name}; choose another folder for the scores")
    model = _load(run)
    make_folder(output)
    adata = _labelled(open_cells(data), model, run)
    scores = score(model, adata, reference=reference, published=published, n_cells=n_cells, seed=seed)
    write_csv(scores, output / SCORES_FILE)
    write_csv(pd.DataFrame(scores.attrs["confounding"]), output / "confounding.csv")
    write_report(model.trained, adata, scores, output, reference=reference)
    print_scores(scores)
    _wrote(output)


def download(
    dataset: Literal["norman", "dixit", "adamson", "replogle"],
    *,
    output: Path,
    path: Path | None = None,
    cache: Path | None = None,
    mirror: str | None = None,
) -> None:
    """Download a published data set, once, and convert it into what the other commands read.

    Args:
        dataset: Which.
        output: AnnData file (.h5ad) to write.
        path: The published file, where it is here already; nothing is downloaded then.
        cache: Folder to keep the download in; by default CRADLEVAE_CACHE, or the system's.
        mirror: Address to download from instead of the published one; by default CRADLEVAE_MIRROR.
    """
    import pandas as pd

    from cradlevae.data.datasets.convert import KEY, convert
    from cradlevae.data.datasets.download import cache_folder, fetch
    from cradlevae.data.datasets.published import published

    _refuse_file(output)
    data = published(dataset)
    convert(path or fetch(data, cache_folder(cache), mirror), data, output)
    cells = open_cells(output)
    made = cells.uns[KEY]
    print(f"{data.citation}\n{cells.n_obs:,} cells × {cells.n_vars:,} genes; counts from {made['counts']}")
    if made["left_out"]:
        show(pd.DataFrame(made["left_out"].items(), columns=["left out", "cells"]), "")
    _wrote(output)


def simulate(
    *,
    output: Path,
    n_cells: int = 6000,
    n_genes: int = 600,
    n_perturbations: int = 16,
    n_combinations: int = 24,
    artifact_rate: float = 0.2,
    confounded: float = 0.0,
    seed: int = 0,
) -> None:
    """Simulate a Perturb-seq experiment with known artifacts; the truth travels along.

    Args:
        output: AnnData file (.h5ad) to write.
        n_cells: Cells.
        n_genes: Genes.
        n_perturbations: Single perturbations.
        n_combinations: Pairs of them.
        artifact_rate: Share of damaged cells.
        confounded: Log odds ratio by which the first perturbation makes cells fail.
        seed: Seed.
    """
    from cradlevae.data.simulation.simulate import simulate as make

    _refuse_file(output)
    adata = make(
        n_cells=n_cells, n_genes=n_genes, n_perturbations=n_perturbations, n_combinations=n_combinations,
        artifact_rate=artifact_rate, confounded=confounded, seed=seed,
    )  # fmt: skip
    write_h5ad(adata, output)
    print(f"{adata.n_obs:,} cells × {adata.n_vars:,} genes")
    _wrote(output)


def benchmark(
    plan: Path,
    *,
    output: Path = Path("benchmark"),
    workers: int = 1,
    retry: bool = False,
    part: str | None = None,
    slurm: Path | None = None,
    tasks: int = 16,
) -> None:
    """Compute what a plan asks for (data sets x models x seeds) and is not there yet, and write its tables.

    Args:
        plan: YAML file: data, models, training, split_seeds, init_seeds, baseline, scoring (see docs/benchmark.md).
        output: Folder of the cells and tables. Call again with it to go on, or beside another call to share the work.
        workers: Processes; each has cores / workers threads.
        retry: Compute cells that failed again.
        part: "i/n": only the i-th of n parts of the cells, without the tables.
        slurm: Write a Slurm array script with one part for each task instead of computing.
        tasks: Tasks of that array.
    """
    from cradlevae.benchmarking.benchmark import benchmark as compute

    if slurm is not None:
        from cradlevae.benchmarking.benchmark import write_slurm

        _refuse_file(slurm)
        write_slurm(plan, output, slurm, tasks=tasks, workers=workers)
        _wrote(slurm)
        return
    found = compute(plan, output, workers=workers, retry=retry, part=part)
    if found is None:
        print(f"part {part} is computed; call without --part for the tables")
        return
    _print_benchmark(found, output)


def sweep(plan: Path, *, output: Path, trials: int = 30, workers: int = 1) -> None:
    """Search hyper-parameters of a model by its scores on validation cells (extra sweep).

    Args:
        plan: YAML file of a benchmark with one model, and sweep: with ranges of its settings and training.
        output: Folder of the trials; call again with it to go on.
        trials: Trials in all.
        workers: Processes; each has cores / workers threads.
    """
    from cradlevae.benchmarking.sweep import sweep as search

    show(search(plan, output, trials=trials, workers=workers).head(10), "best trials (validation cells)")
    _wrote(output / "trials.csv")


def reproduce(
    dataset: Literal["norman", "dixit", "adamson", "replogle"],
    *,
    output: Path,
    budget: Literal["full", "small"] = "full",
    path: Path | None = None,
    workers: int = 1,
    retry: bool = False,
) -> None:
    """Run the published settings on a published data set: the paper's metrics, the honest ones and the floors.

    Args:
        dataset: Which.
        output: Folder of the cells and tables; call again with it to go on.
        budget: "full" is the published setting; "small" fits a laptop, and is not.
        path: The published file, where it is here already; nothing is downloaded then.
        workers: Processes; each has cores / workers threads.
        retry: Compute cells that failed again.
    """
    from cradlevae.benchmarking.reproduce import NOT_PUBLISHED
    from cradlevae.benchmarking.reproduce import reproduce as run

    if budget == "small":
        print(NOT_PUBLISHED)
    found = run(dataset, output, budget=budget, path=path, workers=workers, retry=retry)
    _print_benchmark(found, output)


def demo(*, output: Path = Path("demo"), max_epochs: int = 0, seed: int = 0) -> None:
    """Simulate, annotate, split, train, evaluate, predict and clean; takes a few minutes.

    Args:
        output: Folder to write into; what an earlier demo wrote there is replaced.
        max_epochs: Epochs of training; 0 takes the demo's own.
        seed: Seed of everything.
    """
    from cradlevae.demo import run_demo

    run_demo(output, max_epochs=max_epochs or None, seed=seed)


COMMANDS = {
    function.__name__: function
    for function in (
        qc,
        split,
        train,
        predict,
        effects,
        clean,
        evaluate,
        download,
        simulate,
        benchmark,
        reproduce,
        demo,
    )
}
"""Commands by name, in the order of a project."""


def _load(run: Path) -> Any:
    from cradlevae.api import load

    return load(run)


def _annotate(adata: AnnDataLike, fields: DataFields) -> Any:
    """Annotate quality control where the artifact column is absent; the labels, or ``None`` where it was there."""
    if fields.artifact_key != "artifact" or "artifact" in adata.obs:
        return None
    from cradlevae.data.qc.annotate import annotate_qc

    print("no obs['artifact']: annotating quality control")
    show(annotate_qc(adata, layer=fields.layer), "quality control")
    return adata.obs[[name for name in adata.obs if name == "artifact" or str(name).startswith("qc_")]]


def _labelled(adata: AnnDataLike, model: Any, run: Path) -> Any:
    """The AnnData with the artifact labels that training gave its cells, where it has none of its own."""
    fields = model.trained.fields
    if fields.artifact_key != "artifact" or "artifact" in adata.obs:
        return adata
    if (run / LABELS_FILE).exists():
        import pandas as pd

        labels = pd.read_csv(run / LABELS_FILE, index_col="cell", dtype={"cell": str}).reindex(adata.obs_names)
        if labels["artifact"].notna().all():
            print(f"artifact labels as in training, from {run / LABELS_FILE}")
            adata.obs[labels.columns] = labels
            adata.uns.setdefault(QC_KEY, model.trained.qc)
            return adata
    from cradlevae.data.qc.apply import judge

    if model.trained.qc is None:
        raise DataError(f"no column 'artifact' in obs, and the run in {run} holds no QC thresholds to make it by")
    print("artifact labels by the QC thresholds of the training data (doublets not assessed)")
    adata.obs["artifact"] = judge(adata, model.trained.qc).any(axis=1).to_numpy()
    return adata


def _split(adata: AnnDataLike, split: str, seed: int, fields: DataFields) -> Any:
    from cradlevae.data.experiment import condition_labels
    from cradlevae.data.labels import singles_of
    from cradlevae.data.split import Split
    from cradlevae.data.split import split as make_split

    if split.endswith(".json"):
        return Split.load(split)
    if split == "auto":
        labels = condition_labels(adata, fields).unique()
        split = "combinations" if sum(len(singles_of(name)) > 1 for name in labels) >= 4 else "cells"
    return make_split(adata, split, seed=seed, fields=fields)


def _refuse_file(path: Path) -> None:
    """Refuse to overwrite, and see that the folder can be written, before any long work."""
    if path.exists():
        raise DataError(f"{path} exists already; choose another name or remove it")
    make_folder(path.parent)


def _print_benchmark(found: Any, output: Path) -> None:
    """How many runs have scores, and where the tables are."""
    print(f"{len(found.timings)} runs have scores, {len(found.failures)} have none")
    for row in found.failures.drop_duplicates(["model", "error"]).itertuples():
        print(f"  no score: {row.model} on {row.data}: {row.error}")
    _wrote(*sorted(path for path in output.iterdir() if path.suffix in (".md", ".csv", ".parquet", ".png")))


def _wrote(*paths: Path) -> None:
    print("wrote " + ", ".join(str(path) for path in paths))

"""The commands that ask a trained model: of cells, effects, contrasts, interactions, damage and responders."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cradlevae.commands.files import (
    check_effects_output,
    check_outputs,
    check_suffix,
    load_run,
    load_with_cells,
    write_effects,
    wrote,
)
from cradlevae.utils.atomic import write_csv


def predict(
    run: Path,
    perturbations: list[str],
    *,
    output: Path,
    n_cells: int = 500,
    artifact: bool | str | list[str] = False,
    library_size: float | Literal["controls"] = "controls",
    basal: Literal["controls", "prior"] = "controls",
    batch: str | None = None,
    context: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Predict counts for perturbations and unseen combinations.

    Parameters
    ----------
    perturbations
        Conditions, e.g. A+B C control; combinations need not have been seen.
    output
        AnnData file (.h5ad) to write.
    artifact
        Predict damaged cells in place of artifact-free ones; or the names of artifact classes.
    library_size
        Total count that each cell is expected to have; "controls" draws those of real passing training controls.
    batch
        Experimental batch of the cells; by default that of the control that a cell's state comes from.
    overwrite
        Replace outputs that are there already; what is read is never replaced.
    """
    check_outputs(output, overwrite=overwrite, inputs=[run])
    model = load_run(run)
    model.predict(
        perturbations, n_cells, artifact=artifact, library_size=library_size, basal=basal, batch=batch, context=context,
        seed=seed, output=output, overwrite=overwrite,
    )  # fmt: skip
    wrote(output)


def effects(
    run: Path,
    *,
    output: Path,
    perturbations: list[str] | None = None,
    credible: float = 0.9,
    error: float | None = None,
    batch: str | None = None,
    context: str | None = None,
    sort_by: str = "rank",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Effect of each perturbation on each gene, artifact-free, with credible intervals and false sign rates.

    Parameters
    ----------
    output
        Table (.csv or .parquet: perturbation, gene, effect, low, high, sd, lfsr, q, rank, n_cells, is_target) or
        AnnData file (.h5ad) to write.
    perturbations
        Conditions, e.g. A+B C; all that have training cells by default.
    error
        Monte-Carlo standard error to reach on 99 % of the genes, log2 units; 0.02 by default.
    """
    check_effects_output(output, run, overwrite=overwrite)
    answer = load_run(run).effects(perturbations, credible, error=error, batch=batch, context=context, seed=seed)
    write_effects(answer, output, sort_by)


def contrast(
    run: Path,
    first: str,
    second: str,
    *,
    output: Path,
    credible: float = 0.9,
    error: float | None = None,
    batch: str | None = None,
    context: str | None = None,
    sort_by: str = "rank",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """How much more one condition expresses each gene than another, with intervals and false sign rates.

    Parameters
    ----------
    first
        The condition that is compared, e.g. A+B.
    second
        The condition that it is compared with, e.g. A.
    output
        Table (.csv or .parquet, as of the command effects) or AnnData file (.h5ad) to write.
    """
    check_effects_output(output, run, overwrite=overwrite)
    answer = load_run(run).contrast(first, second, credible, error=error, batch=batch, context=context, seed=seed)
    write_effects(answer, output, sort_by)


def interactions(
    run: Path,
    *,
    output: Path,
    pairs: list[str] | None = None,
    summary: Path | None = None,
    credible: float = 0.9,
    error: float | None = None,
    batch: str | None = None,
    context: str | None = None,
    sort_by: str = "rank",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """What each pair of perturbations does beyond the sum of its single ones, and which kind of interaction it is.

    Parameters
    ----------
    output
        Table (.csv or .parquet, as of the command effects) or AnnData file (.h5ad) to write.
    pairs
        Pairs, e.g. A+B A+C, measured or not; all pairs of the data by default.
    summary
        Table (.csv) to write, a row for each pair: coefficients of its fit, and how probable each class is.
    """
    from cradlevae.reporting.tables import show

    check_effects_output(output, run, overwrite=overwrite)
    if summary is not None:
        check_outputs(summary, overwrite=overwrite, inputs=[run])
        check_suffix(summary, "the summary of interactions is", ".csv")
    answer = load_run(run).interactions(pairs, credible, error=error, batch=batch, context=context, seed=seed)
    table = answer.obs.rename_axis("pair").reset_index()
    show(table[["pair", "measured", "n_cells", "magnitude", "equality", "similarity", "interaction"]], "interactions")
    write_effects(answer, output, sort_by)
    if summary is not None:
        write_csv(table, summary)
        wrote(summary)


def expression(
    run: Path,
    gene: str,
    *,
    output: Path,
    perturbations: list[str] | None = None,
    credible: float = 0.9,
    error: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Expected expression of a gene in controls and in each condition, artifact-free, with credible intervals.

    Parameters
    ----------
    gene
        Name or symbol of the gene.
    output
        Table (.csv) to write: perturbation, expression, low, high, n_cells.
    perturbations
        Conditions, e.g. A+B C; all that have training cells by default.
    """
    check_outputs(output, overwrite=overwrite, inputs=[run])
    check_suffix(output, "expression is", ".csv")
    table = load_run(run).expression(gene, perturbations, credible, error=error, seed=seed)
    write_csv(table.reset_index(), output)
    wrote(output)


def clean(
    run: Path,
    data: Path,
    *,
    output: Path,
    cells: Literal["all", "failed"] = "all",
    use_label: bool = True,
    library_size: Literal["passing", "own"] = "passing",
    batch: str = "own",
    n_draws: int = 16,
    guide_targets: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """The artifact-free twin of each cell.

    Parameters
    ----------
    output
        AnnData file (.h5ad) to write.
    overwrite
        Replace outputs that are there already; what is read is never replaced.
    """
    check_outputs(output, overwrite=overwrite, inputs=[run, data])
    model, labelled = load_with_cells(run, data, guide_targets)
    model.clean(
        labelled, cells, use_label=use_label, library_size=library_size, batch=batch, n_draws=n_draws, seed=seed,
        output=output, overwrite=overwrite,
    )  # fmt: skip
    wrote(output)


def diagnose(
    run: Path,
    data: Path,
    *,
    output: Path,
    cells: Literal["failed", "all"] = "failed",
    credible: float = 0.9,
    guide_targets: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """What happened to each failed cell: probabilities of kinds of damage, severity, and the second parent of doublets.

    Parameters
    ----------
    output
        Table (.csv) to write, a row for each cell.
    """
    check_outputs(output, overwrite=overwrite, inputs=[run, data])
    check_suffix(output, "diagnoses are", ".csv")
    model, labelled = load_with_cells(run, data, guide_targets)
    table = model.diagnose(labelled, cells=cells, credible=credible, seed=seed)
    for kind, n in table["damage"].value_counts().items():
        if n:
            print(f"{n:,} cells: {kind}")
    write_csv(table.rename_axis("cell").reset_index(), output)
    wrote(output)


def responders(
    run: Path,
    data: Path,
    *,
    output: Path,
    shares: Path | None = None,
    effects: Path | None = None,
    credible: float = 0.9,
    n_draws: int = 8,
    guide_targets: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Which cells respond to their perturbation, and the share of each perturbation's cells that do.

    Parameters
    ----------
    output
        Table (.csv) to write, a row for each perturbed cell.
    shares
        Table (.csv) of the perturbations to write; by default beside the first, e.g. responders.shares.csv.
    effects
        Table (.csv) of the effects among the responders to write, too.
    """
    shares = output.with_suffix(".shares.csv") if shares is None else shares
    outputs = [output, shares, *([] if effects is None else [effects])]
    check_outputs(*outputs, overwrite=overwrite, inputs=[run, data])
    for path in outputs:
        check_suffix(path, "responders are", ".csv")
    model, labelled = load_with_cells(run, data, guide_targets)
    found = model.responders(labelled, credible=credible, n_draws=n_draws, seed=seed)
    for name, row in found.shares.iterrows():
        interval = f"{row['low']:.0%} to {row['high']:.0%}"
        print(f"{name}: {row['share']:.0%} of {int(row['n_cells']):,} cells respond ({interval})")
    write_csv(found.cells.reset_index(), output)
    write_csv(found.shares.reset_index(), shares)
    if effects is not None:
        among = found.effects(model.effects(list(found.shares.index), credible, seed=seed))
        write_effects(among, effects, "rank")
    wrote(output, shares)

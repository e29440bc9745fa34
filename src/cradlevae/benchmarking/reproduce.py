"""The published settings as a plan, and the paper's metrics beside those against held-out cells.

Settings (Baek et al., AAAI 2025): 200 latents where there are combinations and 100 otherwise, width 400 (basal encoder
200 without combinations), batches of 512, five particles, Adam with learning rate 3e-4 and weight decay 1e-6, gradient
norm at most 100, up to 2,000 epochs with patience 50; QC thresholds of 3, 4 and 5 MAD; split seeds 0 to 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from cradlevae.benchmarking.benchmark import benchmark
from cradlevae.benchmarking.data_source import DataSource
from cradlevae.benchmarking.plan import ModelRun, Plan, Scoring
from cradlevae.benchmarking.record import Benchmark
from cradlevae.data.datasets.published import DATASETS
from cradlevae.data.datasets.published import published as declaration_of
from cradlevae.evaluation.score_table import PUBLISHED, reference_label
from cradlevae.utils.atomic import write_text
from cradlevae.utils.checks import check_choice, output_folder, path_of

Budget = Literal["full", "small"]

MODELS = (
    ModelRun("cradle_vae", "CRADLE-VAE, released objective", {"objective": "released"}),
    ModelRun("cradle_vae", "CRADLE-VAE"),
    ModelRun("sams_vae", "SAMS-VAE"),
    ModelRun("cpa_vae", "CPA-VAE"),
    ModelRun("svae_plus", "SVAE+"),
    ModelRun("conditional_vae", "conditional VAE"),
)

TRAINING = {
    "max_epochs": 2000,
    "patience": 50,
    "batch_size": 512,
    "n_particles": 5,
    "learning_rate": 3e-4,
    "weight_decay": 1e-6,
    "gradient_clip": 100.0,
    "averaging": 0.0,
}

SMALL = {"max_epochs": 30, "batch_size": 256, "n_particles": 1}
"""Training of the small budget; all other settings are this package's own."""

SMALL_GENES, SMALL_CELLS = 1000, 40

NOT_PUBLISHED = (
    "Budget small: this is NOT the published setting. Two split seeds instead of five, QC at 3 MAD only, at most "
    f"{SMALL_CELLS} cells of each condition, the {SMALL_GENES:,} genes of most counts, {SMALL['max_epochs']} epochs of "
    "one particle."
)

QC: dict[str, Any] = {"batch_key": None}
"""Thresholds of quality control are those of all cells together, as published; effects are measured within batch."""

PUBLISHED_RECIPES = {"combinations": "combinations_published"}
"""Recipes of splits whose published form has a name of its own."""

PAPER = ("ate_rho", "ate_r2", "jaccard_20", "jaccard_50")
HELD_OUT = ("ate_rho", "ate_r2", "pearson_delta", "discrimination_l2")


def reproduction_plan(dataset: str, *, budget: Budget = "full", path: str | Path | None = None) -> Plan:
    """The plan that reproduces the published table of a data set.

    Parameters
    ----------
    dataset
        ``norman``, ``dixit``, ``adamson`` or ``replogle``.
    budget
        ``full`` is the published setting; ``small`` fits a laptop, and its tables say that it is not the published one.
    path
        The published file, where it has been downloaded already.
    """
    check_choice("dataset", dataset, list(DATASETS))
    check_choice("budget", budget, get_args(Budget))
    file = None if path is None else str(path_of("path", path).resolve())
    scored: dict[str, Any] = {"references": ("held-out", "all"), "published": True}
    recipe = declaration_of(dataset).split
    recipe = PUBLISHED_RECIPES.get(recipe, recipe)
    if budget == "full":
        source = DataSource(published=dataset, path=file, recipe=recipe, n_mads=(3.0, 4.0, 5.0), qc=dict(QC))
        return Plan((source,), MODELS, training=TRAINING, scoring=Scoring(**scored))
    source = DataSource(
        published=dataset,
        path=file,
        recipe=recipe,
        max_genes=SMALL_GENES,
        max_cells_per_condition=SMALL_CELLS,
        n_mads=(3.0,),
        qc=dict(QC),
    )
    scoring = Scoring(**scored, n_cells=50)
    return Plan((source,), MODELS, training=dict(SMALL), split_seeds=(0, 1), scoring=scoring, note=NOT_PUBLISHED)


def reproduce(
    dataset: str,
    output: str | Path,
    *,
    budget: Budget = "full",
    path: str | Path | None = None,
    workers: int = 1,
    retry: bool = False,
) -> Benchmark:
    """Compute :func:`reproduction_plan`, resuming an earlier call, and write ``reproduction.md`` beside other tables.

    Parameters
    ----------
    dataset, budget, path
        As for :func:`reproduction_plan`.
    output, workers, retry
        As for :func:`cradlevae.benchmark`.

    Returns
    -------
    The results, as of :func:`cradlevae.benchmark`.

    Examples
    --------
    What would be computed, without computing it:

    >>> from cradlevae.benchmarking.reproduce import reproduction_plan
    >>> plan = reproduction_plan("norman")
    >>> plan.training["max_epochs"], plan.training["n_particles"], plan.split_seeds, plan.data[0].n_mads
    (2000, 5, (0, 1, 2, 3, 4), (3.0, 4.0, 5.0))
    >>> [run.label for run in plan.models][:3]
    ['CRADLE-VAE, released objective', 'CRADLE-VAE', 'SAMS-VAE']
    """
    output = output_folder("output", output)
    plan = reproduction_plan(dataset, budget=budget, path=path)
    results = benchmark(plan, output, workers=workers, retry=retry)
    assert results is not None  # no part was asked for
    write_text(Path(output) / "reproduction.md", side_by_side(results))
    return results


def side_by_side(benchmark: Benchmark) -> str:
    """The paper's metrics as it takes them, those against held-out cells, and the floors: a table per QC threshold."""
    lines = ["# Reproduction", ""]
    if benchmark.plan.note:
        lines += [f"**{benchmark.plan.note}**", ""]
    lines += [
        "Left, as published: against all cells, training cells among them, effects drawn unpaired from the prior at a "
        "library size of 10,000; and the share of generated cells that pass QC. Right: against held-out cells, paired "
        "effects at real library sizes. Mean ± sd over seeds. Floors need no model; against all cells they have seen "
        "most of what they are scored on, as the models have.",
        "",
    ]
    for (data, recipe, qc), part in benchmark.results.groupby(["data", "recipe", "qc"], sort=False):
        lines += [f"## {data}, split `{recipe}`, QC {qc}", "", *_table(part), ""]
    for model, error in dict(zip(benchmark.failures["model"], benchmark.failures["error"], strict=True)).items():
        lines.append(f"No score of {model}: {' '.join(error.split())}")
    return "\n".join(lines) + "\n"


def _table(part: pd.DataFrame) -> list[str]:
    all_cells, held_out = (reference_label(cells, "passing cells") for cells in ("all", "held-out"))
    qc = sorted(name for name in set(part["metric"]) if name.startswith("qc_pass_rate"))
    passed = "QC thresholds of the data"
    wanted = [(all_cells, name, True) for name in PAPER] + [(passed, name, True) for name in qc]
    wanted += [(held_out, name, False) for name in HELD_OUT] + [(passed, name, False) for name in qc]
    heads = [f"{name}, {'as published' if published else 'held out'}" for _, name, published in wanted]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    own = part[(part["kind"] == "model") & (part["predictor"] != PUBLISHED)]
    rows = [(name, "model") for name in dict.fromkeys(own["model"])]
    rows += [(name, "floor") for name in dict.fromkeys(part.loc[part["kind"] == "floor", "model"])]
    for name, kind in rows:
        entries = []
        for reference, metric, published in wanted:
            label = name + PUBLISHED.removeprefix("model") if published and kind == "model" else name
            chosen = (part["model"] == label) & (part["reference"] == reference) & (part["metric"] == metric)
            entries.append(_mean(part.loc[chosen, "value"].dropna()))
        if any(entries):
            lines.append(f"| {'floor: ' if kind == 'floor' else ''}{name} | " + " | ".join(entries) + " |")
    return lines


def _mean(values: pd.Series[Any]) -> str:
    if values.empty:
        return ""
    sd = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{sd}"

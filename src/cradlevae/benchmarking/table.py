"""The table of a benchmark: mean ± sd of every model, where it lies between floor and ceiling, and paired tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import cradlevae.evaluation.evaluate  # noqa: F401  registers every metric
from cradlevae.benchmarking.plan import BEST_FLOOR
from cradlevae.benchmarking.record import Benchmark
from cradlevae.evaluation.metrics.registry import REGISTRY
from cradlevae.evaluation.score_table import best_of, fraction_of
from cradlevae.evaluation.significance import PairedTest, paired_permutation_test

GROUP = ("data", "recipe", "qc", "reference", "metric")
COLUMNS = (
    *GROUP, "model", "kind", "n", "mean", "sd", "best_floor", "floor", "ceiling", "fraction",
    "baseline", "difference", "p", "pairs", "smallest_p", "best_model", "p_best", "pairs_best", "unanswered",
)  # fmt: skip
SHOWN = (
    "ate_rho", "ate_r2", "jaccard_20", "pearson_delta", "pearson_delta_systema", "discrimination_l2", "de_overlap",
    "de_direction", "qc_pass_rate_mad3", "qc_pass_rate_mad4", "qc_pass_rate_mad5", "iwelbo", "clean_deviance",
    "leakage_z_basal", "leakage_z_perturbation", "mask_f1", "signature_correlation",
)  # fmt: skip
"""Metrics of the Markdown table; ``table.csv`` has all."""

Series = Any
"""Scores of one model by (split seed, init seed); of a floor by split seed alone."""


def summary(results: pd.DataFrame, baseline: str = BEST_FLOOR) -> pd.DataFrame:
    """A row per data set, reference, metric and model or floor.

    Parameters
    ----------
    results
        The results of a :class:`~cradlevae.benchmarking.record.Benchmark`.
    baseline
        The model that each other one is tested against: ``best floor`` (the floor of the best mean, for each metric), a
        model or a floor.

    Returns
    -------
    pandas.DataFrame
        ``mean`` and ``sd`` over ``n`` seeds; ``best_floor`` with its mean (``floor``), the mean ``ceiling``, and where
        the mean lies between them (``fraction``). ``p``: one-sided paired permutation test of "beats the ``baseline``"
        over ``pairs`` of jobs with the same seeds, which can give no less than ``smallest_p``. ``p_best``: the same
        test of "``best_model`` beats this model".
    """
    scored = results[results["metric"].isin(list(REGISTRY)) & (results["kind"] != "reference")]
    rows: list[dict[str, Any]] = []
    for names, part in scored.groupby(list(GROUP), sort=False):
        rows += _rows(dict(zip(GROUP, names, strict=True)), part, baseline)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(group: dict[str, Any], part: pd.DataFrame, baseline: str) -> list[dict[str, Any]]:
    """Rows of one metric on one reference."""
    metric = group["metric"]
    kinds = dict(zip(part["model"], part["kind"], strict=True))
    series = {name: _series(part[part["model"] == name]) for name in kinds}
    series = {name: values for name, values in series.items() if len(values)}
    means = {name: float(values.mean()) for name, values in series.items()}
    floor, best_floor = best_of(metric, {name: means[name] for name in means if kinds[name] == "floor"})
    best_model = best_of(metric, {name: means[name] for name in means if kinds[name] == "model"})[1]
    against = best_floor if baseline == BEST_FLOOR else baseline
    ceiling = float(part.groupby("split_seed")["ceiling"].mean().mean())  # every split counts alike
    rows = []
    for name, values in series.items():
        row = {
            **group, "model": name, "kind": kinds[name], "n": len(values), "mean": means[name],
            "sd": float(values.std(ddof=1)) if len(values) > 1 else float("nan"), "best_floor": best_floor,
            "floor": floor, "ceiling": ceiling, "fraction": fraction_of(metric, means[name], floor, ceiling)[0],
            "unanswered": int(part.loc[part["model"] == name, "unanswered"].max()),
        }  # fmt: skip
        if kinds[name] == "model" and against in series and name != against:
            test = _test(metric, values, series[against])
            if test is not None:
                row |= {
                    "baseline": against, "difference": test.difference, "p": test.p_value, "pairs": test.n_pairs,
                    "smallest_p": 0.5**test.n_pairs if test.exact else 1e-4,
                }  # fmt: skip
        if best_model and name != best_model:
            test = _test(metric, series[best_model], values)
            row["best_model"] = best_model
            if test is not None:
                row |= {"p_best": test.p_value, "pairs_best": test.n_pairs}
        rows.append(row)
    return rows


def _series(rows: pd.DataFrame) -> Series:
    """Finite scores by seeds."""
    rows = rows[np.isfinite(rows["value"].astype(float))]
    if rows["init_seed"].isna().all():
        return rows.set_index("split_seed")["value"]
    return rows.set_index(["split_seed", "init_seed"])["value"]


def _test(metric: str, first: Series, second: Series) -> PairedTest | None:
    """Test of "the first beats the second" over jobs with the same seeds; the difference is a difference of scores."""
    one, other = _paired(first, second)
    if len(one) == 0:
        return None
    entry = REGISTRY[metric]
    test = paired_permutation_test(
        [-entry.shortfall(value) for value in one], [-entry.shortfall(value) for value in other]
    )
    return PairedTest(float((one - other).mean()), test.p_value, test.n_pairs, test.exact)


def _paired(first: Series, second: Series) -> tuple[Any, Any]:
    """Scores of the same seeds; a floor's score counts for every init seed of its split."""
    if first.index.nlevels == second.index.nlevels:
        common = first.index.intersection(second.index)
        return first.loc[common].to_numpy(), second.loc[common].to_numpy()
    if first.index.nlevels == 1:
        other, one = _paired(second, first)
        return one, other
    of_split = second.reindex(first.index.get_level_values("split_seed")).to_numpy()
    known = np.isfinite(of_split)
    return first.to_numpy()[known], of_split[known]


def markdown(table: pd.DataFrame, benchmark: Benchmark) -> str:
    """The table for people: a section per data set and reference, a row per model and floor."""
    lines = ["# Benchmark", ""]
    if benchmark.plan.note:
        lines += [f"**{benchmark.plan.note}**", ""]
    lines += [
        "Models: mean ± sd over seeds; where it lies between the best floor (0 %) and the ceiling (100 %); p of the "
        f"paired permutation test that it beats the baseline ({benchmark.plan.baseline_label}). Bold: the best model. "
        "The smallest p that n pairs can give is 2⁻ⁿ; no p is adjusted for the number of tests. All metrics, and the "
        "tests of the best model against each other one, are in `table.csv`.",
        "",
    ]
    for names, part in table.groupby(["data", "recipe", "qc", "reference"], sort=False):
        shown = [metric for metric in SHOWN if metric in set(part["metric"])]
        if shown:
            lines += _section(names, part[part["metric"].isin(shown)], shown)
    if len(benchmark.failures):
        lines += ["## Jobs without scores", "", "| jobs | why |", "|---|---|"]
        for (data, model, error), part in benchmark.failures.groupby(["data", "model", "error"], sort=False):
            lines.append(f"| {data}, {model} ({len(part)} ×) | {_one_line(error)} |")
        lines.append("")
    return "\n".join(lines)


def _section(names: Any, part: pd.DataFrame, shown: list[str]) -> list[str]:
    """The table of one reference."""
    data, recipe, qc, reference = names
    lines = [f"## {data}, split `{recipe}`, QC {qc}: {reference}", ""]
    counts = part[part["kind"] == "model"].groupby("n")["model"].nunique().to_dict()
    if counts:
        text = ", ".join(f"{models} model{'s' if models > 1 else ''} with {n} scores" for n, models in counts.items())
        least = part["smallest_p"].min()
        lines += [f"{text}." + ("" if pd.isna(least) else f" Smallest p: {least:.3g}."), ""]
    lines += ["| | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for kind in ("model", "floor"):
        for model in dict.fromkeys(part.loc[part["kind"] == kind, "model"]):
            rows = part[part["model"] == model].set_index("metric")
            entries = [_entry(rows.loc[metric]) if metric in rows.index else "" for metric in shown]
            left = f" ({rows['unanswered'].max()} conditions unanswered)" if rows["unanswered"].max() else ""
            lines.append(f"| {'floor: ' if kind == 'floor' else ''}{model}{left} | " + " | ".join(entries) + " |")
    ceilings = part.groupby("metric")["ceiling"].first()
    if ceilings.notna().any():
        texts = ["" if pd.isna(ceilings[metric]) else f"{ceilings[metric]:.3f}" for metric in shown]
        lines.append("| *ceiling* | " + " | ".join(texts) + " |")
    return [*lines, ""]


def _entry(row: pd.Series[Any]) -> str:
    digits = 1 if abs(row["mean"]) >= 100 else 3
    mean = round(row["mean"], digits) + 0.0  # no minus before a zero
    text = f"{mean:.{digits}f}" + ("" if pd.isna(row["sd"]) else f" ± {row['sd']:.{digits}f}")
    if row["kind"] == "model" and pd.isna(row["best_model"]):
        text = f"**{text}**"
    if row["kind"] == "model" and pd.notna(row["fraction"]):
        text += f" · {row['fraction']:.0%}"
    return text + (f" · p {row['p']:.3f}" if pd.notna(row["p"]) else "")


def _one_line(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")

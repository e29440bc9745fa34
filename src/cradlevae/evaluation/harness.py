"""The leak-proof harness: every score of a trained model with its floors, its ceiling and its interval.

Scores come as one tidy table: a row per reference, metric and predictor. ``fraction`` says where a score lies between
the best floor (0) and the ceiling (1).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.confounding import confounding_alarm
from cradlevae.data.contract import Experiment, read_experiment
from cradlevae.errors import DataError
from cradlevae.evaluation.de import de_direction, de_overlap
from cradlevae.evaluation.floors import FLOORS, floor_effects
from cradlevae.evaluation.generated import de_tests, qc_pass_rates
from cradlevae.evaluation.metrics import effect_scores
from cradlevae.evaluation.references import (
    Reference,
    ReferenceCells,
    clean_counts,
    measured_reference,
    part_moments,
    reference_rows,
    scored_conditions,
    simulated_reference,
)
from cradlevae.evaluation.registry import REGISTRY
from cradlevae.evaluation.truth import (
    deviance_floors,
    leakage,
    mask_f1,
    poisson_deviance,
    signature_correlation,
)
from cradlevae.model.trained import TrainedModel
from cradlevae.query.counterfactual import clean
from cradlevae.query.effects import effects, published_effects
from cradlevae.query.latents import latents, log_likelihood, mask_probabilities
from cradlevae.query.signature import artifact_signature

COLUMNS = (
    "reference", "metric", "predictor", "value", "low", "high", "floor", "best_floor", "ceiling", "fraction", "note",
)  # fmt: skip
MODEL = "model"
PUBLISHED = "model (published protocol)"
ALL_CELLS_NOTE = "reference contains training cells, as published"
N_BOOTSTRAP = 500
LEAKAGE_DRAWS = 5
SCORED_CELLS = 2000
"""At most so many cells are scored by IWELBO, and so many read for leakage."""


@dataclass
class _Scores:
    """Rows of the table as they come."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, reference: str, metric: str, predictor: str, value: float, **rest: Any) -> None:
        self.rows.append({"reference": reference, "metric": metric, "predictor": predictor, "value": value, **rest})

    def table(self) -> pd.DataFrame:
        table = pd.DataFrame(self.rows).reindex(columns=list(COLUMNS))
        table["note"] = table["note"].fillna("")
        table["best_floor"] = table["best_floor"].fillna("")
        return table


def evaluate(
    model: TrainedModel,
    adata: Any,
    *,
    reference: ReferenceCells = "held-out",
    published: bool = False,
    generated: bool = True,
    truth: bool = True,
    n_cells: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a trained model on cells that it has not seen.

    Parameters
    ----------
    model
        A trained model.
    adata
        The experiment: training cells make the floors, held-out cells the reference.
    reference
        ``"held-out"`` (test part, and cells unknown to the split), ``"validation"`` (to choose among models), or
        ``"all"``: the published all-cells reference, which contains training cells; the table then says so.
    published
        Also score the effects as the released evaluation takes them (library size 10,000, prior, unpaired).
    generated
        Also score generated cells: QC pass rate and DE genes.
    truth
        Also score against the truth where the data hold it (``layers["clean"]``, ``uns["truth"]``), and the likelihood
        and leakage of held-out cells.
    n_cells
        Generated cells per condition.
    seed
        Seed of every draw.

    Returns
    -------
    pandas.DataFrame
        Tidy: ``reference``, ``metric``, ``predictor`` (``model``, or a floor), ``value``, ``low``, ``high`` (95 %,
        bootstrap over perturbations), ``floor`` and ``best_floor`` (best of the floors), ``ceiling``, ``fraction``,
        ``note``. ``attrs``: ``split_hash``, ``unanswered`` conditions and the ``confounding`` alarm.

    Raises
    ------
    DataError
        If no held-out cells are there, or training cells are among them.
    """
    data = read_experiment(adata, model.fields, genes=list(model.genes), perturbations=model.perturbations)
    rows = reference_rows(model, data, reference)
    answered, unanswered = scored_conditions(model, data, rows)
    if not answered:
        raise DataError("none of the held-out conditions can be predicted: their perturbations had no training cells")
    scores = _Scores()
    note = ALL_CELLS_NOTE if reference == "all" else ""
    passing = rows[~data.failed[rows]]
    references = _references(adata, data, rows, passing, answered, reference, truth=truth, seed=seed)
    predicted = effects(model, answered, seed=seed)
    _score_effects(scores, model, data, references, predicted, published=published, note=note, seed=seed)
    if generated:
        _score_generated(scores, model, adata, data, passing, answered, n_cells=n_cells, seed=seed)
    if truth:
        _score_truth(scores, model, adata, data, rows, seed=seed)
    alarm = confounding_alarm(data.condition, data.conditions, data.failed)
    flagged = list(alarm.loc[alarm["flagged"], "perturbation"])
    scores.add("all cells", "confounded_perturbations", "data", float(len(flagged)), note=", ".join(flagged))
    table = scores.table()
    table.attrs = {
        "split_hash": model.split.hash,
        "unanswered": unanswered,
        "confounding": alarm.to_dict(orient="list"),
    }
    if unanswered:
        shown = ", ".join(unanswered[:5]) + (", …" if len(unanswered) > 5 else "")
        warnings.warn(
            f"{len(unanswered)} held-out conditions are not scored, because a member had no training cells: {shown}",
            stacklevel=2,
        )
    return table


def _references(
    adata: Any,
    data: Experiment,
    rows: npt.NDArray[np.intp],
    passing: npt.NDArray[np.intp],
    conditions: Sequence[str],
    kind: ReferenceCells,
    *,
    truth: bool,
    seed: int,
) -> list[Reference]:
    name = {
        "held-out": "held-out passing cells",
        "validation": "validation passing cells",
        "all": "all passing cells",
    }
    found = [measured_reference(name[kind], data, sp.csr_matrix(data.counts[passing]), passing, conditions, seed=seed)]
    if truth:
        true_counts = clean_counts(adata, data)
        if true_counts is not None:
            counts = sp.csr_matrix(true_counts[rows])
            label = f"{kind} clean counts (truth)"
            found.append(measured_reference(label, data, counts, rows, conditions, seed=seed))
        found.append(simulated_reference(adata, data, conditions))
    references = [reference for reference in found if reference is not None]
    if not references:
        raise DataError("no condition has two passing reference cells and two passing reference controls to measure in")
    return references


def _score_effects(
    scores: _Scores,
    model: TrainedModel,
    data: Experiment,
    references: Sequence[Reference],
    predicted: Any,
    *,
    published: bool,
    note: str,
    seed: int,
) -> None:
    train, validation = part_moments(model, data, "train"), part_moments(model, data, "val")
    as_published = published_effects(model, list(predicted.obs_names), seed=seed) if published else None
    for reference in references:
        names = list(reference.conditions)
        predictions = {MODEL: np.asarray(predicted[names].X, dtype=np.float64)}
        if as_published is not None:
            predictions[PUBLISHED] = np.asarray(as_published[names].X, dtype=np.float64)
        for floor in FLOORS:
            if floor == "lowrank_shrunk_mean" and not (
                validation.n_cells[0] > 1 and (validation.n_cells[1:] > 1).any()
            ):
                continue
            predictions[floor] = floor_effects(floor, train, validation, names)
        values = {
            name: effect_scores(reference.effects, value, perturbations=names, genes=list(model.genes))
            for name, value in predictions.items()
        }
        ceilings = {"ate_rho": reference.attainable_rho, "ate_r2": reference.attainable_r2}
        intervals = {name: _bootstrap(reference.effects, value, seed) for name, value in predictions.items()}
        for metric in values[MODEL]:
            by_floor = {name: values[name][metric] for name in FLOORS if name in values}
            floor_value, best_floor = _best(by_floor, REGISTRY[metric].best)
            top = ceilings.get(metric, np.nan)
            for name in predictions:
                value = values[name][metric]
                low, high = intervals[name].get(metric, (np.nan, np.nan))
                scores.add(
                    reference.name, metric, name, value, low=low, high=high, floor=floor_value, best_floor=best_floor,
                    ceiling=top, fraction=(value - floor_value) / (top - floor_value), note=note,
                )  # fmt: skip
        scores.add(
            reference.name, "attainable_rho", "ceiling", reference.attainable_rho,
            low=reference.attainable_low, high=reference.attainable_high, note=note,
        )  # fmt: skip


def _best(values: dict[str, float], best: float) -> tuple[float, str]:
    """The best of the floors that have a score, and its name."""
    known = {name: value for name, value in values.items() if np.isfinite(value)}
    if not known:
        return float("nan"), ""
    name = (max if best > 0 else min)(known, key=lambda key: known[key])
    return known[name], name


def _bootstrap(
    real: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64], seed: int
) -> dict[str, tuple[float, float]]:
    """95 % intervals of ATE-ρ and ATE-R² over perturbations drawn with replacement."""
    if not np.isfinite(predicted).all() or len(real) < 2:
        return {}
    sums = np.stack(
        [
            np.full(len(real), real.shape[1]), real.sum(1), predicted.sum(1), (real**2).sum(1),
            (predicted**2).sum(1), (real * predicted).sum(1), ((real - predicted) ** 2).sum(1),
        ]
    )  # fmt: skip
    weights = np.random.default_rng(seed).multinomial(len(real), np.full(len(real), 1 / len(real)), N_BOOTSTRAP)
    n, x, y, xx, yy, xy, residual = sums @ weights.T
    spread_x, spread_y = xx - x**2 / n, yy - y**2 / n
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = np.where(spread_y > 1e-12 * np.maximum(yy, 1e-300), (xy - x * y / n) / np.sqrt(spread_x * spread_y), 0.0)
        r2 = 1 - residual / spread_x
    return {
        name: (float(np.quantile(value, 0.025)), float(np.quantile(value, 0.975)))
        for name, value in (("ate_rho", rho), ("ate_r2", r2))
    }


def _score_generated(
    scores: _Scores,
    model: TrainedModel,
    adata: Any,
    data: Experiment,
    passing: npt.NDArray[np.intp],
    conditions: Sequence[str],
    *,
    n_cells: int,
    seed: int,
) -> None:
    if "cradlevae_qc" in adata.uns:
        rates = qc_pass_rates(model, adata, conditions, n_cells=n_cells, seed=seed)
        for row in rates.to_dict(orient="records"):
            metric = f"qc_pass_rate_mad{row['n_mads']:.0f}"
            scores.add("QC thresholds of the data", metric, MODEL, row["model"])
            scores.add("QC thresholds of the data", metric, PUBLISHED, row["published_library"])
            scores.add("QC thresholds of the data", metric, "real cells", row["real_cells"])
    counts = np.bincount(data.condition[passing], minlength=len(data.conditions))
    measured = [name for name in conditions if counts[data.conditions.index(name)] >= 2]
    if measured and counts[0] >= 2:
        real, predicted = de_tests(model, data, passing, measured, seed=seed)
        scores.add("held-out passing cells", "de_overlap", MODEL, de_overlap(real, predicted))
        scores.add("held-out passing cells", "de_direction", MODEL, de_direction(real, predicted))


def _score_truth(
    scores: _Scores,
    model: TrainedModel,
    adata: Any,
    data: Experiment,
    rows: npt.NDArray[np.intp],
    *,
    seed: int,
) -> None:
    known = set(scored_conditions(model, data, rows)[0])
    usable = rows[[data.is_control[row] or data.conditions[data.condition[row]] in known for row in rows]]
    chosen = np.sort(np.random.default_rng(seed).permutation(usable)[:SCORED_CELLS])
    cells = adata[data.cells[chosen]]
    likelihood = log_likelihood(model, cells, seed=seed)
    scores.add("held-out cells", "iwelbo", MODEL, float(likelihood.mean()), note="nats per cell, 100 particles")
    states = [latents(model, cells, sample=True, seed=seed + draw).obsm for draw in range(LEAKAGE_DRAWS)]
    for name in ("z_basal", "z_perturbation"):
        drawn = np.stack([state[name] for state in states])
        scores.add("held-out cells", f"leakage_{name}", MODEL, leakage(drawn, data.failed[chosen], seed=seed))
    simulated = adata.uns.get("truth")
    if simulated is not None and "mask" in simulated:
        names = [str(name) for name in simulated["perturbations"]]
        inferred = mask_probabilities(model).reindex(names).fillna(0.0).to_numpy()
        scores.add("simulated truth", "mask_f1", MODEL, mask_f1(simulated["mask"], inferred))
    signature = artifact_signature(model, seed=seed)
    if len(model.criteria) == 1:
        agreement = signature_correlation(adata, model, signature["log2_fold_change"].to_numpy())
        if agreement is not None:
            scores.add("simulated truth", "signature_correlation", MODEL, agreement)
    true_counts = clean_counts(adata, data)
    damaged = usable[data.failed[usable]]
    if true_counts is not None and len(damaged):
        _score_clean(scores, model, adata, data, damaged, sp.csr_matrix(true_counts[damaged]), seed=seed)


def _score_clean(
    scores: _Scores,
    model: TrainedModel,
    adata: Any,
    data: Experiment,
    damaged: npt.NDArray[np.intp],
    true_counts: sp.csr_matrix,
    *,
    seed: int,
) -> None:
    cleaned = clean(model, adata[data.cells[damaged]], cells="failed", seed=seed)
    per_cell = {MODEL: poisson_deviance(true_counts, np.asarray(cleaned.X, dtype=np.float64))}
    train = model.split.rows(data.cells, "train")
    per_cell |= deviance_floors(data, train, damaged, true_counts)
    means = {name: float(values.mean()) for name, values in per_cell.items()}
    floor_value, best_floor = _best({name: value for name, value in means.items() if name != MODEL}, 0.0)
    for name, value in means.items():
        error = 1.96 * per_cell[name].std() / np.sqrt(len(damaged))
        scores.add(
            "held-out clean counts (truth)", "clean_deviance", name, value, low=value - error, high=value + error,
            floor=floor_value, best_floor=best_floor, note="Poisson deviance per failed cell; lower is better",
        )  # fmt: skip


def measured_effects_of(model: TrainedModel, adata: Any, *, reference: ReferenceCells = "held-out") -> Any:
    """Effects measured in the passing reference cells, as an AnnData: conditions × genes.

    Parameters
    ----------
    model
        A trained model.
    adata
        The experiment.
    reference
        As for :func:`evaluate`.
    """
    import anndata as ad

    data = read_experiment(adata, model.fields, genes=list(model.genes), perturbations=model.perturbations)
    rows = reference_rows(model, data, reference)
    answered, _ = scored_conditions(model, data, rows)
    found = _references(adata, data, rows, rows[~data.failed[rows]], answered, reference, truth=False, seed=0)[0]
    obs = pd.DataFrame(index=pd.Index(found.conditions, name="perturbation"))
    return ad.AnnData(X=found.effects, obs=obs, var=model.var.copy())

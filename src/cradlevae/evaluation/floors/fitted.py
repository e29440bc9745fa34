"""A floor after training: the moments that it is made of, and its answers to questions about effects and cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.experiment import DataFields, Experiment, read_experiment
from cradlevae.data.identity.fingerprint import cell_fingerprints
from cradlevae.data.identity.marks import made_by
from cradlevae.data.labels import CONTROL, Condition, context_of, in_context, singles_of
from cradlevae.data.moments import ConditionMoments, control_row, moderated_variance
from cradlevae.data.split import Split
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.generation import ControlCells
from cradlevae.evaluation.floors.levels import Levels
from cradlevae.evaluation.floors.registry import FLOORS, floor_effects, floor_errors
from cradlevae.evaluation.floors.training_moments import part_moments
from cradlevae.query.arguments import asked_names
from cradlevae.query.contrasts.expression import expression_table, gene_position
from cradlevae.query.effects_table import targets_of
from cradlevae.query.library_sizes import Batches, LibrarySize, chosen_sizes
from cradlevae.utils.checks import probability, seed_number, whole_number
from cradlevae.utils.names import listed
from cradlevae.utils.types import AnnDataLike, FloatArray, IndexArray, IntArray

CONTROLS = 2000
"""So many passing training controls are kept, to draw predicted cells from."""

CONTROLS_OF_STRATUM = 20
"""At least so many of every batch and context are kept, as far as there are."""


def fit_floor(name: str, data: Experiment, var: pd.DataFrame, fields: DataFields, split: Split) -> FittedFloor:
    """Measure the moments that a floor is made of.

    Parameters
    ----------
    name
        Name of the floor.
    data, var, fields
        The experiment, the annotation of its genes, and where its AnnData held labels and counts.
    split
        Which cells to learn from.

    Raises
    ------
    DataError
        If there are fewer than two passing training controls.
    """
    train = split.rows(data, "train")
    passing = train[~data.failed[train]]
    controls = passing[data.is_control[passing]]
    if len(controls) < 2:
        raise DataError(f"{len(controls)} passing training controls: effects need at least two; move some to train")
    chosen = _some_controls(controls, data)
    return FittedFloor(
        name=name,
        fields=fields,
        var=var,
        perturbations=data.perturbations,
        split=split,
        fingerprints=np.sort(cell_fingerprints(data.counts, list(data.genes), train)),
        train=part_moments(split, data, "train"),
        validation=part_moments(split, data, "val"),
        controls=ControlCells(sp.csr_matrix(data.counts[chosen]), tuple(factor.of(chosen) for factor in data.factors)),
        levels=Levels.of(fields, data.factors),
    )


def _some_controls(controls: IndexArray, data: Experiment) -> IndexArray:
    """Controls at random, some of every stratum among them, ascending."""
    shuffled = np.random.default_rng(0).permutation(controls)
    rank = pd.Series(data.strata[shuffled]).groupby(data.strata[shuffled]).cumcount().to_numpy()
    kept = (np.arange(len(shuffled)) < CONTROLS) | (rank < CONTROLS_OF_STRATUM)
    return np.sort(shuffled[kept])


@dataclass(frozen=True)
class FittedFloor:
    """A floor with the moments that it is made of: it answers with effects, and with cells made of real controls.

    It is a :class:`~cradlevae.evaluation.predictor.Predictor`; no latent model stands behind it.

    Attributes
    ----------
    name
        Name of the floor.
    fields
        Where the data held labels and counts.
    var
        Annotation of the genes.
    perturbations
        Single perturbations of the data.
    split
        Which cells the floor has seen.
    fingerprints
        Fingerprints of the training cells' counts, sorted.
    train, validation
        Moments of the passing training and validation cells.
    controls
        Passing training controls, which generated cells are made of.
    levels
        Batches, covariates and contexts of the data, by name.
    """

    name: str
    fields: DataFields
    var: pd.DataFrame
    perturbations: tuple[str, ...]
    split: Split
    fingerprints: IntArray
    train: ConditionMoments
    validation: ConditionMoments
    controls: ControlCells
    levels: Levels
    latent_model: None = field(default=None, init=False, repr=False)
    _known: dict[str, FloatArray] = field(default_factory=dict, repr=False)

    @property
    def genes(self) -> pd.Index[str]:
        """Names of the genes."""
        names: pd.Index[str] = self.var.index
        return names

    def read(self, cells: AnnDataLike | Experiment) -> Experiment:
        """The cells of an AnnData; :class:`DataError` if they do not fit. An experiment is given back as it is."""
        if isinstance(cells, Experiment):
            return cells
        return read_experiment(
            cells, self.fields, genes=list(self.genes), perturbations=self.perturbations, probes=self.split.probes,
            levels=self.levels.by_column,
        )  # fmt: skip

    def answerable(self, conditions: Sequence[str]) -> list[str]:
        """Those of some canonical conditions that the floor has an answer for."""
        self._answer(conditions)
        return [name for name in conditions if name == CONTROL or np.isfinite(self._known[name]).all()]

    def effects(
        self,
        perturbations: str | Sequence[str] | None = None,
        credible: float = 0.9,
        *,
        batch: str | None = None,
        context: str | None = None,
        seed: int = 0,
    ) -> Any:
        """Effect of each condition on each gene, on the scale of log2(1 + 1e4·x/Σx).

        Parameters
        ----------
        perturbations
            Conditions, e.g. ``["A+B", "C"]``; ``None`` for all with training cells that the floor can answer for.
        credible
            Probability of the intervals.
        batch
            A batch; a floor's effects are the same in every batch.
        context
            The context (cell line, donor) in which the effects are asked for; ``None`` averages over contexts, except
            for conditions that have one.
        seed
            A floor draws nothing: the effects are the same for every seed.

        Returns
        -------
        anndata.AnnData
            Conditions × genes: ``X`` the effect; where the floor knows its error, layers ``sd``, ``low``, ``high``
            (normal intervals) and ``lfsr``, the probability that the effect has not the sign of ``X`` (of a floor that
            does not shrink, the p-value of one side); ``obs["n_cells"]``, passing training cells.

        Raises
        ------
        DataError
            If the floor has no answer for a condition, or the batch or context is unknown.
        """
        import anndata as ad
        from scipy.special import ndtr

        credible = probability("credible", credible)
        self.levels.batch(batch)  # raises for one that is not known
        asked = self._asked(self._measured() if perturbations is None else perturbations, context)
        names = list(asked.values())
        value = np.stack([self._effect(name) for name in names])
        obs = pd.DataFrame({"n_cells": self._n_cells(names)}, index=pd.Index(list(asked), name="perturbation"))
        answer = ad.AnnData(X=value.astype(np.float32), obs=obs, var=self.var.copy())
        error = self._error(names)
        if error is not None:
            reach = NormalDist().inv_cdf((1 + credible) / 2) * error
            surety = np.divide(np.abs(value), error, out=np.zeros_like(value), where=error > 0)
            layers = {"sd": error, "low": value - reach, "high": value + reach, "lfsr": ndtr(-surety)}
            for layer, numbers in layers.items():
                answer.layers[layer] = numbers.astype(np.float32)
        answer.uns["effects"] = {"floor": self.name, "credible": credible}
        if context is not None:
            answer.uns["effects"]["context"] = context
        answer.uns["targets"] = targets_of(self.fields, self.var, asked)
        return answer

    def _measured(self) -> list[Condition]:
        """Conditions with training cells that the floor has an answer for, whatever their context."""
        cells = zip(self.train.names, self.train.n_cells, strict=True)
        names = list(dict.fromkeys(in_context(name, None) for name, n in cells if n > 0 and singles_of(name)))
        answered = set(self.answerable(names))
        return [name for name in names if name in answered]

    def _n_cells(self, conditions: Sequence[str]) -> list[int]:
        """Passing training cells of conditions, of all contexts where they have none."""
        cells = list(zip(self.train.names, self.train.n_cells.tolist(), strict=True))
        return [sum(n for name, n in cells if condition in (name, in_context(name, None))) for condition in conditions]

    def expression(
        self, gene: str, perturbations: str | Sequence[str] | None = None, credible: float = 0.9
    ) -> pd.DataFrame:
        """Expected expression of a gene: the mean of passing training controls, and that plus each effect.

        Parameters
        ----------
        gene
            Name of the gene, or its symbol where the data name a column of symbols.
        perturbations
            Conditions; ``None`` for all with training cells that the floor can answer for.
        credible
            Probability of the intervals, which are those of the effects; missing where the floor knows no error.

        Returns
        -------
        pandas.DataFrame
            By perturbation, the control first: ``expression``, ``low``, ``high`` (log2 units), and ``n_cells``.

        Raises
        ------
        DataError
            If the gene is unknown, or the floor has no answer for a condition.
        """
        place = gene_position(gene, self.var, self.fields.gene_symbols)
        base = control_row(self.train)
        control = float(self.train.mean[base, place])
        error = float(np.sqrt(moderated_variance(self.train)[base, place] / self.train.n_cells[base]))
        asked = self._asked(self._measured() if perturbations is None else perturbations, None)
        treated = self.effects(list(asked), credible)[[condition != CONTROL for condition in asked.values()]]
        sd = treated.layers["sd"][:, place] if "sd" in treated.layers else np.full(treated.n_obs, np.nan)
        rows = [(control, error), *zip(control + np.asarray(treated.X)[:, place], sd, strict=True)]
        cells = [int(self.train.n_cells[base]), *treated.obs["n_cells"]]
        return expression_table(gene, [CONTROL, *treated.obs_names], np.array(rows), cells, credible)

    def predict(
        self,
        perturbations: str | Sequence[str],
        n_cells: int = 500,
        *,
        library_size: LibrarySize = "controls",
        batch: Batches | None = None,
        context: str | None = None,
        seed: int = 0,
    ) -> Any:
        """Generate cells: real passing training controls, drawn at random, whose genes are moved by the effect.

        Each gene's counts are multiplied by the factor that moves the controls' mean of log2(1 + 1e4·x/Σx) by the
        effect, as far as one can (a gene without counts stays without), brought to the library size and drawn anew
        from a Poisson distribution. This adds counting noise to that of the real cells, to the predicted controls as
        well as to the treated cells.

        Parameters
        ----------
        perturbations
            Conditions; ``"control"`` too.
        n_cells
            Cells for each.
        library_size
            Total count that each cell is expected to have: a number, ``"controls"`` for that of the real control, or
            sizes to draw from by condition.
        batch
            Batch of the real controls that cells are made of, or batches of cells by condition, one for each library
            size that is given in the same way; where a batch has no training controls, those of the others stand in.
            ``None`` draws from all.
        context
            Context of the real controls and of the effects; ``None`` draws from all, except for conditions that have
            one.
        seed
            Seed of the draws.

        Returns
        -------
        anndata.AnnData
            Counts (CSR) with ``obs``: ``perturbation``, ``artifact``, ``library_size``, and the batch where it is
            given, in the column of the data.

        Raises
        ------
        DataError
            If the floor has no answer for a condition, or a batch or context is unknown.
        """
        import anndata as ad

        n_cells, seed = whole_number("n_cells", n_cells, 1), seed_number(seed)
        asked = self._asked(perturbations, context)
        names = list(asked.values())
        wanted = chosen_sizes(library_size, names, self.fields, n_cells, seed)
        batches = self.levels.of_cells(batch, names, n_cells, seed)
        contexts = [context_of(name) or self.levels.context(context) for name in names]
        effects = np.stack([self._effect(name) for name in names])
        counts, sizes = self.controls.moved(names, effects, n_cells, wanted, seed, batches, contexts)
        obs = pd.DataFrame(
            {
                "perturbation": pd.Categorical(np.repeat(np.array(list(asked), dtype=object), n_cells)),
                "artifact": False,
                "library_size": sizes.astype(np.float32),
            },
            index=[f"predicted{i}" for i in range(n_cells * len(names))],
        )
        if batches is not None:
            key = str(self.fields.batch_key)
            obs[key] = pd.Categorical(np.concatenate(batches), categories=list(self.levels.by_column[key]))
        return ad.AnnData(counts, obs=obs, var=self.var.copy(), uns=made_by("predict"))

    def _asked(self, perturbations: str | Sequence[str], context: str | None) -> dict[str, Condition]:
        """Canonical conditions by what was written; :class:`DataError` if there is no answer for one."""
        known = {single for name in self.train.names for single in singles_of(name)}
        asked = self.levels.in_context(asked_names(self.fields, perturbations, known), context)
        unanswered = sorted(set(asked.values()) - set(self.answerable(list(asked.values()))))
        if unanswered:
            raise DataError(
                f"the floor {self.name!r} ({FLOORS[self.name].description}) has no answer for {listed(unanswered)}: "
                "the training cells that it needs are absent"
            )
        return asked

    def _answer(self, conditions: Sequence[str]) -> None:
        """Ask the floor for what it has not been asked yet."""
        new = [name for name in dict.fromkeys(conditions) if name != CONTROL and name not in self._known]
        if new:
            answers = floor_effects(self.name, self.train, self.validation, new)
            self._known.update(zip(new, answers, strict=True))

    def _effect(self, condition: str) -> FloatArray:
        return np.zeros(len(self.var)) if condition == CONTROL else self._known[condition]

    def _error(self, names: Sequence[str]) -> FloatArray | None:
        """Standard error of the effects, 0 for the control; ``None`` where the floor does not know it."""
        treated = [name for name in names if name != CONTROL]
        found = floor_errors(self.name, self.train, self.validation, treated)
        if found is None:
            return None
        errors = dict(zip(treated, found, strict=True))
        return np.stack([errors.get(name, np.zeros(len(self.var))) for name in names])

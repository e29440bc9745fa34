"""Floors in the form of models: what a line of algebra predicts, with the questions and answers of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.experiment import DataFields, Experiment, read_experiment
from cradlevae.data.fingerprint import cell_fingerprints
from cradlevae.data.labels import CONTROL, closest, listed, singles_of
from cradlevae.data.moments import ConditionMoments
from cradlevae.data.split import Split
from cradlevae.data.split import split as make_split
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.registry import FLOORS, floor_effects
from cradlevae.evaluation.floors.training_moments import part_moments
from cradlevae.query.library import LibrarySize, chosen_sizes
from cradlevae.query.states import canonical_names, check_credible
from cradlevae.utils.checks import check_at_least
from cradlevae.utils.constants import TARGET_SUM
from cradlevae.utils.types import AnnDataLike, FloatArray, IntArray

CONTROLS = 2000
"""At most so many passing training controls are kept, to draw predicted cells from."""

FACTORS = np.concatenate([[0.0], 2.0 ** np.arange(-8, 8.5, 0.5)])
"""Factors on a gene's counts at which its mean expression is tabulated."""


class FloorModel:
    """A floor with the questions and answers of a model.

    Parameters
    ----------
    name
        A name in :data:`cradlevae.evaluation.floors.registry.FLOORS`, e.g. ``"shrunk_mean"``.
    adata
        Raw counts, perturbation labels and an artifact column, as for :class:`cradlevae.CradleVAE`.
    split
        Which cells to learn from, from :func:`cradlevae.split`; ``None`` splits 64/16/20 by cell, seed 0.
    **fields
        Fields of :class:`cradlevae.DataFields`, e.g. ``perturbation_key="gene"``.

    Raises
    ------
    DataError
        If the floor is unknown or the data do not fit.

    Examples
    --------
    >>> floor = cv.FloorModel("additive", adata, split=split)
    >>> floor.train()
    >>> cv.evaluate(floor, adata)
    """

    def __init__(self, name: str, adata: AnnDataLike, split: Split | None = None, **fields: Any) -> None:
        if name not in FLOORS:
            raise DataError(f"unknown floor {name!r}{closest(name, list(FLOORS))}")
        self.name = name
        self._fields = DataFields(**fields)
        self._data = read_experiment(adata, self._fields)
        self._var = adata.var.copy()
        self.split = make_split(adata, "cells", fields=self._fields) if split is None else split
        self._fitted: FittedFloor | None = None

    def train(self) -> None:
        """Measure the passing training (and, where the floor looks at them, validation) cells; takes a moment.

        Raises
        ------
        DataError
            If there are no two passing training controls.
        """
        self._fitted = fit_floor(self.name, self._data, self._var, self._fields, self.split)

    @property
    def trained(self) -> FittedFloor:
        """What it learned; :class:`DataError` before :meth:`train`."""
        if self._fitted is None:
            raise DataError(f"the floor {self.name!r} has not been trained; call train() first")
        return self._fitted

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Conditions of the data that it can answer for."""
        return tuple(self.trained.answerable(self._data.conditions[1:]))

    def effects(self, perturbations: str | Sequence[str], credible: float = 0.9) -> Any:
        """Effects; see :meth:`FittedFloor.effects`."""
        return self.trained.effects(perturbations, credible)

    def predict(self, perturbations: str | Sequence[str], n_cells: int = 500, **options: Any) -> Any:
        """Cells; see :meth:`FittedFloor.predict`."""
        return self.trained.predict(perturbations, n_cells, **options)

    def __repr__(self) -> str:
        state = "not trained" if self._fitted is None else "trained"
        return f"FloorModel({self.name!r}, {self._data.n_genes:,} genes; {state})"


def fit_floor(name: str, data: Experiment, var: pd.DataFrame, fields: DataFields, split: Split) -> FittedFloor:
    """Measure what a floor is made of."""
    train = split.rows(data.cells, "train")
    passing = train[~data.failed[train]]
    controls = passing[data.is_control[passing]]
    if len(controls) < 2:
        raise DataError(f"{len(controls)} passing training controls: effects need at least two; move some to train")
    chosen = np.sort(np.random.default_rng(0).permutation(controls)[:CONTROLS])
    return FittedFloor(
        name=name,
        fields=fields,
        var=var,
        perturbations=data.perturbations,
        split=split,
        fingerprints=np.sort(cell_fingerprints(data.counts, list(data.genes), train)),
        train=part_moments(split, data, "train"),
        validation=part_moments(split, data, "val"),
        controls=sp.csr_matrix(data.counts[chosen]),
    )


@dataclass(frozen=True)
class FittedFloor:
    """A floor with the moments that it is made of.

    Attributes
    ----------
    name
        Of the floor.
    fields
        Where the data held labels and counts.
    var
        Genes.
    perturbations
        Single perturbations of the data.
    split
        Which cells it has seen.
    fingerprints
        Of the training cells' counts, sorted.
    train, validation
        Moments of their passing cells.
    controls
        Counts of passing training controls, (cells, genes).
    """

    name: str
    fields: DataFields
    var: pd.DataFrame
    perturbations: tuple[str, ...]
    split: Split
    fingerprints: IntArray
    train: ConditionMoments
    validation: ConditionMoments
    controls: sp.csr_matrix
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
        return read_experiment(cells, self.fields, genes=list(self.genes), perturbations=self.perturbations)

    def answerable(self, conditions: Sequence[str]) -> list[str]:
        """Those of some canonical conditions that the floor has an answer for."""
        self._answer(conditions)
        return [name for name in conditions if name == CONTROL or np.isfinite(self._known[name]).all()]

    def effects(self, perturbations: str | Sequence[str], credible: float = 0.9) -> Any:
        """Effect of each condition on each gene, on the scale of log2(1 + 1e4·x/Σx).

        Parameters
        ----------
        perturbations
            Conditions, e.g. ``["A+B", "C"]``.
        credible
            Probability of the intervals.

        Returns
        -------
        anndata.AnnData
            Conditions × genes: ``X`` the effect; where the floor knows its error, layers ``sd``, ``low`` and ``high``
            (normal intervals).

        Raises
        ------
        DataError
            If the floor has no answer for a condition.
        """
        import anndata as ad

        check_credible(credible)
        names = self._conditions(perturbations)
        value = np.stack([self._effect(name) for name in names])
        obs = pd.DataFrame(index=pd.Index(names, name="perturbation"))
        found = ad.AnnData(X=value.astype(np.float32), obs=obs, var=self.var.copy())
        error = self._error(names)
        if error is not None:
            reach = NormalDist().inv_cdf((1 + credible) / 2) * error
            for layer, numbers in (("sd", error), ("low", value - reach), ("high", value + reach)):
                found.layers[layer] = numbers.astype(np.float32)
        found.uns["effects"] = {"floor": self.name, "credible": credible}
        return found

    def predict(
        self,
        perturbations: str | Sequence[str],
        n_cells: int = 500,
        *,
        library_size: LibrarySize = "controls",
        seed: int = 0,
    ) -> Any:
        """Cells: real passing training controls, drawn at random, whose genes are moved by the effect.

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
        seed
            Seed of the draws.

        Returns
        -------
        anndata.AnnData
            Counts (CSR) with ``obs``: ``perturbation``, ``artifact``, ``library_size``.

        Raises
        ------
        DataError
            If the floor has no answer for a condition.
        """
        import anndata as ad

        names = self._conditions(perturbations)
        check_at_least(1, n_cells=n_cells)
        check_at_least(0, seed=seed)
        wanted = chosen_sizes(library_size, names, self.fields, n_cells, seed)
        factors = self._factors(np.stack([self._effect(name) for name in names]))
        rng = np.random.default_rng(seed)
        blocks, sizes = [], []
        for row, factor in enumerate(factors):
            chosen = self.controls[rng.integers(self.controls.shape[0], size=n_cells)]
            library = np.asarray(chosen.sum(axis=1)).ravel() if wanted is None else wanted[row]
            rate = sp.csr_matrix(chosen.multiply(factor), dtype=np.float64)
            total = np.asarray(rate.sum(axis=1)).ravel()
            scale = np.divide(library, total, out=np.zeros_like(total), where=total > 0)
            rate.data = rng.poisson(rate.data * np.repeat(scale, np.diff(rate.indptr))).astype(np.float32)
            rate.eliminate_zeros()
            blocks.append(rate)
            sizes.append(library)
        obs = pd.DataFrame(
            {
                "perturbation": pd.Categorical(np.repeat(np.array(names, dtype=object), n_cells)),
                "artifact": False,
                "library_size": np.concatenate(sizes).astype(np.float32),
            },
            index=[f"predicted{i}" for i in range(n_cells * len(names))],
        )
        counts = sp.csr_matrix(sp.vstack(blocks, format="csr"), dtype=np.float32)
        return ad.AnnData(counts, obs=obs, var=self.var.copy())

    def _conditions(self, perturbations: str | Sequence[str]) -> tuple[str, ...]:
        """Canonical names; :class:`DataError` if there is no answer for one."""
        known = {single for name in self.train.names for single in singles_of(name)}
        names = canonical_names(self.fields, perturbations, known)
        unanswered = sorted(set(names) - set(self.answerable(names)))
        if unanswered:
            raise DataError(
                f"the floor {self.name!r} ({FLOORS[self.name].description}) has no answer for {listed(unanswered)}: "
                "the training cells that it needs are absent"
            )
        return names

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
        function = FLOORS[self.name].error
        treated = [name for name in names if name != CONTROL]
        if function is None:
            return None
        found = dict(zip(treated, function(self.train, self.validation, treated), strict=True)) if treated else {}
        return np.stack([found.get(name, np.zeros(len(self.var))) for name in names])

    def _factors(self, effects: FloatArray) -> FloatArray:
        """Factor on each gene's counts that moves its mean expression by the effect, (conditions, genes)."""
        factors = np.ones_like(effects)
        curve = self._curve
        unmoved = curve[int(np.flatnonzero(FACTORS == 1.0)[0])]
        for gene in np.flatnonzero(curve[-1] > 0):
            factors[:, gene] = np.interp(unmoved[gene] + effects[:, gene], curve[:, gene], FACTORS)
        return np.where(effects == 0, 1.0, factors)

    @cached_property
    def _curve(self) -> FloatArray:
        """Mean of log2(1 + 1e4·x'/Σx) over the controls, x' ~ Poisson(factor · x), (factors, genes); it rises."""
        rng = np.random.default_rng(0)
        library = np.asarray(self.controls.sum(axis=1), dtype=np.float64).ravel()
        scale = np.repeat(TARGET_SUM / library, np.diff(self.controls.indptr))
        drawn = np.zeros(self.controls.nnz)
        curve = np.zeros((len(FACTORS), self.controls.shape[1]))
        for row, step in enumerate(np.diff(FACTORS), start=1):  # a Poisson count grows by Poisson counts
            drawn += rng.poisson(step * self.controls.data)
            curve[row] = np.bincount(self.controls.indices, np.log2(1 + scale * drawn), minlength=curve.shape[1])
        return curve / len(library)

"""Floors in the user's hands: a class that reads an experiment, measures a floor and answers like a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cradlevae.data.experiment import read_experiment
from cradlevae.data.fields import fields_of
from cradlevae.data.identity.known_cells import adopt_split
from cradlevae.data.identity.marks import warn_if_made
from cradlevae.data.split import Split, check_contexts, check_is_split
from cradlevae.data.split import split as make_split
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.fitted import FittedFloor, fit_floor
from cradlevae.evaluation.floors.registry import FLOORS
from cradlevae.model.training.content import content_in_memory, refuse_changed, training_content
from cradlevae.query.library_sizes import Batches, LibrarySize
from cradlevae.utils.docs import documented_by
from cradlevae.utils.html import summary_html
from cradlevae.utils.names import closest
from cradlevae.utils.types import AnnDataLike, IndexArray


class FloorModel:
    """A floor that is trained, asked and scored like a model.

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
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=50, n_perturbations=3, n_combinations=0, n_latent=3)
    >>> adata.obs["artifact"] = adata.obs["true_artifact"]
    >>> floor = cv.FloorModel("shrunk_mean", adata, split=cv.split(adata))
    >>> floor.train()
    >>> floor.effects(["A", "B"]).shape
    (2, 50)
    >>> floor.predict("A", n_cells=20, library_size=1000).n_obs
    20
    >>> scores = cv.evaluate(floor, adata, n_cells=20)
    >>> "ate_rho" in set(scores["metric"])
    True
    """

    def __init__(self, name: str, adata: AnnDataLike, split: Split | None = None, **fields: Any) -> None:
        if not isinstance(name, str) or name not in FLOORS:
            raise DataError(f"unknown floor {name!r}{closest(str(name), list(FLOORS))}")
        self.name = str(name)
        self._fields = fields_of(None, fields)
        if split is not None:
            check_is_split(split)
            check_contexts(split, self._fields)
        warn_if_made(adata, "FloorModel")
        self._data = read_experiment(adata, self._fields, probes=() if split is None else split.probes)
        self._var = adata.var.copy()
        self._check_contexts()
        if split is None:
            self.split = make_split(adata, "cells", fields=self._fields)
        else:
            self.split = adopt_split(split, adata, self._data, self._fields)
        self._content = content_in_memory(self._data, self._rows())
        self._fitted: FittedFloor | None = None

    def _check_contexts(self) -> None:
        """Raise :class:`DataError` for a floor that looks at other contexts where there are none."""
        context = self._data.context
        if FLOORS[self.name].needs_contexts and self._data.varied_by("context") is None:
            raise DataError(
                f"the floor {self.name!r} looks at other contexts, but the data have "
                + ("none; name their column with context_key=" if context is None else f"one, obs[{context.key!r}]")
            )

    def _rows(self) -> dict[str, IndexArray]:
        """Cells that the floor is made of."""
        return {part: self.split.rows(self._data, part) for part in ("train", "val")}

    def train(self) -> None:
        """Measure the passing training (and, where the floor looks at them, validation) cells; takes a moment.

        Raises
        ------
        DataError
            If there are no two passing training controls, or the counts were changed in place after they were read.
        """
        if self._content is not None:
            refuse_changed(self._content, training_content(self._data, self._rows()))
        self._fitted = fit_floor(self.name, self._data, self._var, self._fields, self.split)

    @property
    def trained(self) -> FittedFloor:
        """The floor with the moments that it has measured; :class:`DataError` before :meth:`train`."""
        if self._fitted is None:
            raise DataError(f"the floor {self.name!r} has not been trained; call train() first")
        return self._fitted

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Conditions of the data that the floor can answer for."""
        return tuple(self.trained.answerable(self._data.conditions[1:]))

    @documented_by(FittedFloor.effects)
    def effects(
        self,
        perturbations: str | Sequence[str] | None = None,
        credible: float = 0.9,
        *,
        batch: str | None = None,
        context: str | None = None,
    ) -> Any:
        """Effect of each condition on each gene, on the scale of log2(1 + 1e4·x/Σx)."""
        return self.trained.effects(perturbations, credible, batch=batch, context=context)

    @documented_by(FittedFloor.expression)
    def expression(
        self, gene: str, perturbations: str | Sequence[str] | None = None, credible: float = 0.9
    ) -> pd.DataFrame:
        """Expected expression of a gene: the mean of passing training controls, and that plus each effect."""
        return self.trained.expression(gene, perturbations, credible)

    def contrast(self, first: str, second: str) -> Any:
        """A floor cannot answer: it answers for conditions one by one, without what their errors have in common.

        Parameters
        ----------
        first, second
            The conditions.

        Raises
        ------
        DataError
            Always.
        """
        raise DataError(
            f"the floor {self.name!r} has no joint posterior of two conditions (first, second), so it cannot tell a "
            "contrast with its intervals; a CradleVAE can"
        )

    def interactions(self, pairs: str | Sequence[str] | None = None) -> Any:
        """A floor cannot answer, for the reason that :meth:`contrast` gives.

        Parameters
        ----------
        pairs
            The pairs.

        Raises
        ------
        DataError
            Always.
        """
        raise DataError(
            f"the floor {self.name!r} has no joint posterior of pairs and their single perturbations, so it cannot "
            "tell interactions with their intervals; a CradleVAE can"
        )

    @documented_by(FittedFloor.predict)
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
        """Generate cells: real passing training controls, drawn at random, whose genes are moved by the effect."""
        return self.trained.predict(
            perturbations, n_cells, library_size=library_size, batch=batch, context=context, seed=seed
        )

    def __repr__(self) -> str:
        state = "not trained" if self._fitted is None else "trained"
        return f"FloorModel({self.name!r}, {self._data.n_genes:,} genes; {state})"

    def _repr_html_(self) -> str:
        rows = {
            "floor": f"{self.name}: {FLOORS[self.name].description}",
            "genes": f"{self._data.n_genes:,}",
            "split": repr(self.split),
            "state": "not trained" if self._fitted is None else "trained",
        }
        return summary_html("FloorModel", rows)

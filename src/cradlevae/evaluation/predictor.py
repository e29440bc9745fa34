"""What the evaluation asks of whatever it scores: a trained model of the family, a floor, or a predictor of your own.

The scorers see a :class:`Predictor` only. A floor is one as it is; :func:`as_predictor` makes one of a trained model,
whose answers are functions of :mod:`cradlevae.query`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

from cradlevae.data.experiment import DataFields, Experiment
from cradlevae.data.split import Split
from cradlevae.model.trained import TrainedModel
from cradlevae.query.effects import effects
from cradlevae.query.library_sizes import Batches, LibrarySize
from cradlevae.query.predict import predict
from cradlevae.utils.types import AnnDataLike, IntArray


class Learner(Protocol):
    """What has learned from some cells of an experiment, and knows which: a trained model or a floor."""

    @property
    def split(self) -> Split:
        """Which cells it was trained on."""

    @property
    def fingerprints(self) -> IntArray:
        """Fingerprints of the training cells' counts, sorted, (cells,)."""

    @property
    def var(self) -> pd.DataFrame:
        """Annotation of the genes, a row per gene."""

    @property
    def genes(self) -> pd.Index[str]:
        """Names of the genes."""

    def read(self, cells: AnnDataLike | Experiment) -> Experiment:
        """Read and check the cells of an AnnData; an experiment that has been read is given back as it is."""

    def answerable(self, conditions: Sequence[str]) -> list[str]:
        """Those of some canonical conditions that it can predict."""


class Predictor(Learner, Protocol):
    """A learner that predicts effects and cells of conditions."""

    @property
    def latent_model(self) -> TrainedModel | None:
        """The trained model behind it; ``None`` for one without latent states, likelihood and published protocol."""

    def effects(self, perturbations: Sequence[str], credible: float = 0.9, *, seed: int = 0) -> Any:
        """Effects of conditions, an AnnData, conditions × genes; each is a Condition and may be one of a context.

        Only effects with the layers ``sd``, ``mc_error``, ``low`` and ``high`` are scored for calibration;
        ``uns["effects"]["credible"]`` is the probability of the intervals.
        """

    def predict(
        self,
        perturbations: Sequence[str],
        n_cells: int = 500,
        *,
        library_size: LibrarySize = "controls",
        batch: Batches | None = None,
        context: str | None = None,
        seed: int = 0,
    ) -> Any:
        """Artifact-free cells of conditions, an AnnData of counts, ``n_cells`` for each condition in turn.

        ``batch`` and ``context`` are given only where the data have several: a batch, or batches of cells by condition
        (one for each library size of ``library_size``, that of the same cell), and the context of controls. With
        ``batch``, ``obs`` holds the batch of each cell, in the column of the data.
        """


@dataclass(frozen=True)
class ModelPredictor:
    """A trained model as a predictor.

    Attributes
    ----------
    latent_model
        The model.
    """

    latent_model: TrainedModel

    @property
    def split(self) -> Split:
        """Which cells the model was trained on."""
        return self.latent_model.split

    @property
    def fingerprints(self) -> IntArray:
        """Fingerprints of the training cells' counts, sorted."""
        return self.latent_model.fingerprints

    @property
    def var(self) -> pd.DataFrame:
        """Annotation of the genes."""
        return self.latent_model.var

    @property
    def genes(self) -> pd.Index[str]:
        """Names of the genes."""
        return self.latent_model.genes

    @property
    def fields(self) -> DataFields:
        """Where the training data hold what the model needs."""
        return self.latent_model.fields

    def read(self, cells: AnnDataLike | Experiment) -> Experiment:
        """The cells as the model takes them; see :meth:`cradlevae.model.trained.TrainedModel.read`."""
        return self.latent_model.read(cells)

    def answerable(self, conditions: Sequence[str]) -> list[str]:
        """Conditions whose treatments all had training cells."""
        return self.latent_model.answerable(conditions)

    def effects(self, perturbations: Sequence[str], credible: float = 0.9, *, seed: int = 0) -> Any:
        """Effects with credible intervals; see :func:`cradlevae.query.effects.effects`."""
        return effects(self.latent_model, perturbations, credible=credible, seed=seed)

    def predict(
        self,
        perturbations: Sequence[str],
        n_cells: int = 500,
        *,
        library_size: LibrarySize = "controls",
        batch: Batches | None = None,
        context: str | None = None,
        seed: int = 0,
    ) -> Any:
        """Cells with the artifact off; see :func:`cradlevae.query.predict.predict`."""
        chosen: dict[str, Any] = {"batch": batch, "context": context}
        options = {name: value for name, value in chosen.items() if value is not None}
        return predict(
            self.latent_model, perturbations, n_cells=n_cells, library_size=library_size, seed=seed, **options
        )


def symbols_of_genes(predictor: Learner) -> list[str] | None:
    """Symbols of a learner's genes, where its data name a column of them (:class:`cradlevae.DataFields`).

    A learner of your own has them if it has ``fields``.
    """
    fields = getattr(predictor, "fields", None)
    column = None if fields is None else fields.gene_symbols
    return None if column is None or column not in predictor.var else [str(name) for name in predictor.var[column]]


def as_predictor(model: TrainedModel | Predictor) -> Predictor:
    """The predictor that answers for a trained model; a predictor is given back as it is."""
    return ModelPredictor(model) if isinstance(model, TrainedModel) else model

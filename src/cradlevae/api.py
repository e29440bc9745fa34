"""What users hold: an experiment, the model trained on it, and every question it answers; a class for each model.

The classes differ in the member of the family that they declare (:mod:`cradlevae.model.family`), in nothing else.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd

from cradlevae.data.experiment import DataFields, Experiment, read_experiment
from cradlevae.data.labels import DEFAULT_CONTROLS, closest, listed
from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.data.split import Split
from cradlevae.data.storage.stored_matrix import StoredMatrix, row_blocks
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig, TrainConfig
from cradlevae.model.family import CONDITIONAL_VAE, CPA_VAE, CRADLE_VAE, SAMS_VAE, SVAE_PLUS, ModelDeclaration
from cradlevae.model.store import MODEL_FILE, load_model, save_model
from cradlevae.model.trained import TrainedModel, as_treated, new_model, training_rows, with_banks
from cradlevae.model.training.fit import fit
from cradlevae.model.training.residual import with_residual
from cradlevae.model.training.trainer import CHECKPOINTS
from cradlevae.query import counterfactual, effects, latents, predict, signature
from cradlevae.query.library import LibrarySize
from cradlevae.query.states import Basal
from cradlevae.utils.types import AnnDataLike, IndexArray

if TYPE_CHECKING:
    import anndata as ad

    from cradlevae.evaluation.floors.model import FloorModel


CLASSES: dict[str, type[PerturbationVAE]] = {}
"""The class of every model of the family, by its key."""


class PerturbationVAE:
    """A model of the family for an AnnData of Perturb-seq counts; :class:`CradleVAE` and its siblings.

    A subclass is a member of the family: ``class MyVAE(PerturbationVAE): declaration =
    register(ModelDeclaration(...))``.

    Parameters
    ----------
    adata
        Raw counts, perturbation labels and an artifact column: an AnnData in memory or backed, or what
        :func:`cradlevae.open_cells` gives. Counts on disk stay there.
    perturbation_key
        Column of ``obs`` with the perturbation labels (``control``, ``A``, ``A+B``).
    artifact_key
        Boolean column of ``obs``, true for cells that failed QC; or several, one per criterion.
    split
        Which cells to train on, from :func:`cradlevae.split`; ``None`` splits 64/16/20 by cell, seed 0.
    layer
        Layer with the raw counts; ``None`` reads ``X``.
    control_labels
        Labels of unperturbed cells.
    separator
        Text between the single perturbations of a combination in a label; ``None`` where there are no combinations.
    guides_key
        Key of ``obsm`` with a guide-count matrix, read instead of labels.
    guide_min_count
        Counts from which a guide RNA is taken as present.
    seed
        Seed of the weights.
    **config
        Fields of :class:`cradlevae.ModelConfig`, e.g. ``n_latent=50``, ``train_on="passing"``.

    Raises
    ------
    DataError
        If the data do not fit; the message says what, where and how to mend it.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(seed=0)
    >>> report = cv.annotate_qc(adata)
    >>> model = cv.CradleVAE(adata, split=cv.split(adata, "combinations"))
    >>> model.train(max_epochs=50)
    >>> model.predict(["A+B"], n_cells=100)
    """

    declaration: ClassVar[ModelDeclaration]
    """What the model declares."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        CLASSES[cls.declaration.key] = cls

    def __init__(
        self,
        adata: AnnDataLike,
        perturbation_key: str = "perturbation",
        artifact_key: str | Sequence[str] = "artifact",
        split: Split | None = None,
        *,
        layer: str | None = None,
        control_labels: str | Sequence[str] = DEFAULT_CONTROLS,
        separator: str | None = "+",
        guides_key: str | None = None,
        guide_min_count: float = 1.0,
        seed: int = 0,
        **config: Any,
    ) -> None:
        fields = DataFields(
            perturbation_key=perturbation_key,
            artifact_key=artifact_key if isinstance(artifact_key, str) else tuple(artifact_key),
            layer=layer,
            control_labels=(control_labels,) if isinstance(control_labels, str) else tuple(control_labels),
            separator=separator,
            guides_key=guides_key,
            guide_min_count=guide_min_count,
        )
        model_config = _config({"model": self.declaration.key, **config})
        if model_config.declaration is not self.declaration:
            raise DataError(
                f"model={model_config.model!r} is not a {self.declaration.name}; use {model_config.declaration.name}"
            )
        if model_config.objective == "released" and len(fields.criteria) > 1:
            raise DataError(
                f"objective='released' knows one artifact class, but artifact_key names {len(fields.criteria)}; "
                "give one column, or use objective='corrected'"
            )
        data = as_treated(read_experiment(adata, fields), self.declaration)
        if split is None:
            from cradlevae.data.split import split as make_split

            split = make_split(adata, "cells", fields=fields)
        _check_split(data, split, model_config)
        self.data: Experiment | None = data
        self.trained = new_model(
            data, adata.var.copy(), fields, split, model_config, qc=adata.uns.get(QC_KEY), seed=seed
        )

    # -- training and files ------------------------------------------------------------------------------------

    def train(
        self, max_epochs: int | None = None, *, output: str | Path | None = None, resume: bool = False, **config: Any
    ) -> None:
        """Train; the weights of the best epoch (by validation loss) are kept.

        Called again, it goes on from these weights with a fresh optimiser.

        Parameters
        ----------
        max_epochs
            At most so many passes over the training cells; by default as many as make 6,000 steps (30 to 200).
        output
            Folder for checkpoints and the CSV log; ``None`` keeps none after training.
        resume
            Go on from the last checkpoint in ``output`` where there is one, after a kill for instance.
        **config
            Fields of :class:`cradlevae.TrainConfig`, e.g. ``batch_size=256``, ``accelerator="gpu"``.

        Raises
        ------
        DataError
            If ``output`` already holds a run and ``resume`` is not set, or cannot be written.
        TrainingError
            If the loss turns non-finite.
        """
        if self.data is None:
            raise DataError(
                f"this model was loaded without data; make a new {self.declaration.name}(adata, ...) to train"
            )
        settings = train_config({"max_epochs": max_epochs, **config})
        folder = None if output is None else Path(output)
        if folder is not None and not resume:
            refuse_existing_run(folder)
        split = self.trained.split
        rows = {part: training_rows(self.data, split, self.trained.config, part) for part in ("train", "val")}
        _refuse_changed(self.data)
        record = {
            "split_hash": split.hash,
            "training_cells": hashlib.sha256(self.trained.fingerprints.tobytes()).hexdigest(),
            "model": asdict(self.trained.config),
            "on_disk": isinstance(self.data.counts, StoredMatrix),  # the cells then come in another order
        }
        history = fit(self.trained.module, self.data, rows, settings, output=folder, resume=resume, record=record)
        self.trained = with_residual(with_banks(replace(self.trained, history=history), self.data), self.data)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the trained model into a folder; see :meth:`load`.

        Raises
        ------
        DataError
            If the folder already holds a model and ``overwrite`` is not set, or is not writable.
        """
        save_model(self.trained, folder, overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a model written by :meth:`save`; nothing that the files contain is executed.

        Raises
        ------
        DataError
            If the folder holds no model, a damaged one or another model of the family.
        """
        trained = load_model(folder)
        if trained.declaration is not cls.declaration:
            raise DataError(
                f"{folder} holds a {trained.declaration.name}, not a {cls.declaration.name}; load it with "
                f"{trained.declaration.name}.load, or cradlevae.load"
            )
        return cls._of(trained)

    @classmethod
    def _of(cls, trained: TrainedModel) -> Self:
        model = cls.__new__(cls)
        model.data = None
        model.trained = trained
        return model

    # -- questions ---------------------------------------------------------------------------------------------

    def predict(
        self,
        perturbations: str | Sequence[str],
        n_cells: int = 500,
        *,
        artifact: bool | str | Sequence[str] = False,
        library_size: LibrarySize = "controls",
        basal: Basal = "controls",
        seed: int = 0,
        output: str | Path | None = None,
    ) -> ad.AnnData:
        """Counts for any combination of known perturbations; see :func:`cradlevae.query.predict.predict`."""
        return predict.predict(
            self.trained, perturbations, n_cells=n_cells, artifact=artifact, library_size=library_size,
            basal=basal, seed=seed, output=output,
        )  # fmt: skip

    def effects(self, perturbations: str | Sequence[str], credible: float = 0.9, **options: Any) -> ad.AnnData:
        """Effects with credible intervals; options as in :func:`cradlevae.query.effects.effects`."""
        return effects.effects(self.trained, perturbations, credible=credible, **options)

    def published_effects(self, perturbations: str | Sequence[str], **options: Any) -> ad.AnnData:
        """Effects as the released evaluation takes them; see :func:`cradlevae.query.effects.published_effects`."""
        return effects.published_effects(self.trained, perturbations, **options)

    def clean(self, adata: AnnDataLike, cells: Literal["all", "failed"] = "all", **options: Any) -> ad.AnnData:
        """The artifact-free twin of each cell; options as in :func:`cradlevae.query.counterfactual.clean`."""
        return counterfactual.clean(self.trained, adata, cells=cells, **options)

    def counterfactual(self, adata: AnnDataLike, **options: Any) -> ad.AnnData:
        """Cells under another artifact or perturbation; see :func:`cradlevae.query.counterfactual.counterfactual`."""
        return counterfactual.counterfactual(self.trained, adata, **options)

    def artifact_signature(self, **options: Any) -> pd.DataFrame:
        """Log2 fold change of each gene by the artifact; see :func:`cradlevae.query.signature.artifact_signature`."""
        return signature.artifact_signature(self.trained, **options)

    def latents(self, adata: AnnDataLike, **options: Any) -> ad.AnnData:
        """Latent states of cells; see :func:`cradlevae.query.latents.latents`."""
        return latents.latents(self.trained, adata, **options)

    def mask_probabilities(self) -> pd.DataFrame:
        """Posterior probability that each perturbation touches each latent; see :func:`.latents.mask_probabilities`."""
        return latents.mask_probabilities(self.trained)

    def log_likelihood(self, adata: AnnDataLike, **options: Any) -> pd.Series[float]:
        """IWELBO of each cell; see :func:`cradlevae.query.latents.log_likelihood`."""
        return latents.log_likelihood(self.trained, adata, **options)

    # -- facts -------------------------------------------------------------------------------------------------

    @property
    def history(self) -> pd.DataFrame:
        """Learning curves: a row per epoch."""
        return self.trained.history

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Single perturbations that the model can predict, with their combinations; of SVAE+, the conditions."""
        return self.trained.trained

    @property
    def config(self) -> ModelConfig:
        """The configuration, with what depended on the data filled in."""
        return self.trained.config

    @property
    def split(self) -> Split:
        """Which cells it was (or will be) trained on."""
        return self.trained.split

    def __repr__(self) -> str:
        trained = self.trained
        state = f"trained, {len(trained.history)} epochs" if trained.controls is not None else "not trained"
        what = f"artifacts: {', '.join(trained.criteria)}" if self.declaration.artifact else "no artifact"
        return (
            f"{self.declaration.name}({len(trained.genes):,} genes, "
            f"{len(trained.treatments)} {self.declaration.treatments}, {what}; {state})"
        )


class CradleVAE(PerturbationVAE):
    """CRADLE-VAE: basal state + sparse perturbation effect + artifact, QC-failed cells included.

    Parameters and methods of :class:`PerturbationVAE`. Ablations are settings: ``counterfactual_weight=0``,
    ``train_on="passing"``, ``decode="sum"``, ``guide="mean-field"``, ``reference=...``, ``artifact_key`` with one
    criterion (without an artifact latent it is a :class:`SAMSVAE` with ``train_on="all", decode="concat"``).
    """

    declaration = CRADLE_VAE


class SAMSVAE(PerturbationVAE):
    """SAMS-VAE: basal state + sparse additive effect, without artifact (Bereket & Karaletsos, NeurIPS 2023).

    Parameters and methods of :class:`PerturbationVAE`; trained on passing cells unless ``train_on="all"``.
    """

    declaration = SAMS_VAE


class SVAEPlus(PerturbationVAE):
    """SVAE+: treatments shift the prior mean of the state sparsely (Lopez et al., CLeaR 2023).

    Every condition is a treatment of its own: combinations that were not measured cannot be predicted, and are
    refused by name. Parameters and methods of :class:`PerturbationVAE`.
    """

    declaration = SVAE_PLUS


class CPAVAE(PerturbationVAE):
    """CPA-VAE: basal state + dense additive effect (the compositional perturbation autoencoder as a VAE).

    Parameters and methods of :class:`PerturbationVAE`.
    """

    declaration = CPA_VAE


class ConditionalVAE(PerturbationVAE):
    """A conditional VAE: encoder and decoder see the perturbation's indicator (of a combination, two).

    Parameters and methods of :class:`PerturbationVAE`.
    """

    declaration = CONDITIONAL_VAE


def load(folder: str | Path) -> PerturbationVAE:
    """Read a trained model of whichever class, written by :meth:`PerturbationVAE.save`.

    Raises
    ------
    DataError
        If the folder holds no model or a damaged one.
    """
    trained = load_model(folder)
    return CLASSES[trained.declaration.key]._of(trained)


def _refuse_changed(data: Experiment) -> None:
    """Raise :class:`DataError` if counts in memory (they may be the AnnData's own) are no counts any more."""
    if isinstance(data.counts, StoredMatrix):
        return
    if any((block.data != np.round(block.data)).any() for _, block in row_blocks(data.counts)):
        raise DataError("the counts of the AnnData were changed in place after the model was made; make it anew")


def train_config(values: dict[str, Any]) -> TrainConfig:
    """A :class:`TrainConfig` from keyword arguments; unknown ones are refused by name."""
    made: TrainConfig = _checked(TrainConfig, values)
    return made


def _config(values: dict[str, Any]) -> ModelConfig:
    made: ModelConfig = _checked(ModelConfig, values)
    return made


def _checked(kind: Any, values: dict[str, Any]) -> Any:
    for name in values:
        if name not in kind.__dataclass_fields__:
            raise DataError(f"unknown option {name!r}{closest(name, list(kind.__dataclass_fields__))}")
    return kind(**values)


def refuse_existing_run(folder: Path) -> None:
    """Raise :class:`DataError` if a folder already holds a run."""
    if (folder / MODEL_FILE).exists() or (folder / CHECKPOINTS).exists():
        raise DataError(f"{folder} already holds a run; choose another folder, or resume it")


def _check_split(data: Experiment, split: Split, config: ModelConfig) -> None:
    if len(split.rows(data.cells, "train")) == 0:
        raise DataError("none of the split's training cells are in the data; was it made for other data?")
    train = training_rows(data, split, config)
    of_cells = "" if config.trained_on == "all" else "passing "
    if not data.is_control[train].any():
        raise DataError(f"no {of_cells}control cells are in the training part of the split; move some there")
    _check_unseen(data, split, train, config)
    failed = data.failed[train]
    if config.declaration.artifact and config.trained_on == "all" and (failed.all() or not failed.any()):
        what = "failed" if failed.any() else "passed"
        warnings.warn(
            f"all training cells {what} QC: there is no artifact to disentangle, and `clean` will change nothing",
            stacklevel=3,
        )


def _check_unseen(data: Experiment, split: Split, train: IndexArray, config: ModelConfig) -> None:
    """Tell of the treatments that no training cell had; for perturbations of a split by cell, that is an error."""
    dosage = data.dosage[np.unique(data.condition[train])]
    of_conditions = data.treatments is not None
    names = data.treatments or data.perturbations
    unseen = [name for name, any_ in zip(names, (dosage != 0).any(axis=0), strict=True) if not any_]
    if not unseen:
        return
    if of_conditions:
        text = f"no training cells for {listed(unseen)} ({len(unseen)} conditions)"
        warnings.warn(f"{text}: {config.declaration.name} cannot predict conditions that it has not seen", stacklevel=4)
        return
    text = f"no training cells for {listed(unseen)} ({len(unseen)} perturbations)"
    if config.trained_on == "all" and split.recipe in ("cells", "column"):
        raise DataError(f"{text} in the split {split.recipe!r}; move some of their cells to train, or drop them")
    warnings.warn(f"{text}: the model cannot predict them or their combinations", stacklevel=4)


def evaluate(model: PerturbationVAE | FloorModel, adata: AnnDataLike, **options: Any) -> pd.DataFrame:
    """Score a trained model, or a floor, on cells that it has not seen, with floors, ceiling and fraction.

    Options as in :func:`cradlevae.evaluation.evaluate.evaluate`.
    """
    from cradlevae.evaluation.evaluate import evaluate as score

    return score(model.trained, adata, **options)


def to_cell_eval(model: CradleVAE, adata: AnnDataLike, folder: str | Path, **options: Any) -> tuple[Path, Path]:
    """Write the pair of files that `cell-eval` reads: real held-out cells and generated ones.

    Options as in :func:`cradlevae.evaluation.cell_eval.to_cell_eval`.
    """
    from cradlevae.evaluation import cell_eval

    return cell_eval.to_cell_eval(model.trained, adata, folder, **options)

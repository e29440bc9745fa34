"""A model of the family for an experiment: construct it, train it, keep it, and ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd

from cradlevae.api.checks import (
    attached,
    check_criteria,
    check_run_folder,
    check_split,
    model_config,
    train_config,
)
from cradlevae.api.questions import Questions
from cradlevae.data.contexts import measured_pairs
from cradlevae.data.experiment import DataFields, read_experiment
from cradlevae.data.identity.known_cells import adopt_split
from cradlevae.data.identity.marks import warn_if_made
from cradlevae.data.labels import DEFAULT_CONTROLS
from cradlevae.data.qc.criteria import QC_KEY
from cradlevae.data.split import Split, check_contexts, check_is_split
from cradlevae.data.split import split as make_split
from cradlevae.data.storage.stored_matrix import StoredMatrix
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig
from cradlevae.model.damage.diagnosis import with_kinds
from cradlevae.model.family import ModelDeclaration
from cradlevae.model.store import MODEL_FILES, load_model, save_model
from cradlevae.model.trained import (
    TrainedModel,
    as_treated,
    new_model,
    rows_of_parts,
    training_rows,
)
from cradlevae.model.training.bank_states import with_banks
from cradlevae.model.training.content import content_in_memory, refuse_changed, training_content
from cradlevae.model.training.fit import appended, check_devices, fit
from cradlevae.model.training.residual import with_residual
from cradlevae.utils.checks import check_anndata, flag, output_folder, path_of, seed_number
from cradlevae.utils.default_dtype import float32_default
from cradlevae.utils.docs import documented_by
from cradlevae.utils.html import summary_html
from cradlevae.utils.types import AnnDataLike

CLASSES: dict[str, type[PerturbationVAE]] = {}
"""The class that declares each model of the family, by the key of the declaration."""


@documented_by(DataFields)
class PerturbationVAE(Questions):
    """A model of the family for an AnnData of Perturb-seq counts: what :class:`CradleVAE` and its siblings share.

    A subclass that declares a model is a new model of the family: ``class MyVAE(PerturbationVAE): declaration =
    register(ModelDeclaration(...))``. A subclass without a declaration of its own is the same model with other methods.

    Parameters
    ----------
    adata
        Raw counts, perturbation labels and an artifact column: an AnnData in memory or backed, or what
        :func:`cradlevae.open_cells` gives. Counts on disk stay there.
    split
        Which cells to train on, from :func:`cradlevae.split`; ``None`` splits 64/16/20 by cell, seed 0.
    seed
        Seed of the weights.
    **config
        Fields of :class:`cradlevae.ModelConfig`, e.g. ``n_latent=50``, ``train_on="passing"``.

    Raises
    ------
    DataError
        If the data do not fit; the message says what, where and how to mend it.
    """

    declaration: ClassVar[ModelDeclaration]
    """What the model declares."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "declaration" in cls.__dict__:
            _register_class(cls)

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
        gene_symbols: str | None = None,
        batch_key: str | None = None,
        covariate_keys: str | Sequence[str] = (),
        context_key: str | None = None,
        seed: int = 0,
        **config: Any,
    ) -> None:
        fields = DataFields(
            perturbation_key=perturbation_key,
            artifact_key=artifact_key,  # type: ignore[arg-type]  # DataFields makes tuples of lists
            layer=layer,
            control_labels=control_labels,  # type: ignore[arg-type]
            separator=separator,
            guides_key=guides_key,
            guide_min_count=guide_min_count,
            gene_symbols=gene_symbols,
            batch_key=batch_key,
            covariate_keys=covariate_keys,  # type: ignore[arg-type]
            context_key=context_key,
        )
        settings = model_config({"model": self.declaration.key, **config})
        if settings.declaration is not self.declaration:
            raise DataError(
                f"model={settings.model!r} is not a {self.declaration.name}; use {settings.declaration.name}"
            )
        check_criteria(settings, fields)
        seed = seed_number(seed)
        check_anndata(adata)
        if split is not None:
            check_is_split(split)
            check_contexts(split, fields)
        warn_if_made(adata, self.declaration.name)
        probes = () if split is None else split.probes
        data = as_treated(read_experiment(adata, fields, probes=probes), self.declaration)
        split = make_split(adata, "cells", fields=fields) if split is None else adopt_split(split, adata, data, fields)
        check_split(data, split, settings)
        data = replace(data, pairs=measured_pairs(data, training_rows(data, split, settings)))
        self.data = data
        self._content = content_in_memory(data, rows_of_parts(data, split, settings))
        with float32_default():
            self.trained = new_model(
                data, adata.var.copy(), fields, split, settings, qc=adata.uns.get(QC_KEY), seed=seed
            )

    # -- training and files ------------------------------------------------------------------------------------

    def train(
        self,
        max_epochs: int | None = None,
        *,
        output: str | Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
        **config: Any,
    ) -> None:
        """Train the model, and keep the weights of the epoch with the lowest validation loss.

        A second call goes on from these weights with a fresh optimiser, and its epochs are appended to the history.

        Parameters
        ----------
        max_epochs
            Largest number of passes over the training cells; by default as many as make 3,000 steps (30 to 200).
        output
            Folder for the checkpoints and the learning curves (CSV); without one, none are kept after training.
        resume
            Go on from the last checkpoint in ``output`` where there is one, for instance after the process was killed.
        overwrite
            Replace the checkpoints and learning curves of another run in ``output``; they stay until the first epoch
            of this one is complete.
        **config
            Fields of :class:`cradlevae.TrainConfig`, e.g. ``batch_size=256``, ``accelerator="gpu"``.

        Raises
        ------
        DataError
            If ``output`` already holds a run, or files of such names, and neither ``resume`` nor ``overwrite`` is set;
            if it cannot be written; if ``resume`` or ``tensorboard`` is set without ``output``.
        TrainingError
            If the loss is no longer a finite number.
        """
        if self.data is None:
            raise DataError(
                f"this model was loaded without data; give them to {self.declaration.name}.load(folder, adata) to train"
            )
        settings = train_config({"max_epochs": max_epochs, **config})
        check_devices(self.trained.config, settings)
        resume, overwrite = flag("resume", resume), flag("overwrite", overwrite)
        folder = None if output is None else output_folder("output", output)
        if folder is None and (resume or settings.tensorboard):
            lost = "resume" if resume else "tensorboard"
            raise DataError(f"{lost} needs a folder that stays after training; name it with output=")
        if folder is not None:
            check_run_folder(folder, resume=resume, overwrite=overwrite)
        split, data, trained = self.trained.split, self.data, self.trained
        rows = rows_of_parts(data, split, trained.config)
        content = training_content(data, rows)
        refuse_changed(self._content, content)
        record = {
            "split_hash": split.hash,
            "data": content,
            "model": asdict(trained.config),
            "seed_of_weights": trained.seed,
            "on_disk": isinstance(data.counts, StoredMatrix),  # the cells then come in another order
        }
        with float32_default():
            history = fit(trained.module, data, rows, settings, output=folder, resume=resume, record=record)
            history = appended(trained.history, history)
            trained = with_banks(replace(trained, history=history, content=content), data)
            self.trained = with_residual(with_kinds(trained, data), data)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the trained model into a folder, from which :meth:`load` reads it.

        Parameters
        ----------
        folder
            Where to write; the folder is made where it is missing.
        overwrite
            Replace a model that the folder holds already, and files of the names that a model's files have.

        Raises
        ------
        DataError
            If the folder already holds a model, or a ``history.csv`` or other file of such a name that is of another
            origin, and ``overwrite`` is not set; or is not writable. A model in the folder is then as it was.
        """
        folder = output_folder("folder", folder)
        for name in MODEL_FILES:
            self._refuse_own_data(folder / name)
        save_model(self.trained, folder, overwrite=flag("overwrite", overwrite))

    @classmethod
    def load(cls, folder: str | Path, adata: AnnDataLike | None = None) -> Self:
        """Read a model that :meth:`save` has written; nothing that the files contain is executed.

        Parameters
        ----------
        folder
            Folder of the model.
        adata
            The experiment that it was trained on, to train on; without it the model answers, but cannot be trained.

        Raises
        ------
        DataError
            If the folder holds no model, a damaged one or another model of the family, or if the model was trained on
            other data; the message names what differs.
        """
        if adata is not None:
            check_anndata(adata)
        with float32_default():
            trained = load_model(path_of("folder", folder))
        if trained.declaration is not cls.declaration:
            raise DataError(
                f"{folder} holds a {trained.declaration.name}, not a {cls.declaration.name}; load it with "
                f"{trained.declaration.name}.load, or cradlevae.load"
            )
        return cls.of_trained(trained, adata)

    @classmethod
    def of_trained(cls, trained: TrainedModel, adata: AnnDataLike | None = None) -> Self:
        """An object of this class around a trained model.

        Parameters
        ----------
        trained
            The trained model.
        adata
            The experiment that it was trained on, to train on; ``None`` is none.
        """
        model = cls.__new__(cls)
        model.data = None if adata is None else attached(trained, adata)
        model._content = None
        if model.data is not None:
            model._content = content_in_memory(model.data, rows_of_parts(model.data, trained.split, trained.config))
        model.trained = trained
        return model

    # -- facts -------------------------------------------------------------------------------------------------

    @property
    def history(self) -> pd.DataFrame:
        """Learning curves: a row for each epoch."""
        return self.trained.history

    @property
    def perturbations(self) -> tuple[str, ...]:
        """Single perturbations that the model can predict, as can their combinations; of SVAE+, the conditions."""
        return self.trained.trained

    @property
    def config(self) -> ModelConfig:
        """The configuration, with what depended on the data filled in."""
        return self.trained.config

    @property
    def split(self) -> Split:
        """Which cells the model was (or will be) trained on."""
        return self.trained.split

    def __repr__(self) -> str:
        trained = self.trained
        state = f"trained, {len(trained.history)} epochs" if trained.controls is not None else "not trained"
        artifact = f"artifacts: {', '.join(trained.criteria)}" if self.declaration.artifact else "no artifact"
        return (
            f"{self.declaration.name}({len(trained.genes):,} genes, "
            f"{len(trained.own_treatments)} {self.declaration.treatments}, {artifact}; {state})"
        )

    def _repr_html_(self) -> str:
        trained = self.trained
        known = [name for name in ("val_loss", "train_loss") if name in trained.history]
        rows = {
            "genes": f"{len(trained.genes):,}",
            self.declaration.treatments: f"{len(trained.own_treatments):,}",
            "artifacts": ", ".join(trained.criteria) if self.declaration.artifact else "none",
            "batches, covariates and contexts": ", ".join(f"{key} ({len(of)})" for key, of in trained.levels.items()),
            "split": repr(trained.split),
            "training": f"{len(trained.history)} epochs" if trained.controls is not None else "not trained",
            **{f"best {name}": f"{trained.history[name].min():.2f}" for name in known},
        }
        return summary_html(self.declaration.name, rows)


def _register_class(kind: type[PerturbationVAE]) -> None:
    """Make a class the one that its declaration's models are loaded as; :class:`DataError` if another one is."""
    key = kind.declaration.key
    known = CLASSES.get(key, kind)
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
        raise DataError(
            f"{kind.__name__} declares the model {key!r}, which is {known.__name__}'s; register a ModelDeclaration of "
            f"its own, or derive {kind.__name__} from {known.__name__} without a declaration"
        )
    CLASSES[key] = kind

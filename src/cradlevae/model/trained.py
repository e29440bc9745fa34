"""What a model is after (or before) training: weights, names and what its queries need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from cradlevae.data.contexts import Column, columns_of, context_shares, measured_contexts
from cradlevae.data.dosage import dosage_table, treatment_dosage
from cradlevae.data.experiment import DataFields, Experiment, read_experiment
from cradlevae.data.factors import Role
from cradlevae.data.labels import CONTROL, Condition, base_of, context_of, in_context, singles_of
from cradlevae.data.qc.confounding import confounding_test
from cradlevae.data.split import Split
from cradlevae.data.statistics import cell_statistics
from cradlevae.data.storage.writable import writable_table
from cradlevae.data.strata import told_by_controls
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig
from cradlevae.model.damage.start import failed_pools, start_guide
from cradlevae.model.estimation.banks import ControlBank, DamageBank
from cradlevae.model.estimation.effect_residual import EffectResidual
from cradlevae.model.family import ModelDeclaration
from cradlevae.model.module import CradleModule
from cradlevae.model.training.first_estimate import start_at_rates
from cradlevae.utils.names import closest, listed
from cradlevae.utils.types import AnnDataLike, IndexArray, IntArray


@dataclass(frozen=True)
class TrainedModel:
    """A module with the names and numbers that its queries need.

    Attributes
    ----------
    module
        The networks.
    config
        The resolved configuration.
    fields
        Where the training data hold what the model needs.
    var
        Genes: ``var`` of the training data.
    perturbations
        Names of the single perturbations.
    treatments
        What has an embedding, T: the perturbations, or the conditions of the experiment where the model takes each for
        a treatment of its own.
    trained
        Those of the treatments with training cells.
    criteria
        Names of the artifact classes of the data, C.
    trained_criteria
        Those of the artifact classes that cells had which the model was trained on.
    split
        Which cells it was trained on.
    confounding
        The confounding alarm of the whole experiment, a row per condition.
    controls
        See :class:`ControlBank`; made when training ends.
    damage
        See :class:`DamageBank`; ``None`` where cells have no artifact state of their own, or none failed.
    residual
        See :class:`EffectResidual`; made when training ends, where there are cells enough. Its mean is 0 where the
        model has no gene effects.
    passing_library_size
        Median library size of the passing training cells.
    fingerprints
        Fingerprints of the training cells' counts, sorted; a reference that holds them is refused.
    qc
        Thresholds of the QC annotation of the training data, where it had one.
    history
        Learning curves, a row per epoch.
    levels
        Batches, categories of covariates and contexts of the data, by column of ``obs``.
    measured
        Treatments and contexts with training cells, where there are several contexts.
    pairs
        Those of them that have an effect of their own beside the treatment's; they are the last treatments.
    context_shares
        Share of each context among the passing training controls; empty where there is one context.
    unlinked
        Perturbations (or treatments) whose training cells are all in batches without controls.
    content
        Digests of the data that it was trained on (:mod:`cradlevae.model.training.content`); empty before training.
    seed
        Seed of its first weights.
    conditions
        Conditions of the data that it was trained on, whatever their context, the control first.
    n_cells
        Passing training cells of each condition with training cells, and of each in each context where there are
        several.
    """

    module: CradleModule
    config: ModelConfig
    fields: DataFields
    var: pd.DataFrame
    perturbations: tuple[str, ...]
    treatments: tuple[str, ...]
    trained: tuple[str, ...]
    criteria: tuple[str, ...]
    trained_criteria: tuple[str, ...]
    split: Split
    passing_library_size: float
    fingerprints: IntArray
    confounding: pd.DataFrame
    controls: ControlBank | None = None
    damage: DamageBank | None = None
    residual: EffectResidual | None = None
    qc: dict[str, Any] | None = None
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    levels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    measured: tuple[tuple[str, str], ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    context_shares: dict[str, float] = field(default_factory=dict)
    unlinked: tuple[str, ...] = ()
    content: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    conditions: tuple[str, ...] = ()
    n_cells: dict[str, int] = field(default_factory=dict)

    @property
    def genes(self) -> pd.Index[str]:
        """Names of the genes."""
        names: pd.Index[str] = self.var.index
        return names

    @property
    def declaration(self) -> ModelDeclaration:
        """What the model declares."""
        return self.module.declaration

    def bank(self, context: str | None = None) -> ControlBank:
        """The controls of a trained model, of one context or of all.

        Raises
        ------
        DataError
            If it has not been trained, or the context has none.
        """
        if self.controls is None:
            raise DataError("the model has not been trained; call train() first, or load a trained one")
        column = self.column("context")
        if context is None or column is None or not self.controls.levels.size:
            return self.controls
        place = self.columns.index(column)
        rows = np.flatnonzero(self.controls.levels[:, place] == column.number(context))
        if len(rows) == 0:
            raise DataError(f"the context {context!r} has no training controls, whose states cells could be made of")
        return self.controls.of(rows)

    def read(self, cells: AnnDataLike | Experiment, *, labelled: bool = True) -> Experiment:
        """The cells of an AnnData as this model takes them; :class:`DataError` if they do not fit it.

        An experiment that this model has read already is given back as it is. Not ``labelled``, all cells stand as
        controls, whatever their labels say.
        """
        if isinstance(cells, Experiment):
            return cells if labelled else cells.unlabelled()
        data = read_experiment(
            cells, self.fields, genes=list(self.genes), perturbations=self.perturbations, levels=self.levels,
            probes=self.split.probes, labelled=labelled,
        )  # fmt: skip
        return replace(as_treated(data, self.declaration, self.own_treatments), pairs=self.pairs)

    @property
    def own_treatments(self) -> tuple[str, ...]:
        """The treatments without the pairs."""
        return self.treatments[: len(self.treatments) - len(self.pairs)]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that cells differ in, as the levels of cells are numbered: batch, covariates, context."""
        return columns_of(self.fields, self.levels)

    def column(self, role: Role) -> Column | None:
        """The column of the batch, or of the context; ``None`` where there is none of two levels."""
        return next((column for column in self.columns if column.role == role), None)

    def answerable(self, conditions: Sequence[str]) -> list[str]:
        """Those of some canonical conditions whose treatments all had training cells."""
        trained = set(self.trained)
        return [
            name
            for name in conditions
            if trained.issuperset(self._treatments(name)) and self.has_controls(context_of(name))
        ]

    def has_controls(self, context: str | None) -> bool:
        """Whether there are training controls in a context; ``None`` is all contexts."""
        return context is None or not self.context_shares or self.context_shares.get(context, 0) > 0

    def _treatments(self, condition: str) -> tuple[str, ...]:
        """What a canonical condition consists of: its single perturbations, or itself."""
        if self.declaration.treatments == "conditions":
            return () if condition == CONTROL else (base_of(condition),)
        return singles_of(condition)

    def in_batch(self, levels: torch.Tensor, batch: int | torch.Tensor) -> torch.Tensor:
        """Levels of cells, (..., columns), with them in the batch of a number, or of one each; other columns stay."""
        place = [column.role for column in self.columns].index("batch")
        moved = levels.clone()
        moved[..., place] = batch
        return moved

    def n_unseen(self, condition: str) -> int:
        """How many of the treatments of a condition in a context have no training cells in that context."""
        context = context_of(condition)
        if context is None or not self.measured:
            return 0
        measured = set(self.measured)
        return sum((treatment, context) not in measured for treatment in self._treatments(condition))

    def need_known(self, data: Experiment) -> None:
        """Raise :class:`DataError` if cells had a treatment that the model does not know at all."""
        unknown = [name for name in data.conditions if not set(self._treatments(name)) <= set(self.treatments)]
        if unknown:
            raise DataError(f"{self._unseen(listed(unknown))}; leave these cells out")

    def _unseen(self, conditions: str) -> str:
        return (
            f"{conditions} had no training cells, and {self.declaration.name} takes every condition for a treatment of "
            "its own, combinations included"
        )

    def dosage(self, conditions: tuple[str, ...]) -> torch.Tensor:
        """Dosages of canonical conditions, (conditions, T).

        Raises
        ------
        DataError
            If a single perturbation is unknown or had no training cells.
        """
        trained = set(self.trained)
        if self.declaration.treatments == "conditions":
            for condition in conditions:
                if not trained.issuperset(self._treatments(condition)):
                    self._refuse_unlinked(base_of(condition))
                    raise DataError(
                        f"{self._unseen(repr(condition))}, so it cannot predict it{closest(condition, self.trained)}"
                    )
            own: tuple[str, ...] | None = self.own_treatments
        else:
            own = None
            dosage_table(conditions, self.perturbations)  # raises for what is unknown
            for condition in conditions:
                for single in singles_of(condition):
                    if single not in trained:
                        self._refuse_unlinked(single)
                        raise DataError(
                            f"perturbation {single!r} (of {condition!r}) had no training cells, so the model cannot "
                            f"predict it{closest(single, self.trained)}"
                        )
        for condition in conditions:
            if not self.has_controls(context_of(condition)):
                raise DataError(
                    f"the context {context_of(condition)!r} has no training controls, so there is nothing to compare "
                    f"{base_of(condition)!r} with there"
                )
        return torch.from_numpy(treatment_dosage(conditions, self.perturbations, own, self.pairs, self.context_shares))

    def _refuse_unlinked(self, treatment: str) -> None:
        """Raise :class:`DataError` if all training cells of a treatment are in batches without controls."""
        if treatment in self.unlinked:
            raise DataError(
                f"all training cells of {treatment!r} are in batches without controls, so its effect cannot be told "
                "from what these batches differ in"
            )


def new_model(
    data: Experiment,
    var: pd.DataFrame,
    fields: DataFields,
    split: Split,
    config: ModelConfig,
    *,
    qc: dict[str, Any] | None,
    seed: int,
) -> TrainedModel:
    """An untrained model for an experiment (:func:`as_treated`), which knows the statistics of its training cells."""
    train = training_rows(data, split, config)
    resolved = config.resolved(combinations=any(len(singles_of(name)) > 1 for name in data.conditions))
    own = data.own_treatments
    treatments = (*own, *(in_context(Condition(name, (name,)), context) for name, context in data.pairs))
    pools = failed_pools(data, train) if resolved.pair_share else np.zeros((0, data.n_genes), dtype=np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone: CUDA's is the caller's
        module = CradleModule(
            resolved, data.n_genes, len(treatments), len(data.criteria),
            [len(factor.levels) for factor in data.varied], len(np.unique(data.levels[train], axis=0)),
            [own.index(name) for name, _ in data.pairs], len(data.plain[1]), len(pools),
        )  # fmt: skip
    statistics = cell_statistics(data, train)
    module.basal_encoder.log_mean.copy_(torch.from_numpy(statistics.log_mean))
    module.basal_encoder.log_std.copy_(torch.from_numpy(statistics.log_std))
    if resolved.objective == "corrected":  # the decoder starts at the mean profile
        total = statistics.total + 0.5
        with torch.no_grad():
            module.decoder.gene_linear.bias.copy_(torch.from_numpy(np.log(total / total.sum())).float())
    start_at_rates(module, data, train)
    passing = train[~data.failed[train]]
    sizes = data.library_size[passing if len(passing) else train]
    if module.damage_guide is not None:
        start_guide(module.damage_guide, pools, statistics.total + 0.5, sizes)
    linked = train[told_by_controls(data.condition[train], data.strata[train])]
    seen, told = (data.dosage[np.unique(data.condition[rows])].sum(axis=0)[: len(own)] > 0 for rows in (train, linked))
    return TrainedModel(
        module=module.eval(),
        config=resolved,
        fields=fields,
        var=writable_table(var, "var"),
        perturbations=data.perturbations,
        treatments=treatments,
        trained=tuple(np.array(own, dtype=object)[told]),
        criteria=data.criteria,
        trained_criteria=tuple(np.array(data.criteria, dtype=object)[data.artifact[train].any(axis=0)]),
        split=split,
        passing_library_size=float(np.median(sizes)),
        fingerprints=np.sort(statistics.fingerprints),
        confounding=confounding_test(*data.plain, data.failed, strata=data.strata),
        qc=qc,
        levels={factor.key: factor.levels for factor in data.factors},
        measured=measured_contexts(data, train),
        pairs=data.pairs,
        context_shares=context_shares(data, passing if len(passing) else train),
        unlinked=tuple(np.array(own, dtype=object)[seen & ~told]),
        seed=seed,
        conditions=tuple(str(name) for name in data.plain[1]),
        n_cells=_passing_cells(data, train),
    )


def _passing_cells(data: Experiment, train: IndexArray) -> dict[str, int]:
    """Passing training cells of each condition that has training cells, in any context and in each."""
    n_cells: dict[str, int] = {}
    for condition, names in (data.plain, (data.condition, data.conditions)):
        passing = np.bincount(condition[train], weights=~data.failed[train], minlength=len(names))
        n_cells |= {str(names[code]): int(passing[code]) for code in np.unique(condition[train])}
    return n_cells


def as_treated(
    data: Experiment, declaration: ModelDeclaration, treatments: tuple[str, ...] | None = None
) -> Experiment:
    """The experiment with the treatments that a model takes; by default, all conditions of the experiment."""
    if declaration.treatments == "perturbations":
        return data
    if treatments is None:
        treatments = tuple(dict.fromkeys(base_of(name) for name in data.conditions[1:]))
    return replace(data, treatments=treatments)


def training_rows(data: Experiment, split: Split, config: ModelConfig, part: str = "train") -> IndexArray:
    """Cells of a part of the split that a model is trained (or, ``val``, validated) on, ascending."""
    rows = split.rows(data, part)
    return rows[~data.failed[rows]] if config.trained_on == "passing" else rows


def rows_of_parts(data: Experiment, split: Split, config: ModelConfig) -> dict[str, IndexArray]:
    """Cells that a model is trained and validated on, by the part of the split (``train``, ``val``)."""
    return {part: training_rows(data, split, config, part) for part in ("train", "val")}

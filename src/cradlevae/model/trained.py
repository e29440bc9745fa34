"""What a model is after (or before) training: weights, names and what its queries need; and its files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cradlevae.data.batches import log_moments, make_batch
from cradlevae.data.contract import DataFields, Experiment
from cradlevae.data.files import atomic_path, make_folder, write_text
from cradlevae.data.fingerprint import cell_fingerprints
from cradlevae.data.labels import closest, condition_members, dosage_table
from cradlevae.data.split import Split
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig
from cradlevae.model.module import CradleModule, sparse_counts

FORMAT = 1
MODEL_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
SPLIT_FILE = "split.json"
REFERENCE_FILE = "controls.h5ad"
HISTORY_FILE = "history.csv"

BANK_CELLS = 2000
"""At most so many passing training controls are kept with a model."""


@dataclass(frozen=True)
class ControlBank:
    """Passing training controls, whose basal states and library sizes queries start from.

    Attributes
    ----------
    loc, scale
        q(z^b | x) of each, (cells, K).
    library_size
        Their library sizes, (cells,).
    """

    loc: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    library_size: npt.NDArray[np.float32]


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
        Where the training data held what the model needed.
    var
        Genes: ``var`` of the training data.
    perturbations
        Names of the single perturbations, T.
    trained
        Those of them with training cells.
    criteria
        Names of the artifact classes, C.
    split
        Which cells it was trained on.
    controls
        See :class:`ControlBank`; made when training ends.
    passing_library_size
        Median library size of the passing training cells.
    fingerprints
        Of the training cells' counts, sorted; a reference that holds them is refused.
    qc
        Thresholds of the QC annotation of the training data, where it had one.
    history
        Learning curves, a row per epoch.
    """

    module: CradleModule
    config: ModelConfig
    fields: DataFields
    var: pd.DataFrame
    perturbations: tuple[str, ...]
    trained: tuple[str, ...]
    criteria: tuple[str, ...]
    split: Split
    passing_library_size: float
    fingerprints: npt.NDArray[np.int64]
    controls: ControlBank | None = None
    qc: dict[str, Any] | None = None
    history: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def genes(self) -> pd.Index[str]:
        """Names of the genes."""
        names: pd.Index[str] = self.var.index
        return names

    def bank(self) -> ControlBank:
        """The controls of a trained model.

        Raises
        ------
        DataError
            If it has not been trained.
        """
        if self.controls is None:
            raise DataError("the model has not been trained; call train() first, or load a trained one")
        return self.controls

    def dosage(self, conditions: tuple[str, ...]) -> torch.Tensor:
        """Dosages of canonical conditions, (conditions, T).

        Raises
        ------
        DataError
            If a member is unknown or had no training cells.
        """
        table = dosage_table(conditions, self.perturbations)
        trained = set(self.trained)
        for condition in conditions:
            for single in condition_members(condition):
                if single not in trained:
                    raise DataError(
                        f"perturbation {single!r} (of {condition!r}) had no training cells, so the model cannot "
                        f"predict it{closest(single, self.trained)}"
                    )
        return torch.from_numpy(table)


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
    """An untrained model for an experiment; its count statistics are those of the training cells."""
    train = split.rows(data.cells, "train")
    resolved = config.resolved(combinations=bool((data.dosage.sum(axis=1) > 1).any()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = CradleModule(resolved, data.n_genes, len(data.perturbations), len(data.criteria))
    mean, std = log_moments(data, train)
    module.log_mean.copy_(torch.from_numpy(mean))
    module.log_std.copy_(torch.from_numpy(std))
    if resolved.objective == "corrected":  # the decoder starts at the mean profile
        chosen = np.zeros(data.n_cells, dtype=np.float32)
        chosen[train] = 1
        total = data.counts.T @ chosen + 0.5
        with torch.no_grad():
            module.gene_linear.bias.copy_(torch.from_numpy(np.log(total / total.sum())).float())
    trained_dosage = data.dosage[np.unique(data.condition[train])].sum(axis=0) > 0
    passing = train[~data.failed[train]]
    sizes = data.library_size[passing if len(passing) else train]
    return TrainedModel(
        module=module.eval(),
        config=resolved,
        fields=fields,
        var=var,
        perturbations=data.perturbations,
        trained=tuple(np.array(data.perturbations, dtype=object)[trained_dosage]),
        criteria=data.criteria,
        split=split,
        passing_library_size=float(np.median(sizes)),
        fingerprints=np.sort(cell_fingerprints(data.counts, list(data.genes), train)),
        qc=qc,
    )


def with_controls(model: TrainedModel, data: Experiment) -> TrainedModel:
    """The model with the basal states of (at most 2,000) passing training controls."""
    train = model.split.rows(data.cells, "train")
    rows = train[data.is_control[train] & ~data.failed[train]]
    if len(rows) == 0:  # every control failed: their states are still the best there is
        rows = train[data.is_control[train]]
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:BANK_CELLS])
    k = model.module.n_latent
    locs, scales = [], []
    with torch.no_grad():
        for start in range(0, len(rows), 512):
            batch = make_batch(data, rows[start : start + 512])
            none = torch.zeros(1, batch.n_cells, k)
            posterior = model.module.encode_basal(model.module.encode_counts(sparse_counts(batch).dense()), none, none)
            locs.append(posterior.loc[0].numpy())
            scales.append(posterior.scale[0].numpy())
    bank = ControlBank(np.concatenate(locs), np.concatenate(scales), data.library_size[rows])
    return replace(model, controls=bank)


def save_model(model: TrainedModel, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write a trained model; every file atomically, ``model.json`` (which makes it a model) last.

    Raises
    ------
    DataError
        If the folder is not writable, or already holds a model and ``overwrite`` is not set.
    """
    import anndata as ad
    from safetensors.torch import save_file

    bank = model.bank()
    folder = make_folder(folder)
    if (folder / MODEL_FILE).exists() and not overwrite:
        raise DataError(f"{folder} already holds a model; choose another folder or set overwrite")
    (folder / MODEL_FILE).unlink(missing_ok=True)
    with atomic_path(folder / WEIGHTS_FILE) as path:
        save_file({key: value.contiguous() for key, value in model.module.state_dict().items()}, path)
    controls = ad.AnnData(
        obs=pd.DataFrame(
            {"library_size": bank.library_size}, index=[f"control{i}" for i in range(len(bank.library_size))]
        ),
        var=model.var,
        obsm={"basal_loc": bank.loc, "basal_scale": bank.scale},
        uns={"fingerprints": model.fingerprints} | ({} if model.qc is None else {"qc": model.qc}),
    )
    with atomic_path(folder / REFERENCE_FILE) as path:
        controls.write_h5ad(path)
    model.split.save(folder / SPLIT_FILE)
    write_text(folder / HISTORY_FILE, model.history.to_csv(index=False))
    described = {
        "format": FORMAT,
        "model": "CradleVAE",
        "version": version("cradlevae"),
        "config": asdict(model.config),
        "fields": asdict(model.fields),
        "perturbations": model.perturbations,
        "trained": model.trained,
        "criteria": model.criteria,
        "passing_library_size": model.passing_library_size,
        "split_hash": model.split.hash,
        "sha256": {name: _sha256(folder / name) for name in (WEIGHTS_FILE, REFERENCE_FILE)},
    }
    described["checksum"] = _checksum(described)
    write_text(folder / MODEL_FILE, json.dumps(described, indent=1))


def load_model(folder: str | Path) -> TrainedModel:
    """Read a model written by :func:`save_model`; nothing that the files contain is executed.

    Raises
    ------
    DataError
        If the folder holds no model, a damaged one, or one of another program or a newer version.
    """
    import anndata as ad
    from safetensors.torch import load_file

    folder = Path(folder)
    described = _description(folder)
    for name, recorded in described["sha256"].items():
        if not (folder / name).exists() or _sha256(folder / name) != recorded:
            raise DataError(
                f"{folder / name} is missing or damaged (its checksum does not fit); train or copy it again"
            )
    config = ModelConfig(**described["config"])
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in described["fields"].items()
    }
    controls = ad.read_h5ad(folder / REFERENCE_FILE)
    module = CradleModule(config, controls.n_vars, len(described["perturbations"]), len(described["criteria"]))
    module.load_state_dict(load_file(folder / WEIGHTS_FILE))
    split = Split.load(folder / SPLIT_FILE)
    if split.hash != described["split_hash"]:
        raise DataError(f"{folder / SPLIT_FILE} is not the split that the model was trained on")
    history = (folder / HISTORY_FILE).read_text() if (folder / HISTORY_FILE).exists() else ""
    return TrainedModel(
        module=module.eval(),
        config=config,
        fields=DataFields(**fields),
        var=controls.var,
        perturbations=tuple(described["perturbations"]),
        trained=tuple(described["trained"]),
        criteria=tuple(described["criteria"]),
        split=split,
        passing_library_size=described["passing_library_size"],
        fingerprints=controls.uns["fingerprints"],
        controls=ControlBank(
            controls.obsm["basal_loc"],
            controls.obsm["basal_scale"],
            controls.obs["library_size"].to_numpy(dtype=np.float32),
        ),
        qc=controls.uns.get("qc"),
        history=pd.read_csv(folder / HISTORY_FILE) if history.strip() else pd.DataFrame(),
    )


def _description(folder: Path) -> dict[str, Any]:
    path = folder / MODEL_FILE
    if not path.exists():
        raise DataError(f"no model in {folder} (no {MODEL_FILE}); train one with `cradlevae train --output {folder}`")
    try:
        described = json.loads(path.read_text())
        known = described["model"] == "CradleVAE"
        newer = described["format"] > FORMAT
        recorded = described.pop("checksum", None)
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is damaged or not a cradlevae model") from None
    if not known:
        raise DataError(f"{path} describes a {described['model']!r}, not a CradleVAE")
    if newer:
        raise DataError(f"{path} was written by version {described.get('version')}; update cradlevae to read it")
    if recorded != _checksum(described):
        raise DataError(f"{path} is damaged or was changed (its checksum does not fit); train or copy it again")
    return dict(described)


def _checksum(described: dict[str, Any]) -> str:
    """Checksum of a description, so that what :func:`load_model` reads from it is what was written."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

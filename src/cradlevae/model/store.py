"""The files of a trained model: written atomically, checked when read, never executed."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cradlevae.data.contexts import columns_of
from cradlevae.data.experiment import DataFields
from cradlevae.data.split import Split
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig
from cradlevae.model.estimation.banks import ControlBank, DamageBank
from cradlevae.model.estimation.effect_residual import EffectResidual, MeasurementNoise
from cradlevae.model.estimation.two_groups import TwoGroups
from cradlevae.model.family import FAMILY
from cradlevae.model.module import CradleModule
from cradlevae.model.trained import TrainedModel
from cradlevae.model.training.trainer import HISTORY_FILE
from cradlevae.utils.atomic import readable, swapped_in
from cradlevae.utils.outputs import NOT_A_FILE, refuse_existing, refuse_folders

FORMAT = 8
MODEL_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
SPLIT_FILE = "split.json"
REFERENCE_FILE = "controls.h5ad"
MODEL_FILES = MODEL_FILE, WEIGHTS_FILE, SPLIT_FILE, REFERENCE_FILE, HISTORY_FILE
"""Files of a saved model."""

GROUPS = "single_groups", "combined_groups"

ALARM_COLUMNS = (
    "perturbation", "n_cells", "n_failed", "share_failed", "log_odds", "low", "high", "p_value", "q_value", "flagged",
)  # fmt: skip


def save_model(model: TrainedModel, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write a trained model: all of its files or, after an error, none. Other files of the folder stay as they are.

    Raises
    ------
    DataError
        If the folder is not writable, or already holds a model, or a file of another origin that would be replaced,
        and ``overwrite`` is not set.
    """
    model.bank()  # an untrained model has none, and says so
    folder = Path(folder)
    refuse_folders([folder / name for name in MODEL_FILES], NOT_A_FILE)
    if not overwrite:
        _refuse_existing(model, folder)
    with swapped_in(folder, last=MODEL_FILE) as staging:
        _write(model, staging)


def _refuse_existing(model: TrainedModel, folder: Path) -> None:
    """Raise :class:`DataError` if a folder holds a model, or a file that the training of this one has not written."""
    if (folder / MODEL_FILE).exists():
        raise DataError(f"{folder} already holds a model; choose another folder or set overwrite")
    foreign = [folder / name for name in (WEIGHTS_FILE, REFERENCE_FILE)]
    if not _is_own_history(folder / HISTORY_FILE, model.history):
        foreign.append(folder / HISTORY_FILE)
    if not _is_own_split(folder / SPLIT_FILE, model.split):
        foreign.append(folder / SPLIT_FILE)
    refuse_existing(foreign, overwrite=False)


def _is_own_history(path: Path, history: pd.DataFrame) -> bool:
    """Whether a file holds the last epochs of some learning curves, as training writes them."""
    try:
        written = pd.read_csv(path, float_precision="round_trip")
        last = history[list(written.columns)].tail(len(written)).reset_index(drop=True)
    except (OSError, ValueError, KeyError):
        return False
    return len(last) == len(written) and bool(np.array_equal(last.to_numpy(), written.to_numpy(), equal_nan=True))


def _is_own_split(path: Path, split: Split) -> bool:
    """Whether a file holds this split."""
    try:
        return path.exists() and Split.load(path).hash == split.hash
    except DataError:
        return False


def _write(model: TrainedModel, folder: Path) -> None:
    """Write the files of a model into an empty folder."""
    import anndata as ad
    from safetensors.torch import save_file

    bank = model.bank()
    save_file({key: value.contiguous() for key, value in model.module.state_dict().items()}, folder / WEIGHTS_FILE)
    readable(folder / WEIGHTS_FILE)  # safetensors writes files for their owner alone
    controls = ad.AnnData(
        obs=pd.DataFrame(
            {"library_size": bank.library_size}, index=[f"control{i}" for i in range(len(bank.library_size))]
        ),
        var=model.var,
        obsm={"basal_loc": bank.loc, "basal_scale": bank.scale} | ({"levels": bank.levels} if bank.levels.size else {}),
        uns=_unstructured(model),
    )
    controls.write_h5ad(folder / REFERENCE_FILE)
    model.split.save(folder / SPLIT_FILE)
    (folder / HISTORY_FILE).write_text(model.history.to_csv(index=False))
    described = {
        "format": FORMAT,
        "model": model.declaration.name,
        "version": version("cradlevae"),
        "config": asdict(model.config),
        "fields": asdict(model.fields),
        "perturbations": model.perturbations,
        "treatments": model.treatments,
        "trained": model.trained,
        "criteria": model.criteria,
        "trained_criteria": model.trained_criteria,
        "passing_library_size": model.passing_library_size,
        "split_hash": model.split.hash,
        "levels": model.levels,
        "measured": model.measured,
        "pairs": model.pairs,
        "context_shares": model.context_shares,
        "unlinked": model.unlinked,
        "content": model.content,
        "seed": model.seed,
        "conditions": model.conditions,
        "n_cells": model.n_cells,
        "sha256": {name: _sha256(folder / name) for name in (WEIGHTS_FILE, REFERENCE_FILE)},
    }
    described["checksum"] = _checksum(described)
    (folder / MODEL_FILE).write_text(json.dumps(described, indent=1))


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
    levels = {key: tuple(names) for key, names in described["levels"].items()}
    weights = load_file(folder / WEIGHTS_FILE)
    strata = weights.get("level_effects.stratum_levels")
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and then replaced
        module = CradleModule(
            config, controls.n_vars, len(described["treatments"]), len(described["criteria"]),
            [len(column.levels) for column in columns_of(DataFields(**fields), levels)],
            1 if strata is None else len(strata),
            [described["treatments"].index(treatment) for treatment, _ in described["pairs"]],
            len(described["conditions"]), len(weights["damage_guide.pools"]) if config.pair_share else 0,
        )  # fmt: skip
    module.load_state_dict(weights)
    split = Split.load(folder / SPLIT_FILE)
    if split.hash != described["split_hash"]:
        raise DataError(f"{folder / SPLIT_FILE} is not the split that the model was trained on")
    return TrainedModel(
        module=module.eval(),
        config=config,
        fields=DataFields(**fields),
        var=controls.var,
        perturbations=tuple(described["perturbations"]),
        treatments=tuple(described["treatments"]),
        trained=tuple(described["trained"]),
        criteria=tuple(described["criteria"]),
        # Models of earlier versions did not note it.
        trained_criteria=tuple(described.get("trained_criteria", described["criteria"])),
        split=split,
        passing_library_size=described["passing_library_size"],
        fingerprints=controls.uns["fingerprints"],
        controls=ControlBank(
            controls.obsm["basal_loc"],
            controls.obsm["basal_scale"],
            controls.obs["library_size"].to_numpy(dtype=np.float32),
            controls.obsm["levels"] if "levels" in controls.obsm else np.zeros((controls.n_obs, 0), dtype=np.int64),
        ),
        confounding=pd.DataFrame({name: controls.uns["confounding"][name] for name in ALARM_COLUMNS}),
        damage=DamageBank(**controls.uns["damage"]) if "damage" in controls.uns else None,
        residual=_residual(controls.uns["residual"]) if "residual" in controls.uns else None,
        qc=controls.uns.get("qc"),
        history=_history(folder / HISTORY_FILE),
        levels=levels,
        measured=tuple((treatment, context) for treatment, context in described["measured"]),
        pairs=tuple((treatment, context) for treatment, context in described["pairs"]),
        context_shares=dict(described["context_shares"]),
        unlinked=tuple(described["unlinked"]),
        content=dict(described["content"]),
        seed=described["seed"],
        conditions=tuple(described["conditions"]),
        n_cells=dict(described["n_cells"]),
    )


def _unstructured(model: TrainedModel) -> dict[str, Any]:
    """What has no place in the AnnData of the controls."""
    unstructured: dict[str, Any] = {
        "fingerprints": model.fingerprints,
        "confounding": {name: model.confounding[name].to_numpy() for name in ALARM_COLUMNS},
    }
    if model.damage is not None:
        unstructured["damage"] = vars(model.damage)
    if model.residual is not None:
        unstructured["residual"] = {
            **vars(model.residual),
            "combinations": np.array(model.residual.combinations, dtype=object),
            **{name: vars(getattr(model.residual, name)) for name in ("noise", *GROUPS)},
        }
    return unstructured if model.qc is None else unstructured | {"qc": model.qc}


def _residual(stored: dict[str, Any]) -> EffectResidual:
    names = tuple(str(name) for name in stored["combinations"])
    numbers = {name: float(stored[name]) for name in ("combined_part", "widening")}
    noise = MeasurementNoise(**{**stored["noise"], "n_controls": float(stored["noise"]["n_controls"])})
    groups = {name: TwoGroups(**{key: float(value) for key, value in stored[name].items()}) for name in GROUPS}
    return EffectResidual(
        **{**stored, **numbers, **groups, "combinations": names, "noise": noise, "n_pairs": int(stored["n_pairs"])}
    )


def _history(path: Path) -> pd.DataFrame:
    """Learning curves; a model is whole without them."""
    try:
        return pd.read_csv(path)
    except (OSError, ValueError):  # absent, empty or damaged
        warnings.warn(f"{path} cannot be read; the model is loaded without its learning curves", stacklevel=4)
        return pd.DataFrame()


def _description(folder: Path) -> dict[str, Any]:
    path = folder / MODEL_FILE
    if not path.exists():
        raise DataError(f"no model in {folder} (no {MODEL_FILE}); train one with `cradlevae train --output {folder}`")
    try:
        described = json.loads(path.read_text())
        known = described["model"] in {declaration.name for declaration in FAMILY.values()}
        format_ = described["format"]
        newer, older = format_ > FORMAT, format_ < FORMAT
        recorded = described.pop("checksum", None)
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path} is damaged or not a cradlevae model") from None
    if not known:
        raise DataError(f"{path} describes a {described['model']!r}, which is no model of this package")
    if newer:
        raise DataError(f"{path} was written by version {described.get('version')}; update cradlevae to read it")
    if older:
        raise DataError(f"{path} was written by an earlier version ({described.get('version')}); train it anew")
    if recorded != _checksum(described):
        raise DataError(f"{path} is damaged or was changed (its checksum does not fit); train or copy it again")
    return dict(described)


def _checksum(described: dict[str, Any]) -> str:
    """Checksum of a description, so that what :func:`load_model` reads from it is what was written."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

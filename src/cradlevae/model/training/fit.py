"""Fitting a module to the cells of a split, on any accelerator, resumable after a kill."""

from __future__ import annotations

import gc
import json
import tempfile
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.counterfactual_pairs import CounterfactualPairs
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.data.loading.loader import Minibatches
from cradlevae.data.qc.gene_families import mitochondrial
from cradlevae.errors import DataError
from cradlevae.model.config import ModelConfig
from cradlevae.model.module import CradleModule
from cradlevae.model.objective_inputs import SplitSizes
from cradlevae.model.training.content import PARTS
from cradlevae.model.training.processes import train_in_processes
from cradlevae.model.training.settings import TrainConfig
from cradlevae.model.training.trainer import HISTORY_FILE, RUN_FILE, TrainingRun, last_checkpoint
from cradlevae.nn.matmul import has_bf16_arithmetic
from cradlevae.utils.accelerator import accelerator_count
from cradlevae.utils.atomic import make_folder
from cradlevae.utils.types import IndexArray


def check_devices(config: ModelConfig, training: TrainConfig) -> None:
    """Raise :class:`DataError` if a model cannot be trained on so many devices."""
    if training.n_devices > 1 and config.objective == "released":
        raise DataError(
            f"devices is {training.n_devices}, but the objective 'released' has terms that depend on the whole batch; "
            "set devices=1, or train with the objective 'corrected'"
        )


def fit(
    module: CradleModule,
    data: Experiment,
    rows: dict[str, IndexArray],
    config: TrainConfig,
    *,
    output: Path | None = None,
    resume: bool = False,
    record: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Train a module; it holds the weights of the best epoch afterwards.

    Parameters
    ----------
    module
        The module, freshly made; on resuming, its weights are replaced.
    data
        The experiment.
    rows
        Rows of the cells of ``train`` and, for early stopping, ``val``.
    config
        How to train.
    output
        Folder of checkpoints and the CSV log; ``None`` uses a temporary one. An earlier run in it is removed when the
        first epoch of this one is complete, unless it is resumed.
    resume
        Go on from the last checkpoint in ``output``, where there is one.
    record
        What determines the run beside ``config`` (JSON values); a run of another record is not resumed.

    Returns
    -------
    pandas.DataFrame
        One row per epoch: mean of each loss term over training and validation cells.
    """
    check_devices(module.config, config)
    config = config.of_cells(len(rows["train"]))
    _warn_of_slow_bf16(config)
    data = replace(data, obs=data.obs[[]])  # training reads nothing of it, and processes need no copy
    with tempfile.TemporaryDirectory(prefix="cradlevae-") as temporary:
        folder = make_folder(output or Path(temporary))
        record = {**(record or {}), "training": _determining(config)}
        if resume and (folder / RUN_FILE).exists():
            _check_same_run(folder / RUN_FILE, record)
        run = TrainingRun(
            module,
            make_minibatches(data, rows, module, config),
            split_sizes(data, rows["train"], module.config),
            config,
            folder,
            record,
            resume=resume and last_checkpoint(folder).exists(),
            replaces=not resume,
        )
        if run.resume:
            assert config.max_epochs is not None
            _check_checkpoint(last_checkpoint(folder), config.max_epochs)
        if config.n_devices == 1:
            run.train()
        else:
            train_in_processes(run)
        gc.collect()  # Lightning's objects refer to each other, and to the optimiser's tables
        state = torch.load(run.chosen, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        module.cpu().load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
        module.eval()
        return pd.read_csv(folder / HISTORY_FILE, float_precision="round_trip")


def appended(earlier: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """The learning curves of a model that is trained once more: its earlier epochs, and then those of this training.

    Epochs are numbered on. A resumed run tells of all its epochs; those that are known already are not told twice.
    """
    if earlier.empty:
        return history
    losses = earlier["train_loss"].to_numpy(), history["train_loss"].to_numpy()
    for known in range(len(earlier)):  # from where on the earlier epochs are the first ones of this run
        n = len(earlier) - known
        if n <= len(history) and (losses[0][known:] == losses[1][:n]).all():
            earlier = earlier.iloc[:known]
            break
    if earlier.empty:
        return history
    numbered = history.assign(epoch=history["epoch"] - history["epoch"].iloc[0] + earlier["epoch"].iloc[-1] + 1)
    return pd.concat([earlier, numbered], ignore_index=True)


def _warn_of_slow_bf16(config: TrainConfig) -> None:
    """Warn where products of bfloat16 values are emulated, which takes longer than products in float32."""
    on_cpu = config.accelerator == "cpu" or (config.accelerator == "auto" and not accelerator_count())
    if config.precision == "bf16" and on_cpu and not has_bf16_arithmetic():
        warnings.warn(
            "precision='bf16' will be slower than 'float32' here: this processor has no bfloat16 arithmetic (neither "
            "AVX512_BF16 nor AMX), so it is emulated; leave precision out",
            stacklevel=4,
        )


def make_minibatches(
    data: Experiment, rows: dict[str, IndexArray], module: CradleModule, config: TrainConfig
) -> dict[str, Minibatches]:
    """Batches of each part that has cells, shuffled for training, with references or pairs as the objective wants."""
    model = module.config
    return {
        part: Minibatches(
            data, rows[part], config.batch_size, make_counterfactual_references(data, rows[part], model, config.seed),
            shuffle=part == "train", seed=config.seed, pairs=make_pairs(data, rows[part], module, config.seed),
        )
        for part in rows
        if len(rows[part])
    }  # fmt: skip


def make_counterfactual_references(
    data: Experiment, rows: IndexArray, config: ModelConfig, seed: int
) -> CounterfactualReferences | None:
    """Reference profiles as the objective wants them; ``None`` where it does not use any."""
    if not config.counterfactual_weight or config.reference == "damaged":
        return None
    released = config.objective == "released"
    return CounterfactualReferences(data, rows, kind=config.reference or "mean", opposite=not released, seed=seed)


def make_pairs(data: Experiment, rows: IndexArray, module: CradleModule, seed: int) -> CounterfactualPairs | None:
    """Counterfactual pairs of passing ones of some cells; ``None`` where the objective does not use any."""
    config, guide = module.config, module.damage_guide
    if guide is None:
        return None
    assert config.damages is not None
    assert config.pair_share is not None
    return CounterfactualPairs(
        data, rows, damages=config.damages, share=config.pair_share, pools=guide.pools.cpu().numpy(),
        retained=mitochondrial(list(data.genes)), seed=seed,
    )  # fmt: skip


def split_sizes(data: Experiment, rows: IndexArray, config: ModelConfig) -> SplitSizes:
    """Cells per perturbation and per class among ``rows``, and the weights of passing and failed cells."""
    per_condition = np.bincount(data.condition[rows], minlength=len(data.conditions))
    failed = data.failed[rows]
    weight = np.ones(2)
    if config.balance_classes and 0 < failed.sum() < len(rows):
        weight = len(rows) / (2 * np.array([(~failed).sum(), failed.sum()]))
    return SplitSizes(
        torch.as_tensor(per_condition @ (data.dosage != 0), dtype=torch.float32),
        torch.as_tensor((data.artifact[rows] != 0).sum(axis=0), dtype=torch.float32),
        torch.as_tensor(weight, dtype=torch.float32),
        len(rows),
        torch.as_tensor(np.bincount(data.levels[rows].ravel(), minlength=data.n_levels), dtype=torch.float32),
    )


def _determining(config: TrainConfig) -> dict[str, Any]:
    """What of a training configuration changes the numbers of an epoch."""
    free = ("max_epochs", "patience", "accelerator", "devices", "data_on_device", "tensorboard", "progress")
    return {name: value for name, value in asdict(config).items() if name not in free}


def _check_same_run(path: Path, record: dict[str, Any]) -> None:
    """Raise :class:`DataError` if the run in a folder was of other data, another split or other settings."""
    try:
        earlier = json.loads(path.read_text())
        before, now = _flat(earlier), _flat(json.loads(json.dumps(record)))
    except (ValueError, AttributeError):
        raise DataError(f"{path} is damaged; the run cannot be resumed, train anew in another folder") from None
    differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if differing:
        settings = [name for name in differing if name not in PARTS]
        other = [f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in settings]
        other += [f"{PARTS[name]} were others" for name in PARTS if name in differing]
        shown = "; ".join(other[:4])
        raise DataError(
            f"the run in {path.parent} was another one ({shown}); resume it as it was, or choose another folder"
        )


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Nested settings by their last name."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def _check_checkpoint(path: Path, max_epochs: int) -> None:
    """Raise :class:`DataError` unless a checkpoint can be read and leaves epochs to train."""
    try:
        epochs = int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"]) + 1
    except Exception as error:  # what a damaged file raises is torch's business
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is damaged or not a checkpoint ({reason}); train anew in another folder") from None
    if epochs > max_epochs:
        raise DataError(f"the run already has {epochs} epochs; set max_epochs above that to go on (it is {max_epochs})")

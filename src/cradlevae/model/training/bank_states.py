"""States of the cells that are kept with a model, computed when training ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.minibatch import make_minibatch
from cradlevae.model.estimation.banks import BANK_CELLS, ControlBank, DamageBank
from cradlevae.model.globals import artifact_state, perturbation_state
from cradlevae.model.module import sparse_counts
from cradlevae.model.trained import TrainedModel, training_rows
from cradlevae.nn.mlp import Gaussian
from cradlevae.utils.constants import ENCODED_CELLS
from cradlevae.utils.types import Float32Array, IndexArray


def with_banks(model: TrainedModel, data: Experiment) -> TrainedModel:
    """The model with the states of (at most 2,000) passing controls and failed cells of its training part."""
    train = training_rows(data, model.split, model.config)
    controls = train[data.is_control[train]]
    passing = controls[~data.failed[controls]]
    kept = passing if len(passing) else controls  # if all failed, theirs are still the best states there are
    context = data.varied_by("context")
    if context is not None:
        contexts = context.codes[kept]
        rows = np.sort(np.concatenate([_some(kept[contexts == code]) for code in np.unique(contexts)]))
    else:
        rows = _some(kept)
    basal, _ = _posteriors(model, data, rows, clean=True)
    bank = ControlBank(*basal, data.library_size[rows], data.levels[rows])
    failed = _some(train[data.failed[train]])
    damage = None
    if model.module.has_own_artifact and len(failed):
        _, own = _posteriors(model, data, failed, clean=False)
        damage = DamageBank(*own, data.artifact[failed])
    return replace(model, controls=bank, damage=damage)


def _some(rows: IndexArray) -> IndexArray:
    return np.sort(np.random.default_rng(0).permutation(rows)[:BANK_CELLS])


Moments = tuple[Float32Array, Float32Array]


def _posteriors(model: TrainedModel, data: Experiment, rows: IndexArray, *, clean: bool) -> tuple[Moments, Moments]:
    """Means and scales of q(z^b) and q(s) of cells; ``clean`` cells are unperturbed and undamaged."""
    module = model.module
    posteriors: list[tuple[Gaussian, Gaussian | None]] = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for start in range(0, len(rows), ENCODED_CELLS):
            minibatch = make_minibatch(data, rows[start : start + ENCODED_CELLS])
            encoded = module.encode_counts(sparse_counts(minibatch))[0]
            if clean:
                posteriors.append(module.encode(encoded, levels=minibatch.levels))
                continue
            draw = module.sample_globals(module.draw_noise(1))
            z_p = perturbation_state(draw, minibatch.dosage, minibatch.condition)
            z_a = artifact_state(draw, minibatch.artifact)
            posteriors.append(
                module.encode(
                    encoded, z_p, z_a, module.offset_of_cells(minibatch.dosage, minibatch.condition), minibatch.levels
                )
            )
    return _stacked([basal for basal, _ in posteriors]), _stacked([own for _, own in posteriors if own is not None])


def _stacked(posteriors: list[Gaussian]) -> Moments:
    if not posteriors:
        return np.zeros((0, 0), dtype=np.float32), np.zeros((0, 0), dtype=np.float32)
    return (
        np.concatenate([posterior.loc[0].numpy() for posterior in posteriors]),
        np.concatenate([posterior.scale[0].numpy() for posterior in posteriors]),
    )

"""Which condition a cell may be of, by what it itself shows: for cells whose labels are not to be used.

A condition moves the log rate of gene g by L_g in the decoder. Of a cell with counts x, of which the model expects μ
where no condition is known, the condition is as probable a posteriori as all are a priori times

    exp( Σ_g ( κ x_g L_g − μ_g (exp(κ L_g) − 1) ) ),

the ratio of two Poisson likelihoods, where κ is the share of its effects that a damaged cell still shows. Every draw of
a twin takes a condition at random, as probable as that. As a function of κ, the second part is a parabola through its
values at 0, ½ and 1, so that this takes three matrix products of cells and conditions, whatever their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cradlevae.data.experiment import Experiment
from cradlevae.data.labels import CONTROL, Condition, condition_name, in_context
from cradlevae.data.loading.minibatch import Minibatch
from cradlevae.model.globals import Globals, artifact_state
from cradlevae.model.module import failed_cells, sparse_counts
from cradlevae.model.trained import TrainedModel
from cradlevae.query.arguments import asked_names
from cradlevae.utils.constants import BLOCK_VALUES
from cradlevae.utils.types import IndexArray

MOST_VALUES = 20_000_000
"""Conditions × genes that are kept; of more conditions, those of smallest effect stand as controls."""


@dataclass(frozen=True)
class Effects:
    """What conditions of one context do to log rates, as far as their evidence is looked at.

    Attributes
    ----------
    conditions
        The conditions, the control first.
    value
        L, (conditions, genes).
    log_prior
        Log of how many conditions each stands for, (conditions,): the control also for those that are left out.
    """

    conditions: tuple[Condition, ...]
    value: Tensor
    log_prior: Tensor


class OwnConditions:
    """Conditions of cells by their counts.

    Parameters
    ----------
    model
        A trained model.
    data
        The experiment; its labels are not looked at.
    draw
        Draws of the globals, whose mean the effects are of.
    """

    def __init__(self, model: TrainedModel, data: Experiment, draw: Globals) -> None:
        self._model, self._draw = model, draw
        self._contexts: Sequence[str | None] = [None]
        self._context = np.zeros(data.n_cells, dtype=np.int64)
        if data.context is not None and len(data.context.levels) > 1:
            self._contexts, self._context = data.context.levels, data.context.codes
        names = asked_names(model.fields, model.conditions, model.perturbations).values()
        self._effects = {
            int(code): _effects(model, draw, list(names), self._contexts[code]) for code in np.unique(self._context)
        }

    def states(self, minibatch: Minibatch, rows: IndexArray, chance: Tensor) -> tuple[Tensor, Tensor | None]:
        """z^p, (P, N, W), and what gene effects add, (P, N, G), of conditions that are drawn for some cells.

        Parameters
        ----------
        minibatch, rows
            The cells, and which ones of the experiment they are.
        chance
            Numbers between 0 and 1 by which conditions are chosen, (P, N).
        """
        expected, shown = self._expected(minibatch)
        counts = sparse_counts(minibatch).dense()
        context, chosen = self._context[rows], np.empty(chance.shape, dtype=object)
        for code in np.unique(context):
            effects, cells = self._effects[int(code)], context == code
            up_to = torch.softmax(self._evidence(effects, counts, expected, shown), dim=-1).cumsum(-1)
            place = torch.searchsorted(up_to, chance.T.contiguous()).clamp_max(len(effects.conditions) - 1).T.numpy()
            chosen[:, cells] = np.array(effects.conditions, dtype=object)[place][:, cells]
        found = [self._states_of(draw, of_cells) for draw, of_cells in enumerate(chosen)]
        offsets = [offset for _, offset in found if offset is not None]
        return torch.stack([state for state, _ in found]), torch.stack(offsets) if offsets else None

    def _evidence(self, effects: Effects, counts: Tensor, expected: Tensor, shown: Tensor) -> Tensor:
        """Log probability of each condition up to a constant, (N, conditions)."""
        rates = effects.value
        half, whole = (expected @ torch.expm1(part * rates).T for part in (0.5, 1.0))
        lost = 4 * shown * (1 - shown) * half + shown * (2 * shown - 1) * whole
        return effects.log_prior + shown * (counts @ rates.T) - lost

    def _expected(self, minibatch: Minibatch) -> tuple[Tensor, Tensor]:
        """Expected counts of cells of no known condition, (N, G), and the share of effects that they show, (N, 1)."""
        module, draw = self._model.module, self._draw
        none = draw.shift.new_zeros(1, 1, module.embedding.width)
        state = artifact_state(draw, minibatch.artifact)
        encoded = module.encode_counts(sparse_counts(minibatch))[0]
        posterior, own = module.encode(encoded, none, state, None, minibatch.levels)
        if state is not None and own is not None:
            state = state + failed_cells(minibatch.artifact).unsqueeze(1) * own.loc
        share = module.decode_share(posterior.loc, none, state, None, module.of_levels(minibatch.levels)).mean(0)
        expected = share * minibatch.library_size.unsqueeze(1)
        if state is None or module.shown_head is None:
            return expected, expected.new_ones(len(expected), 1)
        return expected, module.shown(state).mean(0)

    def _states_of(self, draw: int, conditions: Sequence[Condition]) -> tuple[Tensor, Tensor | None]:
        """z^p in a draw of the globals, (N, W), and what gene effects add, (N, G), of a condition for each cell."""
        number = {name: place for place, name in enumerate(dict.fromkeys(conditions))}
        place = torch.tensor([number[name] for name in conditions])
        dosage, shift = self._model.dosage(tuple(number)), self._draw.shift
        offset = self._model.module.offset(dosage)
        state = (dosage @ shift[min(draw, len(shift) - 1)])[place]
        return state, None if offset is None else offset[place]


def _effects(model: TrainedModel, draw: Globals, names: list[Condition], context: str | None) -> Effects:
    """Effects of all conditions that the model knows, at the basal state of a typical cell."""
    control = condition_name(())
    in_its = [in_context(name, context) for name in names if name != CONTROL]
    known = set(model.answerable(in_its))
    conditions = [control, *(name for name in in_its if name in known)]
    module, shift = model.module, draw.shift.mean(0)
    typical = shift.new_zeros(1, 1, module.n_latent)
    base = module.decode_share(typical, (torch.zeros(1, len(shift)) @ shift)[None])[0]
    most = max(2, MOST_VALUES // len(model.genes))
    step = max(1, BLOCK_VALUES // len(model.genes))
    kept, strength = base.new_zeros(1, len(model.genes)), base.new_zeros(1)
    place = torch.zeros(1, dtype=torch.int64)
    for start in range(1, len(conditions), step):
        dosage = model.dosage(tuple(conditions[start : start + step]))
        value = (module.decode_share(typical, (dosage @ shift)[None], None, module.offset(dosage))[0] / base).log()
        kept = torch.cat([kept, value])
        place = torch.cat([place, torch.arange(start, start + len(value))])
        strength = torch.cat([strength, value.square() @ base[0]])
        best = torch.cat([torch.zeros(1, dtype=torch.int64), 1 + strength[1:].argsort(descending=True)[: most - 1]])
        kept, place, strength = kept[best], place[best], strength[best]
    stands_for = torch.ones(len(place))
    stands_for[0] += len(conditions) - len(place)
    return Effects(tuple(conditions[number] for number in place.tolist()), kept, stands_for.log())

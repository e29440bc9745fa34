"""Adam, and an exponential average of the weights, whose cost for tables of rows is that of the rows that occur.

A minibatch touches the rows of its own perturbations. To a row without a gradient, Adam gives the rest of its momentum:
after a step t with the moments m and v, the j-th step without a gradient moves it by

    −η ρʲ √(1 − β₂ᵗ⁺ʲ) / (1 − β₁ᵗ⁺ʲ) · m / (√v + ε √(1 − β₂ᵗ)),    ρ = β₁ / √β₂,

so that the sum of these moves is one number per row, whatever the genes, and so is what the average of the weights
makes of them. Both are kept up to date for every row; a row itself is brought up to date when it occurs again, and
all rows are before anyone looks at them (:meth:`RowAdam.catch_up_all`). The result is that of Adam on whole tables,
but for ε, which is taken to shrink as √v does, and for weight decay, which acts on rows when they occur.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ROW_VALUES = 1 << 16
"""Values of a table that are worked on at a time on a processor; elsewhere it is all rows of a step."""


class RowAdam(torch.optim.Adam):
    """Adam; parameters with sparse gradients are tables whose rows are moved when they occur.

    Parameters
    ----------
    parameters
        Everything that is trained.
    tables
        Those of them, (rows, ·) each, that have sparse gradients; all have the same rows.
    lr, weight_decay, fused
        As of :class:`torch.optim.Adam`.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        tables: Iterable[torch.nn.Parameter],
        lr: float,
        weight_decay: float,
        fused: bool = True,
    ) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=fused or None)
        self.tables = list(tables)
        self._averages: list[Tensor | None] = [None] * len(self.tables)
        self._clock: _Clock | None = None
        self._decay = 0.0

    def average(self, averages: dict[Tensor, Tensor], decay: float) -> set[Tensor]:
        """Keep averages of the tables from now on, in place, with this decay a step; give the tables."""
        self._averages = [averages[table] for table in self.tables]
        self._decay = decay
        return set(self.tables)

    @torch.no_grad()
    def catch_up(self, rows: Tensor) -> None:
        """Bring rows (each once, ascending) up to date, before a step that they occur in."""
        clock = self._rows()
        clock.taken = rows
        for table in self.tables:
            state = self._state_of(table)
            for part in self._parts(rows, table):
                row = rows[part]
                moved = self._move(state, row) * (self.lr * clock.moved[row]).unsqueeze(1)
                table.index_add_(0, row, moved, alpha=-1)

    @torch.no_grad()
    def catch_up_all(self) -> None:
        """Bring all rows up to date, with their moments and averages."""
        if self._clock is None or not self.tables:
            return
        clock = self._clock
        rows = torch.nonzero(clock.behind).squeeze(1)
        self.catch_up(rows)
        for table, average in zip(self.tables, self._averages, strict=True):
            state = self._state_of(table)
            for part in self._parts(rows, table):
                row = rows[part]
                if average is not None:
                    average[row] = self._averaged(state, table, average, row)
                state["exp_avg"][row] *= clock.left(row, self.betas[0])
                state["exp_avg_sq"][row] *= clock.left(row, self.betas[1])
        clock.up_to_date(rows)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.tables:
            gradients = [table.grad for table in self.tables]
            for table in self.tables:
                table.grad = None
            self._step_rows(gradients)
        super().step()
        return loss

    def _step_rows(self, gradients: list[Tensor | None]) -> None:
        clock = self._rows()
        rows, n_steps = clock.taken, clock.n_steps + 1
        first, second = self.betas
        size, root = self.lr / (1 - first**n_steps), (1 - second**n_steps) ** 0.5
        for table, average, gradient in zip(self.tables, self._averages, gradients, strict=True):
            state = self._state_of(table)
            place, values = _rows_of_gradient(gradient, rows, table)
            for part in self._parts(rows, table):
                row = rows[part]
                kept = None if average is None else self._averaged(state, table, average, row)
                weight = table[row]
                found = weight * self.weight_decay
                inside = (place >= part.start) & (place < part.stop)
                found.index_add_(0, place[inside] - part.start, values[inside])
                mean = state["exp_avg"][row] * (first * clock.left(row, first))
                mean.add_(found, alpha=1 - first)
                square = state["exp_avg_sq"][row] * (second * clock.left(row, second))
                square.addcmul_(found, found, value=1 - second)
                weight.addcdiv_(mean, (square.sqrt() / root).add_(self.eps), value=-size)
                table[row], state["exp_avg"][row], state["exp_avg_sq"][row] = weight, mean, square
                if average is not None and kept is not None:
                    average[row] = kept.lerp_(weight, 1 - self._decay)
            state["step"].fill_(n_steps)
        clock.up_to_date(rows)
        clock.tick(rows, self.betas, self._decay)

    def _averaged(self, state: dict[str, Tensor], table: Tensor, average: Tensor, row: Tensor) -> Tensor:
        """The average of rows that are up to date themselves, with the steps that they were behind."""
        clock = self._rows()
        kept = clock.left(row, self._decay)
        lag = (self.lr * ((1 - kept[:, 0]) * clock.moved[row] - clock.averaged[row])).unsqueeze(1)
        return average[row] * kept + table[row] * (1 - kept) + self._move(state, row) * lag

    def _move(self, state: dict[str, Tensor], row: Tensor) -> Tensor:
        """M / (√v + ε √(1 − β₂ᵗ)) of rows, as of their last step t."""
        clock = self._rows()
        last = (clock.n_steps - clock.behind[row]).clamp_min(1)
        smallest = self.eps * (1 - self.betas[1] ** last).sqrt().unsqueeze(1)
        return state["exp_avg"][row] / state["exp_avg_sq"][row].sqrt_().add_(smallest)

    def _state_of(self, table: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=table.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        return state

    def _rows(self) -> _Clock:
        if self._clock is None:
            table = self.tables[0]
            self._clock = _Clock.of(len(table), table.device, int(self._state_of(table)["step"]))
        return self._clock

    def _parts(self, rows: Tensor, table: Tensor) -> list[slice]:
        size = max(1, ROW_VALUES // table.shape[1]) if table.device.type == "cpu" else max(1, len(rows))
        return [slice(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]

    @property
    def lr(self) -> float:
        """Learning rate."""
        return float(self.param_groups[0]["lr"])

    @property
    def weight_decay(self) -> float:
        """Weight decay."""
        return float(self.param_groups[0]["weight_decay"])

    @property
    def betas(self) -> tuple[float, float]:
        """Decays of the moments."""
        first, second = self.param_groups[0]["betas"]
        return first, second

    @property
    def eps(self) -> float:
        """What is added to the root of the second moment."""
        return float(self.param_groups[0]["eps"])


@dataclass
class _Clock:
    """How far each row is behind, and what the steps that it missed add up to, (rows,) each.

    Attributes
    ----------
    behind
        Steps without a gradient since the row's last one.
    power
        ρ to this power.
    moved
        Sum of the moves of these steps, in units of the learning rate and of :meth:`RowAdam._move`.
    averaged
        The same of the average of the weights, which was at the row's own place before.
    n_steps
        Steps that were taken.
    taken
        Rows of the present step.
    """

    behind: Tensor
    power: Tensor
    moved: Tensor
    averaged: Tensor
    n_steps: int
    taken: Tensor

    @classmethod
    def of(cls, n_rows: int, device: torch.device, n_steps: int) -> _Clock:
        """All rows up to date after so many steps."""
        zeros = torch.zeros(3, n_rows, device=device)
        nothing = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(zeros[0], torch.ones(n_rows, device=device), zeros[1], zeros[2], n_steps, nothing)

    def left(self, rows: Tensor, decay: float) -> Tensor:
        """What a decay a step has left in rows, (rows, 1)."""
        return (decay ** self.behind[rows]).unsqueeze(1)

    def up_to_date(self, rows: Tensor) -> None:
        """Rows have been brought up to date."""
        for one, value in ((self.behind, 0.0), (self.power, 1.0), (self.moved, 0.0), (self.averaged, 0.0)):
            one[rows] = value

    def tick(self, rows: Tensor, betas: tuple[float, float], decay: float) -> None:
        """A step was taken, with these rows; ``decay`` is that of the average of the weights."""
        self.n_steps += 1
        first, second = betas
        correction = (1 - second**self.n_steps) ** 0.5 / (1 - first**self.n_steps)
        others = torch.ones_like(self.behind)
        others[rows] = 0
        self.behind.add_(others)
        self.power.mul_(1 - others + others * (first / second**0.5))
        self.moved.addcmul_(self.power, others, value=correction)
        self.averaged.mul_(1 - others + others * decay).addcmul_(self.moved, others, value=1 - decay)


def _rows_of_gradient(gradient: Tensor | None, rows: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Places among some rows that a gradient is of, and its values; every row of it is one of them."""
    if gradient is None:
        return rows[:0], table[:0]
    if not gradient.is_sparse:
        return torch.arange(len(rows), device=rows.device), gradient[rows]
    found = gradient.coalesce()
    return torch.searchsorted(rows, found.indices()[0]), found.values()


def clip_gradients(parameters: Iterable[torch.nn.Parameter], largest: float) -> Tensor:
    """Scale gradients, dense and sparse, down to a norm; give what it was."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            gradients.append(parameter.grad.values())
        else:
            gradients.append(parameter.grad)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp_max(1.0))
    return norm

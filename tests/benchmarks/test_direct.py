"""The direct formulation that the package's speed is measured against computes the same loss and gradients."""

from __future__ import annotations

import importlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.data.loading.minibatch import make_minibatch
from cradlevae.model.objective import draw_noise, loss_terms
from cradlevae.model.training.fit import split_sizes

pytestmark = pytest.mark.numeric

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def in_float64(record: Any) -> Any:
    """A dataclass of tensors with all its floating-point numbers in float64."""
    tensors = {entry.name: getattr(record, entry.name) for entry in fields(record)}
    tensors = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    return replace(record, **{name: value.double() for name, value in tensors.items() if value.is_floating_point()})


@pytest.mark.parametrize("model", ["published", "default"])
def test_loss_and_gradients_of_the_direct_formulation_are_those_of_the_package(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    direct, steps = importlib.import_module("direct"), importlib.import_module("steps")
    untrained = steps.problem(60, 200, 4, model)
    data, module = untrained.data, untrained.trained.module.train().double()
    rows = untrained.split.rows(data.cells, "train")
    references, chosen = CounterfactualReferences(data, rows), rows[:32]
    sizes = in_float64(split_sizes(data, rows, module.config))
    torch.manual_seed(0)
    noise = draw_noise(module, len(chosen), 2)
    formulation = direct.DirectModel(module)
    dense = in_float64(direct.DenseData(data, references).minibatch(chosen))

    expected = formulation.terms(dense, sizes, noise)
    terms = loss_terms(module, in_float64(make_minibatch(data, chosen, references)), sizes, noise)
    assert ("gene_effects" in terms) == (model == "default")
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-9
    )
    torch.stack(list(expected.values())).sum().backward()
    torch.stack(list(terms.values())).sum().backward()
    difference = direct.largest_difference(formulation.gradients(), direct.package_gradients(module))
    assert difference < 1e-9


def test_what_the_direct_formulation_does_not_cover_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    direct, steps = importlib.import_module("direct"), importlib.import_module("steps")
    monkeypatch.setitem(steps.MODELS, "sum", {"decode": "sum"})
    with pytest.raises(ValueError, match="no decode='sum', only 'concat'"):
        direct.DirectModel(steps.problem(60, 200, 4, "sum").trained.module)

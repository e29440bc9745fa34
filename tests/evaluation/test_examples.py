"""The examples in the docstrings of what users register and train."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from cradlevae.evaluation.floors import model
from cradlevae.evaluation.floors import registry as floors
from cradlevae.evaluation.metrics import registry as metrics


@pytest.mark.parametrize("module", [metrics, floors, model], ids=lambda module: module.__name__)
def test_examples_run(module: ModuleType) -> None:
    failed, attempted = doctest.testmod(module)
    assert attempted > 0
    assert failed == 0

"""The examples in the docstrings of the public names run, and give what they say."""

from __future__ import annotations

import doctest
from operator import attrgetter

import pytest

import cradlevae as cv

SKIP: dict[str, str] = dict.fromkeys(
    ("pl.cleaned", "pl.damage", "pl.effects", "pl.guides", "pl.scores", "pl.signature", "pl.training"),
    "needs a trained model, or a screen with guide RNAs; docs/plots.md and tests/reporting run it",
)
"""Public names without an example that runs, with the reason."""

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


PLOTS = [f"pl.{name}" for name in cv.pl.__all__]


@pytest.mark.parametrize("name", [*cv.__all__, *PLOTS])
def test_examples_run(name: str) -> None:
    if name in SKIP:
        pytest.skip(SKIP[name])
    finder = doctest.DocTestFinder(exclude_empty=True, recurse=name != "pl")
    examples = [test for test in finder.find(attrgetter(name)(cv), name, globs={}) if test.examples]
    assert examples, f"{name} has no example"
    for example in examples:
        printed: list[str] = []
        results = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=printed.append)
        assert results.failed == 0, "".join(printed)


def test_names_that_are_skipped_are_public() -> None:
    assert set(SKIP) <= {*cv.__all__, *PLOTS}

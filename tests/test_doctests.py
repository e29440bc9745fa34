"""The examples in the docstrings of the public names run, and give what they say."""

from __future__ import annotations

import doctest

import pytest

import cradlevae as cv

SKIP: dict[str, str] = {}
"""Public names without an example that runs, with the reason."""

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", cv.__all__)
def test_examples_run(name: str) -> None:
    if name in SKIP:
        pytest.skip(SKIP[name])
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [test for test in finder.find(getattr(cv, name), name, globs={}) if test.examples]
    assert examples, f"{name} has no example"
    for example in examples:
        printed: list[str] = []
        results = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=printed.append)
        assert results.failed == 0, "".join(printed)


def test_names_that_are_skipped_are_public() -> None:
    assert set(SKIP) <= set(cv.__all__)

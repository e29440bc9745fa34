"""Docstrings that take the texts of others."""

from __future__ import annotations

from typing import Any

import pytest

from cradlevae.utils.docs import PREAMBLE, documented_by, parameter_texts, plain, sections


def source(model: Any, a: int, *, b: int = 2, c: int = 3) -> None:
    """Compute.

    In a certain way.

    Parameters
    ----------
    model
        The model.
    a
        The first number.

        With a second paragraph.
    b, c
        Further numbers.

    Returns
    -------
    None
        Nothing.

    Raises
    ------
    DataError
        Never.
    """


def other(c: int) -> None:
    """Compute otherwise.

    Parameters
    ----------
    c : int
        The third number alone.
    """


def test_a_docstring_is_read_by_its_sections() -> None:
    read = sections(source.__doc__)
    assert list(read) == [PREAMBLE, "Parameters", "Returns", "Raises"]
    assert read[PREAMBLE] == "Compute.\n\nIn a certain way."
    assert parameter_texts(source) == {
        "model": "The model.",
        "a": "The first number.\n\nWith a second paragraph.",
        "b": "Further numbers.",
        "c": "Further numbers.",
    }
    assert parameter_texts(source, other)["c"] == "The third number alone."
    assert parameter_texts(lambda: None) == {}


def test_a_target_keeps_its_signature_and_takes_the_texts_that_it_lacks() -> None:
    @documented_by(source, other)
    def target(a: int, *, b: int = 2, c: int = 3, **more: int) -> None:
        """Ask.

        Parameters
        ----------
        b
            Another second number.
        **more
            Whatever.

        Raises
        ------
        ValueError
            Sometimes.

        Examples
        --------
        >>> 1
        1
        """

    assert target.__doc__ == (
        "Ask.\n\nIn a certain way.\n\nParameters\n----------\n"
        "a\n    The first number.\n\n    With a second paragraph.\n"
        "b\n    Another second number.\nc\n    The third number alone.\n**more\n    Whatever.\n\n"
        "Returns\n-------\nNone\n    Nothing.\n\n"
        "Raises\n------\nValueError\n    Sometimes.\n\n"
        "Examples\n--------\n>>> 1\n1\n"
    )


def test_a_parameter_without_a_text_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"no docstring describes unknown of .*target"):

        @documented_by(source)
        def target(a: int, unknown: int) -> None:
            """Ask."""


def test_plain_text_has_no_markup() -> None:
    text = "Of :class:`cradlevae.Split` or\n    ``None``, see :func:`~cradlevae.query.predict.predict`, :meth:`load`."
    assert plain(text) == "Of Split or None, see predict, load."

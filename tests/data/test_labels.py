"""Labels as people write them, and the conditions that they mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cradlevae.data.labels import closest, condition_name, dosage_table, indicator_table, parse_label, singles_of
from cradlevae.errors import DataError

NAMES = st.text(alphabet="ABCdef123-.", min_size=1, max_size=6).filter(
    lambda name: name.casefold() not in ("control", "ctrl", "non-targeting")
)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("control", ()),
        ("Ctrl", ()),
        ("NON-TARGETING", ()),
        ("ctrl+ctrl", ()),
        ("Trp53", ("Trp53",)),  # mouse case stays
        ("A+B", ("A", "B")),
        ("B+A", ("A", "B")),
        (" B + A ", ("A", "B")),
        ("A+ctrl", ("A",)),
        ("ctrl+A", ("A",)),
        ("A+A", ("A",)),
        ("A+B+C", ("A", "B", "C")),
        ("HLA-A_2", ("HLA-A_2",)),
    ],
)
def test_members(label: str, expected: tuple[str, ...]) -> None:
    assert parse_label(label) == expected


def test_separator_and_control_labels_are_the_callers() -> None:
    assert parse_label("B_A", separator="_") == ("A", "B")
    assert parse_label("A_ctrl", separator="_") == ("A",)
    assert parse_label("safe-harbor", control_labels=("Safe-Harbor",)) == ()
    assert parse_label("control", control_labels=("Safe-Harbor",)) == ()  # the canonical name is always a control
    assert parse_label("non-targeting", separator="-") == ()


@given(st.lists(NAMES, unique=True, max_size=4))
def test_names_round_trip_and_do_not_depend_on_the_order(singles: list[str]) -> None:
    name = condition_name(singles)
    assert condition_name(reversed(singles)) == name
    assert singles_of(name) == tuple(sorted(singles))
    assert parse_label(name) == tuple(sorted(singles))


def test_dosage_table() -> None:
    table = dosage_table(["control", "B", "A+B"], ["A", "B", "C"])
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, [[0, 0, 0], [0, 1, 0], [1, 1, 0]])


def test_indicators_of_conditions_that_are_treatments() -> None:
    table = indicator_table(["control", "A+B", "C", "A+C"], ["A+B", "C"])
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, [[0, 0], [1, 0], [0, 1], [0, 0]])


def test_unknown_perturbations_are_refused_with_the_closest_names() -> None:
    with pytest.raises(DataError, match=r"unknown perturbation 'STATT1'; did you mean 'STAT1'"):
        dosage_table(["STATT1"], ["JAK2", "STAT1", "IFNGR1"])
    with pytest.raises(DataError, match=r"did you mean 'Myc'\?"):
        dosage_table(["Trp53+MYC"], ["Myc", "Trp53"])
    with pytest.raises(DataError, match=r"unknown perturbation 'X'; known: 'a0', .*'a7', …"):
        dosage_table(["X"], [f"a{i}" for i in range(9)])


def test_closest_lists_what_there_is() -> None:
    assert closest("qq", ["one", "two"]) == "; known: 'one', 'two'"

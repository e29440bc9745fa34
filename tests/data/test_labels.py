"""Labels as people write them, and the conditions that they mean."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cradlevae.data.dosage import dosage_table, indicator_table
from cradlevae.data.labels import Condition, condition_name, is_missing, parse_label, requested_conditions, singles_of
from cradlevae.errors import DataError
from cradlevae.utils.names import closest

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


ANY_NAMES = st.text(alphabet="ABc1+_-;", min_size=1, max_size=5).filter(lambda name: any(map(str.isalnum, name)))


@given(st.lists(ANY_NAMES, unique=True, max_size=3), st.sampled_from(["+", "_", ";", None]))
def test_singles_round_trip_under_every_separator(names: list[str], separator: str | None) -> None:
    singles = [name for name in names if separator is None or separator not in name][: 1 if separator is None else 3]
    condition = condition_name(singles, separator)
    assert condition.singles == tuple(sorted(singles))
    assert parse_label(condition, separator=separator) == condition.singles
    assert singles_of(pickle.loads(pickle.dumps(condition))) == condition.singles
    assert singles_of(copy.deepcopy(condition)) == condition.singles
    assert type(condition) is Condition
    assert condition == str(condition)
    assert hash(condition) == hash(str(condition))


@pytest.mark.parametrize("label", ["", "  ", "+", " + ", "nan", "A+", "+A", "A++B", "A+nan"])
def test_labels_without_a_name_are_refused(label: str) -> None:
    with pytest.raises(DataError, match="label"):
        parse_label(label)
    with pytest.raises(DataError, match="label"):
        requested_conditions(["A", label])


def test_missing_texts_unless_they_are_controls() -> None:
    assert all(is_missing(label) for label in ("N/A", " <NA> ", "", "+"))
    assert is_missing("", separator=None)
    assert not is_missing("nan", control_labels=("nan",))
    assert not any(is_missing(label) for label in ("Nanog", "control", "A+"))


def test_control_labels_that_hold_the_separator() -> None:
    controls = ("non_targeting", "neg_ctrl_1")
    for label, singles in {
        "A_non_targeting": ("A",),
        "Neg_Ctrl_1_A_B": ("A", "B"),
        "non_targeting_neg_ctrl_1": (),
        "A_neg": ("A", "neg"),
    }.items():
        assert parse_label(label, separator="_", control_labels=controls) == singles


def test_requests_keep_the_spelling_and_know_what_it_means() -> None:
    requested = requested_conditions(["B+A", "A+B", "ctrl", "B+A"])
    assert list(requested) == ["B+A", "A+B", "ctrl"]
    assert [condition.singles for condition in requested.values()] == [("A", "B"), ("A", "B"), ()]
    assert list(requested.values()) == ["A+B", "A+B", "control"]
    assert requested_conditions("Na+", separator=None)["Na+"].singles == ("Na+",)
    with pytest.raises(DataError, match="no perturbations"):
        requested_conditions([])


def test_a_plus_is_understood_beside_another_separator_where_it_can_mean_one_thing_only() -> None:
    known = requested_conditions(["A+B", "A_Na+"], separator="_", perturbations=("A", "B", "Na+"))
    assert [condition.singles for condition in known.values()] == [("A", "B"), ("A", "Na+")]
    assert requested_conditions("A+B", separator="_", perturbations=("A", "B", "A+B"))["A+B"].singles == ("A+B",)


@pytest.mark.parametrize("separator", ["+", "_", None])
def test_a_condition_is_not_split_again(separator: str | None) -> None:
    condition = condition_name(["Na+", "A_B"], separator)
    [(label, requested)] = requested_conditions([condition], separator=separator).items()
    assert (label, requested.singles) == (str(condition), ("A_B", "Na+"))
    assert requested == condition


def test_combinations_of_guides_are_read_by_the_known_perturbations() -> None:
    known = ("A", "B", "Na+", "x+y")
    labels = ["A+B", "B+A", "A+Na+", "Na+", "x+y", "A+x+y", "ctrl+A", "A+unknown"]
    singles = [("A", "B"), ("A", "B"), ("A", "Na+"), ("Na+",), ("x+y",), ("A", "x+y"), ("A",), ("A+unknown",)]
    requested = requested_conditions(labels, separator=None, perturbations=known, guides=True)
    assert [condition.singles for condition in requested.values()] == singles
    assert requested_conditions("A+B", separator=None, perturbations=known)["A+B"].singles == ("A+B",)
    with pytest.raises(DataError, match=r"'A\+B\+C' may mean \['A', 'B\+C'\] or \['A\+B', 'C'\]"):
        requested_conditions("A+B+C", separator=None, perturbations=("A", "B+C", "A+B", "C"), guides=True)


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

"""Bars that end full, on a terminal, in a notebook and in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cradlevae.utils import progress
from cradlevae.utils.progress import ProgressBar, clock, track_bytes, track_slow


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(progress, "REDRAW_EVERY", -1.0)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """States of the bars that a notebook shows, in their order."""
    states: list[dict[str, str]] = []

    def display(bundle: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        states.append(bundle)
        return SimpleNamespace(update=lambda bundle, raw: states.append(bundle))

    modules = {
        "IPython": SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=None)),
        "IPython.display": SimpleNamespace(display=display),
    }
    for name, module in modules.items():
        monkeypatch.setitem(progress.sys.modules, name, module)
    return states


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track_slow("abc", 3, "reading")) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(",")[0] for line in err.splitlines()] == ["reading 1/3", "reading 2/3", "reading 3/3"]
    assert "left" in err.splitlines()[0]
    assert "left" not in err.splitlines()[-1]
    assert not re.search("[^ -~\n]", err)


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 3600.0)
    list(track_slow("abc", 3, "reading"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("n", "transient"), [(3, False), (2, False), (3, True)])
def test_a_terminals_bar_ends_full(
    n: int, transient: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    bar = ProgressBar("training", 3, transient=transient)
    for done in range(1, n + 1):
        bar.show(done, "loss 1.0")
    bar.close()
    shown = capsys.readouterr().err
    for text in ("training", f"{n}/{n}", "loss 1.0"):
        assert (text in shown) is not transient


def test_a_notebooks_bar_ends_full_and_says_how_long_it_took(
    notebook: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(track_slow("abc", 3, "<reading>")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
    assert notebook[0]["text/plain"] == "<reading> 0/3"
    assert notebook[-1]["text/plain"] == "<reading> 3/3, took 0:00"
    assert '<progress value="3" max="3">' in notebook[-1]["text/html"]
    assert "&lt;reading&gt;" in notebook[-1]["text/html"]


def test_a_bar_stands_where_the_work_broke(notebook: list[dict[str, str]]) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(track_slow(broken(), 3, "reading"))
    assert notebook[-1]["text/plain"].startswith("reading 1/3")
    assert "stopped after" in notebook[-1]["text/plain"]


def test_a_bar_is_full_where_the_work_was_done_early(notebook: list[dict[str, str]]) -> None:
    for item in track_slow("abc", 3, "reading"):
        if item == "b":
            break
    assert notebook[-1]["text/plain"] == "reading 1/1, took 0:00"


def test_the_bar_of_a_part_stays_away(notebook: list[dict[str, str]]) -> None:
    for _ in track_slow("ab", 2, "whole"):
        list(track_slow("abc", 3, "part"))
    assert all(state["text/plain"].startswith("whole") for state in notebook)
    list(track_slow("abc", 3, "another"))  # the next one is shown again
    assert notebook[-1]["text/plain"].startswith("another 3/3")


def test_bytes_of_unknown_number(notebook: list[dict[str, str]]) -> None:
    assert list(track_bytes([b"ab", b"c"], 10, None, "downloading")) == [b"ab", b"c"]
    assert "<progress></progress>" in notebook[1]["text/html"]
    assert notebook[-1]["text/plain"].startswith("downloading 13/13")


def test_durations() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 3599, 3661, -1)] == ["0:00", "1:00", "59:59", "1:01:01", "0:00"]

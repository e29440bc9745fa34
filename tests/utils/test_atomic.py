"""Nothing half-written stays behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cradlevae.errors import DataError
from cradlevae.utils.atomic import atomic_path, make_folder, write_text


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "table.csv"
    with atomic_path(target) as path:
        path.write_text("half")
        assert path.parent == target.parent
        assert path.suffix == ".csv"
        assert not target.exists()
        path.write_text("whole")
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    write_text(target, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as path:
        path.write_text(f"half {1 / 0}")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_that_the_writer_took_away_is_no_trouble_twice(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "table.csv") as path:
        path.unlink()
    assert list(tmp_path.iterdir()) == []


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        write_text(tmp_path / "table.csv", "text")
    finally:
        os.umask(umask)
    assert (tmp_path / "table.csv").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DataError, match=rf"cannot write into {folder}: .*choose another output folder"):
            make_folder(folder)
    with pytest.raises(DataError, match="cannot write into"):
        write_text(tmp_path / "file" / "run" / "x.json", "{}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="Permission denied"):
        make_folder(tmp_path)


def test_making_a_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "a" / "b")
    assert list(folder.iterdir()) == []
    assert make_folder(folder) == folder

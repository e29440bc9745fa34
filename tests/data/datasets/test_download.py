"""Downloads that are cut, changed, refused or out of room: what is there afterwards, and what the message says."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import re
import shutil
import threading
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cradlevae.data.datasets.download import address, cache_folder, fetch
from cradlevae.data.datasets.published import DATASETS
from cradlevae.data.datasets.transfer import Resumable
from cradlevae.errors import DataError

NORMAN = DATASETS["norman"]
CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What the local server does, and what it was asked for."""

    content: bytes = CONTENT
    cut_after: int | None = None
    ranges: bool = True
    shift: int = 0
    tag: str | None = '"1"'
    asked: list[str | None] = field(default_factory=list)
    address: str = ""

    def headers_and_body(self, asked: str | None, same: str | None) -> tuple[int, dict[str, str], bytes]:
        headers = {} if self.tag is None else {"ETag": self.tag}
        found = re.fullmatch(r"bytes=(\d+)-", asked or "")
        if not (found and self.ranges and same == self.tag):
            return 200, headers, self.content
        start = int(found[1])
        if start >= len(self.content):
            return 416, {"Content-Range": f"bytes */{len(self.content)}"}, b""
        start -= self.shift
        headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        return 206, headers, self.content[start:]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.headers["Range"])
            if not self.path.endswith(NORMAN.filename):
                self.send_error(404)
                return
            status, headers, body = state.headers_and_body(self.headers["Range"], self.headers["If-Range"])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body if state.cut_after is None else body[: state.cut_after])

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.address = f"http://127.0.0.1:{running.server_port}/data"
    monkeypatch.setenv("CRADLEVAE_MIRROR", state.address)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("cradlevae.data.datasets.transfer.CHUNK", 10_000)
    yield state
    running.shutdown()
    thread.join()
    running.server_close()


def finished(folder: Path) -> set[str]:
    """What a user sees in the folder."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_file_comes_once_with_its_checksum(server: Server, tmp_path: Path) -> None:
    path = fetch(NORMAN, tmp_path)
    assert path.read_bytes() == CONTENT
    known = json.loads((tmp_path / "norman_2019_raw.h5ad.json").read_text())
    assert known["sha256"] == SHA256
    assert known["bytes"] == len(CONTENT)
    assert known["url"].startswith(server.address)
    assert finished(tmp_path) == {"norman_2019_raw.h5ad", "norman_2019_raw.h5ad.json"}
    assert fetch(NORMAN, tmp_path) == path
    assert server.asked == [None]


def test_a_cut_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut_after = 120_000
    with pytest.raises(DataError, match=r"connection to 127.0.0.1:\d+ was cut .*call again.* \(.*h5ad.part\)"):
        fetch(NORMAN, tmp_path)
    part = tmp_path / "norman_2019_raw.h5ad.part"
    have = part.stat().st_size
    assert 0 < have <= 120_000
    assert finished(tmp_path) == {part.name, f"{part.name}.json"}  # nothing that looks finished
    server.cut_after = None
    assert fetch(NORMAN, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={have}-"]
    assert not part.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"ranges": False},  # a server that always sends all of it
        {"content": CONTENT[::-1], "tag": '"2"'},  # the file has changed since
        {"content": CONTENT[:1000], "tag": '"2"'},
        {"shift": 7},  # a server that sends another range than asked for
        {"content": CONTENT[:1000]},  # shorter, and the server does not say that it changed
    ],
)
def test_what_cannot_be_resumed_starts_again(server: Server, tmp_path: Path, change: dict[str, Any]) -> None:
    server.cut_after = 120_000
    with pytest.raises(DataError, match="was cut"):
        fetch(NORMAN, tmp_path)
    server.cut_after = None
    for name, value in change.items():
        setattr(server, name, value)
    assert fetch(NORMAN, tmp_path).read_bytes() == server.content


def test_without_a_version_of_the_file_nothing_is_resumed(server: Server, tmp_path: Path) -> None:
    server.cut_after, server.tag = 120_000, None
    with pytest.raises(DataError, match="was cut"):
        fetch(NORMAN, tmp_path)
    server.cut_after = None
    assert fetch(NORMAN, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_a_whole_part_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "file.part"
    Resumable(part, "").receive(f"{server.address}/{NORMAN.filename}")
    Resumable(part, "")(f"{server.address}/{NORMAN.filename}", str(tmp_path / "file"), None)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert finished(tmp_path) == {"file"}
    assert server.asked == [None]


def test_a_file_that_changed_on_disk_is_refused(server: Server, tmp_path: Path) -> None:
    path = fetch(NORMAN, tmp_path)
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DataError, match=rf"has changed: its SHA-256 is [0-9a-f]{{64}}, but {SHA256} was recorded"):
        fetch(NORMAN, tmp_path)
    path.unlink()  # as the message says
    assert fetch(NORMAN, tmp_path).read_bytes() == CONTENT


def test_a_file_that_changed_at_its_address_is_refused(server: Server, tmp_path: Path) -> None:
    fetch(NORMAN, tmp_path).unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(DataError, match=rf"is another file than before: .*but {SHA256} was recorded on .*If you trust"):
        fetch(NORMAN, tmp_path)
    assert "norman_2019_raw.h5ad" not in finished(tmp_path)
    (tmp_path / "norman_2019_raw.h5ad.json").unlink()  # trusted
    (tmp_path / "norman_2019_raw.h5ad.refused").rename(tmp_path / "norman_2019_raw.h5ad")
    assert fetch(NORMAN, tmp_path).read_bytes() == server.content


def test_a_file_put_there_by_hand_is_taken_and_remembered(tmp_path: Path) -> None:
    (tmp_path / NORMAN.filename).write_bytes(b"mine")
    assert fetch(NORMAN, tmp_path, mirror="http://127.0.0.1:1").read_bytes() == b"mine"
    (tmp_path / NORMAN.filename).write_bytes(b"other")
    with pytest.raises(DataError, match="has changed"):
        fetch(NORMAN, tmp_path)
    (tmp_path / f"{NORMAN.filename}.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read; remove it"):
        fetch(NORMAN, tmp_path)


def test_offline_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(DataError) as caught:
        fetch(NORMAN, tmp_path, mirror="http://127.0.0.1:1/files/")
    message = str(caught.value)
    assert message.startswith(
        "cannot reach 127.0.0.1:1 (ConnectionError); get http://127.0.0.1:1/files/norman_2019_raw"
    )
    assert f"put it at {tmp_path / NORMAN.filename}, or pass its path (path=)" in message
    assert "CRADLEVAE_MIRROR" in message
    assert finished(tmp_path) == set()


def test_an_absent_file_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dixit_2016_raw.h5ad answers 404 Not Found; get .*GSE90063"):
        fetch(DATASETS["dixit"], tmp_path)
    assert finished(tmp_path) == set()


def test_too_small_a_disk_is_seen_before_anything_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda folder: usage(1_000))
        with pytest.raises(DataError, match=r"disk is full: 300,000 bytes more are needed in .*, where 1,000 are free"):
            fetch(NORMAN, tmp_path)
    assert finished(tmp_path) == set()
    assert fetch(NORMAN, tmp_path).read_bytes() == CONTENT


def test_a_disk_that_fills_up_keeps_what_has_come(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A file on a disk with room for 50,000 bytes."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: Any) -> None:
            self.file.close()

        def write(self, chunk: bytes) -> None:
            if self.file.tell() + len(chunk) > 50_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.file.write(chunk)

    whole = Path.open
    with monkeypatch.context() as patched:
        patched.setattr(
            Path,
            "open",
            lambda self, mode="r", **options: (Full if "b" in mode else lambda file: file)(
                whole(self, mode, **options)
            ),
        )
        with pytest.raises(
            DataError, match=r"disk is full: 250,000 bytes more are needed in .*make room and call again"
        ):
            fetch(NORMAN, tmp_path)
    assert NORMAN.filename not in finished(tmp_path)
    assert fetch(NORMAN, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=50000-"]


def _fetch(folder: Path, address: str) -> None:
    fetch(NORMAN, folder, address)


def test_processes_that_want_the_same_file_download_it_once(server: Server, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fetch, args=(tmp_path, server.address)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / NORMAN.filename).read_bytes() == CONTENT
    assert server.asked == [None]


def test_where_files_are_asked_for_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRADLEVAE_MIRROR", raising=False)
    assert address(NORMAN) == "https://exampledata.scverse.org/pertpy/norman_2019_raw.h5ad"
    monkeypatch.setenv("CRADLEVAE_MIRROR", "https://one.org/a/")
    assert address(NORMAN) == "https://one.org/a/norman_2019_raw.h5ad"
    assert address(NORMAN, "https://two.org") == "https://two.org/norman_2019_raw.h5ad"
    monkeypatch.setenv("CRADLEVAE_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    assert cache_folder(tmp_path / "given") == tmp_path / "given"
    monkeypatch.delenv("CRADLEVAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "system"))
    assert cache_folder().name == "cradlevae"

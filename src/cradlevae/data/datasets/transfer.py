"""Downloads over HTTP that continue where a broken connection left off.

The received bytes are in ``<name>.part``; a file beside it records whether the server still offers the same file. The
finished file appears only when it is complete.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cradlevae.errors import DataError
from cradlevae.utils.atomic import write_text
from cradlevae.utils.progress import track_bytes

TIMEOUT = (10.0, 60.0)
"""Seconds to wait for the connection, and for the next bytes."""

CHUNK = 1 << 20


@dataclass(frozen=True)
class Resumable:
    """A downloader for pooch that continues where it stopped.

    Parameters
    ----------
    part
        File that collects the received bytes.
    by_hand
        Advice for users who cannot reach the server; it ends the messages.
    """

    part: Path
    by_hand: str

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Receive ``url`` into ``output_file``; called by pooch.

        Raises
        ------
        DataError
            If the server cannot be reached or refuses, the connection is cut, or the disk is full.
        """
        self.receive(url)
        self.part.replace(output_file)
        self._state.unlink(missing_ok=True)

    def receive(self, url: str) -> None:
        """Download the missing part of ``url`` into ``part``; the errors are those of :meth:`__call__`."""
        have, known = self._received(url)
        if known and have == known["total"]:
            return
        with self._response(url, have, known) as response:
            start = _start(response)
            if start not in (0, have) or response.status_code == 416:  # not what was asked for: all of it, then
                self.part.unlink()
                return self.receive(url)
            total = _total(response, start)
            self._check_space(None if total is None else total - start)
            try:
                write_text(self._state, json.dumps({"url": url, "validator": _validator(response), "total": total}))
                self._save(response, start, total)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    have = self.part.stat().st_size if self.part.exists() else 0
                    raise self._full(None if total is None else total - have) from None
                raise
        size = self.part.stat().st_size
        if total is not None and size < total:
            raise self._cut(url, f"{size:,} of {total:,} bytes came")

    @property
    def _state(self) -> Path:
        return self.part.with_name(self.part.name + ".json")

    def _received(self, url: str) -> tuple[int, dict[str, Any]]:
        """Return the number of bytes received earlier (0 where there are none), and the record of their file."""
        try:
            known = json.loads(self._state.read_text())
            have = self.part.stat().st_size
        except (OSError, ValueError):
            return 0, {}
        same = isinstance(known, dict) and known.get("url") == url and known.get("validator")
        return (have, known) if same and have else (0, {})

    @contextmanager
    def _response(self, url: str, have: int, known: dict[str, Any]) -> Iterator[Any]:
        import requests

        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": known["validator"]}
        try:
            response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
        except requests.RequestException as error:
            reason = type(error).__name__
            raise DataError(f"cannot reach {urlsplit(url).netloc} ({reason}); {self.by_hand}") from None
        with response:
            if response.status_code not in ((200, 206, 416) if have else (200,)):
                raise DataError(f"{url} answers {response.status_code} {response.reason}; {self.by_hand}")
            try:
                yield response
            except requests.RequestException as error:
                raise self._cut(url, type(error).__name__) from None

    def _save(self, response: Any, start: int, total: int | None) -> None:
        with self.part.open("ab" if start else "wb") as file:
            for chunk in track_bytes(response.iter_content(CHUNK), start, total, f"downloading {self.part.stem}"):
                file.write(chunk)

    def _check_space(self, needed: int | None) -> None:
        if needed is not None and shutil.disk_usage(self.part.parent).free < needed:
            raise self._full(needed)

    def _full(self, needed: int | None) -> DataError:
        free = shutil.disk_usage(self.part.parent).free
        wanted = "more bytes" if needed is None else f"{needed:,} bytes more"
        return DataError(
            f"the disk is full: {wanted} are needed in {self.part.parent}, where {free:,} are free; make room and call "
            "again (what has come is kept), or name another folder with CRADLEVAE_CACHE or cache="
        )

    def _cut(self, url: str, reason: str) -> DataError:
        return DataError(
            f"the connection to {urlsplit(url).netloc} was cut ({reason}); call again, and the download goes on where "
            f"it stopped ({self.part})"
        )


def _start(response: Any) -> int:
    """Return the position of the first byte that the server sends."""
    span = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(span[1]) if response.status_code == 206 and span else 0


def _total(response: Any, start: int) -> int | None:
    """Return the size of the whole file, or ``None`` where the server does not say."""
    length = response.headers.get("Content-Length")
    return None if length is None else start + int(length)


def _validator(response: Any) -> str:
    """Return the server's mark of this version of the file; empty where there is none."""
    tag = response.headers.get("ETag", "")
    return str(tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", ""))

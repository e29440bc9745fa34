"""Published files in the cache folder: downloaded once, and checked at every later use.

The SHA-256 of ``<file>`` is recorded in ``<file>.json`` after the download. (The servers do not publish any.)
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cradlevae.data.datasets.published import Published
from cradlevae.data.datasets.transfer import Resumable
from cradlevae.errors import DataError
from cradlevae.utils.atomic import make_folder, write_text

CACHE, MIRROR = "CRADLEVAE_CACHE", "CRADLEVAE_MIRROR"
"""Environment variables that name the cache folder and another address of the files."""

_log = logging.getLogger(__name__)


def cache_folder(folder: str | Path | None = None) -> Path:
    """Return the cache folder (as given, from ``CRADLEVAE_CACHE``, or the system's), created where it is missing."""
    import pooch

    named = folder or os.environ.get(CACHE)
    return make_folder(Path(named).expanduser() if named else Path(pooch.os_cache("cradlevae")))


def address(data: Published, mirror: str | None = None) -> str:
    """Return the address of a published file: at the mirror (as given, or from ``CRADLEVAE_MIRROR``) if any."""
    base = mirror or os.environ.get(MIRROR)
    return f"{base.rstrip('/')}/{data.filename}" if base else data.url


def fetch(data: Published, folder: Path, mirror: str | None = None) -> Path:
    """Return the published file in the cache folder: downloaded where it is missing, else checked.

    Parameters
    ----------
    data
        Declaration of the data set.
    folder
        Cache folder.
    mirror
        Address of a folder with the file, in place of the published address.

    Raises
    ------
    DataError
        If the file cannot be downloaded, or differs from the file of the first download.
    """
    import pooch

    target = folder / data.filename
    url = address(data, mirror)
    with locked(target):
        known = _recorded(target)
        if target.exists():
            digest = pooch.file_hash(str(target))
            if known is not None and digest != known["sha256"]:
                raise DataError(
                    f"{target} has changed: its SHA-256 is {digest}, but {known['sha256']} was recorded on "
                    f"{known['recorded']}; remove the file to download it again, or, if you changed it on purpose, "
                    f"remove {_record_file(target).name} beside it"
                )
        else:
            digest = _download(data, url, target, known)
        if known is None:
            _record(target, url, digest)
    return target


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Let one process at a time make a file."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("another process is making %s; waiting for it", target)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(data: Published, url: str, target: Path, known: dict[str, Any] | None) -> str:
    """Download a file; its SHA-256."""
    import pooch

    downloader = Resumable(
        target.with_name(target.name + ".part"),
        f"get {url} where it can be reached and put it at {target}, or pass its path (path=), or name a mirror "
        f"(mirror= or {MIRROR}); the original is {data.accession}",
    )
    with _quiet(pooch.get_logger()):
        pooch.retrieve(url, known_hash=None, fname=target.name, path=str(target.parent), downloader=downloader)
    digest = str(pooch.file_hash(str(target)))
    if known is not None and digest != known["sha256"]:
        refused = target.with_name(target.name + ".refused")
        target.replace(refused)
        raise DataError(
            f"{url} is another file than before: its SHA-256 is {digest}, but {known['sha256']} was recorded on "
            f"{known['recorded']}; what came lies at {refused}. If you trust it, remove {_record_file(target)} and "
            f"rename it to {target.name}; if not, call again"
        )
    return digest


def _record_file(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _recorded(target: Path) -> dict[str, Any] | None:
    """What was recorded of a file when it came; ``None`` where nothing was."""
    path = _record_file(target)
    if not path.exists():
        return None
    try:
        known: dict[str, Any] = json.loads(path.read_text())
        return {"sha256": known["sha256"], "recorded": known["recorded"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path} cannot be read; remove it, and the file beside it is taken as it is") from None


def _record(target: Path, url: str, sha256: str) -> None:
    when = datetime.now(UTC).date().isoformat()
    known = {"url": url, "sha256": sha256, "bytes": target.stat().st_size, "recorded": when}
    write_text(_record_file(target), json.dumps(known, indent=1))


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """No messages below warnings: pooch tells what to pass to pooch."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)

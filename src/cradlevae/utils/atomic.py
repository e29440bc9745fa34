"""Writing files so that a half-written file never remains."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cradlevae.errors import DataError

if TYPE_CHECKING:
    import anndata as ad


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it replaces ``path`` when the block ends without an error.

    Raises
    ------
    DataError
        If the folder is absent and cannot be made, or is not writable.
    """
    target = Path(path)
    if target.is_dir():
        raise DataError(f"{target} is a folder; name a file in it")
    make_folder(target.parent)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        readable(temporary)
        temporary.replace(target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def swapped_in(folder: Path, last: str) -> Iterator[Path]:
    """Yield a hidden folder in ``folder``; what is written there takes its place when the block ends without an error.

    Files of the same names are replaced, all or none, and all other files stay. The file named ``last`` is moved last.

    Raises
    ------
    DataError
        If the folder is absent and cannot be made, or is not writable.
    """
    existed = folder.exists()
    make_folder(folder)
    staging = Path(tempfile.mkdtemp(dir=folder, prefix=".writing-"))
    try:
        yield staging
        names = sorted((path.name for path in staging.iterdir()), key=lambda name: (name == last, name))
        _swap(folder, staging, names)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not existed:
            with suppress(OSError):  # it holds files
                folder.rmdir()


def _swap(folder: Path, staging: Path, names: list[str]) -> None:
    """Move files from ``staging`` into ``folder``; after an error, all earlier files are back in their place."""
    earlier = staging / "earlier"
    earlier.mkdir()
    moved: list[str] = []
    try:
        for name in names:
            if (folder / name).exists():
                os.link(folder / name, earlier / name)
            (staging / name).replace(folder / name)
            moved.append(name)
    except BaseException:
        for name in moved:
            (folder / name).unlink()
            if (earlier / name).exists():
                (earlier / name).replace(folder / name)
        raise


def readable(path: Path) -> None:
    """Give a file the permissions of any new file."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def make_folder(folder: str | Path) -> Path:
    """Create a folder where it is missing, and check that files can be written into it."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror}; choose another output folder") from None
    return folder


def write_h5ad(adata: ad.AnnData, path: str | Path) -> None:
    """Write an AnnData file atomically."""
    with atomic_path(path) as temporary:
        adata.write_h5ad(temporary, compression="gzip")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def write_csv(table: Any, path: Path) -> None:
    """Write a table atomically."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def need_parquet(what: str) -> None:
    """Raise :class:`DataError` where pandas cannot write parquet, the form of ``what``."""
    if find_spec("pyarrow") is None:
        raise DataError(f"{what} as parquet needs pyarrow; pip install 'cradlevae[benchmark]', or choose another form")


def write_parquet(table: Any, path: Path) -> None:
    """Write a table atomically."""
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)

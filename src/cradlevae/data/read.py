"""Reading and writing `.h5ad` files with errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cradlevae.data.files import atomic_path
from cradlevae.errors import DataError


def read_h5ad(path: str | Path, *, backed: bool = False) -> Any:
    """Read an AnnData file.

    Raises
    ------
    DataError
        If the file is absent, damaged or not an AnnData file.
    """
    import anndata as ad

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is a folder, not a file" if path.exists() else f"no file {path}")
    try:
        return ad.read_h5ad(path, backed="r" if backed else None)
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path} cannot be read as an AnnData file ({reason}); it may be truncated: copy it again"
        ) from None


def write_h5ad(adata: Any, path: str | Path) -> None:
    """Write an AnnData file atomically."""
    with atomic_path(path) as temporary:
        adata.write_h5ad(temporary, compression="gzip")

"""Writing `.h5ad` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cradlevae.data.files import atomic_path


def write_h5ad(adata: Any, path: str | Path) -> None:
    """Write an AnnData file atomically."""
    with atomic_path(path) as temporary:
        adata.write_h5ad(temporary, compression="gzip")

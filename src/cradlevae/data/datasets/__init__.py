"""The published data sets, ready to train on: ``cradlevae.datasets.norman()``, ``dixit``, ``adamson``, ``replogle``.

Each is downloaded once, converted once into the form that the package reads (see
:func:`~cradlevae.data.datasets.convert.convert`) and kept in the cache folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cradlevae.data.datasets.convert import KEY, convert, source_state
from cradlevae.data.datasets.download import cache_folder, fetch, locked
from cradlevae.data.datasets.published import DATASETS, Published, published
from cradlevae.data.storage.stored_cells import open_cells
from cradlevae.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData

    from cradlevae.data.storage.stored_cells import StoredCells

__all__ = ["DATASETS", "Published", "adamson", "dixit", "load", "norman", "published", "replogle"]


def norman(**options: Any) -> AnnData | StoredCells:
    """Norman et al. 2019: K562, CRISPRa of 105 genes and 131 pairs of them. Options of :func:`load`."""
    return load("norman", **options)


def dixit(**options: Any) -> AnnData | StoredCells:
    """Dixit et al. 2016: K562, knock-out of 10 transcription factors, alone and together. Options of :func:`load`."""
    return load("dixit", **options)


def adamson(**options: Any) -> AnnData | StoredCells:
    """Adamson et al. 2016: K562, CRISPRi of 82 genes of the unfolded protein response. Options of :func:`load`."""
    return load("adamson", **options)


def replogle(**options: Any) -> AnnData | StoredCells:
    """Replogle et al. 2022: K562, CRISPRi of 2,057 essential genes. Options of :func:`load`."""
    return load("replogle", **options)


def load(
    name: str,
    *,
    path: str | Path | None = None,
    cache: str | Path | None = None,
    mirror: str | None = None,
    backed: bool = False,
) -> AnnData | StoredCells:
    """A published data set: downloaded and converted when it is first asked for, read from the cache afterwards.

    Parameters
    ----------
    name
        ``"norman"``, ``"dixit"``, ``"adamson"`` or ``"replogle"``.
    path
        The published file, where you have it already; nothing is downloaded then.
    cache
        Folder to keep files in; by default that of the environment variable ``CRADLEVAE_CACHE``, or the system's.
    mirror
        Address to download from instead of the published one, up to the name of the file; by default that of the
        environment variable ``CRADLEVAE_MIRROR``.
    backed
        Leave the counts on disk (see :func:`cradlevae.open_cells`).

    Returns
    -------
    Raw counts, with ``obs`` columns ``perturbation`` (``control``, ``A``, ``A+B``), ``batch`` (10x lane) and ``label``
    (as published). ``uns["dataset"]`` holds the citation, the recipe of the paper's split, and how many cells were left
    out and why.

    Raises
    ------
    DataError
        If the file cannot be had or is not what it should be; the message says what to do.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.datasets.norman()
    >>> report = cv.annotate_qc(adata, batch_key="batch")
    >>> model = cv.CradleVAE(adata, split=cv.split(adata, adata.uns["dataset"]["split"]))
    """
    data = published(name)
    if path is not None and not Path(path).is_file():
        raise DataError(f"no file {path}")
    folder = cache_folder(cache)
    converted = folder / f"{name}.h5ad"
    source = folder / data.filename if path is None else Path(path)
    with locked(converted):
        if not _is_current(converted, source):
            convert(fetch(data, folder, mirror) if path is None else source, data, converted)
    cells = open_cells(converted)
    return cells if backed else cells.to_memory()


def _is_current(converted: Path, source: Path) -> bool:
    """Whether a converted file was made of this one, which may be gone since."""
    if not converted.exists():
        return False
    try:
        made = open_cells(converted).uns[KEY]
    except (DataError, KeyError):
        return False
    if not source.exists():
        return bool(made.get("source") == str(source.absolute()))
    return all(made.get(name) == value for name, value in source_state(source).items())

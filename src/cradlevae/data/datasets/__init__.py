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
from cradlevae.utils.checks import flag, optional_text, path_of

if TYPE_CHECKING:
    from anndata import AnnData

    from cradlevae.data.storage.stored_cells import StoredCells

__all__ = ["DATASETS", "Published", "adamson", "dixit", "load", "norman", "published", "replogle"]


def norman(**options: Any) -> AnnData | StoredCells:
    """Load Norman et al. 2019: K562 cells, CRISPRa of 105 genes and 131 pairs of them.

    The options, the errors and an example are those of :func:`load`.
    """
    return load("norman", **options)


def dixit(**options: Any) -> AnnData | StoredCells:
    """Load Dixit et al. 2016: K562 cells, knock-out of 10 transcription factors, alone and in combination.

    The options, the errors and an example are those of :func:`load`.
    """
    return load("dixit", **options)


def adamson(**options: Any) -> AnnData | StoredCells:
    """Load Adamson et al. 2016: K562 cells, CRISPRi of 82 genes of the unfolded protein response.

    The options, the errors and an example are those of :func:`load`.
    """
    return load("adamson", **options)


def replogle(**options: Any) -> AnnData | StoredCells:
    """Load Replogle et al. 2022: K562 cells, CRISPRi of 2,057 essential genes.

    The options, the errors and an example are those of :func:`load`.
    """
    return load("replogle", **options)


def load(
    name: str,
    *,
    path: str | Path | None = None,
    cache: str | Path | None = None,
    mirror: str | None = None,
    backed: bool = False,
) -> AnnData | StoredCells:
    """Load a published data set; the first call downloads and converts it, later calls read it from the cache.

    Parameters
    ----------
    name
        ``"norman"``, ``"dixit"``, ``"adamson"`` or ``"replogle"``.
    path
        Path of the published file, if you have it already; nothing is downloaded then.
    cache
        Folder of the cache; by default the folder in the environment variable ``CRADLEVAE_CACHE``, or the system's.
    mirror
        Address to download from instead of the published one, without the name of the file; by default the address in
        the environment variable ``CRADLEVAE_MIRROR``.
    backed
        Whether to leave the counts on disk (see :func:`cradlevae.open_cells`).

    Returns
    -------
    anndata.AnnData or StoredCells
        Raw counts, cells × genes, with the ``obs`` columns ``perturbation`` (``control``, ``A``, ``A+B``), ``batch``
        (10x lane) and ``label`` (as published). ``uns["dataset"]`` holds the citation, the recipe of the paper's split,
        and how many cells were left out and why.

    Raises
    ------
    DataError
        If the file cannot be downloaded or has other content than expected; the message says what to do.

    Examples
    --------
    The published file is downloaded unless its path is given. Here it is a tiny file with the published columns:

    >>> import tempfile
    >>> from pathlib import Path
    >>> import cradlevae as cv
    >>> folder = Path(tempfile.mkdtemp())
    >>> tiny = cv.simulate(n_cells=60, n_genes=30, n_perturbations=3, n_combinations=0)
    >>> tiny.obs["gene"] = tiny.obs["perturbation"].astype(str).replace("control", "non-targeting")
    >>> tiny.write_h5ad(folder / "replogle.h5ad")
    >>> adata = cv.datasets.load("replogle", path=folder / "replogle.h5ad", cache=folder / "cache")
    >>> list(adata.obs.columns), str(adata.uns["dataset"]["split"])
    (['perturbation', 'batch', 'label'], 'cells')
    """
    data = published(name)
    backed, mirror = flag("backed", backed), optional_text("mirror", mirror)
    if path is not None and mirror is not None:
        raise DataError("path= names the published file, so nothing is downloaded and mirror= means nothing; give one")
    if path is not None and not path_of("path", path).is_file():
        raise DataError(f"no file {path}")
    folder = cache_folder(None if cache is None else path_of("cache", cache))
    converted = folder / f"{name}.h5ad"
    source = folder / data.filename if path is None else Path(path)
    with locked(converted):
        if not _is_current(converted, source):
            convert(fetch(data, folder, mirror) if path is None else source, data, converted)
    cells = open_cells(converted)
    return cells if backed else cells.to_memory()


def _is_current(converted: Path, source: Path) -> bool:
    """Whether the converted file comes from this source file, which may have been deleted since."""
    if not converted.exists():
        return False
    try:
        record = open_cells(converted).uns[KEY]
    except (DataError, KeyError):
        return False
    if not source.exists():
        return bool(record.get("source") == str(source.absolute()))
    return all(record.get(name) == value for name, value in source_state(source).items())

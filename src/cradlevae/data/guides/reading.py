"""Counts of genes and of guide RNAs in one AnnData, from files of 10x Cell Ranger or of MuData."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.guides.targets import GUIDES, GuideTargets, guide_table
from cradlevae.data.storage.feature_files import (
    EXPRESSION,
    GUIDE_CAPTURE,
    TARGET_TAG,
    FeatureCounts,
    read_folder,
    read_h5,
)
from cradlevae.data.storage.input_files import note_source
from cradlevae.data.storage.mudata_file import read_mudata
from cradlevae.data.storage.whole_files import form_of, whole_files
from cradlevae.errors import DataError
from cradlevae.utils.checks import path_of, shown

if TYPE_CHECKING:
    from anndata import AnnData


def read_10x(path: str | Path, *, guide_targets: str | Path | Mapping[str, str] | None = None) -> AnnData:
    r"""Read counts of genes and guide RNAs from a file of 10x Cell Ranger or of MuData.

    Parameters
    ----------
    path
        A 10x HDF5 file (``.h5``; Cell Ranger 3 and later, or 2), a 10x folder (``matrix.mtx``, ``features.tsv`` or
        ``genes.tsv``, ``barcodes.tsv``, each compressed or not), or a MuData file (``.h5mu``).
    guide_targets
        The gene that each guide RNA targets: a table (CSV or tab-separated) with the columns ``guide`` and ``target``,
        a feature reference of Cell Ranger (``id``, ``name``, ``target_gene_name``), or a mapping. Guide RNAs that
        target no gene have the target ``control`` (or ``Non-Targeting``). ``None`` takes the targets that the file
        holds (``target_gene_name`` of the feature reference), and reads others from the name of the guide RNA by the
        rule of :mod:`cradlevae.data.guides.names`: ``STAT1_2``, ``sgSTAT1-2`` and ``STAT1g2`` →
        ``STAT1``; ``NT_1``, ``non-targeting_3``, ``NegCtrl0`` → ``control``.

    Returns
    -------
    anndata.AnnData
        ``X``: counts of the features of type "Gene Expression", (cells, genes), CSR float32. ``var_names``: symbols,
        made unique with ``-1``, ``-2``, …; ``var["gene_ids"]``: Ensembl ids. Where there are features of type "CRISPR
        Guide Capture", ``obsm["guides"]`` holds their counts, (cells, guide RNAs), CSR int32, and ``uns["guides"]`` is
        a table with a row for each of them: its name (index), ``target`` and ``id``.
        :func:`cradlevae.assign_guides` makes perturbation labels of them; ``guides_key="guides"`` also reads them.

    Raises
    ------
    DataError
        If the file is damaged or of another kind, its parts do not fit together, a barcode occurs twice, or
        ``guide_targets`` has no target for a guide RNA.

    Warns
    -----
    UserWarning
        Where targets are read from names, with examples; of features of other types, which are left out.

    Notes
    -----
    Counts of guide RNAs stay sparse: most cells hold few of them, so that 5,000 guide RNAs in 100,000 cells take
    megabytes, where a table of 32-bit numbers would take 2 GB.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import scipy.io, scipy.sparse
    >>> import cradlevae as cv
    >>> folder = Path(tempfile.mkdtemp())
    >>> features = ["ENSG1\tSTAT1\tGene Expression", "g1\tSTAT1_1\tCRISPR Guide Capture"]
    >>> _ = (folder / "features.tsv").write_text("\n".join(features))
    >>> _ = (folder / "barcodes.tsv").write_text("AAAC-1\nAAAG-1\nAAAT-1")
    >>> scipy.io.mmwrite(folder / "matrix.mtx", scipy.sparse.coo_matrix([[3, 0, 1], [0, 7, 0]]))
    >>> adata = cv.read_10x(folder, guide_targets={"STAT1_1": "STAT1"})
    >>> adata.shape, list(adata.var_names), adata.obsm["guides"].toarray().ravel().tolist()
    ((3, 1), ['STAT1'], [0, 7, 0])
    >>> adata.uns["guides"]["target"].to_dict()
    {'STAT1_1': 'STAT1'}
    """
    path = path_of("path", path)
    if guide_targets is not None and not isinstance(guide_targets, str | Path | Mapping):
        raise DataError(f"guide_targets is {shown(guide_targets)}; it must be the path of a table, or a mapping")
    form = form_of(path)
    if form is None:
        known = "a 10x .h5 file, a 10x folder (with matrix.mtx), nor a MuData file (.h5mu)"
        raise DataError(f"path is {str(path)!r}, which is neither {known}" if path.exists() else f"no file {path}")
    if form == "MuData":
        adata = _of_mudata(path, guide_targets)
    else:
        adata = _of_features(read_h5(path) if form == "10x HDF5" else read_folder(path), path, guide_targets)
    note_source(adata.obs, [path, *whole_files(path)])
    return adata


def _of_features(read: FeatureCounts, path: Path, guide_targets: GuideTargets) -> AnnData:
    import anndata as ad

    genes = read.of_kind(EXPRESSION)
    if not len(genes):
        kinds = ", ".join(map(repr, read.features["kind"].unique())) or "none"
        raise DataError(f"{path} has no features of type {EXPRESSION!r} (types there: {kinds})")
    var = read.features.iloc[genes]
    symbols = _symbols(var["name"].tolist(), var["id"].tolist())
    adata = ad.AnnData(
        X=sp.csr_matrix(read.counts[:, genes], dtype=np.float32),
        obs=pd.DataFrame(index=read.cells),
        var=pd.DataFrame({"gene_ids": var["id"].to_numpy()}, index=symbols),
    )
    others = read.features["kind"][~read.features["kind"].isin([EXPRESSION, GUIDE_CAPTURE])]
    _warn_left_out({str(kind): int(n) for kind, n in others.value_counts(sort=False).items()})
    guides = read.of_kind(GUIDE_CAPTURE)
    own = read.features.iloc[guides].rename(columns={"id": "gene_ids"}).set_index("name")
    _add_guides(adata, read.counts[:, guides], own, path, guide_targets)
    return adata


def _of_mudata(path: Path, guide_targets: GuideTargets) -> AnnData:
    import anndata as ad

    read = read_mudata(path)
    var = read.var.copy()
    var.index = _symbols([*map(str, var.index)], [*map(str, var.index)])
    adata = ad.AnnData(X=read.expression.astype(np.float32), obs=read.obs, var=var, layers=read.layers)
    _warn_left_out(read.left_out)
    _add_guides(adata, read.guides, read.guide_var, path, guide_targets)
    return adata


def _symbols(names: Sequence[str], ids: Sequence[str]) -> pd.Index[str]:
    """Names of genes: symbols, or ids where there is none, made unique."""
    from anndata.utils import make_index_unique

    symbols: pd.Index[str] = make_index_unique(
        pd.Index([name or other for name, other in zip(names, ids, strict=True)])
    )
    return symbols


def _warn_left_out(n_features: Mapping[str, int]) -> None:
    if n_features:
        counted = ", ".join(f"{n:,} of {kind!r}" for kind, n in n_features.items())
        warnings.warn(f"features of other types than genes and guide RNAs are left out: {counted}", stacklevel=4)


def _add_guides(
    adata: AnnData, counts: sp.csr_matrix | None, guides: pd.DataFrame, path: Path, guide_targets: GuideTargets
) -> None:
    """Add the counts of guide RNAs, (cells, guide RNAs), and the table of them, which is made of their annotation."""
    names = [str(name) for name in guides.index]
    if "gene_ids" in guides:  # a guide RNA without a name has that of its id, as genes have
        names = [name or str(other) for name, other in zip(names, guides["gene_ids"], strict=True)]
    if counts is None or not names:
        if guide_targets is not None:
            raise DataError(f"guide_targets is given, but {path} has no features of type {GUIDE_CAPTURE!r}")
        return
    ids = [str(other) for other in guides["gene_ids"]] if "gene_ids" in guides else names
    if len(set(names)) < len(names):
        names, ids = ids, names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: guide RNA {twice!r} occurs twice; give each a name of its own")
    counts.sum_duplicates()
    if (counts.data < 0).any() or (counts.data != np.floor(counts.data)).any():
        raise DataError(
            f"{path}: the counts of guide RNAs are not whole numbers of 0 or more; raw UMI counts are needed"
        )
    declared = guides[TARGET_TAG].tolist() if TARGET_TAG in guides else None
    adata.uns[GUIDES] = guide_table(names, ids, [*map(str, adata.var_names)], guide_targets, declared)
    adata.obsm[GUIDES] = sp.csr_matrix(counts, dtype=np.int32)

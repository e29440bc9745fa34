"""Declarations of the four data sets of the paper: address, form of the labels, and split.

A data set is recognised by the columns of ``obs`` that its layouts name. The layouts of the published files, with those
of scPerturb's standardised ones (``perturbation``: ``control``, ``A``, ``A_B``) beside them:

- **Norman**: ``guide_identity`` (``CBL_CNN1__CBL_CNN1``; ``NegCtrl0`` stands for a control guide RNA), or ``guide_ids``
  (``CBL,CNN1``; empty for controls); the lane in ``gemgroup``; ``number_of_cells`` and ``good_coverage`` tell whether
  the guide RNAs could be assigned; Ensembl ids, symbols in ``var["gene_symbols"]``.
- **Dixit**: a 0/1 column for each guide RNA (``sgELK1_1``, ``INTERGENIC393453``) beside ``guide``, or these names in
  ``perturbation`` (``p_sgELK1_1 + p_sgEGR1_2``); the screen in ``cluster`` or ``library``, its multiplicity of
  infection in ``moi``.
- **Adamson**: the construct in ``perturbation`` or ``guide identity`` (``SPI1_pDS255``; ``63(mod)_pBA580`` and
  ``Gal4-4(mod)_pBA582`` are controls; ``*`` was not assigned).
- **Replogle**: the target in ``gene`` (``non-targeting`` for controls), or the pair of guide RNAs in ``sgID_AB``; the
  lane in ``gem_group``; Ensembl ids, symbols in ``var["gene_name"]``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.data.datasets.guide_labels import (
    Reader,
    adamson_construct,
    dixit_guides,
    dixit_standard,
    norman_identity,
    norman_ids,
    one_gene,
    replogle_pair,
    standard,
)
from cradlevae.errors import DataError
from cradlevae.utils.names import closest
from cradlevae.utils.types import BoolArray

ADDRESS = "https://exampledata.scverse.org/pertpy"
"""Address of the folder with the files."""


@dataclass(frozen=True)
class Layout:
    """One form of the labels.

    Attributes
    ----------
    column
        Column of ``obs`` with the label of each cell, by which the layout is recognised.
    read
        Function that reads a label.
    labels
        Function that builds the labels from several columns instead; it returns ``None`` where these are absent.
    """

    column: str
    read: Reader
    labels: Callable[[pd.DataFrame], pd.Series[str] | None] | None = None


@dataclass(frozen=True)
class Drop:
    """Cells that are left out because their label is not reliable: those with ``wrong`` values in a column.

    Attributes
    ----------
    reason
        Reason, for the record of the converted file.
    column
        Column of ``obs``.
    wrong
        Function that returns which values of the column are wrong.
    """

    reason: str
    column: str
    wrong: Callable[[pd.Series[Any]], pd.Series[bool]]


@dataclass(frozen=True)
class Published:
    """A published data set.

    Attributes
    ----------
    name
        Name of the data set in this package.
    filename
        Name of the published file.
    about, citation, accession
        Description, publication, and accession number of the original.
    split
        Recipe of :func:`cradlevae.split` that the paper uses.
    layouts
        Possible forms of the labels; the first that fits is used.
    batch
        Columns of ``obs`` that may hold the 10x lane; the first that is present is used.
    drops
        Which cells to leave out.
    combinations
        Whether several genes may be perturbed in one cell; if not, such cells are left out.
    targets
        All perturbed genes, for data sets under whose name files of other cells have been served.
    caution
        Advice that is added to the messages where the file does not fit.
    """

    name: str
    filename: str
    about: str
    citation: str
    accession: str
    split: str
    layouts: tuple[Layout, ...]
    batch: tuple[str, ...]
    drops: tuple[Drop, ...] = ()
    combinations: bool = True
    targets: frozenset[str] = frozenset()
    caution: str = ""

    @property
    def url(self) -> str:
        """Address of the published file."""
        return f"{ADDRESS}/{self.filename}"


def published(name: str) -> Published:
    """Return the declaration of a data set.

    Raises
    ------
    DataError
        If no data set has this name.
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise DataError(f"unknown data set {name!r}{closest(str(name), list(DATASETS))}")
    return DATASETS[name]


_DIXIT_GUIDE = re.compile(r"(?:p_)?(?:sg[A-Za-z0-9.\-]+_\d+|INTERGENIC\d+)")


def _present_guides(obs: pd.DataFrame) -> pd.Series[str] | None:
    """Return the names of the guide RNAs in each cell, from a 0/1 column for each guide RNA."""
    names = [str(name) for name in obs if _DIXIT_GUIDE.fullmatch(str(name))]
    if not names:
        return None
    present: BoolArray = np.column_stack([_true(obs[name]).to_numpy(dtype=bool) for name in names])
    code, patterns = pd.factorize(pd.Series([row.tobytes() for row in present], dtype=object))
    rows = [np.frombuffer(pattern, dtype=bool) for pattern in patterns]
    labels = [" + ".join(name for name, there in zip(names, row, strict=True) if there) for row in rows]
    return pd.Series(np.array(labels, dtype=object)[code], index=obs.index)


def _several(column: pd.Series[Any]) -> pd.Series[bool]:
    return pd.to_numeric(column, errors="coerce") > 1


def _true(column: pd.Series[Any]) -> pd.Series[bool]:
    return column.astype(str).str.casefold().isin(["true", "1", "1.0"])


def _false(column: pd.Series[Any]) -> pd.Series[bool]:
    return column.astype(str).str.casefold().isin(["false", "0", "0.0"])


def _assignment(n_cells: str, good_coverage: str) -> tuple[Drop, ...]:
    """Return the cells to leave out by two columns about the assignment of guide RNAs."""
    return (
        Drop("several cells in one droplet", n_cells, _several),
        Drop("too few reads to be sure of the guide RNA", good_coverage, _false),
    )


NORMAN = Published(
    name="norman",
    filename="norman_2019_raw.h5ad",
    about="K562, CRISPRa of 105 genes and 131 pairs of them",
    citation="Norman et al., Science 365:786 (2019), doi:10.1126/science.aax4438",
    accession="GSE133344",
    split="combinations",
    layouts=(
        Layout("guide_identity", norman_identity),
        Layout("guide_ids", norman_ids),
        Layout("guide_merged", standard),
        Layout("perturbation_name", standard),
        Layout("perturbation", standard),
    ),
    batch=("gemgroup", "batch"),
    drops=(
        *_assignment("number_of_cells", "good_coverage"),
        Drop(
            "control guide RNAs that the authors leave out",
            "guide_identity",
            lambda column: column.astype(str).str.startswith("NegCtrl1_NegCtrl0__"),
        ),
    ),
)

DIXIT = Published(
    name="dixit",
    filename="dixit_2016_raw.h5ad",
    about="K562, CRISPR knock-out of 10 transcription factors, at low and high multiplicity of infection",
    citation="Dixit et al., Cell 167:1853 (2016), doi:10.1016/j.cell.2016.11.038",
    accession="GSE90063",
    split="combinations",
    layouts=(
        Layout("guide", dixit_guides, _present_guides),
        Layout("guide", dixit_guides),
        Layout("perturbation", dixit_standard),
    ),
    batch=("library", "cluster", "batch"),
    targets=frozenset({"CREB1", "E2F4", "EGR1", "ELF1", "ELK1", "ETS1", "GABPA", "IRF1", "NR2C2", "YY1"}),
    caution=(
        "pertpy has served the cells of Frangieh et al. 2021 under this name; those of Dixit et al. lie at "
        "https://ndownloader.figshare.com/files/34011689: get that file and pass its path"
    ),
)

ADAMSON = Published(
    name="adamson",
    filename="adamson_2016_upr_perturb_seq.h5ad",
    about="K562, CRISPRi of 82 genes of the unfolded protein response (10X010)",
    citation="Adamson et al., Cell 167:1867 (2016), doi:10.1016/j.cell.2016.11.048",
    accession="GSM2406681",
    split="cells",
    layouts=(Layout("perturbation", adamson_construct), Layout("guide identity", adamson_construct)),
    batch=("gemgroup", "batch"),
    drops=_assignment("number of cells", "good coverage"),
)

REPLOGLE = Published(
    name="replogle",
    filename="replogle_2022_k562_essential.h5ad",
    about="K562, CRISPRi of 2,057 essential genes",
    citation="Replogle et al., Cell 185:2559 (2022), doi:10.1016/j.cell.2022.05.013",
    accession="figshare 20029387",
    split="cells",
    layouts=(
        Layout("gene", one_gene),
        Layout("sgID_AB", replogle_pair),
        Layout("perturbation", one_gene),
    ),
    batch=("gem_group", "batch"),
    combinations=False,
    caution=(
        "users have been served the cells of Gasperini et al. 2019 (labels such as chr1.10050_top_two_…) under this "
        "name (github.com/scverse/pertpy/issues/916); the authors' file K562_essential_raw_singlecell_01.h5ad lies at "
        "https://ndownloader.figshare.com/files/35773219: get that file and pass its path"
    ),
)

DATASETS = {data.name: data for data in (NORMAN, DIXIT, ADAMSON, REPLOGLE)}
"""The data sets by name."""

"""Mitochondrial, ribosomal and haemoglobin genes, recognised by their names (human and mouse)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike, BoolArray

GENE_FAMILIES = {"mito": "mitochondrial", "ribo": "ribosomal", "haemo": "haemoglobin"}
"""Names of the gene families in messages, by QC criterion."""

SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name", "symbol")
"""Columns of ``var`` that commonly hold gene symbols."""

# Case is ignored: mouse symbols are the human ones in another case, but for haemoglobins (Hba-a1, Hbb-bs).
_PATTERNS = {
    "mito": re.compile(r"MT-.+", re.IGNORECASE),
    # Proteins of the cytosolic ribosome and their paralogues (RPL7A, RPL36AL, RPS4Y1, Rps27rt); not kinases
    # (RPS6KA1), binding proteins (RPS19BP1), pseudogenes, antisense and read-through transcripts.
    "ribo": re.compile(r"RP[SL]\d+(?:AL?\d?|X|Y\d?|L\d?|RT)?|RPLP[0-2]|RPSA2?", re.IGNORECASE),
    "haemo": re.compile(r"HB[ABDEGMQZ]\d?|HBQ1[AB]|HB[AB]-(?:A\d|X|B[ST\d]|BH\d|Y)", re.IGNORECASE),
}
_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}(?:\.\d+)?")


def find_families(names: Sequence[str], missing_hint: str = "") -> tuple[dict[str, BoolArray], dict[str, str]]:
    """Find the genes of each family.

    Parameters
    ----------
    names
        Gene symbols, (genes,).
    missing_hint
        Text to add to the reason where a family has no gene.

    Returns
    -------
    present
        Which genes belong to each family that has any, boolean, (genes,).
    absent
        Reason for each family that has no gene.
    """
    masks = {
        family: np.array([pattern.fullmatch(name) is not None for name in names], dtype=bool)
        for family, pattern in _PATTERNS.items()
    }
    present = {family: mask for family, mask in masks.items() if mask.any()}
    absent = {
        family: f"no {GENE_FAMILIES[family]} gene among the {len(names)} genes{missing_hint}"
        for family in masks
        if family not in present
    }
    return present, absent


def gene_symbols_of(adata: AnnDataLike, gene_symbols: str | None) -> list[str]:
    """Return the names of the genes: ``var_names``, or a column of ``var``.

    Raises
    ------
    DataError
        If ``var`` has no such column.
    """
    if gene_symbols is None:
        return [str(name) for name in adata.var_names]
    if gene_symbols not in adata.var:
        known = ", ".join(map(repr, adata.var.columns)) or "none"
        raise DataError(f"var has no column {gene_symbols!r} (gene_symbols=); its columns: {known}")
    return [str(name) for name in adata.var[gene_symbols]]


def are_ensembl_ids(names: Sequence[str]) -> bool:
    """Whether half of the names or more are Ensembl gene ids."""
    return 2 * sum(_ENSEMBL.fullmatch(name) is not None for name in names) >= len(names)


def ensembl_hint(adata: AnnDataLike, names: Sequence[str]) -> str:
    """Return advice where the gene names are Ensembl ids; empty where they are not."""
    if not are_ensembl_ids(names):
        return ""
    columns = [column for column in SYMBOL_COLUMNS if column in adata.var]
    if not columns:
        return "they are Ensembl ids; add a column of gene symbols to var and name it with gene_symbols="
    return f"they are Ensembl ids; var[{columns[0]!r}] looks like symbols: pass gene_symbols={columns[0]!r}"

"""Gene names as files spell them: with a genome in front, with a version behind, in any case, or as Ensembl ids."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cradlevae.data.labels import singles_of
from cradlevae.errors import DataError
from cradlevae.utils.names import closest
from cradlevae.utils.types import AnnDataLike

SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "gene_name", "gene_names", "feature_name", "symbol")
"""Columns of ``var`` that commonly hold gene symbols."""

_ASSEMBLY = r"(?:GRC[a-z]{1,2}\d+|hg\d+|mm\d+|rn\d+|human|mouse)"
_SPECIES = "|".join(
    name.replace(" ", "[_. -]+")
    for name in (
        "homo sapiens", "mus musculus", "rattus norvegicus", "danio rerio", "macaca mulatta", "macaca fascicularis",
        "pan troglodytes", "sus scrofa", "gallus gallus", "drosophila melanogaster",
    )
)  # fmt: skip

_GENOME = re.compile(
    rf"{_ASSEMBLY}(?![.-]+(?:MT|HB[AB])[_.-])(?:[.-][\w.-]*?)?_+(?=[^_])"
    rf"|{_ASSEMBLY}(?:[.-](?:\d{{4}}[.-][a-z](?=[.-])|p\d+))?[.-]+(?=[a-z])"
    rf"|(?:{_SPECIES})[_. -]+(?=[^\W_])",
    re.IGNORECASE,
)
"""A genome or species before a name, as references of several species write it.

Examples are ``GRCh38_``, ``hg19-``, ``mm10___``, ``GRCh38-2020-A_``, ``Homo_sapiens_``.
"""

_VERSION = re.compile(r"\.\d+$")
"""A version behind a name: ``ENSG00000198804.5``, or the number that makes a repeated symbol unique."""

_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}", re.IGNORECASE)


def bare_name(name: str) -> str:
    """Return a gene name without the genome before it and the version behind it.

    Examples
    --------
    >>> [bare_name(name) for name in ("GRCh38_MT-CO1", "mm10___mt-Co1", "ENSG00000198804.5", "HBB")]
    ['MT-CO1', 'mt-Co1', 'ENSG00000198804', 'HBB']
    """
    genome = _GENOME.match(name)
    return _VERSION.sub("", name[genome.end() :] if genome else name)


def are_ensembl_ids(names: Sequence[str]) -> bool:
    """Whether half of the names or more are Ensembl gene ids."""
    return 2 * sum(_ENSEMBL.fullmatch(bare_name(name)) is not None for name in names) >= len(names)


def symbols_of(adata: AnnDataLike, gene_symbols: str | None) -> list[str]:
    """Return the symbols of the genes: ``var_names``, or a column of ``var``.

    Raises
    ------
    DataError
        If ``var`` has no such column.
    """
    if gene_symbols is None:
        return [str(name) for name in adata.var_names]
    if gene_symbols not in adata.var:
        known = ", ".join(map(repr, adata.var.columns)) or "none"
        mend = closest(gene_symbols, list(adata.var.columns)) if len(adata.var.columns) else ""
        raise DataError(f"var has no column {gene_symbols!r} (gene_symbols=); its columns: {known}{mend}")
    return [str(name) for name in adata.var[gene_symbols]]


def symbol_advice(columns: Sequence[str], names: Sequence[str]) -> str:
    """Return how to name the column of gene symbols, for data whose gene names are not recognised.

    Parameters
    ----------
    columns
        Columns of ``var``.
    names
        Names of the genes as they were read.
    """
    why = "they are Ensembl ids; " if are_ensembl_ids(names) else ""
    likely = [column for column in SYMBOL_COLUMNS if column in columns]
    if likely:
        return f"{why}var[{likely[0]!r}] looks like symbols: pass gene_symbols={likely[0]!r}"
    return f"{why}add a column of gene symbols to var and name it with gene_symbols="


def target_columns(
    conditions: Sequence[str], genes: Sequence[str], symbols: Sequence[str] | None = None
) -> list[list[int]]:
    """Return the positions of the genes that each condition targets, ascending.

    A single perturbation targets the genes of which it is the name or the symbol. Where it is neither, genomes before
    the names, versions behind them and case are ignored.

    Parameters
    ----------
    conditions
        Canonical conditions.
    genes
        Names of the genes.
    symbols
        Their symbols, where the names are others.

    Examples
    --------
    >>> target_columns(["STAT1", "JAK2+STAT1"], ["ENSG00000115415.5", "ENSG00000096968"], ["STAT1", "JAK2"])
    [[0], [0, 1]]
    >>> target_columns(["ENSG00000115415"], ["ENSG00000115415.5", "ENSG00000096968"])
    [[0]]
    """
    exact: dict[str, set[int]] = {}
    loose: dict[str, set[int]] = {}
    for names in (genes, symbols or ()):
        for position, name in enumerate(names):
            exact.setdefault(name, set()).add(position)
            loose.setdefault(bare_name(name).casefold(), set()).add(position)

    def targets(single: str) -> set[int]:
        return exact.get(single) or loose.get(bare_name(single).casefold(), set())

    return [sorted(set().union(*(targets(single) for single in singles_of(name)))) for name in conditions]


def unrecognised_targets(conditions: Sequence[str], genes: Sequence[str], symbols: Sequence[str] | None) -> bool:
    """Whether no target is recognised, because the genes are Ensembl ids without symbols and the conditions are not."""
    singles = sorted({single for name in conditions for single in singles_of(name)})
    if symbols is not None or not singles or not are_ensembl_ids(genes):
        return False
    return not are_ensembl_ids(singles) and not any(target_columns(singles, genes))

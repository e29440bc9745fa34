"""Mitochondrial, ribosomal and haemoglobin genes, recognised by their names (human and mouse)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cradlevae.data.naming.gene_names import bare_name
from cradlevae.utils.types import BoolArray

GENE_FAMILIES = {"mito": "mitochondrial", "ribo": "ribosomal", "haemo": "haemoglobin"}
"""Names of the gene families in messages, by QC criterion."""

LOOKED_FOR = {"mito": "MT-CO1, mt-Co1", "ribo": "RPS6, RPL7A, Rplp0", "haemo": "HBA1, HBB, Hbb-bs"}
"""Examples of the names that are looked for, by QC criterion."""

MIN_FAMILY = 3
"""Fewest genes of which a family's share of the counts is measured.

The share of one or two genes is the expression of these genes, which biology moves as much as damage, and most of
their counts are too small for a percentage.
"""

# Case is ignored: mouse symbols are the human ones in another case, but for haemoglobins (Hba-a1, Hbb-bs). A point or
# an underscore may stand for the hyphen, which not every table can hold in a name (MT.CO1).
_PATTERNS = {
    "mito": re.compile(r"MT[-._].+", re.IGNORECASE),
    # Proteins of the cytosolic ribosome and their paralogues (RPL7A, RPL36AL, RPS4Y1, Rps27rt); not kinases
    # (RPS6KA1), binding proteins (RPS19BP1), pseudogenes, antisense and read-through transcripts.
    "ribo": re.compile(r"RP[SL]\d+(?:AL?\d?|X|Y\d?|L\d?|RT)?|RPLP[0-2]|RPSA2?", re.IGNORECASE),
    "haemo": re.compile(r"HB[ABDEGMQZ]\d?|HBQ1[AB]|HB[AB][-._](?:A\d|X|B[ST\d]|BH\d|Y)", re.IGNORECASE),
}


def mitochondrial(names: Sequence[str]) -> BoolArray:
    """Which genes are mitochondrial by their symbols, (genes,)."""
    return np.array([_PATTERNS["mito"].fullmatch(bare_name(name)) is not None for name in names], dtype=bool)


def find_families(names: Sequence[str], missing_hint: str = "") -> tuple[dict[str, BoolArray], dict[str, str]]:
    """Find the genes of each family.

    Names may have a genome or species before them (``GRCh38_MT-CO1``), a version behind them (``MT-CO1.1``), and a
    point or an underscore in place of the hyphen (``MT.CO1``).

    Parameters
    ----------
    names
        Gene symbols, (genes,).
    missing_hint
        Text to add to the reason where a family has no gene.

    Returns
    -------
    present
        Which genes belong to each family that has enough of them (:data:`MIN_FAMILY`), boolean, (genes,).
    absent
        Reason for each other family.
    """
    bare = [bare_name(name) for name in names]
    present, absent = {}, {}
    for family, pattern in _PATTERNS.items():
        mask = np.array([pattern.fullmatch(name) is not None for name in bare], dtype=bool)
        n_genes = int(mask.sum())
        if n_genes >= MIN_FAMILY:
            present[family] = mask
        elif n_genes == 0:
            looked_for = f" (looked for names such as {LOOKED_FOR[family]})"
            absent[family] = f"no {GENE_FAMILIES[family]} gene among the {len(names)} genes{looked_for}{missing_hint}"
        else:
            genes = ", ".join(name for name, belongs in zip(names, mask, strict=True) if belongs)
            absent[family] = (
                f"{n_genes} {GENE_FAMILIES[family]} gene{'s' * (n_genes > 1)} among the {len(names)} genes ({genes}); "
                f"the share of a family needs {MIN_FAMILY}"
            )
    return present, absent

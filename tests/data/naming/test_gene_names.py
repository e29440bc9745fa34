"""Gene names as files spell them, and the genes that perturbations target."""

from __future__ import annotations

import pytest

from cradlevae.data.naming.gene_names import are_ensembl_ids, bare_name, target_columns, unrecognised_targets

IDS = ["ENSG00000115415.5", "ENSG00000096968", "ENSG00000111537.2"]
SYMBOLS = ["STAT1", "JAK2", "IFNG"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GRCh38_MT-CO1", "MT-CO1"),
        ("hg19_MT-CO1", "MT-CO1"),
        ("mm10___mt-Co1", "mt-Co1"),
        ("GRCh38-2020-A_MT-CO1", "MT-CO1"),
        ("GRCm39_ENSMUSG00000064351.4", "ENSMUSG00000064351"),
        ("ENSG00000198804.5", "ENSG00000198804"),
        ("HLA-A", "HLA-A"),
        ("hg", "hg"),
        ("RP11-34P13.7", "RP11-34P13"),
        ("MOUSEGENE", "MOUSEGENE"),
        ("GRCh38_", "GRCh38_"),
        ("GRCh38-MT-CO1", "MT-CO1"),
        ("GRCh38.MT-CO1", "MT-CO1"),
        ("GRCh38-MT_CO1", "MT_CO1"),
        ("GRCh38_MT_CO1", "MT_CO1"),
        ("GRCh38-2020-A-MT-CO1", "MT-CO1"),
        ("GRCh38.p13-MT-CO1", "MT-CO1"),
        ("hg38-HLA-A", "HLA-A"),
        ("mm10-mt-Co1", "mt-Co1"),
        ("Homo_sapiens_MT-CO1", "MT-CO1"),
        ("Mus_musculus_mt-Co1", "mt-Co1"),
        ("mus_musculus__Rps6", "Rps6"),
        ("Homo.sapiens.MT.CO1", "MT.CO1"),
        ("RN5-8S1", "RN5-8S1"),
        ("Homo_sapiens_", "Homo_sapiens_"),
    ],
)
def test_genome_and_version_are_no_part_of_a_name(name: str, expected: str) -> None:
    assert bare_name(name) == expected


def test_ensembl_ids_are_told_from_symbols() -> None:
    assert are_ensembl_ids(IDS)
    assert are_ensembl_ids([f"GRCh38_{name}" for name in IDS])
    assert not are_ensembl_ids([*SYMBOLS, IDS[0]])


def test_targets_are_found_by_name_or_symbol() -> None:
    conditions = ["IFNG", "JAK2+STAT1", "TP53", "control"]
    expected = [[2], [0, 1], [], []]
    assert target_columns(conditions, SYMBOLS) == expected
    assert target_columns(conditions, IDS, SYMBOLS) == expected
    assert target_columns(conditions, [f"hg19_{name.lower()}" for name in SYMBOLS]) == expected
    assert target_columns(["ENSG00000115415", "ENSG00000111537.9"], IDS, SYMBOLS) == [[0], [2]]
    assert target_columns(conditions, IDS) == [[], [], [], []]
    assert target_columns(["Abc"], ["ABC", "Abc"]) == [[1]]  # the exact spelling comes first
    assert target_columns(["ABC"], ["ENSG00000000001", "ENSG00000000002"], ["ABC", "ABC"]) == [[0, 1]]


def test_targets_that_cannot_be_recognised_are_told_from_those_that_were_not_measured() -> None:
    assert unrecognised_targets(["STAT1"], IDS, None)
    assert not unrecognised_targets(["TP53"], IDS, SYMBOLS)
    assert not unrecognised_targets(["ENSG00000000009"], IDS, None)
    assert not unrecognised_targets(["TP53"], SYMBOLS, None)
    assert not unrecognised_targets(["control"], IDS, None)

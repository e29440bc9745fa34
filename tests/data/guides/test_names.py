"""The target of a guide RNA is read from its name by the stated rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cradlevae.data.guides.names import is_control_name, targets_of_names

GENES = ["STAT1", "HLA-A", "NKX2-1", "MT-CO1", "ELK1", "NT5E", "SGK1", "AAAS"]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("STAT1_1", "STAT1"),
        ("STAT1-2", "STAT1"),
        ("sgSTAT1_2", "STAT1"),
        ("STAT1g3", "STAT1"),
        ("stat1_sg3", "STAT1"),
        ("STAT1", "STAT1"),
        ("HLA-A", "HLA-A"),
        ("HLA-A-1", "HLA-A"),
        ("NKX2-1", "NKX2-1"),
        ("NKX2-1-2", "NKX2-1"),
        ("MT-CO1_3", "MT-CO1"),
        ("p_sgELK1_2", "ELK1"),
        ("NT5E_1", "NT5E"),
        ("SGK1_2", "SGK1"),
        ("sgSGK1_1", "SGK1"),
        ("AAAS_+_53715438.23-P1P2", "AAAS"),
        ("GAL4_2", "GAL4"),
        ("GAL4", "GAL4"),
        ("sgLACZ-1", "LACZ"),
        ("UNKNOWN_-_123.4-P1", "UNKNOWN"),
    ],
)
def test_names_of_targeting_guide_rnas(name: str, target: str) -> None:
    assert targets_of_names([name], GENES) == {name: target}


@pytest.mark.parametrize(
    "name",
    [
        "NT", "NT_12", "NTg4", "NTC-3", "sgNT-1", "non-targeting_3", "Non-Targeting", "nontargeting", "NegCtrl0",
        "NegCtrl10b", "neg_ctrl_3", "CTRL0001", "control", "control-5", "safe-targeting_1", "SAFE_3", "scrambled-2",
        "INTERGENIC393453", "p_INTERGENIC393453", "Non_Targeting_Human_0001", "NO-SITE_1", "ONE_NON-GENE_SITE_3",
    ],
)  # fmt: skip
def test_names_of_controls(name: str) -> None:
    assert is_control_name(name)
    assert targets_of_names([name], GENES) == {name: "control"}


@pytest.mark.parametrize("name", ["NTRK1_1", "SCRIB_2", "CTRC_1", "SAFB_1", "NEGR1_2", "NCL_1", "NT5C2-3", "NTS_1"])
def test_genes_whose_names_begin_like_controls(name: str) -> None:
    assert not is_control_name(name)
    assert targets_of_names([name], []) == {name: name.replace("-", "_").split("_")[0]}


@given(
    gene=st.from_regex(r"[A-Z][A-Z0-9]{1,5}(-[A-Z0-9]{1,3})?", fullmatch=True),
    between=st.sampled_from(["_", "-", "g", "_sg", ".", "_guide"]),
    number=st.integers(1, 99),
    prefix=st.sampled_from(["", "sg", "p_sg"]),
)
def test_a_gene_of_the_data_is_found_whole(gene: str, between: str, number: int, prefix: str) -> None:
    name = f"{prefix}{gene}{between}{number}"
    if not is_control_name(name):
        assert targets_of_names([name], [gene]) == {name: gene}

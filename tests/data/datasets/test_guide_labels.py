"""Labels of the published data sets, read as what they stand for or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data.datasets import guide_labels
from cradlevae.data.datasets.guide_labels import Reader, Singles
from cradlevae.data.labels import condition_name

GENES = st.from_regex(r"[A-Z][A-Z0-9]{1,5}(-[A-Z0-9])?", fullmatch=True).filter(
    lambda name: name.casefold() not in guide_labels.UNASSIGNED | {"control", "ctrl"}
)


@pytest.mark.parametrize(
    ("reader", "label", "expected"),
    [
        ("standard", "control", ()),
        ("standard", "CBL_CNN1", ("CBL", "CNN1")),
        ("standard", "CNN1+CBL", ("CBL", "CNN1")),
        ("standard", "CBL+ctrl", ("CBL",)),
        ("standard", "nan", None),
        ("one_gene", "non-targeting", ()),
        ("one_gene", "HLA-A", ("HLA-A",)),
        ("one_gene", "nan", None),
        ("norman_identity", "CBL_CNN1__CBL_CNN1", ("CBL", "CNN1")),
        ("norman_identity", "NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0", ()),
        ("norman_identity", "NegCtrl10_NegCtrl0__NegCtrl10_NegCtrl0", ()),
        ("norman_identity", "AHR_NegCtrl0__AHR_NegCtrl0", ("AHR",)),
        ("norman_identity", "NegCtrl0_CEBPE__NegCtrl0_CEBPE", ("CEBPE",)),
        ("norman_identity", "TGFBR2_IGDCC3__TGFBR2_IGDCC3_2", ("IGDCC3", "TGFBR2")),
        ("norman_ids", "", ()),
        ("norman_ids", "AHR", ("AHR",)),
        ("norman_ids", "KLF1,AHR", ("AHR", "KLF1")),
        ("norman_ids", "AHR_KLF1", ("AHR", "KLF1")),
        ("norman_ids", "nan", None),
        ("dixit_guides", "p_sgELK1_2", ("ELK1",)),
        ("dixit_guides", "p_INTERGENIC393453", ()),
        ("dixit_guides", "p_sgELK1_1 + p_sgELK1_6", ("ELK1",)),
        ("dixit_guides", "p_sgELK1_1 + p_sgEGR1_2 + p_INTERGENIC216151", ("EGR1", "ELK1")),
        ("dixit_guides", "sgYY1_10,INTERGENIC1144056", ("YY1",)),
        ("dixit_guides", "", None),
        ("dixit_guides", "None", None),
        ("dixit_standard", "p_INTERGENIC393453", ()),
        ("dixit_standard", "EGR1_ELK1", ("EGR1", "ELK1")),
        ("adamson_construct", "SPI1_pDS255", ("SPI1",)),
        ("adamson_construct", "C7orf26_pDS004", ("C7orf26",)),
        ("adamson_construct", "63(mod)_pBA580", ()),
        ("adamson_construct", "62(mod)_pBA581", ()),
        ("adamson_construct", "Gal4-4(mod)_pBA582", ()),
        ("adamson_construct", "3x_neg_ctrl_pMJ144-1", ()),
        ("adamson_construct", "PERK_only_pMJ146", ("EIF2AK3",)),
        ("adamson_construct", "ATF6_PERK_IRE1_pMJ158", ("ATF6", "EIF2AK3", "ERN1")),
        ("adamson_construct", "control", ()),
        ("adamson_construct", "*", None),
        ("replogle_pair", "AAAS_+_53715438.23-P1P2|AAAS_-_53715355.23-P1P2", ("AAAS",)),
        ("replogle_pair", "non-targeting_00312|non-targeting_03636", ()),
        ("replogle_pair", "nan", None),
    ],
)
def test_labels_as_published(reader: str, label: str, expected: Singles) -> None:
    assert getattr(guide_labels, reader)(label) == expected


@pytest.mark.parametrize(
    ("reader", "label"),
    [
        ("standard", "sgELK1_2"),
        ("standard", "A__B"),
        ("one_gene", "chr1.10050_top_two"),
        ("one_gene", "A+B"),
        ("norman_identity", "CBL_CNN1__CBL_KLF1"),
        ("norman_identity", "CBL"),
        ("norman_ids", "CBL,,CNN1"),
        ("dixit_guides", "p_sgELK1"),
        ("dixit_guides", "ELK1"),
        ("adamson_construct", "SPI1_extra_pDS255"),
        ("adamson_construct", "64(mod)_pBA580"),
        ("replogle_pair", "AAAS"),
    ],
)
def test_other_labels_are_not_guessed(reader: str, label: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        getattr(guide_labels, reader)(label)


WRITERS: dict[str, tuple[Reader, object]] = {
    "standard": (guide_labels.standard, lambda genes: "_".join(genes) or "control"),
    "norman_identity": (
        guide_labels.norman_identity,
        lambda genes: "__".join(["_".join([*genes, "NegCtrl0", "NegCtrl1"][:2])] * 2),
    ),
    "norman_ids": (guide_labels.norman_ids, ",".join),
    "dixit": (
        guide_labels.dixit_guides,
        lambda genes: " + ".join(f"p_sg{gene}_{place}" for place, gene in enumerate(genes)) or "p_INTERGENIC17",
    ),
    "adamson": (
        guide_labels.adamson_construct,
        lambda genes: f"{'_'.join(genes)}_pMJ150" if genes else "63(mod)_pBA580",
    ),
}


@pytest.mark.parametrize("form", WRITERS)
@settings(deadline=None)
@given(genes=st.lists(GENES, unique=True, max_size=2))
def test_what_is_written_is_read_in_any_order(form: str, genes: list[str]) -> None:
    read, write = WRITERS[form]
    assert callable(write)
    found = read(write(genes))
    assert found == read(write(genes[::-1])) == tuple(sorted(genes))
    assert guide_labels.standard(condition_name(found)) == found

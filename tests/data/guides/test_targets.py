"""Targets that a file or a mapping gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from cradlevae.data.guides.targets import guide_table
from cradlevae.errors import DataError

NAMES, IDS, GENES = ["A_1", "B_1", "NT_1"], ["id1", "id2", "id3"], ["A", "B"]


@pytest.mark.parametrize(
    "text",
    [
        "guide,target\nA_1,B\nB_1,A\nNT_1,control\n",
        "\ufeffsgRNA;gene\nA_1;B\nB_1;A\nNT_1;non-targeting\n",
        "Target\tGuide ID\nB\tid1\nA\tid2\nNegCtrl\tid3\n",
        "id,name,read,pattern,sequence,feature_type,target_gene_id,target_gene_name\n"
        "id1,A_1,R2,x,ACGT,CRISPR Guide Capture,ENSG2,B\n"
        "id2,B_1,R2,x,ACGT,CRISPR Guide Capture,ENSG1,A\n"
        "id3,NT_1,R2,x,ACGT,CRISPR Guide Capture,Non-Targeting,Non-Targeting\n",
        "\ufeffguide-id|target gene\r\nA_1|B\r\nB_1|A\r\nNT_1|control\r\n",
        'guide\ttarget\tnote, a, b, c\nA_1\tB\tx, y\nB_1\tA\t"x\ny"\nNT_1\tcontrol\t\n',
        '\n"guide","target"\r"A_1","B"\r"A_1","B"\r\r"B_1","A"\r"NT_1","control"\r',
    ],
    ids=["plain", "semicolons", "tabs", "feature reference", "bars", "commas in a header", "carriage returns"],
)
def test_tables_with_common_headers(text: str, tmp_path: Path) -> None:
    path = tmp_path / "targets.csv"
    path.write_bytes(text.encode())
    table = guide_table(NAMES, IDS, GENES, path)
    assert table["target"].to_dict() == {"A_1": "B", "B_1": "A", "NT_1": "control"}
    assert table.index.name == "guide"


def test_a_mapping_by_name_or_id() -> None:
    table = guide_table(NAMES, IDS, GENES, {"id1": "A", "B_1": "B", "NT_1": "ctrl"})
    assert table["target"].tolist() == ["A", "B", "control"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("guide,target\nA_1,A\n", "no target for 2 of 3 guide RNAs: 'B_1', 'NT_1'"),
        ("guide,target\nA_1,A\nB_1,\nNT_1,control\n", "target of guide RNA 'B_1' is ''"),
        ("guide,target\nA_1,A\nB_1,NA\nNT_1,control\n", "target of guide RNA 'B_1' is 'NA'"),
        ("guide,target\nA_1,A\nA_1,B\n", "two targets of guide RNA 'A_1', 'A' and 'B'"),
        ("guide,target\nA_1\n", "row 2 of .* has 1 columns"),
        ("one,two\nA_1,A\n", "names no columns for guide RNAs and targets"),
        ("", "names no columns for guide RNAs and targets"),
        ("guide,target,sequence\nA_1,A," + "A" * 200_000, "cannot be read as a table .field larger than"),
    ],
)
def test_bad_tables(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "targets.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        guide_table(NAMES, IDS, GENES, path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        guide_table(NAMES, IDS, GENES, tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00guide")
    with pytest.raises(DataError, match="cannot be read as a table"):
        guide_table(NAMES, IDS, GENES, tmp_path / "binary.csv")


def test_targets_of_the_file_of_counts_precede_names() -> None:
    table = guide_table(NAMES, IDS, GENES, None, ["B", "A", "Non-Targeting"])
    assert table["target"].tolist() == ["B", "A", "control"]
    with pytest.warns(
        UserWarning, match=r"the targets of 1 guide RNAs are read from their names: B_1 → B \(0 controls\)"
    ):
        table = guide_table(NAMES, IDS, GENES, None, ["B", "", "Non-Targeting"])
    assert table["target"].tolist() == ["B", "B", "control"]


def test_targets_by_name_are_shown_with_those_that_are_no_gene() -> None:
    with pytest.warns(
        UserWarning, match="C_1 → C, NT_1 → control, … .1 controls.; 1 targets are no gene of the data: 'C'"
    ):
        guide_table(["A_1", "A_2", "C_1", "NT_1"], ["", "", "", ""], GENES, None)

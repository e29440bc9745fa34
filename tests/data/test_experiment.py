"""The one place that reads an AnnData: what it accepts, and what it refuses by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import cradlevae as cv
from cradlevae.data.experiment import DataFields, condition_labels, read_experiment
from cradlevae.data.storage.stored_matrix import StoredMatrix
from cradlevae.errors import DataError

MakeAnnData = Callable[..., ad.AnnData]

LABELS = ["control", "A", "B+A", "A+B", "ctrl", "B"]
COUNTS = np.arange(1, 25).reshape(6, 4) % 5


def read(adata: ad.AnnData, **fields: Any) -> Any:
    return read_experiment(adata, DataFields(**fields))


def test_an_experiment_holds_what_the_anndata_says(make_adata: MakeAnnData) -> None:
    data = read(make_adata(COUNTS, LABELS, [True, False, False, True, False, False]))
    assert data.conditions == ("control", "A", "A+B", "B")
    assert data.perturbations == ("A", "B")
    assert [data.conditions[code] for code in data.condition] == [
        "control",
        "A",
        "A+B",
        "A+B",
        "control",
        "B",
    ]
    assert list(data.cells) == [f"cell{i}" for i in range(6)]
    assert list(data.genes) == [f"gene{i}" for i in range(4)]
    assert (data.n_cells, data.n_genes) == (6, 4)
    np.testing.assert_array_equal(data.counts.toarray(), COUNTS)
    np.testing.assert_array_equal(data.library_size, COUNTS.sum(axis=1))
    np.testing.assert_array_equal(data.dosage, [[0, 0], [1, 0], [1, 1], [0, 1]])
    np.testing.assert_array_equal(data.artifact, [[1], [0], [0], [1], [0], [0]])
    np.testing.assert_array_equal(data.failed, [True, False, False, True, False, False])
    np.testing.assert_array_equal(data.is_control, [True, False, False, False, True, False])
    assert data.criteria == ("artifact",)


def test_a_subset_keeps_the_places_of_conditions(make_adata: MakeAnnData) -> None:
    data = read(make_adata(COUNTS, LABELS)).subset(np.array([3, 5]))
    assert list(data.cells) == ["cell3", "cell5"]
    assert data.conditions == ("control", "A", "A+B", "B")
    np.testing.assert_array_equal(data.condition, [2, 3])
    np.testing.assert_array_equal(data.counts.toarray(), COUNTS[[3, 5]])
    np.testing.assert_array_equal(data.library_size, COUNTS[[3, 5]].sum(axis=1))


def _told_of_csc(expected: bool) -> Any:
    return pytest.warns(UserWarning, match="stored by genes") if expected else nullcontext()


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
@pytest.mark.parametrize("dtype", ["int16", "int64", "float64"])
@pytest.mark.parametrize("backed", [False, True])
def test_every_form_gives_the_same_experiment(
    make_adata: MakeAnnData, form: Any, dtype: str, backed: bool, tmp_path: Path
) -> None:
    expected = read(make_adata(COUNTS.astype(np.float32), LABELS))
    adata = make_adata(COUNTS.astype(dtype), LABELS, form=form)
    if backed:
        adata.write_h5ad(tmp_path / "adata.h5ad")
        adata = ad.read_h5ad(tmp_path / "adata.h5ad", backed="r")
    with _told_of_csc(backed and form is sp.csc_matrix):
        data = read(adata)
    assert isinstance(data.counts, StoredMatrix) == (backed and form is not sp.csc_matrix)
    assert (data.counts[:] != expected.counts).nnz == 0
    assert data.counts[:].dtype == np.float32
    np.testing.assert_array_equal(data.condition, expected.condition)
    np.testing.assert_array_equal(data.artifact, expected.artifact)
    assert data.conditions == expected.conditions
    if backed:
        adata.file.close()


@settings(deadline=None)
@given(cells=st.permutations(range(6)), genes=st.permutations(range(4)))
def test_the_order_of_cells_and_genes_has_no_say(make_adata: MakeAnnData, cells: list[int], genes: list[int]) -> None:
    failed = np.array([True, False, False, True, False, False])
    adata = make_adata(COUNTS, LABELS, failed)
    expected = read(adata)
    shuffled = adata[cells][:, genes].copy()
    data = read_experiment(shuffled, DataFields(), genes=list(expected.genes))
    assert data.conditions == expected.conditions
    assert list(data.genes) == list(expected.genes)
    np.testing.assert_array_equal(data.counts.toarray(), expected.counts[cells].toarray())
    np.testing.assert_array_equal(data.condition, expected.condition[cells])
    np.testing.assert_array_equal(data.artifact, expected.artifact[cells])


# -- labels ----------------------------------------------------------------------------------------------------


def test_separator_and_controls_as_the_data_have_them(make_adata: MakeAnnData) -> None:
    adata = make_adata(COUNTS, ["safe", "A_B", "B_A", "B_safe", "SAFE", "A"])
    adata.obs = adata.obs.rename(columns={"perturbation": "target"})
    data = read(adata, perturbation_key="target", separator="_", control_labels=("safe",))
    names = [data.conditions[code] for code in data.condition]
    assert names == ["control", "A_B", "A_B", "B", "control", "A"]
    assert data.conditions[2].singles == ("A", "B")
    alone = read(adata, perturbation_key="target", separator="_", control_labels="safe")
    np.testing.assert_array_equal(alone.condition, data.condition)


def test_gears_style(make_adata: MakeAnnData) -> None:
    data = read(make_adata(COUNTS, ["ctrl", "A+ctrl", "ctrl+A", "A+B", "ctrl", "B+ctrl"]))
    assert [data.conditions[code] for code in data.condition] == ["control", "A", "A", "A+B", "control", "B"]


def test_categories_and_their_order_have_no_say(make_adata: MakeAnnData) -> None:
    adata = make_adata(COUNTS, LABELS)
    adata.obs["perturbation"] = pd.Categorical(LABELS, categories=["never", *sorted(LABELS, reverse=True)])
    data = read(adata)
    assert data.conditions == ("control", "A", "A+B", "B")


def test_names_with_a_plus_under_another_separator_or_none(make_adata: MakeAnnData) -> None:
    labels = ["control", "Na+_(+)-JQ1", "(+)-JQ1_Na+", "Na+", "(+)-JQ1", "Na+"]
    data = read(make_adata(COUNTS, labels), separator="_")
    assert data.perturbations == ("(+)-JQ1", "Na+")
    assert data.conditions == ("control", "(+)-JQ1", "(+)-JQ1_Na+", "Na+")
    np.testing.assert_array_equal(data.dosage, [[0, 0], [1, 0], [1, 1], [0, 1]])
    alone = read(make_adata(COUNTS, labels), separator=None)
    assert alone.perturbations == ("(+)-JQ1", "(+)-JQ1_Na+", "Na+", "Na+_(+)-JQ1")
    np.testing.assert_array_equal(alone.dosage.sum(axis=1), [0, 1, 1, 1, 1])
    for label in ("Na+", "(+)-JQ1"):
        with pytest.raises(DataError, match=r"which is no name; if '\+' belongs to a name, use separator=None"):
            read(make_adata(COUNTS, ["control", label, "A", "B", "A", "B"]))


def test_controls_are_recognised_before_labels_are_split(make_adata: MakeAnnData) -> None:
    labels = ["non_targeting", "A_non_targeting", "non_targeting_A", "A_B", "B", "A"]
    data = read(make_adata(COUNTS, labels), separator="_")
    assert [data.conditions[code] for code in data.condition] == ["control", "A", "A", "A_B", "B", "A"]


def test_two_conditions_of_one_name_are_refused(make_adata: MakeAnnData) -> None:
    adata = make_adata(COUNTS)
    table = np.vstack([np.eye(4), [[0, 1, 1, 0], [0, 0, 1, 0]]])
    with_guides(adata, pd.DataFrame(table, columns=["control", "A", "B", "A+B"], index=adata.obs_names))
    with pytest.raises(DataError, match=r"'A\+B' means both"):
        read(adata, guides_key="guides", separator=None)


@pytest.mark.parametrize(
    ("labels", "fields", "message"),
    [
        (["control", "A;B", "A", "B", "A", "B"], {}, r"'A;B' under ';' .*use separator=';', and separator=None"),
        (["control", "A|B", "A", "B", "A", "B"], {}, r"'A\|B' under '\|'"),
        (["control", "A_B", "A", "B", "A", "B"], {}, r"'A_B' under '_'"),
        (["control", "A_ctrl", "A", "B", "A", "B"], {}, r"'A_ctrl' under '_'"),
        (["control", "A+B", "A", "B", "A", "B"], {"separator": "_"}, r"'A\+B' under '\+'"),
        (["control", "Stat1", "STAT1", "B", "A", "B"], {}, r"'STAT1' and 'Stat1' differ only in case or blanks"),
        (["control", "T 1", "T1", "B", "A", "B"], {}, r"'T 1' and 'T1' differ only in case or blanks"),
        (
            ["non-targeting", "non-targeting_00001", "A", "B", "A", "B"],
            {},
            r"'non-targeting_00001' begin with the control label 'non-targeting'.*"
            r"control_labels=\('non-targeting', 'non-targeting_00001'\)",
        ),
        (["ctrl", "ctrl_1", "A", "B", "A", "B"], {"separator": "_"}, r"'ctrl_1' begin with the control label 'ctrl'"),
        (["NT", "NT-2", "A", "B", "A", "B"], {"control_labels": "NT"}, r"'NT-2' begin with the control label 'NT'"),
    ],
)
def test_labels_that_may_mean_something_else_are_warned_of(
    make_adata: MakeAnnData, labels: list[str], fields: dict[str, Any], message: str
) -> None:
    with pytest.warns(UserWarning, match=message) as caught:
        read(make_adata(COUNTS, labels), **fields)
    assert len(caught) == 1


def test_a_gene_with_the_name_of_a_default_control_is_warned_of(make_adata: MakeAnnData) -> None:
    adata = make_adata(COUNTS, ["CTRL", "A", "B", "A", "B", "A"])
    adata.var_names = ["CTRL", "x", "y", "z"]
    with pytest.warns(UserWarning, match=r"'CTRL' are taken for controls, but 'CTRL' is also a gene.*control_labels="):
        read(adata)
    read(adata, control_labels=("CTRL",))  # no warning: they are named
    adata.obs["perturbation"] = ["control", "A", "B", "A", "B", "A"]
    read(adata)


@pytest.mark.parametrize("labels", [["NT5E", "A", "B", "A", "B", "NT"], ["HLA-A", "NKX2-1", "B", "A", "B", "NT"]])
def test_ordinary_names_are_not_warned_of(make_adata: MakeAnnData, labels: list[str]) -> None:
    assert len(read(make_adata(COUNTS, labels), control_labels="NT").perturbations) >= 3


@pytest.mark.parametrize("missing", ["nan", "None", "NA", "<NA>", "NaN", "none", "n/a", "NULL", "A+nan", " nan "])
def test_texts_of_missing_values_are_missing_labels(make_adata: MakeAnnData, missing: str) -> None:
    with pytest.raises(DataError, match=r"is empty for 1 cells, first 'cell4' \('.*'\).*control_labels="):
        read(make_adata(COUNTS, [*LABELS[:4], missing, "B"]))


def test_a_control_label_may_be_a_text_of_missing_values(make_adata: MakeAnnData) -> None:
    data = read(make_adata(COUNTS, ["None", "A", "A+none", "B", "A", ""]), control_labels=("none", ""))
    assert [data.conditions[code] for code in data.condition] == ["control", "A", "A", "B", "A", "control"]


@pytest.mark.parametrize("missing", [None, np.nan, "", "  ", "+"])
def test_empty_labels_are_refused(make_adata: MakeAnnData, missing: Any) -> None:
    labels = [*LABELS[:4], missing, "B"]
    with pytest.raises(DataError, match=r"obs\['perturbation'\] is empty for 1 cells, first 'cell4'"):
        read(make_adata(COUNTS, labels))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("controls", [("control",), ("nan", "none", "<NA>", "None", "control")])
def test_values_that_are_missing_need_a_text(make_adata: MakeAnnData, missing: Any, controls: tuple[str, ...]) -> None:
    adata = make_adata(COUNTS, [*LABELS[:4], missing, "B"])
    adata.obs["perturbation"] = pd.Categorical(adata.obs["perturbation"])
    with pytest.raises(DataError, match=r"'cell4'.*fill them with a text if they are controls") as raised:
        read(adata, control_labels=controls)
    assert "control_labels=" not in str(raised.value)
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(object).fillna("control")  # as it says
    assert read(adata, control_labels=controls).is_control[4]


SEPARATORS = [*"+;|_,&/:- .~%", "--", "__", " and ", " AND ", "->", "::", "  "]


@pytest.mark.parametrize("separator", SEPARATORS)
def test_every_separator_that_is_advised_is_warned_of_and_accepted(make_adata: MakeAnnData, separator: str) -> None:
    adata = make_adata(COUNTS, ["control", f"A{separator}C", "A", "C", f"C{separator}ctrl", "C"])
    own = "+" if separator != "+" else "_"
    with pytest.warns(UserWarning, match="are labels themselves") as caught:
        read(adata, separator=own)
    assert len(caught) == 1
    assert f"for combinations use separator={separator!r}, and" in str(caught[0].message)
    data = read(adata, separator=separator)  # no warning
    assert data.perturbations == ("A", "C")
    np.testing.assert_array_equal(data.dosage.sum(axis=1), [0, 1, 2, 1])
    assert len(read(adata, separator=None).perturbations) == 4


def test_names_that_hold_other_texts_are_not_warned_of(make_adata: MakeAnnData) -> None:
    labels = ["control", "HLA-A", "RP11-34P13.7", "sgA and more", "A", "B"]
    assert len(read(make_adata(COUNTS, labels)).perturbations) == 5


@pytest.mark.parametrize("separator", SEPARATORS)
def test_controls_under_another_separator_name_it(make_adata: MakeAnnData, separator: str) -> None:
    pairs = [("ctrl", "ctrl"), ("A", "ctrl"), ("A", "C"), ("C", "ctrl"), ("ctrl", "C")]
    labels = [separator.join(pair) for pair in pairs]
    adata = make_adata(COUNTS, [*labels, labels[0]])
    own = "+" if separator != "+" else None
    with pytest.raises(DataError, match="no control cells") as raised:
        read(adata, separator=own)
    assert str(raised.value).endswith(f"use separator={separator!r}")
    assert read(adata, separator=separator).conditions[0] == "control"


def test_blanks_around_a_label_separate_nothing(make_adata: MakeAnnData) -> None:
    data = read(make_adata(COUNTS, ["control", " A", "A B ", "B", "A", "B"]), separator=" ")
    assert data.perturbations == ("A", "B")
    assert [len(condition.singles) for condition in data.conditions] == [0, 1, 2, 1]


def test_an_empty_separator_is_refused() -> None:
    with pytest.raises(DataError, match="separator"):
        DataFields(separator="")


def test_an_absent_label_column_is_refused_with_the_closest(make_adata: MakeAnnData) -> None:
    with pytest.raises(
        DataError, match=r"no column 'perturbations' in obs; did you mean 'perturbation'.*perturbation_key="
    ):
        read(make_adata(COUNTS, LABELS), perturbation_key="perturbations")


def test_no_controls_are_refused(make_adata: MakeAnnData) -> None:
    with pytest.raises(
        DataError, match=r"no control cells: none of 'control', 'ctrl', 'non-targeting'.*control_labels="
    ):
        read(make_adata(COUNTS, ["A", "B", "A", "B", "A", "scramble"]))


def test_no_controls_shows_likely_controls_then_the_commonest(make_adata: MakeAnnData) -> None:
    with pytest.raises(DataError, match=r"labels there: 'scramble_1', 'B', 'A', 'C'\)"):
        read(make_adata(COUNTS, ["A", "B", "B", "C", "B", "scramble_1"]))
    with pytest.raises(DataError, match=r"labels there: 'DMSO', 'WT', 'A'"):
        read(make_adata(COUNTS, ["A", "A", "A", "A", "WT", "DMSO"]))


def test_a_known_model_needs_no_controls_in_new_data(make_adata: MakeAnnData) -> None:
    adata = make_adata(COUNTS, ["B"] * 6)
    data = read_experiment(adata, DataFields(), perturbations=("A", "B", "C"))
    assert data.perturbations == ("A", "B", "C")
    np.testing.assert_array_equal(data.dosage[data.condition], np.tile([0, 1, 0], (6, 1)))


def test_perturbations_unknown_to_the_model_are_refused(make_adata: MakeAnnData) -> None:
    adata = make_adata(COUNTS, ["STAT1", "JAK2"] * 3)
    with pytest.raises(
        DataError, match=r"perturbation 'STAT1' in obs\['perturbation'\] is unknown.*did you mean 'Stat1'"
    ):
        read_experiment(adata, DataFields(), perturbations=("Jak9", "JAK2", "Stat1"))


# -- guide RNAs ------------------------------------------------------------------------------------------------


def with_guides(adata: ad.AnnData, guides: Any) -> ad.AnnData:
    adata.obsm["guides"] = guides
    return adata


def test_a_guide_count_matrix(make_adata: MakeAnnData) -> None:
    table = [[5, 0, 0, 0], [0, 7, 0, 0], [0, 3, 3, 0], [9, 0, 2, 0], [0, 1, 4, 0], [0, 0, 0, 0]]
    adata = make_adata(COUNTS)
    columns = ["non-targeting", "A", "B", "A+B"]
    with_guides(adata, pd.DataFrame(table, columns=columns, index=adata.obs_names))
    with pytest.warns(UserWarning, match=r"1 cells without a guide RNA in obsm\['guides'\] are left out"):
        data = read(adata, guides_key="guides", guide_min_count=2)
    assert [data.conditions[code] for code in data.condition] == ["control", "A", "A+B", "B", "B"]
    assert list(data.cells) == ["cell0", "cell1", "cell2", "cell3", "cell4"]
    assert list(condition_labels(adata, DataFields(guides_key="guides"))) == [
        "control",
        "A",
        "A+B",
        "B",
        "A+B",
        "",
    ]


def test_guides_without_names_are_refused(make_adata: MakeAnnData) -> None:
    with pytest.raises(DataError, match=r"obsm\['guides'\] has no column names; store.*DataFrame"):
        read(with_guides(make_adata(COUNTS), np.ones((6, 3))), guides_key="guides")
    with pytest.raises(DataError, match=r"no guide-count matrix 'guide' in obsm \(there: 'guides'\)"):
        read(with_guides(make_adata(COUNTS), np.ones((6, 3))), guides_key="guide")
    nameless = pd.DataFrame(np.ones((6, 2)), columns=["A", ""], index=[f"cell{i}" for i in range(6)])
    with pytest.raises(DataError, match="a column without a name"):
        read(with_guides(make_adata(COUNTS), nameless), guides_key="guides")


# -- artifacts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        [True, False, False, True, False, False],
        [1, 0, 0, 1, 0, 0],
        [1.0, 0.0, 0.0, 1.0, 0.0, 0.0],
        ["True", "False", "False", "True", "False", "False"],
        pd.Categorical(["true", "false", "false", "true", "false", "false"]),
        pd.array([True, False, False, True, False, False], dtype="boolean"),
    ],
)
def test_artifacts_as_people_write_them(make_adata: MakeAnnData, column: Any) -> None:
    adata = make_adata(COUNTS, LABELS)
    adata.obs["bad"] = column
    np.testing.assert_array_equal(read(adata, artifact_key="bad").failed, [1, 0, 0, 1, 0, 0])


def test_one_column_per_criterion(make_adata: MakeAnnData) -> None:
    adata = make_adata(COUNTS, LABELS)
    adata.obs["umi"] = [1, 0, 0, 1, 0, 0]
    adata.obs["mito"] = [0, 0, 1, 1, 0, 0]
    data = read(adata, artifact_key=("umi", "mito"))
    assert data.criteria == ("umi", "mito")
    np.testing.assert_array_equal(data.artifact.T, [[1, 0, 0, 1, 0, 0], [0, 0, 1, 1, 0, 0]])
    np.testing.assert_array_equal(data.failed, [1, 0, 1, 1, 0, 0])


@pytest.mark.parametrize("value", [2, 0.5, "yes", None, np.nan])
def test_what_is_not_boolean_is_refused(make_adata: MakeAnnData, value: Any) -> None:
    adata = make_adata(COUNTS, LABELS)
    adata.obs["bad"] = pd.Series([True, False, value, True, False, False], dtype=object).to_numpy()
    with pytest.raises(DataError, match=rf"obs\['bad'\] must be boolean or 0/1, but holds {value!r}"):
        read(adata, artifact_key="bad")


def test_an_absent_artifact_column_is_refused(make_adata: MakeAnnData) -> None:
    adata = make_adata(COUNTS, LABELS)
    with pytest.raises(DataError, match=r"no column 'qc' in obs.*annotate_qc.*artifact_key="):
        read(adata, artifact_key="qc")


# -- cells and genes -------------------------------------------------------------------------------------------


def test_cells_without_a_count_are_left_out_with_a_warning(make_adata: MakeAnnData) -> None:
    counts = COUNTS.copy()
    counts[[1, 3]] = 0
    with pytest.warns(UserWarning, match="2 cells without a count are left out"):
        data = read(make_adata(counts, LABELS, [0, 1, 0, 1, 0, 1]))
    assert list(data.cells) == ["cell0", "cell2", "cell4", "cell5"]
    np.testing.assert_array_equal(data.counts.toarray(), counts[[0, 2, 4, 5]])
    np.testing.assert_array_equal(data.failed, [False, False, False, True])
    assert data.conditions == ("control", "A+B", "B")


def test_no_counts_at_all_are_refused(make_adata: MakeAnnData) -> None:
    with pytest.raises(DataError, match="no cell has both a count and a perturbation"):
        read(make_adata(np.zeros((6, 4)), LABELS))


def test_duplicate_names_are_refused(make_adata: MakeAnnData) -> None:
    adata = make_adata(COUNTS, LABELS)
    adata.obs_names = ["a", "b", "c", "b", "d", "e"]
    with pytest.raises(DataError, match=r"duplicate cell name 'b'.*obs_names_make_unique"):
        read(adata)
    adata = make_adata(COUNTS, LABELS)
    adata.var_names = ["x", "y", "y", "z"]
    with pytest.raises(DataError, match=r"duplicate gene name 'y'.*var_names_make_unique"):
        read(adata)


def test_absent_genes_are_named(make_adata: MakeAnnData) -> None:
    genes = ["gene3", "GATA1", "gene0", "KLF1"]
    with pytest.raises(DataError, match=r"2 of the model's 4 genes are not in the data, first: 'GATA1', 'KLF1'"):
        read_experiment(make_adata(COUNTS, LABELS), DataFields(), genes=genes)


def test_more_genes_than_the_model_has_are_dropped(make_adata: MakeAnnData) -> None:
    data = read_experiment(make_adata(COUNTS, LABELS), DataFields(), genes=["gene2", "gene0"])
    np.testing.assert_array_equal(data.counts.toarray(), COUNTS[:, [2, 0]])


def test_bad_counts_are_refused(make_adata: MakeAnnData) -> None:
    with pytest.raises(DataError, match="looks log-normalised"):
        read(make_adata(np.log1p(COUNTS), LABELS))
    with pytest.raises(DataError, match="negative"):
        read(make_adata(COUNTS - 1, LABELS))


def test_several_columns_may_be_a_list() -> None:
    fields = DataFields(artifact_key=["umi", "mito"], control_labels=["NT"])
    assert fields == DataFields(artifact_key=("umi", "mito"), control_labels=("NT",))
    assert fields.criteria == ("umi", "mito")


@pytest.mark.parametrize("place", ["cell name", "gene name", "perturbation label"])
def test_names_that_no_file_can_hold_are_refused_at_once(place: str, simulated: ad.AnnData) -> None:
    bad = simulated.copy()
    if place == "cell name":
        bad.obs_names = ["cell\0", *bad.obs_names[1:]]
    elif place == "gene name":
        bad.var_names = ["gene\0", *bad.var_names[1:]]
    else:
        bad.obs["perturbation"] = bad.obs["perturbation"].astype(str).str.replace("A", "A\0")
    with pytest.raises(cv.DataError, match=rf"{place} '.*\\x00.*' holds the character NUL"):
        cv.CradleVAE(bad, split=cv.split(simulated, "cells", seed=0))

"""Guide RNAs are assigned as the counts say; what cannot be told is left out, counted and never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cradlevae as cv
from cradlevae.data.experiment import read_experiment
from cradlevae.errors import DataError
from cradlevae.reporting.figures import guides_figure, save_figure

NAMES = ["NT_1", "A_1", "A_2", "B_1", "C_1"]
TARGETS = {name: "control" if name == "NT_1" else name[0] for name in NAMES}


def screen(counts: Any, names: list[str] = NAMES) -> ad.AnnData:
    """Cells with these counts of guide RNAs, and one count of one gene each."""
    counts = np.asarray(counts)
    cells = [f"cell{index}" for index in range(len(counts))]
    table = pd.DataFrame({"target": [TARGETS.get(name, name) for name in names]}, index=pd.Index(names, name="guide"))
    return ad.AnnData(
        np.ones((len(counts), 1), dtype=np.float32), obs=pd.DataFrame(index=cells),
        obsm={"guides": sp.csr_matrix(counts)}, uns={"guides": table},
    )  # fmt: skip


ROWS = {
    (9, 0, 0, 0, 0): ("NT_1", "control"),
    (0, 9, 0, 0, 0): ("A_1", "A"),
    (0, 9, 7, 0, 0): ("A_1+A_2", "A"),
    (9, 0, 9, 0, 0): ("NT_1+A_2", "A"),
    (0, 9, 0, 9, 0): ("A_1+B_1", "A+B"),
    (0, 0, 0, 9, 4): ("B_1", "B"),
    (0, 9, 0, 9, 9): ("A_1+B_1+C_1", "unassigned"),
    (4, 4, 4, 4, 4): ("unassigned", "unassigned"),
}
"""Counts, the guide RNAs that are present from five on, and the perturbation."""


@pytest.mark.filterwarnings("ignore:.*in no assigned cell:UserWarning")
def test_labels_follow_from_the_guide_rnas_present() -> None:
    adata = screen(list(ROWS))
    with pytest.warns(
        UserWarning, match=r"2 of 8 cells are unassigned: 1 \(12.5%\) without .* 1 \(12.5%\) with .* 2 genes"
    ):
        report = cv.assign_guides(adata, method="umi")
    assert list(zip(adata.obs["guide"], adata.obs["perturbation"], strict=True)) == list(ROWS.values())
    used = report[report["used"]].iloc[0]
    assert used.drop("used").tolist() == ["umi ≥ 5", 1, 4, 1, 1, 1, 2]
    assert adata.uns["guides"]["n_cells"].tolist() == [2, 3, 2, 2, 0]
    assert (report[["controls", "singles", "combinations", "lost"]].sum(axis=1) == 8).all()


@pytest.mark.filterwarnings("ignore:.*unassigned|.*in no assigned cell|.*two cells in one droplet:UserWarning")
def test_one_target_and_another_threshold() -> None:
    adata = screen(list(ROWS))
    report = cv.assign_guides(adata, method="umi", min_count=4, max_targets=1, guide_key="sg", perturbation_key="gene")
    assert adata.obs["gene"].tolist() == ["control", "A", "A", "A", *["unassigned"] * 4]
    assert adata.obs["sg"].iloc[5] == "B_1+C_1"
    assert list(report.loc[report["used"], "rule"]) == ["umi ≥ 4"]
    assert "umi ≥ 12" in set(cv.assign_guides(screen([[20, 0, 0, 0, 0]]), method="umi", min_count=12)["rule"])


@pytest.mark.filterwarnings("ignore:.*unassigned|.*in no assigned cell|.*two cells in one droplet:UserWarning")
@given(
    counts=hnp.arrays(
        np.int64, st.tuples(st.integers(1, 30), st.just(5)), elements=st.sampled_from([0, 0, 0, 1, 6, 9])
    ),
    seed=st.integers(0, 5),
)
@settings(deadline=None, max_examples=30)
def test_order_and_form_do_not_matter(counts: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    adata = screen(counts)
    report = cv.assign_guides(adata, method="umi")
    cells, guides = rng.permutation(len(counts)), rng.permutation(5)
    other = screen(counts[cells][:, guides], [NAMES[index] for index in guides])
    frame = pd.DataFrame(other.obsm["guides"].toarray(), index=other.obs_names, columns=other.uns["guides"].index)
    dense = ad.AnnData(other.X, obs=other.obs, obsm={"guides": frame}, uns=other.uns)
    for same in (other, dense):
        pd.testing.assert_frame_equal(cv.assign_guides(same, method="umi"), report)
        assert same.obs["perturbation"].tolist() == adata.obs["perturbation"].iloc[cells].tolist()
        assert [set(label.split("+")) for label in same.obs["guide"]] == [
            set(label.split("+")) for label in adata.obs["guide"].iloc[cells]
        ]


@pytest.mark.parametrize("method", ["umi", "mixture"])
def test_both_methods_recover_a_simulated_screen(method: Any, guide_screen: Any) -> None:
    adata = guide_screen.genes.copy()
    adata.obsm["guides"] = guide_screen.guides
    adata.uns["guides"] = pd.DataFrame({"target": guide_screen.targets})
    report = cv.assign_guides(adata, method=method)
    assert (adata.obs["perturbation"].astype(str).to_numpy() == guide_screen.labels.to_numpy()).mean() > 0.99
    lost = report.set_index("rule")["lost"]
    assert lost["umi ≥ 1"] > 50 > 5 > lost["mixture"]


@pytest.mark.filterwarnings("ignore:.*in no assigned cell:UserWarning")
def test_unassigned_cells_are_left_out_with_a_warning() -> None:
    adata = screen(list(ROWS))
    with pytest.warns(UserWarning, match="2 of 8 cells are unassigned"):
        cv.assign_guides(adata, method="umi")
    adata.obs["artifact"] = False
    with pytest.warns(UserWarning, match=r"2 cells that are 'unassigned' in obs\['perturbation'\] are left out"):
        data = read_experiment(adata, cv.DataFields())
    assert data.n_cells == 6
    assert data.perturbations == ("A", "B")
    assert (cv.split(adata, "cells").parts == "unused").sum() == 2


def test_a_control_label_of_that_name_means_control() -> None:
    adata = screen([[0, 9, 0, 0, 0]] * 4)
    adata.obs["perturbation"], adata.obs["artifact"] = ["A", "A", "unassigned", "unassigned"], False
    data = read_experiment(adata, cv.DataFields(control_labels=("unassigned",)))
    assert data.conditions == ("control", "A")


@pytest.mark.filterwarnings("ignore:.*in no assigned cell:UserWarning")
def test_a_new_assignment_replaces_its_own_columns_and_no_others() -> None:
    adata = screen([[9, 0, 0, 0, 0], [0, 9, 9, 9, 3], [0, 0, 0, 0, 9]])
    cv.assign_guides(adata, method="umi")
    assert adata.obs["perturbation"].tolist() == ["control", "A+B", "C"]
    with pytest.warns(UserWarning, match="with guide RNAs of more than one gene"):
        cv.assign_guides(adata, method="umi", max_targets=1)
    assert adata.obs["perturbation"].tolist() == ["control", "unassigned", "C"]
    del adata.uns["cradlevae_guides"]
    before = adata.obs.copy()
    with pytest.raises(DataError, match=r"obs\['guide'\] is there already; .* guide_key="):
        cv.assign_guides(adata, method="umi")
    pd.testing.assert_frame_equal(adata.obs, before)


def test_many_thin_pairs_look_like_doublets() -> None:
    counts = np.zeros((40, 8), dtype=int)
    counts[np.arange(40), np.arange(40) % 7 + 1] = 9
    counts[np.arange(40), (np.arange(40) * 3 // 7) % 7 + 1] = 9
    names = ["NT_1", *"ABCDEFG"]
    with pytest.warns(UserWarning, match="of pairs with fewer than 5 cells; .* max_targets=1 leaves out"):
        cv.assign_guides(screen(np.vstack([counts, [[9] + [0] * 7]]), names), method="umi")


def renamed(adata: Any, name: str) -> pd.DataFrame:
    """The table of guide RNAs with another name for the first."""
    table = adata.uns["guides"]
    return table.set_axis([name, *table.index[1:]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda adata: adata.obsm.pop("guides"), r"no counts of guide RNAs 'guides' in obsm \(there: none\)"),
        (lambda adata: adata.uns.pop("guides"), r"has 5 columns without names: uns\['guides'\] must be a table"),
        (
            lambda adata: adata.obsm.update(guides=adata.obsm["guides"] * 0.5),
            r"holds 4.5 for cell 'cell0'; guides_key=",
        ),
        (lambda adata: adata.obsm.update(guides=-adata.obsm["guides"]), "holds -9 for cell 'cell0'"),
        (lambda adata: adata.uns.update(guides=pd.DataFrame({"target": ["A+B"] * 5})), r"targets hold '\+'"),
        *(
            (lambda adata, name=name: adata.uns.update(guides=renamed(adata, name)), f"guide RNAs are called {name!r}")
            for name in ("", "NA", "unassigned")
        ),
        (
            lambda adata: adata.uns.update(guides=renamed(adata, "+".join(adata.uns["guides"].index[1:3]))),
            "guide RNAs are called like several others together",
        ),
    ],
)
def test_counts_that_cannot_be_used(change: Any, message: str) -> None:
    adata = screen(list(ROWS))
    change(adata)
    with pytest.raises(DataError, match=message):
        cv.assign_guides(adata, method="umi")
    assert not len(adata.obs.columns)


@pytest.mark.filterwarnings("ignore:.*unassigned|.*in no assigned cell:UserWarning")
def test_the_figure_shows_every_rule(tmp_path: Path) -> None:
    adata = screen(list(ROWS))
    with pytest.raises(DataError, match="run assign_guides first"):
        guides_figure(adata)
    report = cv.assign_guides(adata, method="umi")
    figure = guides_figure(adata)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(report["rule"])
    assert "25.0% of 8 cells" in figure.get_suptitle()
    save_figure(figure, tmp_path / "guides.png")
    adata.write_h5ad(tmp_path / "screen.h5ad")
    assert guides_figure(cv.open_cells(tmp_path / "screen.h5ad")).get_suptitle() == figure.get_suptitle()

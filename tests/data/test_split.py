"""Splits: which cells a recipe gives to which part, and the manifest that remembers it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cradlevae as cv
from cradlevae.data.split import Split
from cradlevae.errors import DataError

SINGLES = list("ABCDEFG")
PAIRS = ["A+B", "A+C", "B+C", "C+D", "D+E", "E+F", "F+G", "A+G", "B+F"]


def labelled(labels: list[str]) -> ad.AnnData:
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(labels))])
    return ad.AnnData(obs=obs)


def parts_of(split: Split, adata: ad.AnnData, label: str) -> Counter[str]:
    return Counter(split.parts[(adata.obs["perturbation"] == label).to_numpy()])


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    """25 cells for each condition, in random order."""
    labels = ["control", *SINGLES, *PAIRS] * 25
    return labelled(list(np.random.default_rng(0).permutation(labels)))


@pytest.mark.parametrize(
    ("recipe", "options"),
    [("cells", {}), ("combinations", {})] + [("perturbations", {"n_shared": n}) for n in (0, 1, 2)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_cell_has_one_part_and_the_seed_decides(
    screen: ad.AnnData, recipe: str, options: dict[str, int], seed: int
) -> None:
    split = cv.split(screen, recipe, seed=seed, **options)
    assert split.parts.index.equals(pd.Index(screen.obs_names))
    assert set(split.parts) <= {"train", "val", "test", "unused"}
    rows = [split.rows(screen.obs_names, part) for part in ("train", "val", "test", "unused")]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(screen.n_obs))
    assert all(np.all(np.diff(part) > 0) for part in rows)
    again = cv.split(screen, recipe, seed=seed, **options)
    pd.testing.assert_series_equal(split.parts, again.parts)
    assert split.hash == again.hash
    assert split.hash != cv.split(screen, recipe, seed=seed + 10, **options).hash
    assert (split.recipe, split.seed, split.options) == (recipe, seed, options)


def test_cells_are_split_64_16_20_within_each_condition(screen: ad.AnnData) -> None:
    split = cv.split(screen, "cells", seed=3)
    for label in ["control", *SINGLES, *PAIRS]:
        assert parts_of(split, screen, label) == {"train": 16, "val": 4, "test": 5}


@pytest.mark.parametrize("seed", range(5))
def test_combinations_follow_the_protocol(screen: ad.AnnData, seed: int) -> None:
    split = cv.split(screen, "combinations", seed=seed)
    shuffled = sorted(PAIRS)
    np.random.default_rng(seed).shuffle(shuffled)
    n_test = math.ceil(0.25 * len(PAIRS))
    test = set(shuffled[-n_test:])
    assert len(shuffled) - n_test == int(0.75 * len(shuffled))
    for label in ["control", *SINGLES, *PAIRS]:
        expected = {"test": 25} if label in test else {"train": 20, "val": 5}
        assert parts_of(split, screen, label) == expected, label


def test_combinations_know_a_pair_by_either_order() -> None:
    labels = ["control", "A", "B", "C", "D"] * 4 + ["A_B", "B_A", "C_D", "D_C", "A_D", "B_C"] * 4
    adata = labelled(labels)
    split = cv.split(adata, "combinations", separator="_")
    assert parts_of(split, adata, "A_B").keys() & {"test"} == parts_of(split, adata, "B_A").keys() & {"test"}
    assert (split.parts == "test").sum() in (4, 8)  # one of four pairs


@settings(deadline=None)
@given(st.lists(st.sampled_from(["control", "A", "B", "A+B", "C"]), min_size=1, max_size=60), st.integers(0, 5))
def test_no_condition_is_without_training_cells(labels: list[str], seed: int) -> None:
    adata = labelled(labels)
    split = cv.split(adata, "cells", seed=seed)
    trained = adata.obs["perturbation"][(split.parts == "train").to_numpy()]
    assert set(trained) == set(labels)


@pytest.mark.parametrize("n_shared", [0, 1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_held_out_conditions_share_so_many_members_with_training(n_shared: int, seed: int) -> None:
    # F and G occur in pairs only, so whether they are seen depends on where those pairs go
    adata = labelled(["control", *SINGLES[:5], *PAIRS] * 5)
    split = cv.split(adata, "perturbations", seed=seed, n_shared=n_shared)
    labels = adata.obs["perturbation"].to_numpy()

    def conditions(*parts: str) -> set[str]:
        return set(labels[split.parts.isin(parts).to_numpy()])

    trained, held_out = conditions("train", "val"), conditions("test")
    assert held_out
    assert "control" in trained
    assert not trained & held_out
    assert not trained & conditions("unused")
    seen = {single for label in trained for single in label.split("+")}
    for label in held_out:
        assert sum(single in seen for single in label.split("+")) == n_shared, label


def test_what_cannot_be_split_is_refused(screen: ad.AnnData) -> None:
    with pytest.raises(DataError, match=r"unknown split recipe 'combination'; did you mean 'combinations'"):
        cv.split(screen, "combination")
    with pytest.raises(DataError, match=r"this recipe needs combinations.*recipe 'cells'.*separator="):
        cv.split(labelled(["control", "A", "B"]), "combinations")
    with pytest.raises(DataError, match="n_shared is 3; it must be 0, 1 or 2"):
        cv.split(screen, "perturbations", n_shared=3)
    with pytest.raises(DataError, match="no condition has exactly 1 perturbations seen"):
        cv.split(labelled(["control", *SINGLES]), "perturbations", n_shared=1)
    with pytest.raises(DataError, match=r"no column 'gene' in obs"):
        cv.split(screen, "cells", perturbation_key="gene")


def test_duplicate_cell_names_are_refused(screen: ad.AnnData) -> None:
    twice = screen.copy()
    twice.obs["part"] = "train"
    twice.obs_names = ["cell0", *twice.obs_names[:-1]]
    for recipe in ("cells", "column"):
        with pytest.raises(DataError, match="duplicate cell name 'cell0'"):
            cv.split(twice, recipe, column="part")


def test_cells_without_a_guide_are_unused() -> None:
    adata = labelled(["?"] * 12)
    guides = np.zeros((12, 2))
    guides[:8, 0] = guides[4:10, 1] = 3
    adata.obsm["guides"] = pd.DataFrame(guides, columns=["control", "A"], index=adata.obs_names)
    split = cv.split(adata, "cells", guides_key="guides")
    assert list(split.parts[10:]) == ["unused", "unused"]
    assert "unused" not in set(split.parts[:10])


def test_a_column_names_the_parts(screen: ad.AnnData) -> None:
    adata = labelled(["control", "A", "B", "A"])
    adata.obs["fold"] = pd.Categorical(["train", "validation", "test", "unused"])
    split = cv.split(adata, "column", column="fold")
    assert list(split.parts) == ["train", "val", "test", "unused"]
    assert split.options == {"column": "fold"}
    with pytest.raises(DataError, match=r"needs column="):
        cv.split(adata, "column")
    with pytest.raises(DataError, match=r"no column 'folds' in obs; did you mean 'fold'"):
        cv.split(adata, "column", column="folds")
    adata.obs["fold"] = ["train", "holdout", "test", "test"]
    with pytest.raises(DataError, match=r"obs\['fold'\] holds 'holdout'; the parts are train, val, test"):
        cv.split(adata, "column", column="fold")
    adata.obs["fold"] = "test"
    with pytest.raises(DataError, match=r"names no cell 'train'"):
        cv.split(adata, "column", column="fold")


# -- manifests -------------------------------------------------------------------------------------------------


def test_a_manifest_round_trips(screen: ad.AnnData, tmp_path: Path) -> None:
    split = cv.split(screen, "perturbations", seed=np.int64(2), n_shared=1)
    split.save(tmp_path / "split.json")
    loaded = Split.load(tmp_path / "split.json")
    assert loaded.hash == split.hash
    assert (loaded.recipe, loaded.seed, loaded.options) == ("perturbations", 2, {"n_shared": 1})
    pd.testing.assert_series_equal(loaded.parts.sort_index(), split.parts.sort_index())
    for part in ("train", "val", "test", "unused"):
        np.testing.assert_array_equal(loaded.rows(screen.obs_names, part), split.rows(screen.obs_names, part))
        assert list(loaded.cells(part)) == list(split.cells(part))
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)))
def test_the_hash_knows_parts_but_no_order(order: list[int]) -> None:
    parts = pd.Series(["train", "val", "test"] * 4, index=[f"cell{i}" for i in range(12)], dtype=object)
    split = Split(parts, "cells", 0)
    assert Split(parts.iloc[order], "cells", 0).hash == split.hash
    moved = parts.copy()
    moved.iloc[order[0]] = "unused"
    assert Split(moved, "cells", 0).hash != split.hash
    assert Split(parts, "cells", 1).hash != split.hash
    assert Split(parts, "column", 0).hash != split.hash
    assert Split(parts, "cells", 0, {"n_shared": 1}).hash != split.hash


def test_rows_are_found_by_name(screen: ad.AnnData) -> None:
    split = cv.split(screen, "cells")
    other = pd.Index(["stranger", *screen.obs_names[::-1]])
    rows = split.rows(other, "test")
    assert set(other[rows]) == set(split.cells("test"))
    assert np.all(np.diff(rows) > 0)


def test_a_tampered_manifest_is_refused(screen: ad.AnnData, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    cv.split(screen, "cells").save(path)
    manifest = json.loads(path.read_text())
    manifest["cells"]["train"].append(manifest["cells"]["test"].pop())
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"split\.json was changed after it was written"):
        Split.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cells": 3}', '{"cells": {"train": 3}}', "null"])
def test_what_is_no_manifest_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"split\.json is not a split manifest"):
        Split.load(path)
    with pytest.raises(DataError, match="no split manifest at"):
        Split.load(tmp_path / "absent.json")


def with_members_missing() -> ad.AnnData:
    """Four pairs of A to D, whose singles are there, and eight of members that occur once."""
    rare = [f"{'ABCDABCD'[i]}+{'PQRSTUVW'[i]}" for i in range(8)]
    return labelled(["control", *"ABCD", "A+B", "A+C", "B+D", "C+D", *rare] * 10)


@pytest.mark.parametrize("seed", range(5))
def test_answerable_combinations_are_held_out_first(seed: int) -> None:
    adata = with_members_missing()
    split, published = (cv.split(adata, name, seed=seed) for name in ("combinations", "combinations_published"))
    names = adata.obs["perturbation"]
    held_out, random = (set(names[(one.parts == "test").to_numpy()]) for one in (split, published))
    assert len(held_out) == len(random) == 3
    trained = {single for name in names[(split.parts == "train").to_numpy()] for single in name.split("+")}
    assert all(set(name.split("+")) <= trained for name in held_out)
    assert random & held_out == {name for name in random if set(name.split("+")) <= set("ABCD")}
    assert bool(split.notes) == (held_out != random)
    if split.notes:
        assert "held out first" in split.notes[0]
        assert all(name in split.notes[0] for name in held_out ^ random)


@pytest.mark.parametrize("seed", range(3))
def test_the_random_quarter_is_held_out_where_it_can_be_answered(screen: ad.AnnData, seed: int) -> None:
    split, published = (cv.split(screen, name, seed=seed) for name in ("combinations", "combinations_published"))
    pd.testing.assert_series_equal(split.parts, published.parts)
    assert split.notes == published.notes == ()


def test_combinations_that_cannot_be_answered_are_said() -> None:
    adata = labelled(["control", "A", "B", "A+B", *(f"{one}+{two}" for one, two in ("PQ", "RS", "TU", "VW"))] * 10)
    with pytest.warns(UserWarning, match="1 of 2 held-out combinations have a single perturbation without training"):
        split = cv.split(adata, "combinations")
    held_out = set(adata.obs["perturbation"][(split.parts == "test").to_numpy()])
    assert len(held_out) == 2
    assert "A+B" in held_out
    assert (held_out - {"A+B"}).pop() in split.notes[-1]


def test_real_pairs_that_are_held_out_are_answerable(data_file: Callable[[str], Path]) -> None:
    adata = ad.read_h5ad(data_file("norman2019_500g.h5ad"))
    split = cv.split(adata, "combinations")
    trained = {single for name in adata.obs.loc[split.cells("train"), "perturbation"] for single in name.split("+")}
    held_out = set(adata.obs.loc[split.cells("test"), "perturbation"])
    assert len(held_out) == 4
    assert all(set(name.split("+")) <= trained for name in held_out)


def test_splits_are_equal_by_their_hash(screen: ad.AnnData, tmp_path: Path) -> None:
    one, again, other = cv.split(screen), cv.split(screen), cv.split(screen, seed=1)
    assert one == again
    assert one != other
    assert one != one.hash
    assert len({one, again, other}) == 2
    reordered = Split(one.parts[::-1], one.recipe, one.seed, one.options, notes=("said",))
    assert reordered == one
    reordered.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == one
    assert Split.load(tmp_path / "split.json").notes == ("said",)


def test_repr_tells_recipe_and_sizes(screen: ad.AnnData) -> None:
    split = cv.split(screen, "cells")
    assert repr(split).startswith("Split('cells', seed=0, train 272, val 68, test 85, hash ")


def test_a_random_quarter_of_contexts_can_be_answered() -> None:
    """Combinations with a held-out perturbation in its context are not trained on, either."""
    for seed in range(6):
        adata = cv.simulate(
            n_cells=300, n_genes=20, n_perturbations=3, n_combinations=3, n_latent=3, n_contexts=2, seed=seed
        )
        split = cv.split(adata, "contexts", context_key="context", seed=seed)
        trained = set("+".join(adata.obs.loc[split.cells("train"), "perturbation"].unique()).split("+"))
        tested = set("+".join(adata.obs.loc[split.cells("test"), "perturbation"].unique()).split("+"))
        assert tested - {"control"}
        assert tested <= trained

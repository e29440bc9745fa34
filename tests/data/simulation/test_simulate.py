"""The simulator: what it promises about labels, counts, artifacts and the truth that travels along."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data.dosage import dosage_table
from cradlevae.data.simulation.damage import ARTIFACT_KINDS
from cradlevae.data.simulation.simulate import simulate
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError

SMALL: dict[str, Any] = {
    "n_cells": 400,
    "n_genes": 60,
    "n_perturbations": 5,
    "n_combinations": 6,
    "n_interacting": 2,
    "n_latent": 6,
}


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    """The experiment with all defaults."""
    return simulate()


def totals(counts: sp.csr_matrix) -> np.ndarray:
    return np.asarray(counts.sum(axis=1)).ravel()


def log_normalised(counts: sp.csr_matrix) -> np.ndarray:
    dense = counts.toarray().astype(np.float64)
    return np.log2(1.0 + 1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1.0))


def same(left: sp.csr_matrix, right: sp.csr_matrix) -> bool:
    return (left != right).nnz == 0


def kind_of(adata: ad.AnnData) -> np.ndarray:
    return adata.obs["true_artifact_kind"].astype(str).to_numpy()


def test_the_same_seed_gives_the_same_experiment_and_another_seed_another() -> None:
    first, again, other = simulate(**SMALL), simulate(**SMALL), simulate(**SMALL, seed=1)
    assert same(first.X, again.X)
    assert same(first.layers["clean"], again.layers["clean"])
    assert first.obs.equals(again.obs)
    np.testing.assert_array_equal(first.uns["truth"]["effects"], again.uns["truth"]["effects"])
    assert not same(first.layers["clean"], other.layers["clean"])
    assert not np.array_equal(first.uns["truth"]["embedding"], other.uns["truth"]["embedding"])


def test_the_damage_does_not_change_the_clean_experiment() -> None:
    damaged, clean = simulate(**SMALL), simulate(**SMALL, artifact_rate=0.0)
    assert same(damaged.layers["clean"], clean.layers["clean"])
    np.testing.assert_array_equal(damaged.uns["truth"]["effects"], clean.uns["truth"]["effects"])
    assert same(clean.X, clean.layers["clean"])


def test_labels_and_shapes(adata: ad.AnnData) -> None:
    truth = adata.uns["truth"]
    assert adata.shape == (6000, 600)
    assert list(truth["perturbations"]) == list("ABCDEFGHIJKLMNOP")
    pairs = [name for name in truth["conditions"] if "+" in name]
    assert len(pairs) == len(set(pairs)) == 24
    assert all(name == "+".join(sorted(name.split("+"))) for name in pairs)
    assert set(truth["interacting"]) <= set(pairs)
    assert len(truth["interacting"]) == 4
    assert list(truth["effect_conditions"]) == list(truth["conditions"][1:])
    assert list(truth["genes"]) == list(adata.var_names)
    assert truth["effects"].shape == (40, 600)
    assert truth["mask"].shape == truth["embedding"].shape == (16, 12)
    assert truth["loadings_basal"].shape == truth["loadings_perturbation"].shape == (600, 12)
    assert adata.obsm["true_z_basal"].shape == adata.obsm["true_z_perturbation"].shape == (6000, 12)
    sizes = adata.obs["perturbation"].value_counts()
    assert sizes["control"] == 600
    assert sizes.drop("control").between(134, 136).all()
    assert set(sizes.index) == set(truth["conditions"])
    assert "artifact" not in adata.obs


def test_more_than_26_perturbations_are_named_like_columns_of_a_sheet() -> None:
    adata = simulate(**{**SMALL, "n_perturbations": 29})
    assert list(adata.uns["truth"]["perturbations"][25:]) == ["Z", "AA", "AB", "AC"]


def test_counts_are_canonical_csr_of_whole_numbers(adata: ad.AnnData) -> None:
    for layer in (None, "clean"):
        Counts(adata, layer).check()
        matrix = adata.X if layer is None else adata.layers[layer]
        assert isinstance(matrix, sp.csr_matrix)
        assert matrix.dtype == np.float32
        assert matrix.has_canonical_format
        assert matrix.data.min() >= 1.0


@pytest.mark.parametrize("seed", range(3))
def test_sparsity_and_library_size_are_as_documented(seed: int) -> None:
    clean = simulate(seed=seed, artifact_rate=0.0).X
    assert 0.77 <= 1.0 - clean.nnz / np.prod(clean.shape) <= 0.84
    assert np.median(totals(clean)) == pytest.approx(500.0, rel=0.03)
    # Gamma-Poisson noise adds to the log-sd of the library size.
    assert 0.25 <= np.log(totals(clean)).std() <= 0.30


def test_clean_cells_have_a_low_natural_share_of_marker_genes(adata: ad.AnnData) -> None:
    clean = adata.layers["clean"]
    for prefixes, share in ((("MT-",), 0.05), (("RPS", "RPL"), 0.12), (("HB",), 0.01)):
        own = totals(clean[:, adata.var_names.str.startswith(prefixes)]) / totals(clean)
        assert own.mean() == pytest.approx(share, rel=0.03)


def test_clean_cells_are_untouched_and_each_kind_does_what_it_says(adata: ad.AnnData) -> None:
    kind, severity = kind_of(adata), adata.obs["true_severity"].to_numpy()
    damaged, clean = adata.X, adata.layers["clean"]
    np.testing.assert_array_equal(adata.obs["true_artifact"], kind != "none")
    assert same(damaged[kind == "none"], clean[kind == "none"])
    assert (severity[kind == "none"] == 0).all()

    def change(name: str) -> sp.csr_matrix:
        return sp.csr_matrix(damaged[kind == name] - clean[kind == name])

    assert change("low_umi").data.max() < 0
    assert change("doublet").data.min() > 0
    kept = totals(damaged[kind == "low_umi"]) / totals(clean[kind == "low_umi"])
    np.testing.assert_allclose(kept, 1.0 - severity[kind == "low_umi"], atol=0.1)
    added = totals(change("doublet")) / totals(damaged[kind == "doublet"])
    np.testing.assert_allclose(added, severity[kind == "doublet"], rtol=1e-5)
    for name in ("low_genes", "mito", "ribo", "haemo"):
        np.testing.assert_array_equal(totals(damaged[kind == name]), totals(clean[kind == name]))
    fewer = np.diff(clean[kind == "low_genes"].indptr) - np.diff(damaged[kind == "low_genes"].indptr)
    assert fewer.min() > 0


@pytest.mark.parametrize(("name", "prefixes"), [("mito", ("MT-",)), ("ribo", ("RPS", "RPL")), ("haemo", ("HB",))])
def test_severity_is_the_share_of_foreign_counts(adata: ad.AnnData, name: str, prefixes: tuple[str, ...]) -> None:
    cells = kind_of(adata) == name
    severity = adata.obs["true_severity"].to_numpy()[cells]
    genes = adata.var_names.str.startswith(prefixes)
    before = totals(adata.layers["clean"][cells][:, genes]) / totals(adata.layers["clean"][cells])
    after = totals(adata.X[cells][:, genes]) / totals(adata.X[cells])
    expected = before * (1.0 - severity) + severity
    assert np.abs(after - expected).max() < 0.12  # binomial noise of about 500 counts
    assert after.mean() == pytest.approx(expected.mean(), abs=0.01)


def test_artifacts_come_at_their_rate_whatever_the_perturbation() -> None:
    adata = simulate(n_cells=20_000, n_genes=20, artifact_rate=0.3, library_size=(50.0, 0.2))
    failed = adata.obs["true_artifact"].to_numpy()
    assert failed.mean() == pytest.approx(0.3, abs=0.013)  # four standard errors
    shares = adata.obs["true_artifact_kind"].value_counts(normalize=True).drop("none")
    assert set(shares.index) == set(ARTIFACT_KINDS)
    assert shares.to_numpy() == pytest.approx(0.05, abs=0.0065)
    carries = adata.obs["perturbation"].astype(str).str.split("+").map(lambda names: "A" in names)
    assert failed[carries].mean() == pytest.approx(0.3, abs=0.05)


def test_confounding_raises_the_odds_of_the_first_perturbation_only() -> None:
    adata = simulate(n_cells=20_000, n_genes=20, confounded=1.5, library_size=(50.0, 0.2))
    failed = adata.obs["true_artifact"].to_numpy()
    carries = adata.obs["perturbation"].astype(str).str.split("+").map(lambda names: "A" in names)
    odds = 0.25 * np.exp(1.5)
    assert failed[carries].mean() == pytest.approx(odds / (1.0 + odds), abs=0.05)
    assert failed[~carries].mean() == pytest.approx(0.2, abs=0.013)


def test_only_the_kinds_asked_for_appear() -> None:
    adata = simulate(**SMALL, artifact_kinds=("mito", "doublet"), artifact_rate=1.0)
    assert set(kind_of(adata)) == {"mito", "doublet"}


def failing_by_mad(adata: ad.AnnData) -> dict[str, np.ndarray]:
    """Median ± 3 unscaled MAD, in plain numpy."""
    total = totals(adata.X)
    genes = np.diff(adata.X.indptr).astype(np.float64)

    def low(value: np.ndarray) -> np.ndarray:
        return value < np.median(value) - 3 * np.median(np.abs(value - np.median(value)))

    def share(*prefixes: str) -> np.ndarray:
        return totals(adata.X[:, adata.var_names.str.startswith(prefixes)]) / total

    return {
        "low_umi": low(total),
        "low_genes": low(genes),
        "mito": low(-share("MT-")),
        "ribo": low(-share("RPS", "RPL")),
        "haemo": low(-share("HB")),
    }


@pytest.mark.parametrize("seed", range(2))
def test_qc_thresholds_find_severe_artifacts_and_pass_most_clean_cells(seed: int) -> None:
    adata = simulate(seed=seed)
    kind, severity = kind_of(adata), adata.obs["true_severity"].to_numpy()
    failing = failing_by_mad(adata)
    for name, fails in failing.items():
        severe = (kind == name) & (severity > np.median(severity[kind == name]))
        assert fails[severe].mean() > 0.9, name
        assert fails[kind == name].mean() > 0.7, name
        assert fails[kind == "none"].mean() < 0.07, name
    any_failing = np.logical_or.reduce(list(failing.values()))
    assert any_failing[kind == "none"].mean() < 0.15


def test_pairs_are_additive_in_latent_space_but_for_the_interacting_ones(adata: ad.AnnData) -> None:
    truth = adata.uns["truth"]
    conditions = [str(name) for name in truth["conditions"]]
    shift = np.stack(
        [adata.obsm["true_z_perturbation"][(adata.obs["perturbation"] == name).to_numpy()][0] for name in conditions]
    )
    dosage = dosage_table(conditions, [str(name) for name in truth["perturbations"]])
    excess = shift - dosage @ (truth["mask"] * truth["embedding"])
    interacting = [str(name) for name in truth["interacting"]]
    plain = [name not in interacting for name in conditions]
    np.testing.assert_allclose(excess[plain], 0.0, atol=1e-5)
    for name, extra in zip(interacting, truth["interactions"], strict=True):
        np.testing.assert_allclose(excess[conditions.index(name)], extra, atol=1e-5)
        assert np.abs(extra).max() > 0.5


def test_all_cells_of_a_condition_share_their_shift_and_controls_have_none(adata: ad.AnnData) -> None:
    shift = adata.obsm["true_z_perturbation"]
    for name, cells in adata.obs.groupby("perturbation", observed=True).indices.items():
        assert (shift[cells] == shift[cells[0]]).all()
        assert shift[cells].any() == (name != "control")


def test_every_perturbation_acts_and_strengths_differ(adata: ad.AnnData) -> None:
    truth = adata.uns["truth"]
    assert truth["mask"].sum(axis=1).min() >= 1
    size = truth["effects"][:16].std(axis=1)
    assert size.min() > 0.1
    assert size.max() > 2 * size.min()


def test_true_effects_are_what_many_cells_show() -> None:
    adata = simulate(
        n_cells=24_000,
        n_genes=80,
        n_perturbations=2,
        n_combinations=1,
        n_interacting=1,
        artifact_rate=0.0,
        control_share=0.25,
        library_size=(300.0, 0.3),
    )
    logs = log_normalised(adata.X)
    label = adata.obs["perturbation"].astype(str).to_numpy()
    control = logs[label == "control"]
    for name, effect in zip(adata.uns["truth"]["effect_conditions"], adata.uns["truth"]["effects"], strict=True):
        treated = logs[label == name]
        measured = treated.mean(axis=0) - control.mean(axis=0)
        error = np.sqrt(treated.var(axis=0) / len(treated) + control.var(axis=0) / len(control))
        assert np.abs(effect).max() > 0.3
        assert np.corrcoef(measured, effect)[0, 1] > 0.99
        # The 0.02 is for the 1,000 basal states that the true effect is averaged over.
        assert (np.abs(measured - effect) < 4.5 * error + 0.02).all()


def test_measured_effects_of_the_default_experiment_follow_the_truth(adata: ad.AnnData) -> None:
    passing = ~adata.obs["true_artifact"].to_numpy()
    logs = log_normalised(adata.X[passing])
    label = adata.obs["perturbation"].astype(str).to_numpy()[passing]
    control = logs[label == "control"].mean(axis=0)
    truth = adata.uns["truth"]
    measured = np.stack([logs[label == name].mean(axis=0) - control for name in truth["effect_conditions"]])
    assert np.corrcoef(measured.ravel(), truth["effects"].ravel())[0, 1] > 0.95
    assert np.polyfit(truth["effects"].ravel(), measured.ravel(), 1)[0] == pytest.approx(1.0, abs=0.03)


def test_adding_single_effects_is_a_floor_that_leaves_room(adata: ad.AnnData) -> None:
    truth = adata.uns["truth"]
    effect = dict(zip(truth["effect_conditions"], truth["effects"], strict=True))
    pairs = [name for name in effect if "+" in name]
    added = np.stack([sum(effect[single] for single in name.split("+")) for name in pairs])
    score = np.corrcoef(added.ravel(), np.stack([effect[name] for name in pairs]).ravel())[0, 1]
    assert 0.85 < score < 0.97


def test_artifact_signature_is_what_damaged_cells_show() -> None:
    adata = simulate(n_cells=12_000, n_genes=60, artifact_rate=0.8, library_size=(800.0, 0.2))
    truth, kind = adata.uns["truth"], kind_of(adata)

    def shown(cells: np.ndarray) -> np.ndarray:
        """Log2 fold change of the mean profile, damaged against the same cells before."""
        after, before = (
            (matrix[cells].toarray() / totals(matrix[cells])[:, None]).mean(axis=0)
            for matrix in (adata.X, adata.layers["clean"])
        )
        common = before > 2e-3
        return np.where(common, np.log2(np.where(common, after / np.maximum(before, 1e-9), 1.0)), np.nan)

    for name, signature in zip(truth["artifact_kinds"], truth["artifact_signature_by_kind"], strict=True):
        measured = shown(kind == name)
        common = ~np.isnan(measured)
        assert common.sum() > 20
        # Doublets bring in cells of other conditions; otherwise what differs is sampling noise.
        assert np.abs(measured - signature)[common].max() < 0.25, name
        markers = name in {"mito", "ribo", "haemo"}
        assert (signature.max() > 1.0) == markers
    measured = shown(kind != "none")
    common = ~np.isnan(measured)
    assert np.corrcoef(measured[common], truth["artifact_signature"][common])[0, 1] > 0.98


def test_h5ad_round_trip(adata: ad.AnnData, tmp_path: Any) -> None:
    for name, experiment in {
        "default": adata,
        "bare": simulate(n_cells=50, n_genes=20, n_combinations=0, n_interacting=0, artifact_rate=0.0),
    }.items():
        experiment.write_h5ad(tmp_path / f"{name}.h5ad")
        back = ad.read_h5ad(tmp_path / f"{name}.h5ad")
        assert same(back.X, experiment.X)
        assert same(back.layers["clean"], experiment.layers["clean"])
        assert list(back.obs["perturbation"]) == list(experiment.obs["perturbation"])
        assert back.uns["truth"].keys() == experiment.uns["truth"].keys()
        for key, value in experiment.uns["truth"].items():
            np.testing.assert_array_equal(back.uns["truth"][key], value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n_combinations": 200}, "n_combinations=200 exceeds the 120 pairs of 16 perturbations; lower it"),
        ({"n_interacting": 30}, "n_interacting=30 exceeds n_combinations=24; lower it"),
        ({"n_cells": 30}, "n_cells=30 with control_share=0.1 leaves 27 cells for 40.*raise n_cells"),
        ({"control_share": 1.0}, "control_share=1.0 leaves 0 cells .*lower control_share"),
        ({"n_genes": 5}, "n_genes=5 must be at least 10"),
        ({"n_genes": 60.0}, "n_genes=60.0 must be a whole number"),
        ({"n_cells": True}, "n_cells=True must be a whole number"),
        ({"artifact_rate": 1.2}, "artifact_rate=1.2 must be between 0 and 1"),
        ({"artifact_rate": "high"}, "artifact_rate='high' must be a number"),
        ({"mask_probability": float("nan")}, "mask_probability=nan must be between 0 and 1"),
        ({"effect_size": -1}, "effect_size=-1 must be between 0 and 10"),
        ({"artifact_kinds": ("mito", "dust")}, "artifact_kinds=.*'dust'.*low_umi, low_genes, mito"),
        ({"artifact_kinds": ()}, "artifact_kinds is empty; name a kind, or set artifact_rate=0"),
        ({"library_size": 500}, "library_size=500 must be two numbers"),
        ({"library_size": (0.0, 0.3)}, "library_size=.*median from 1"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"n_batches": 0}, "n_batches=0 must be at least 1"),
        ({"n_batches": 3, "confounding": 1.2}, "confounding=1.2 must be between 0 and 1"),
        ({"confounding": 0.5}, "confounding=0.5 of perturbations and batches needs several batches; raise n_batches"),
        ({"context_sd": 0.3}, "context_sd=0.3 needs several contexts; raise n_contexts"),
        ({"n_batches": 601}, "n_batches=601 with n_contexts=1: the 600 control cells do not reach .* raise n_cells"),
        ({"n_batches": 20, "n_contexts": 31}, "n_batches=20 with n_contexts=31: the 600 control cells do not reach"),
        ({"n_contexts": 136}, "n_contexts=136 exceeds the 135 cells of a perturbation; raise n_cells or lower it"),
    ],
)
def test_bad_arguments_are_named_with_their_mend(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        simulate(**arguments)


@st.composite
def tiny(draw: st.DrawFn) -> dict[str, Any]:
    n_perturbations = draw(st.integers(1, 6))
    n_combinations = draw(st.integers(0, n_perturbations * (n_perturbations - 1) // 2))
    n_batches = draw(st.integers(1, 3))
    n_contexts = draw(st.integers(1, 2 if n_perturbations < 5 else 1))
    return {
        "n_cells": draw(st.integers(60, 90)),
        "n_genes": draw(st.integers(10, 50)),
        "n_perturbations": n_perturbations,
        "n_combinations": n_combinations,
        "n_interacting": draw(st.integers(0, n_combinations)),
        "n_latent": draw(st.integers(1, 5)),
        "mask_probability": draw(st.floats(0.0, 1.0)),
        "effect_size": draw(st.floats(0.0, 10.0)),
        "artifact_rate": draw(st.floats(0.0, 1.0)),
        "artifact_kinds": draw(st.sets(st.sampled_from(ARTIFACT_KINDS), min_size=1).map(sorted)),
        "confounded": draw(st.floats(-10.0, 10.0)),
        "library_size": (draw(st.floats(1.0, 2000.0)), draw(st.floats(0.0, 1.0))),
        "n_batches": n_batches,
        "batch_sd": draw(st.floats(0.0, 5.0)),
        "confounding": draw(st.floats(0.0, 1.0)) if n_batches > 1 else 0.0,
        "n_contexts": n_contexts,
        "context_sd": draw(st.floats(0.0, 5.0)) if n_contexts > 1 else 0.0,
        "control_share": draw(st.floats(0.11, 0.6) if n_batches * n_contexts > 1 else st.floats(0.0, 0.6)),
        "seed": draw(st.integers(0, 2**40)),
    }


@settings(max_examples=40, deadline=None)
@given(tiny())
def test_any_valid_arguments_give_a_sound_experiment(arguments: dict[str, Any]) -> None:
    adata = simulate(**arguments)
    truth, kind = adata.uns["truth"], kind_of(adata)
    assert adata.shape == (arguments["n_cells"], arguments["n_genes"])
    assert adata.var_names.is_unique
    assert set(adata.obs["perturbation"]) == set(truth["conditions"])
    assert set(kind) <= {"none", *arguments["artifact_kinds"]}
    Counts(adata).check()
    for matrix in (adata.X, adata.layers["clean"]):
        assert matrix.has_canonical_format
        assert (matrix.data > 0).all()
    severity = adata.obs["true_severity"].to_numpy()
    assert ((severity >= 0) & (severity <= 1)).all()
    assert same(adata.X[kind == "none"], adata.layers["clean"][kind == "none"])
    for key in ("effects", "artifact_signature", "artifact_signature_by_kind", "interactions"):
        assert np.isfinite(truth[key]).all()
    assert (truth["mask"].sum(axis=1) >= 1).all()


@pytest.mark.slow
def test_a_large_experiment_stays_within_memory() -> None:
    script = (
        "import resource, time; from cradlevae.data.simulation.simulate import simulate; "
        "adata = simulate(n_cells=50_000, n_genes=10_000, library_size=(2000.0, 0.25)); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 1 - adata.X.nnz / 5e8)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    peak, zeros = map(float, done.stdout.split())
    assert peak < 3e6  # KiB
    assert 0.91 < zeros < 0.94

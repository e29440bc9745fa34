"""Batches and contexts of simulated experiments: who is in which, what they shift, and what the truth says about it."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data.dosage import dosage_table
from cradlevae.data.simulation.design import Design
from cradlevae.data.simulation.simulate import simulate
from cradlevae.data.simulation.strata import CONTEXT_SD, Strata, StrataEffects, assign_strata

SMALL: dict[str, Any] = {"n_cells": 300, "n_genes": 60, "n_perturbations": 5, "n_combinations": 6, "n_latent": 6}

BEFORE = {0: "57c4ef9d616aadf5", 3: "346a290fbc3dc8ef"}
"""Digests by seed of the cells and counts that the simulator drew before it knew of batches and contexts."""

MANY: dict[str, Any] = {
    "n_cells": 40_000,
    "n_genes": 80,
    "n_perturbations": 2,
    "n_combinations": 1,
    "artifact_rate": 0.0,
    "control_share": 0.3,
    "library_size": (300.0, 0.3),
}
"""An experiment of which much can be measured."""


def digest(adata: ad.AnnData) -> str:
    of = hashlib.sha256()
    for matrix in (adata.X, adata.layers["clean"]):
        of.update(matrix.data.astype("<f4").tobytes())
        of.update(matrix.indices.astype("<i4").tobytes())
        of.update(matrix.indptr.astype("<i4").tobytes())
    for column in ("perturbation", "true_artifact_kind"):
        of.update(" ".join(adata.obs[column].astype(str)).encode())
    return of.hexdigest()[:16]


def log_normalised(adata: ad.AnnData) -> np.ndarray:
    dense = adata.X.toarray().astype(np.float64)
    return np.asarray(np.log2(1.0 + 1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1.0)))


def sizes(adata: ad.AnnData, column: str) -> pd.DataFrame:
    """Numbers of cells, perturbation × stratum."""
    return pd.crosstab(adata.obs["perturbation"], adata.obs[column])


@pytest.mark.parametrize("seed", BEFORE)
def test_one_batch_and_one_context_give_the_experiment_of_before(seed: int) -> None:
    adata = simulate(**SMALL, seed=seed)
    assert digest(adata) == BEFORE[seed]
    assert not {"batch", "context"} & set(adata.obs)
    assert not [key for key in adata.uns["truth"] if "batch" in key or "context" in key]


def test_without_batch_effects_it_is_the_same_experiment() -> None:
    settings = {**SMALL, "n_batches": 4, "confounding": 0.7}
    shifted, absent = simulate(**settings), simulate(**settings, batch_sd=0.0)
    same = ["perturbation", "batch", "true_artifact_kind"]
    pd.testing.assert_frame_equal(shifted.obs[same], absent.obs[same])
    np.testing.assert_array_equal(shifted.obsm["true_z_basal"], absent.obsm["true_z_basal"])
    # Without effects, batches are labels on the cells of an experiment without batches, library sizes included.
    assert digest(absent) == BEFORE[0]
    assert digest(shifted) != BEFORE[0]
    assert not absent.uns["truth"]["batch_effects"].any()
    # One experiment at several sizes of the effects.
    twice = simulate(**settings, batch_sd=0.56).uns["truth"]
    np.testing.assert_allclose(twice["batch_effects"], 2 * shifted.uns["truth"]["batch_effects"], rtol=1e-6)


def test_without_batch_effects_the_contexts_are_the_same_too() -> None:
    settings = {**SMALL, "n_batches": 2, "n_contexts": 2, "context_sd": 0.5}
    shifted, absent = simulate(**settings), simulate(**settings, batch_sd=0.0)
    assert list(shifted.obs["context"]) == list(absent.obs["context"])
    for key in ("context_effects", "context_deviations", "embedding"):
        np.testing.assert_array_equal(shifted.uns["truth"][key], absent.uns["truth"][key])


@pytest.mark.parametrize("confounding", [0.0, 0.5, 1.0])
def test_confounding_is_the_share_of_cells_in_a_batch_of_the_condition(confounding: float) -> None:
    adata = simulate(n_genes=20, n_batches=8, confounding=confounding, library_size=(50.0, 0.2))
    table = sizes(adata, "batch")
    assert list(table.columns) == [f"batch{number}" for number in range(1, 9)]
    assert (table.loc["control"] == 75).all()
    conditions = [str(name) for name in adata.uns["truth"]["effect_conditions"]]
    for place, name in enumerate(conditions):
        n_own = round(confounding * 135)
        own = f"batch{place % 8 + 1}"
        assert table.loc[name, own] == pytest.approx(n_own + (135 - n_own) / 8, abs=1)
        assert table.loc[name].drop(own).to_numpy() == pytest.approx((135 - n_own) / 8, abs=1)
    assert table.sum().to_numpy() == pytest.approx(750, abs=1)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 9), st.floats(0, 1), st.integers(0, 1000))
def test_every_batch_has_controls_of_every_context(
    n_batches: int, n_contexts: int, n_conditions: int, confounding: float, seed: int
) -> None:
    n_controls = n_batches * n_contexts
    n_cells = n_controls + n_conditions * n_contexts
    condition = np.r_[np.zeros(n_controls, int), 1 + np.repeat(np.arange(n_conditions), n_contexts)]
    design = Design(n_cells, n_conditions, 0, 0.5, 0.0, 0.0, n_batches, n_contexts, confounding)
    first, second = (np.random.default_rng([seed, number]) for number in range(2))
    order = np.random.default_rng(seed).permutation(n_cells)
    strata = assign_strata(design, condition[order], first, second)
    table = pd.crosstab([condition[order], strata.batch], strata.context)
    assert (table.loc[0] == 1).all(axis=None)
    by_context = pd.crosstab(condition[order], strata.context)
    assert (by_context.to_numpy()[1:] == 1).all()


def test_batches_differ_by_what_the_truth_says() -> None:
    adata = simulate(**MANY, n_batches=3, batch_sd=0.28)
    effects = adata.uns["truth"]["batch_effects"]
    assert list(adata.uns["truth"]["batches"]) == ["batch1", "batch2", "batch3"]
    assert effects.shape == (3, 80)
    assert effects.std() == pytest.approx(0.28, abs=0.03)
    control = adata.obs["perturbation"] == "control"
    rate = [
        np.asarray(adata[control & (adata.obs["batch"] == name)].X.mean(axis=0)).ravel()
        for name in adata.uns["truth"]["batches"]
    ]
    common = np.min(rate, axis=0) > 0.3
    assert common.sum() > 20
    for one, other in pairwise(range(3)):
        measured = np.log2(rate[other] / rate[one])[common]
        expected = (effects[other] - effects[one])[common]
        # A batch's normalisation to the library size is one number for all genes.
        residual = (measured - expected) - np.median(measured - expected)
        assert np.corrcoef(measured, expected)[0, 1] > 0.95
        assert np.abs(residual).max() < 0.25


def test_effects_are_what_cells_of_the_same_batch_and_context_show() -> None:
    adata = simulate(**MANY, n_batches=3, confounding=1.0, n_contexts=2, context_sd=0.5, seed=2)
    truth, logs, label = adata.uns["truth"], log_normalised(adata), adata.obs["perturbation"].astype(str).to_numpy()
    assert truth["effects_by_context"].shape == (2, 3, 80)
    np.testing.assert_allclose(truth["effects"], truth["effects_by_context"].mean(axis=0), atol=1e-6)
    batch, context = (adata.obs[column].cat.codes.to_numpy() for column in ("batch", "context"))
    for row, name in enumerate(truth["effect_conditions"]):
        for place in range(2):
            effect = truth["effects_by_context"][place, row]
            treated = (label == name) & (context == place)
            assert set(batch[treated]) == {row % 3}
            control = (label == "control") & (context == place) & (batch == row % 3)
            measured = logs[treated].mean(axis=0) - logs[control].mean(axis=0)
            error = np.sqrt(logs[treated].var(axis=0) / treated.sum() + logs[control].var(axis=0) / control.sum())
            # The 0.1 is for rare genes, of which log2(1 + x) shows more in one batch than in another.
            assert (np.abs(measured - effect) < 4.5 * error + 0.1).all()
            assert ((measured - effect) ** 2).mean() < 3 * (error**2).mean()
            other = truth["effects_by_context"][1 - place, row]
            assert ((measured - effect) ** 2).mean() < 0.2 * ((measured - other) ** 2).mean()
            # Against controls of all batches, the batch's own shift is taken for an effect.
            pooled = logs[treated].mean(axis=0) - logs[(label == "control") & (context == place)].mean(axis=0)
            assert ((pooled - effect) ** 2).mean() > 2 * ((measured - effect) ** 2).mean()


def test_deviations_have_their_sd_where_a_perturbation_acts() -> None:
    adata = simulate(n_cells=1200, n_genes=600, n_contexts=3, context_sd=0.4, library_size=(1000.0, 0.2))
    truth = adata.uns["truth"]
    deviations = truth["context_deviations"]
    assert deviations.shape == (16, 3, 600)
    assert truth["context_effects"].std() == pytest.approx(CONTEXT_SD, rel=0.05)
    acts = (truth["mask"] * truth["embedding"]) @ truth["loadings_perturbation"].T != 0
    assert (deviations[np.broadcast_to(~acts[:, None], deviations.shape)] == 0).all()
    spread = np.sqrt(np.mean([(own[:, where] ** 2).mean() for own, where in zip(deviations, acts, strict=True)]))
    assert spread == pytest.approx(0.4, rel=0.1)
    # What the effects show of them follows them.
    shown = truth["effects_by_context"][:, :16].transpose(1, 0, 2) - truth["effects"][:16, None]
    common = truth["baseline"] > np.log(5e-3)
    centred = deviations - deviations.mean(axis=1, keepdims=True)
    assert np.corrcoef(centred[..., common].ravel(), shown[..., common].ravel())[0, 1] > 0.9


def test_the_shifts_of_a_cell_add_up_and_combinations_add_the_deviations_of_their_perturbations() -> None:
    random = np.random.default_rng(0)
    batches, contexts, deviations = (
        random.normal(size=shape).astype(np.float32) for shape in ((2, 5), (3, 5), (2, 3, 5))
    )
    dosage = dosage_table(("control", "A", "B", "A+B"), ("A", "B"))
    shift = StrataEffects(batches, contexts, deviations, dosage).log_shift(
        np.array([3, 0, 2]), Strata(np.array([1, 0, 1]), np.array([2, 1, 0]))
    )
    expected = [
        batches[1] + contexts[2] + deviations[0, 2] + deviations[1, 2],
        batches[0] + contexts[1],
        batches[1] + contexts[0] + deviations[1, 0],
    ]
    np.testing.assert_allclose(shift, np.log(2.0) * np.array(expected), rtol=1e-5)


def test_without_deviations_log_rates_change_alike_in_all_contexts() -> None:
    truth = simulate(**SMALL, n_contexts=3).uns["truth"]
    assert not truth["context_deviations"].any()
    high = truth["baseline"] > np.log(1e-2)  # where the logarithm of 1 + x is that of x
    by_context = truth["effects_by_context"][:, :, high]
    assert by_context.std(axis=0).max() < 0.35 * np.abs(by_context).max()
    assert np.corrcoef(by_context[0].ravel(), by_context[1].ravel())[0, 1] > 0.97


def test_marker_genes_respond_to_batches_but_not_to_perturbations_in_contexts() -> None:
    adata = simulate(**{**MANY, "n_genes": 200}, n_batches=2, n_contexts=2, context_sd=1.0)
    markers = adata.var_names.str.match("MT-|RPS|RPL|HB")
    assert (adata.uns["truth"]["context_deviations"][..., markers] == 0).all()
    assert adata.uns["truth"]["batch_effects"][:, markers].all()
    share = np.asarray(adata.X[:, markers].sum(axis=1)).ravel() / np.asarray(adata.X.sum(axis=1)).ravel()
    mean = pd.Series(share, index=adata.obs_names).groupby(
        [adata.obs["batch"], adata.obs["context"], adata.obs["perturbation"]], observed=True
    )
    table = mean.mean().unstack()
    assert (table.sub(table["control"], axis=0).abs().max() < 0.006).all()


def test_h5ad_keeps_the_truth_of_batches_and_contexts(tmp_path: Any) -> None:
    adata = simulate(**SMALL, n_batches=3, n_contexts=2, context_sd=0.3)
    adata.write_h5ad(tmp_path / "batches.h5ad")
    back = ad.read_h5ad(tmp_path / "batches.h5ad")
    assert back.obs["batch"].equals(adata.obs["batch"])
    assert back.obs["context"].equals(adata.obs["context"])
    for key, value in adata.uns["truth"].items():
        np.testing.assert_array_equal(back.uns["truth"][key], value)

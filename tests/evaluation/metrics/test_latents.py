"""Scores that need to know what the artifact did."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cradlevae as cv
from cradlevae.data.experiment import DataFields, read_experiment
from cradlevae.evaluation.ground_truth import true_signature
from cradlevae.evaluation.metrics.latents import leakage, mask_f1, signature_correlation
from cradlevae.evaluation.reference_effects import simulated_reference


def test_leakage_is_a_half_for_noise_and_one_for_the_label_itself() -> None:
    rng = np.random.default_rng(0)
    failed = rng.random(400) < 0.25
    noise = rng.normal(size=(3, 400, 4))
    assert leakage(noise, failed) == pytest.approx(0.5, abs=0.06)
    telling = noise.copy()
    telling[..., 0] += 6 * failed
    assert leakage(telling, failed) > 0.98
    assert np.isnan(leakage(noise[:, :10], np.zeros(10, dtype=bool)))


def test_means_along_a_latent_that_tells_nothing_do_not_leak() -> None:
    failed = np.random.default_rng(0).random(400) < 0.25
    means = np.random.default_rng(1).normal(size=(1, 400, 4)) * 0.01
    hardly = means.copy()
    hardly[..., 0] = 0.001 * failed  # a thousandth of the prior's standard deviation
    assert leakage(hardly, failed) == 1
    noisy = hardly + np.random.default_rng(2).normal(size=means.shape)
    assert leakage(noisy, failed, standardise=False) == pytest.approx(0.5, abs=0.07)
    telling = means.copy()
    telling[..., 0] += 6 * failed
    assert leakage(telling, failed, standardise=False) > 0.98


def test_truth_is_found_by_the_names_of_genes() -> None:
    adata = cv.simulate(n_cells=120, n_genes=40, n_perturbations=3, n_combinations=0, n_latent=3)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    genes = list(adata.var_names[np.random.default_rng(0).permutation(40)[:25]])
    wanted = adata.uns["truth"]["effects"][:2][:, adata.var_names.get_indexer(genes)]
    change = np.random.default_rng(1).normal(size=25)
    scores = set()
    for kept in (adata, adata[:, ::-1].copy(), adata[:, genes].copy()):
        data = read_experiment(kept, DataFields(), genes=genes)
        reference = simulated_reference(kept.uns["truth"], list(data.genes), ["A", "B"])
        assert reference is not None
        np.testing.assert_allclose(reference.effects, wanted)
        signature = true_signature(kept.uns["truth"], genes)
        assert signature is not None
        scores.add(signature_correlation(signature, change))
    assert len(scores) == 1
    other = adata.copy()
    other.var_names = ["unheard-of", *adata.var_names[1:]]
    data = read_experiment(other, DataFields())
    assert simulated_reference(other.uns["truth"], list(data.genes), ["A"]) is None
    assert true_signature(other.uns["truth"], list(other.var_names)) is None
    assert true_signature(None, genes) is None


@given(st.integers(0, 10_000))
def test_mask_f1_does_not_depend_on_the_order_of_latents(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, probability = rng.random((4, 3)) < 0.4, rng.random((4, 5))
    order = rng.permutation(5)
    assert mask_f1(truth, probability) == mask_f1(truth, probability[:, order])
    extended = np.concatenate([truth, np.zeros((4, 2))], axis=1)
    assert mask_f1(truth, extended) == 1.0

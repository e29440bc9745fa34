"""Weighted scores and hit discovery against their definitions, and against the package that made them usual."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from cradlevae.evaluation.metrics import responses as metrics


def example(seed: int = 0, n: int = 4, n_genes: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    real = random.normal(size=(n, n_genes))
    weights = random.uniform(size=real.shape) ** 2
    return real, real + random.normal(size=real.shape), weights / weights.sum(axis=1, keepdims=True), real > 1


def test_weighted_scores_are_those_of_their_definitions() -> None:
    real, predicted, weights, _ = example()
    expected = [(w * (a - b) ** 2).sum() for a, b, w in zip(real, predicted, weights, strict=True)]
    assert metrics.wmse(real, predicted, weights=weights) == pytest.approx(np.mean(expected))
    mean = real.mean(axis=0)
    r2 = [r2_score(a - mean, b - mean, sample_weight=w) for a, b, w in zip(real, predicted, weights, strict=True)]
    assert metrics.weighted_delta_r2(real, predicted, weights=weights) == pytest.approx(np.mean(r2))
    assert metrics.weighted_delta_r2(real, real, weights=weights) == 1.0
    assert metrics.weighted_delta_r2(real, np.tile(mean, (4, 1)), weights=weights) <= 0.0
    assert metrics.weighted_delta_r2(real[:1], predicted[:1], weights=weights[:1]) == 0.0  # nothing of its own


def test_hits_of_a_ranking_made_by_hand() -> None:
    predicted = -np.arange(40.0, 0.0, -1.0)[None]  # the first genes are the largest
    hits = np.zeros((1, 40), dtype=bool)
    hits[0, [0, 1, 3, 30]] = True
    assert metrics.hit_precision_20(predicted, predicted, hits=hits) == 3 / 20
    assert metrics.hit_recall_5pct(predicted, predicted, hits=hits) == 2 / 4  # of two genes
    assert metrics.hit_recall_fdr20(predicted, predicted, hits=hits) == 2 / 4  # the third has 25 % false ones beside it
    hits[0, 4] = True
    assert metrics.hit_recall_fdr20(predicted, predicted, hits=hits) == 4 / 5  # four of five
    nothing = np.zeros_like(hits)
    assert np.isnan(metrics.hit_recall_5pct(predicted, predicted, hits=nothing))
    both = metrics.hit_recall_5pct(*[np.vstack([predicted] * 2)] * 2, hits=np.vstack([hits, nothing]))
    assert both == metrics.hit_recall_5pct(predicted, predicted, hits=hits)  # those without hits are left out


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.integers(1, 63))
def test_equal_effects_count_as_in_a_random_order(sizes: list[int], which: int) -> None:
    hits = np.array([which >> place & 1 for place in range(len(sizes))], dtype=bool)
    if not hits.any():
        return
    size = np.array(sizes, dtype=float)
    recalls = []
    for order in permutations(range(len(sizes))):
        ranked = np.lexsort((np.argsort(order), -size))
        recalls.append(hits[ranked[: int(np.ceil(metrics.BUDGET * len(sizes)))]].sum() / hits.sum())
    found = metrics.hit_recall_5pct(size[None], size[None], hits=hits[None])
    assert found == pytest.approx(np.mean(recalls))


def test_hit_discovery_is_that_of_perturb_hd() -> None:
    theirs = pytest.importorskip("perturb_hd.hit_discovery", reason="perturb-hd is not installed (extra 'eval')")
    _, predicted, _, hits = example(3)
    place = pd.MultiIndex.from_product([range(len(hits)), range(hits.shape[1])], names=["pheno", "pert"])
    label = pd.DataFrame({"hit": hits.ravel().astype(int)}, index=place).reset_index()
    score = pd.DataFrame({"hit_score": np.abs(predicted).ravel()}, index=place).reset_index()
    recall = theirs.evaluate_hit_prioritization(score, label, [metrics.BUDGET])["recall"].mean()
    assert metrics.hit_recall_5pct(predicted, predicted, hits=hits) == pytest.approx(recall)
    recall = theirs.evaluate_hit_simulation(score, label, [metrics.FALSE_SHARE])["recall"].mean()
    assert metrics.hit_recall_fdr20(predicted, predicted, hits=hits) == pytest.approx(recall)

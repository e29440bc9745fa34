"""Generated cells against real ones: what the rows hold for generators whose worth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cradlevae.evaluation.matched_cells import CellPair
from cradlevae.evaluation.metrics.pca_space import CellSpace, fit_space, log_normalised
from cradlevae.evaluation.metrics.registry import REGISTRY, metrics_of
from cradlevae.evaluation.reference_effects import MIN_CELLS
from cradlevae.evaluation.score_table import Scores
from cradlevae.evaluation.scorers.cells import HALVINGS, PREDICTORS, compare_cells, score_cells

N_GENES = 40
NAMES = ("control", "A", "B", "rare")
METRICS = [entry.name for entry in metrics_of("cells")]
SIZES = (150, 90, 60, MIN_CELLS - 1)


def cells(names: tuple[str, ...], random: np.random.Generator) -> tuple[sp.csr_matrix, np.ndarray]:
    """Counts of cells of each condition: A and B each move a quarter of the genes."""
    rate = np.full((len(NAMES), N_GENES), 3.0)
    rate[1, :10] *= 3
    rate[2, 10:20] /= 4
    codes = np.repeat(np.arange(len(NAMES)), SIZES)
    drawn = np.array([NAMES.index(name) for name in names])[codes]
    return sp.csr_matrix(random.poisson(rate[drawn]).astype(np.float32)), codes


@pytest.fixture(scope="module")
def pair() -> CellPair:
    """Generated cells from the distribution of the real ones."""
    random = np.random.default_rng(0)
    real, codes = cells(NAMES, random)
    return CellPair(NAMES, real, codes, cells(NAMES, random)[0], codes)


@pytest.fixture(scope="module")
def space(pair: CellPair) -> CellSpace:
    return fit_space(pair.real, np.arange(pair.real.shape[0]), seed=0)


def table(pair: CellPair, space: CellSpace, seed: int = 0) -> pd.DataFrame:
    scores = Scores("held-out")
    score_cells(scores, pair, space, seed=seed)
    return scores.table().set_index(["metric", "predictor"])


def test_a_perfect_generator_is_where_real_cells_are(pair: CellPair, space: CellSpace) -> None:
    found = table(pair, space)
    assert set(found.index) == {(name, predictor) for name in METRICS for predictor in PREDICTORS}
    assert {"e_distance", "mmd2", "mse_mean", "mae_mean"} <= set(METRICS) <= set(REGISTRY)
    for name in METRICS:
        model, controls, real = (found.loc[(name, predictor), "value"] for predictor in PREDICTORS)
        assert abs(model - real) < 0.1 * (controls - real), name
        row = found.loc[(name, "model")]
        assert row["fraction"] == pytest.approx((model - controls) / (real - controls))
        assert (row["floor"], row["best_floor"], row["ceiling"]) == (controls, "controls", real)
        interval = found.loc[(name, "real cells")]
        assert interval["low"] < interval["value"] < interval["high"]
    assert abs(found.loc[("e_distance", "real cells"), "value"]) < 0.1
    assert "fewer than 20 cells: rare" in found.loc[("e_distance", "model"), "note"]


def test_a_generator_of_controls_scores_as_controls_do(pair: CellPair, space: CellSpace) -> None:
    same = cells(("control",) * 4, np.random.default_rng(1))[0]
    found = table(replace(pair, generated=same), space)
    for name in METRICS:
        row = found.loc[(name, "model")]
        assert row["fraction"] == pytest.approx(0, abs=0.15), name
        assert row["value"] > found.loc[(name, "real cells"), "high"]


def test_the_order_of_cells_does_not_matter_beyond_the_draws(pair: CellPair, space: CellSpace) -> None:
    order = np.random.default_rng(2).permutation(len(pair.real_codes))
    shuffled = replace(pair, real=pair.real[order], real_codes=pair.real_codes[order])
    one, other = table(pair, space), table(shuffled, space)
    spread = one.loc[("e_distance", "real cells"), "high"]
    assert one.loc[("e_distance", "model"), "value"] == pytest.approx(
        other.loc[("e_distance", "model"), "value"], abs=spread
    )
    pd.testing.assert_frame_equal(one, table(pair, space))


def test_every_halving_scores_samples_of_one_size(pair: CellPair, space: CellSpace) -> None:
    found = compare_cells(pair, 2, space, seed=0)
    assert found.shape == (len(METRICS), len(PREDICTORS), HALVINGS)
    assert not np.array_equal(found, compare_cells(pair, 2, space, seed=1))
    # Two means over 30 cells differ by their variances alone, where the distributions are the same.
    b = log_normalised(pair.real[pair.real_codes == 2]).toarray() / np.log(2)
    expected = 2 * b.var(axis=0, ddof=1).mean() / 30
    for predictor in ("model", "real cells"):
        of_means = found[METRICS.index("mse_mean"), PREDICTORS.index(predictor)]
        assert of_means.mean() == pytest.approx(expected, rel=0.25)


def test_too_few_cells_anywhere_are_said(pair: CellPair, space: CellSpace) -> None:
    few = np.flatnonzero((pair.real_codes == 3) | (np.cumsum(pair.real_codes == 0) * (pair.real_codes == 0) > 140))
    small = replace(pair, real=pair.real[few], real_codes=pair.real_codes[few])
    found = table(small, space)
    assert found["value"].isna().all()
    assert found["note"].str.contains("fewer than 20 cells: A, B, rare").all()


def grouped(seed: int, n_groups: int, *, generated_like: str) -> CellPair:
    """Cells of groups that differ more than perturbations do; A lives mostly in the first, controls in the last."""
    random = np.random.default_rng(seed)
    codes = np.repeat(np.arange(3), (200, 120, 120))
    groups = random.integers(n_groups, size=len(codes))
    groups[codes == 1] = np.where(random.random(120) < 0.6, 0, groups[codes == 1])
    groups[codes == 0] = np.where(random.random(200) < 0.4, n_groups - 1, groups[codes == 0])
    shift = np.exp(0.6 * random.normal(size=(n_groups, N_GENES)))
    rate = np.full((3, N_GENES), 3.0)
    rate[1, :8] *= 1.6
    rate[2, 10:18] /= 1.6
    drawn = codes if generated_like == "treated" else np.zeros_like(codes)
    real, generated = (
        sp.csr_matrix(random.poisson(rate[of] * shift[groups]).astype(np.float32)) for of in (codes, drawn)
    )
    return CellPair(("control", "A", "B"), real, codes, generated, codes, groups, groups, groups)


@pytest.mark.parametrize("n_groups", [1, 3])
def test_cells_are_compared_within_their_groups(n_groups: int) -> None:
    """A perfect generator is at 0, one of controls where controls are, however groups differ."""
    values = {}
    for like in ("treated", "controls"):
        pair = grouped(4, n_groups, generated_like=like)
        found = table(pair, fit_space(pair.real, np.arange(pair.real.shape[0]), seed=0))
        for name in METRICS:
            values[like, name], controls, real = (found.loc[(name, predictor), "value"] for predictor in PREDICTORS)
            scale = controls - real
            assert scale > 0
            expected = real if like == "treated" else controls
            assert values[like, name] == pytest.approx(expected, abs=0.35 * scale), (like, name)
        assert (
            abs(found.loc[("e_distance", "real cells"), "value"])
            < 0.15 * found.loc[("e_distance", "controls"), "value"]
        )


def test_a_perturbation_of_few_cells_in_each_group_is_left_out() -> None:
    pair = grouped(4, 3, generated_like="treated")
    scattered = np.arange(len(pair.real_codes)) % 150
    many = replace(pair, real_groups=scattered, generated_groups=scattered)
    found = table(many, fit_space(pair.real, np.arange(pair.real.shape[0]), seed=0))
    assert "left out" in found.loc[("e_distance", "model"), "note"]
    assert np.isnan(found.loc[("e_distance", "model"), "value"])


def test_the_names_of_groups_do_not_matter() -> None:
    pair = grouped(4, 3, generated_like="treated")
    space = fit_space(pair.real, np.arange(pair.real.shape[0]), seed=0)
    renamed = replace(pair, real_groups=pair.real_groups * 7 + 2, generated_groups=pair.generated_groups * 7 + 2)
    pd.testing.assert_frame_equal(table(pair, space), table(renamed, space))

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.errors import DataError
from cradlevae.evaluation.metrics import effects as metrics
from cradlevae.evaluation.metrics.effects import effect_scores
from cradlevae.evaluation.metrics.registry import REGISTRY, metric

EFFECT_METRICS = sorted(name for name, entry in REGISTRY.items() if entry.kind == "effect")


def simulated(seed: int, n_perturbations: int = 6, n_genes: int = 80) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    real = random.normal(size=(n_perturbations, n_genes))
    return real, real + random.normal(size=real.shape)


def score(real: np.ndarray, predicted: np.ndarray, **options) -> dict[str, float]:
    perturbations = options.pop("perturbations", [f"g{row}" for row in range(len(real))])
    genes = options.pop("genes", [f"g{column}" for column in range(real.shape[1])])
    return effect_scores(real, predicted, perturbations=perturbations, genes=genes, **options)


def test_flattened_scores_equal_their_usual_definitions():
    from sklearn.metrics import r2_score

    real, predicted = simulated(0)
    assert metrics.ate_rho(real, predicted) == pytest.approx(np.corrcoef(real.ravel(), predicted.ravel())[0, 1])
    assert metrics.ate_r2(real, predicted) == pytest.approx(r2_score(real.ravel(), predicted.ravel()))
    assert metrics.mse_delta(real, predicted) == pytest.approx(np.square(real - predicted).mean())
    assert metrics.mae_delta(real, predicted) == pytest.approx(np.abs(real - predicted).mean())
    per_row = [np.corrcoef(a, b)[0, 1] for a, b in zip(real, predicted, strict=True)]
    assert metrics.pearson_delta(real, predicted) == pytest.approx(np.mean(per_row))
    a, b = real - real.mean(axis=0), predicted - real.mean(axis=0)
    per_row = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    assert metrics.pearson_delta_systema(real, predicted) == pytest.approx(np.mean(per_row))


def test_top20_scores_look_at_each_perturbations_largest_real_effects():
    from sklearn.metrics import r2_score

    real, predicted = simulated(1)
    pairs = [
        (real[row, gene], predicted[row, gene])
        for row in range(len(real))
        for gene in sorted(range(real.shape[1]), key=lambda g, row=row: -abs(real[row, g]))[:20]
    ]
    a, b = np.array(pairs).T
    assert metrics.ate_rho_top20(real, predicted) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert metrics.ate_r2_top20(real, predicted) == pytest.approx(r2_score(a, b))


@pytest.mark.parametrize(("k", "function"), [(20, metrics.jaccard_20), (50, metrics.jaccard_50)])
def test_jaccard(k, function):
    real, predicted = simulated(2)
    shares = []
    for truth, guess in zip(real, predicted, strict=True):
        first = set(np.argsort(-abs(truth))[:k])
        second = set(np.argsort(-abs(guess))[:k])
        shares.append(len(first & second) / len(first | second))
    assert function(real, predicted) == pytest.approx(np.mean(shares))
    assert function(real[:, :7], predicted[:, :7]) == 1.0  # fewer genes than k: all are in both
    assert function(real, np.zeros_like(real)) == 0.0  # no change is no affected gene


def test_jaccard_by_hand():
    real = np.zeros((1, 30))
    predicted = np.zeros((1, 30))
    real[0, :3] = [3.0, -2.0, 1.0]
    predicted[0, 1:6] = 1.0
    assert metrics.jaccard_20(real, predicted) == pytest.approx(2 / 6)
    assert metrics.jaccard_20(0 * real, 0 * real) == 1.0


def discrimination_oracle(real, predicted, names, distance) -> float:
    """Ranks by sorting, the target gene dropped."""
    scores = []
    for row, name in enumerate(names):
        genes = [g for g in range(real.shape[1]) if f"g{g}" not in name.split("+")]

        def far(other, row=row, genes=genes):
            a, b = predicted[row, genes], real[other, genes]
            if distance == "l1":
                return np.abs(a - b).sum()
            if distance == "l2":
                return np.linalg.norm(a - b)
            return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)

        rank = sorted(range(len(real)), key=far).index(row)
        scores.append(1 - rank / len(real))
    return float(np.mean(scores))


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_discrimination(distance):
    real, predicted = simulated(3, n_perturbations=12, n_genes=10)
    names = [f"g{row}" for row in range(8)] + ["g0+g1", "g2+g9", "elsewhere", "g3+elsewhere"]
    name = f"discrimination_{distance}"
    found = score(real, predicted, perturbations=names, names=[name])[name]
    assert found == pytest.approx(discrimination_oracle(real, predicted, names, distance))
    assert 0.5 < found < 1.0
    assert score(real, real, perturbations=names, names=[name])[name] == 1.0


def test_discrimination_leaves_the_target_gene_out():
    random = np.random.default_rng(0)
    real, guess = random.normal(size=(2, 5, 5))
    knock_down = guess - 50 * np.eye(5)  # knows nothing more, but names the gene
    genes = [f"g{column}" for column in range(5)]
    real -= 50 * np.eye(5)

    def scored(predicted, perturbations):
        return metrics.discrimination_l2(real, predicted, perturbations=perturbations, genes=genes)

    assert scored(knock_down, genes) == scored(guess, genes)
    assert scored(knock_down, list("abcde")) == 1.0 > scored(guess, list("abcde"))


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_discrimination_finds_the_target_gene_by_its_symbol(distance):
    random = np.random.default_rng(0)
    real, guess = random.normal(size=(2, 5, 5))
    guess -= 50 * np.eye(5)  # knows nothing, but names the gene
    symbols = [f"STAT{column}" for column in range(5)]
    ids = [f"ENSG{column:011d}.{column + 1}" for column in range(5)]
    score = {"names": [f"discrimination_{distance}"], "perturbations": symbols}
    expected = effect_scores(real, guess, genes=symbols, **score)
    assert effect_scores(real, guess, genes=ids, symbols=symbols, **score) == expected
    assert effect_scores(real, guess, genes=ids, **score) != expected
    for spelt in ([f"GRCh38_{name}" for name in symbols], [name.lower() for name in symbols]):
        assert effect_scores(real, guess, genes=spelt, **score) == expected
    unversioned = [name.split(".")[0] for name in ids]
    assert effect_scores(real, guess, genes=ids, **{**score, "perturbations": unversioned}) == expected


@pytest.mark.parametrize("n", [1, 4, 9])
def test_predictions_that_do_not_tell_perturbations_apart_score_chance(n):
    real, _ = simulated(4, n_perturbations=n)
    names = [f"p{row}" for row in range(n)]
    same = score(real, np.zeros_like(real), perturbations=names)
    # Cosine ties all; the mean rank of a tie is (n − 1)/2.
    assert same["discrimination_cosine"] == pytest.approx(1 - (n - 1) / 2 / n)
    constant = score(real, np.tile(real.mean(axis=0), (n, 1)), perturbations=names)
    for distance in ("l1", "l2"):
        assert constant[f"discrimination_{distance}"] == pytest.approx(1 - (n - 1) / 2 / n)
    assert constant["centroid_accuracy"] == pytest.approx(0.5 if n > 1 else 1.0)
    # What all perturbations share earns nothing against their centroid.
    assert constant["pearson_delta_systema"] == 0.0


def test_degenerate_predictions_have_a_defined_score():
    real, _ = simulated(5)
    for predicted in (np.zeros_like(real), np.full_like(real, 0.1)):
        scores = score(real, predicted)
        for name in ("ate_rho", "ate_rho_top20", "pearson_delta"):
            assert scores[name] == 0.0, name
    assert score(real, np.zeros_like(real))["ate_r2"] <= 0.0
    zero = np.zeros((2, 3))
    assert score(zero, zero)["ate_r2"] == 1.0
    assert score(zero, zero + 1)["ate_r2"] == 0.0
    one = score(np.ones((1, 1)), np.ones((1, 1)))
    assert np.isfinite(list(one.values())).all()
    only = score(real[:1], real[:1])
    assert only["pearson_delta_systema"] == 0.0
    assert only["discrimination_l1"] == only["centroid_accuracy"] == 1.0


@pytest.mark.parametrize("name", EFFECT_METRICS)
def test_truth_scores_best_and_missing_predictions_score_nan(name):
    real, predicted = simulated(6)
    assert score(real, real, names=[name])[name] == pytest.approx(REGISTRY[name].best)
    predicted[2] = np.nan
    assert np.isnan(score(real, predicted, names=[name])[name])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_invariants(seed):
    real, predicted = simulated(seed, n_perturbations=5, n_genes=60)
    names, genes = [f"g{row}" for row in range(5)], [f"g{column}" for column in range(60)]
    base = effect_scores(real, predicted, perturbations=names, genes=genes)
    random = np.random.default_rng(seed)
    rows, columns = random.permutation(5), random.permutation(60)
    shuffled = effect_scores(
        real[rows][:, columns],
        predicted[rows][:, columns],
        perturbations=[names[row] for row in rows],
        genes=[genes[column] for column in columns],
    )
    assert shuffled == pytest.approx(base, rel=1e-9)
    # A power of two changes no rounding; all but the errors are free of scale.
    scaled = effect_scores(4 * real, 4 * predicted, perturbations=names, genes=genes)
    assert scaled.pop("mse_delta") == pytest.approx(16 * base["mse_delta"])
    assert scaled.pop("mae_delta") == pytest.approx(4 * base["mae_delta"])
    assert scaled == pytest.approx({name: base[name] for name in scaled})


def test_anyone_can_register_a_metric():
    real, predicted = simulated(7)
    try:

        @metric("max_error", best=0.0, description="largest absolute error")
        def max_error(real, predicted, *, genes):
            assert len(genes) == real.shape[1]
            return abs(real - predicted).max()

        assert score(real, predicted)["max_error"] == abs(real - predicted).max()
        assert REGISTRY["max_error"].needs == ("genes",)
        with pytest.raises(DataError, match="already registered"):
            metric("max_error", best=0.0, description="again")(max_error)
    finally:
        REGISTRY.pop("max_error", None)


def test_bad_input_is_named():
    real, predicted = simulated(8)
    with pytest.raises(DataError, match="must both be"):
        metrics.ate_rho(real, predicted[:, 1:])
    with pytest.raises(DataError, match="2 names of perturbations"):
        score(real, predicted, perturbations=["a", "b"])
    with pytest.raises(DataError, match="unknown effect metric 'ate_rh'"):
        score(real, predicted, names=["ate_rh"])


def test_the_nearest_centroid_is_the_own_one_or_not():
    real = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    assert metrics.nearest_centroid(real, real) == 1.0
    assert metrics.nearest_centroid(real, real[[0, 2, 1]]) == pytest.approx(1 / 3)
    assert metrics.nearest_centroid(real, np.full((3, 2), 5.0) * [1, 0]) == pytest.approx(1 / 3)  # one for all
    between = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 4.0]])
    assert metrics.nearest_centroid(real, between) == pytest.approx((0.5 + 0.5 + 1) / 3)  # as near to both
    assert metrics.nearest_centroid(real[:1], real[:1] + 7) == 1.0

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cradlevae.data.moments import ConditionMoments
from cradlevae.errors import DataError
from cradlevae.evaluation.floors.registry import FLOORS, floor, floor_effects
from cradlevae.evaluation.floors.shrinkage import lowrank_shrink, shrink

NAMES = ("A", "A+B", "B", "C", "control")
GENES = tuple("ABCDEFGHIJKL")
ASKED = ["A", "A+B", "B+C", "D", "A+D"]


def moments(
    seed: int = 0, names: tuple[str, ...] = NAMES, true: np.ndarray | None = None, n_genes: int = 12
) -> ConditionMoments:
    """Moments whose effects scatter around ``true`` with the standard error that they state."""
    random = np.random.default_rng(seed)
    n_cells = random.integers(20, 80, len(names))
    variance = random.uniform(0.5, 2.0, (len(names), n_genes))
    base = np.zeros((len(names), n_genes)) if true is None else true
    mean = base + random.normal(size=base.shape) * np.sqrt(variance / n_cells[:, None])
    genes = GENES if n_genes == len(GENES) else ()
    return ConditionMoments(names, n_cells, mean, variance, genes)


def raw(train: ConditionMoments, name: str) -> np.ndarray:
    return train.mean[train.names.index(name)] - train.mean[train.names.index("control")]


def squared_error(train: ConditionMoments, name: str) -> np.ndarray:
    row, base = train.names.index(name), train.names.index("control")
    return train.variance[row] / train.n_cells[row] + train.variance[base] / train.n_cells[base]


def shrunk_oracle(train: ConditionMoments, names: list[str]) -> dict[str, np.ndarray]:
    effects = {name: raw(train, name) for name in names}
    noise = {name: squared_error(train, name) for name in names}
    spread = np.mean([effects[n] ** 2 for n in names], axis=0) - np.mean([noise[n] for n in names], axis=0)
    spread = np.maximum(spread, 0)
    return {name: effects[name] * spread / (spread + noise[name]) for name in names}


def test_means_and_sums_by_hand():
    train = moments()
    nan = np.full(12, np.nan)
    perturbed = [name for name in NAMES if name != "control"]
    everything = np.average([raw(train, n) for n in perturbed], axis=0, weights=train.n_cells[:4])
    a, b, c = (raw(train, name) for name in "ABC")
    expected = {
        "zero": np.zeros((5, 12)),
        "perturbed_mean": np.tile(everything, (5, 1)),
        "training_mean": [a, raw(train, "A+B"), nan, nan, nan],
        "additive": [a, a + b, b + c, nan, nan],
        "matching_mean": [a, (a + b) / 2, (b + c) / 2, nan, nan],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(floor_effects(name, train, None, ASKED), value, atol=1e-12, err_msg=name)


def test_shrunk_floors_by_hand():
    train = moments(1)
    everyone = shrunk_oracle(train, ["A", "A+B", "B", "C"])
    singles = shrunk_oracle(train, ["A", "B", "C"])
    nan = np.full(12, np.nan)
    np.testing.assert_allclose(
        floor_effects("shrunk_mean", train, None, ASKED), [everyone["A"], everyone["A+B"], nan, nan, nan]
    )
    np.testing.assert_allclose(
        floor_effects("additive_shrunk", train, None, ASKED),
        [singles["A"], singles["A"] + singles["B"], singles["B"] + singles["C"], nan, nan],
    )


def test_conditions_without_training_cells_are_unseen():
    train = moments()
    train.n_cells[0] = 0
    train.mean[0] = np.nan
    train.variance[0] = np.nan
    for name in ("training_mean", "shrunk_mean", "additive", "matching_mean"):
        found = floor_effects(name, train, None, ["A", "B"])
        assert np.isnan(found[0]).all(), name
        assert np.isfinite(found[1]).all(), name
    assert np.isfinite(floor_effects("perturbed_mean", train, None, ["A"])).all()


def test_only_controls_in_training():
    train = moments(names=("control",))
    for name in set(FLOORS) - {"zero", "lowrank_shrunk_mean"}:
        assert np.isnan(floor_effects(name, train, None, ["A", "A+B"])).all(), name


def test_shrinkage_recovers_true_effects_better_than_their_measurement():
    random = np.random.default_rng(0)
    names = (*(f"p{row}" for row in range(40)), "control")
    true = np.vstack([random.normal(0, 0.2, (40, 300)), np.zeros((1, 300))])
    train = moments(3, names, true, 300)
    asked = list(names[:-1])
    error = {
        name: np.mean((floor_effects(name, train, None, asked) - true[:-1]) ** 2)
        for name in ("zero", "training_mean", "shrunk_mean")
    }
    assert error["shrunk_mean"] < 0.85 * min(error["zero"], error["training_mean"])
    # The expected error of the best linear shrinkage, τ²se²/(τ²+se²).
    noise = np.array([squared_error(train, name) for name in asked])
    assert error["shrunk_mean"] == pytest.approx(np.mean(0.04 * noise / (0.04 + noise)), rel=0.2)


def test_shrinkage_of_pure_noise_and_of_exact_effects():
    random = np.random.default_rng(1)
    value = random.normal(size=(50, 20))
    assert np.abs(shrink(0.1 * value, np.ones_like(value))).max() == 0
    np.testing.assert_array_equal(shrink(value, np.zeros_like(value)), value)
    np.testing.assert_array_equal(shrink(np.zeros((2, 3)), np.zeros((2, 3))), np.zeros((2, 3)))
    assert np.isnan(shrink(np.full((1, 3), np.nan), np.full((1, 3), np.nan))).all()


def test_low_rank_floor_finds_a_shared_programme():
    random = np.random.default_rng(2)
    names = (*(f"p{row}" for row in range(30)), "control")
    programme = np.outer(random.normal(size=30), random.normal(size=100)) * 0.15
    true = np.vstack([programme, np.zeros((1, 100))])
    train, validation = moments(4, names, true, 100), moments(5, names, true, 100)
    asked = list(names[:-1])
    low_rank = floor_effects("lowrank_shrunk_mean", train, validation, asked)
    shrunk = floor_effects("shrunk_mean", train, validation, asked)
    assert np.mean((low_rank - programme) ** 2) < 0.6 * np.mean((shrunk - programme) ** 2)
    # Only the choice of the rank looks at validation cells: one of the ranks' answers comes back.
    other = floor_effects("lowrank_shrunk_mean", train, moments(6, names, true, 100), asked)
    np.testing.assert_allclose(other, low_rank)
    assert np.isnan(floor_effects("lowrank_shrunk_mean", train, validation, ["p0+p1"])).all()


def test_validation_cells_are_no_evidence_of_floors():
    random = np.random.default_rng(4)
    names = ("A", "B", "C", "A+B", "control")
    true = np.vstack([0.3 * random.normal(size=(4, 50)), np.zeros((1, 50))])
    train, validation, asked = moments(9, names, true, 50), moments(10, names, true, 50), list(names[:-1])
    own = [name for name, entry in FLOORS.items() if not (entry.needs_validation or entry.needs_contexts)]
    assert {"multivariate_shrunk_mean", "hierarchical_mean", "additive_multivariate"} <= set(own)
    for name in set(own) - {"bilinear_ridge"}:  # which asks for names of genes
        alone = floor_effects(name, train, None, asked)
        np.testing.assert_array_equal(floor_effects(name, train, validation, asked), alone, err_msg=name)


def test_low_rank_floor_falls_back_to_plain_shrinkage():
    random = np.random.default_rng(3)
    names = (*(f"p{row}" for row in range(20)), "control")
    true = np.vstack([random.normal(0, 1.0, (20, 60)) * (random.random((20, 60)) < 0.05), np.zeros((1, 60))])
    train, validation = moments(7, names, true, 60), moments(8, names, true, 60)
    low_rank = lowrank_shrink(train, validation)
    found = np.mean((low_rank.value - true[:-1]) ** 2)
    plain = np.mean((floor_effects("shrunk_mean", train, None, list(names[:-1])) - true[:-1]) ** 2)
    assert found < 1.05 * plain


def bilinear_oracle(train: ConditionMoments, asked: list[str]) -> np.ndarray:
    """Closed form of the paper, with inverses and scikit-learn's PCA."""
    from sklearn.decomposition import PCA

    loadings = PCA(n_components=min(10, len(train.names)), svd_solver="full").fit_transform(train.mean.T)

    def embedding(name):
        return sum(loadings[train.genes.index(gene)] for gene in name.split("+"))

    perturbed = [name for name in train.names if name != "control"]
    response = np.array([raw(train, name) for name in perturbed]).T
    offset = response.mean(axis=1)
    p = np.array([embedding(name) for name in perturbed])
    eye = 0.1 * np.eye(loadings.shape[1])
    weights = np.linalg.inv(loadings.T @ loadings + eye) @ loadings.T @ (response - offset[:, None]) @ p
    weights = weights @ np.linalg.inv(p.T @ p + eye)
    return np.array([loadings @ weights @ embedding(name) + offset for name in asked])


def test_bilinear_ridge():
    true = np.random.default_rng(5).normal(size=(5, 12))
    train = moments(9, true=true)
    asked = ["A", "A+B", "D", "A+D"]  # D was never perturbed, but is measured
    found = floor_effects("bilinear_ridge", train, None, asked)
    np.testing.assert_allclose(found, bilinear_oracle(train, asked), rtol=1e-6)
    assert np.isnan(floor_effects("bilinear_ridge", train, None, ["unmeasured", "A+unmeasured"])).all()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_order_of_conditions_and_genes_does_not_matter(seed):
    train, validation = moments(seed), moments(seed + 1)
    random = np.random.default_rng(seed)
    rows, genes = random.permutation(5), random.permutation(12)

    def shuffled(source):
        return ConditionMoments(
            tuple(source.names[row] for row in rows),
            source.n_cells[rows],
            source.mean[rows][:, genes],
            source.variance[rows][:, genes],
            tuple(source.genes[gene] for gene in genes),
        )

    asked = random.permutation(5)
    for name in FLOORS:
        base = floor_effects(name, train, validation, ASKED)
        again = floor_effects(name, shuffled(train), shuffled(validation), [ASKED[row] for row in asked])
        # in single precision, and a sweep more or less
        np.testing.assert_allclose(again, base[asked][:, genes], atol=1e-4, err_msg=name)


def test_anyone_can_register_a_floor():
    try:
        floor("ones", "one everywhere")(lambda train, validation, conditions: np.ones((len(conditions), 12)))
        assert (floor_effects("ones", moments(), None, ["A"]) == 1).all()
        with pytest.raises(DataError, match="already registered"):
            floor("ones", "again")(FLOORS["zero"].function)
    finally:
        FLOORS.pop("ones", None)


@pytest.mark.parametrize(
    ("name", "conditions", "message"),
    [
        ("zeros", ["A"], "unknown floor 'zeros'"),
        ("zero", ["A", "control"], "control has no effect"),
        ("lowrank_shrunk_mean", ["A"], "validation cells"),
    ],
)
def test_bad_input_is_named(name, conditions, message):
    with pytest.raises(DataError, match=message):
        floor_effects(name, moments(), None, conditions)


def test_missing_parts_are_named():
    with pytest.raises(DataError, match="no condition is named 'control'"):
        floor_effects("zero", moments(names=("A", "B")), None, ["A"])
    with pytest.raises(DataError, match="give genes="):
        floor_effects("bilinear_ridge", moments(n_genes=5), None, ["A"])
    with pytest.raises(DataError, match="no perturbation has training and validation"):
        floor_effects("lowrank_shrunk_mean", moments(), moments(names=("Z", "control")), ["A"])

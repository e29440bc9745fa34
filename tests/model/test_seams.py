"""Where the model grows: a likelihood and an artifact model, each declared here in one place, do all that ours do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cradlevae as cv
from cradlevae.errors import DataError
from cradlevae.model.artifact import ARTIFACT_MODELS, Artifact, register_artifact_model
from cradlevae.nn.known_likelihoods import likelihood_of
from cradlevae.nn.likelihood import LIKELIHOODS, GeneratingFunction, Likelihood, register_likelihood
from cradlevae.nn.log_expression import expected_log_expression
from cradlevae.nn.mlp import Gaussian


class Poisson(Likelihood):
    """Counts whose variance is their mean."""

    key = "poisson"
    description = "Poisson"

    def log_prob(self, counts: Tensor, mean: Tensor) -> Tensor:
        mean = mean + 1e-6
        return counts * mean.log() - mean - torch.lgamma(counts + 1)

    def sample(self, mean: Tensor) -> Tensor:
        return torch.poisson(mean)

    def generating(self, mean: Tensor) -> GeneratingFunction:
        return GeneratingFunction(float(mean.max()), lambda decay, out: torch.mul(mean, decay, out=out).neg_())

    def information(self, mean: Tensor) -> Tensor:
        return mean


class PointArtifact(Artifact):
    """A learned vector for each class, without a prior, and nothing of the cell's own."""

    key = "point"
    description = "a learned vector for each artifact class"

    def __init__(self, config: Any, n_classes: int) -> None:
        nn.Module.__init__(self)
        self.n_classes, self.n_latent = n_classes, config.n_latent
        self.points = nn.Parameter(torch.full((n_classes, config.n_latent), 0.1))

    def draw(self, noise: Tensor) -> tuple[Tensor, Gaussian | None]:
        return self.points.expand(len(noise), -1, -1), None


@pytest.fixture
def poisson() -> Iterator[str]:
    register_likelihood(Poisson)
    yield Poisson.key
    del LIKELIHOODS[Poisson.key]


@pytest.fixture
def point() -> Iterator[str]:
    register_artifact_model(PointArtifact)
    yield PointArtifact.key
    del ARTIFACT_MODELS[PointArtifact.key]


def assert_it_does_all(
    simulated: ad.AnnData, folder: Path, tiny: dict[str, Any], quick: dict[str, Any], **config: Any
) -> cv.CradleVAE:
    """Train, answer, save, load and score a model with these settings."""
    model = cv.CradleVAE(simulated, split=cv.split(simulated, "combinations", seed=0), **tiny, **config)
    model.train(3, **quick)
    assert model.history["train_loss"].iloc[-1] < model.history["train_loss"].iloc[0]
    effects = model.effects(list(model.perturbations[:2]))
    assert np.isfinite(effects.X).all()
    assert (effects.layers["low"] <= effects.layers["high"]).all()
    counts = model.predict("control", n_cells=30, artifact=True).X.toarray()
    assert (counts == np.round(counts)).all()
    cleaned = model.clean(simulated, cells="failed", n_draws=2)
    assert np.isfinite(cleaned.layers["expected"]).all()
    assert np.isfinite(model.log_likelihood(simulated[:20], n_particles=5)).all()
    assert np.isfinite(model.artifact_signature(n_draws=3)["log2_fold_change"]).all()
    model.save(folder / "model")
    loaded = cv.load(folder / "model")
    np.testing.assert_array_equal(loaded.effects(list(model.perturbations[:2])).X, effects.X)
    scores = cv.evaluate(loaded, simulated, n_cells=20)
    assert np.isfinite(scores.loc[(scores["metric"] == "ate_rho") & (scores["predictor"] == "model"), "value"]).all()
    return model


def test_a_poisson_likelihood(
    simulated: ad.AnnData, tmp_path: Path, tiny_options: dict[str, Any], quick: dict[str, Any], poisson: str
) -> None:
    model = assert_it_does_all(simulated, tmp_path, tiny_options, quick, likelihood=poisson)
    assert not any("concentration" in name for name, _ in model.trained.module.named_parameters())


def test_an_artifact_model_without_the_cells_own_part(
    simulated: ad.AnnData, tmp_path: Path, tiny_options: dict[str, Any], quick: dict[str, Any], point: str
) -> None:
    model = assert_it_does_all(simulated, tmp_path, tiny_options, quick, artifact_model=point)
    assert not {"train_artifact", "train_cell_artifact"} & set(model.history.columns)
    assert model.trained.damage is None
    assert not torch.equal(
        model.trained.module.artifact.points, torch.full_like(model.trained.module.artifact.points, 0.1)
    )


def test_the_expression_of_poisson_counts_against_the_sum_over_them() -> None:
    from scipy.stats import poisson as distribution

    share, library = torch.tensor([[1e-4, 1e-3, 0.05, 0.3]]), torch.tensor([700.0])
    counts = np.arange(600)
    for value, one in zip(expected_log_expression(share, Poisson(4), library)[0], share[0], strict=True):
        exact = distribution.pmf(counts, float(one * library)) @ np.log2(1 + 1e4 * counts / 700)
        assert float(value) == pytest.approx(exact, rel=1e-4)


def test_the_dense_log_probability_is_that_of_the_fused_one() -> None:
    """The default of every likelihood, in blocks of cells, against the one pass that the Gamma-Poisson has."""
    from cradlevae.nn.counts import SparseCounts

    torch.manual_seed(0)
    likelihood = likelihood_of("gamma-poisson")(7).double()
    hidden, weight, bias = torch.randn(2, 5, 3).double(), torch.randn(7, 3).double(), torch.randn(7).double()
    dense = torch.poisson(torch.rand(5, 7) * 3).double()
    positives = dense.nonzero()
    starts = torch.cat([torch.zeros(1, dtype=torch.long), (dense > 0).sum(1).cumsum(0)])
    counts = SparseCounts(dense[positives[:, 0], positives[:, 1]], positives[:, 1], starts, 7)
    arguments = hidden, weight, bias, counts, dense.sum(1), torch.rand(5).double()
    total, per_cell = likelihood.linear_log_prob(*arguments)
    plain_total, plain_per_cell = Likelihood.linear_log_prob(likelihood, *arguments)
    torch.testing.assert_close(per_cell, plain_per_cell)
    torch.testing.assert_close(total, plain_total)


def test_unknown_ones_are_refused_with_the_closest_names(simulated: ad.AnnData, tiny_options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="unknown likelihood 'gama-poisson'; did you mean 'gamma-poisson'"):
        cv.CradleVAE(simulated, likelihood="gama-poisson", **tiny_options)
    with pytest.raises(DataError, match="unknown artifact model 'cells'; did you mean 'cell'"):
        cv.CradleVAE(simulated, artifact_model="cells", **tiny_options)
    with pytest.raises(DataError, match="released"):
        cv.CradleVAE(simulated, objective="released", artifact_model="cell", **tiny_options)
    with pytest.raises(DataError, match="a likelihood 'gamma-poisson' is already registered"):
        register_likelihood(likelihood_of("gamma-poisson"))
    with pytest.raises(DataError, match="an artifact model 'cell' is already registered"):
        register_artifact_model(ARTIFACT_MODELS["cell"])

"""Gene effects: where they start, what they cost, and what they let a model recover."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

import cradlevae as cv
from cradlevae.data.rates import ConditionRates
from cradlevae.errors import DataError
from cradlevae.model.gene_effects import SPREAD, SWEEPS, GeneEffects
from cradlevae.nn.rate_effects import RateEffects, rate_effects

pytestmark = pytest.mark.numeric


def drawn(seed: int = 0) -> tuple[ConditionRates, np.ndarray]:
    """Counts of a control and nine conditions, three of which do nothing."""
    rng = np.random.default_rng(seed)
    effect = (
        rng.standard_normal((10, 100)) * rng.uniform(0.1, 1, 100) * np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])[:, None]
    )
    share = np.exp(effect) * rng.uniform(0.2, 2, 100)
    share /= share.sum(axis=1, keepdims=True)
    n_cells = np.array([400, *[100] * 9])
    total = rng.poisson(n_cells[:, None] * 300 * share).astype(float)
    return ConditionRates(total, n_cells, 300.0, np.ones(100), np.full(100, 50.0)), np.log(share) - np.log(share[0])


def estimated(rates: ConditionRates, rows: slice) -> RateEffects:
    library = rates.n_cells[rows] * rates.library_size
    return rate_effects(rates.total[rows], library, rates.dispersion, 1, SPREAD, range(SWEEPS))


def test_the_first_estimate_is_shrunk_where_nothing_happens() -> None:
    rates, truth = drawn()
    found = estimated(rates, slice(None))
    value, spread, strength = found.value, found.spread, found.strength
    assert not value[0].any()
    raw = np.log(rates.total + 0.5) - np.log(rates.total.sum(axis=1, keepdims=True) + 50)
    raw -= raw[0]
    # shares are shares: what an effect does to all genes alike cannot be told
    centred = value[4:] - value[4:].mean(axis=1, keepdims=True)
    wanted = truth[4:] - truth[4:].mean(axis=1, keepdims=True)
    assert ((centred - wanted) ** 2).mean() < ((raw[4:] - truth[4:]) ** 2).mean()
    assert strength[1:4].max() < 0.3 * strength[4:].min()
    assert np.corrcoef(spread, np.abs(truth).mean(axis=0))[0, 1] > 0.8


def test_a_control_alone_starts_at_zero() -> None:
    rates, _ = drawn()
    found = estimated(rates, slice(0, 1))
    value, spread, strength = found.value, found.spread, found.strength
    assert not value.any()
    assert np.isfinite(spread).all()
    assert not strength.any()


def test_strength_and_spread_settle_where_the_evidence_is_largest() -> None:
    torch.manual_seed(0)
    effects = GeneEffects(4, 500).double()
    n_cells, information = torch.full((4,), 100.0).double(), torch.full((500,), 1 / (1 + 1e-6)).double()
    treatments = torch.arange(4)
    spread = 0.3
    with torch.no_grad():  # an estimate with the noise of 100 cells of mean count 1, shrunk as it should be
        noise = 0.1 * torch.randn(4, 500).double()
        effects.value.copy_((spread * torch.randn(4, 500).double() + noise) * spread**2 / (spread**2 + 0.01))
    optimiser = torch.optim.Adam([effects.log_spread, effects.log_strength], lr=0.02)
    for _ in range(500):
        optimiser.zero_grad()
        effects.cost(treatments, n_cells, information).sum().backward()
        optimiser.step()
    with torch.no_grad():
        scale = (effects.log_strength[:, None] + effects.log_spread).exp().square().mean().sqrt()
        assert float(scale) == pytest.approx(spread, rel=0.1)
        effects.n_cells.copy_(n_cells)
        assert float(effects.deviation(treatments, information).mean()) == pytest.approx(0.095, abs=0.005)


def test_only_some_members_have_them_unless_they_are_asked_for(
    simulated: ad.AnnData, tiny_options: dict[str, Any]
) -> None:
    assert cv.CradleVAE(simulated, **tiny_options).trained.module.gene_effects is not None
    assert cv.CradleVAE(simulated, gene_effects=False, **tiny_options).trained.module.gene_effects is None
    assert cv.SAMSVAE(simulated, **tiny_options).trained.module.gene_effects is None
    assert cv.SAMSVAE(simulated, gene_effects=True, **tiny_options).trained.module.gene_effects is not None
    released = cv.CradleVAE(simulated, objective="released", **tiny_options)
    assert released.trained.module.gene_effects is None


@pytest.mark.parametrize("kind", [cv.SVAEPlus, cv.ConditionalVAE, cv.CPAVAE])
def test_any_member_can_be_given_them(
    kind: Any, simulated: ad.AnnData, tiny_options: dict[str, Any], quick: dict[str, Any], tmp_path: Any
) -> None:
    model = kind(simulated, gene_effects=True, **tiny_options)
    model.train(max_epochs=2, **quick)
    before = model.effects(["A"], error=9)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(cv.load(tmp_path / "model").effects(["A"], error=9).X, before.X)


def test_strong_effects_on_single_genes_come_out_at_their_size() -> None:
    adata = cv.simulate(n_cells=1500, n_genes=60, n_perturbations=4, n_combinations=3, n_interacting=0, seed=1)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    model = cv.CradleVAE(adata, split=cv.split(adata, "combinations", seed=0), n_latent=8, width=64, basal_width=64)
    model.train(max_epochs=30, batch_size=64, progress=False, accelerator="cpu")
    truth = adata.uns["truth"]
    names = [str(name) for name in truth["effect_conditions"]]
    found = np.asarray(model.effects(names, residual=False).X)
    assert np.corrcoef(found.ravel(), truth["effects"].ravel())[0, 1] > 0.9
    slope = (found * truth["effects"]).sum() / (found**2).sum()
    assert slope == pytest.approx(1, abs=0.25)


def test_a_negative_number_of_epochs_is_refused(simulated: ad.AnnData, tiny_options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="max_epochs"):
        cv.CradleVAE(simulated, **tiny_options).train(max_epochs=0)


@pytest.mark.parametrize(("n_cells", "of_pair"), [(100, 0.01), (100, 0.04), (1000, 0.01)])
def test_intervals_in_contexts_are_those_of_all_unknowns_together(n_cells: int, of_pair: float) -> None:
    """Against the inverse of the whole precision matrix: base, parts of two contexts, V, and its deviations there."""
    n_controls, prior, of_stratum = 200, 0.04, 0.25
    effects = GeneEffects(3, 1, 2, [0, 0])
    with torch.no_grad():
        effects.log_strength.zero_()
        effects.log_spread.copy_(torch.tensor([[prior], [of_pair]]).log() / 2)
    cells = n_cells * torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    effects.stratum_cells.copy_(cells)
    effects.n_cells.copy_(cells.sum(1))
    effects.stratum_controls.fill_(n_controls)
    effects.n_controls.fill_(2 * n_controls)

    precision = np.diag([1e-9, *[1 / of_stratum] * 2, 1 / prior, *[1 / of_pair] * 2])
    for stratum in (0, 1):
        control = np.eye(6)[0] + np.eye(6)[1 + stratum]
        treated = control + np.eye(6)[3] + np.eye(6)[4 + stratum]
        precision += n_controls * np.outer(control, control) + n_cells * np.outer(treated, treated)
    covariance = np.linalg.inv(precision)
    in_context = np.eye(6)[3] + np.eye(6)[4]
    true = {(1.0, 1.0, 0.0): in_context @ covariance @ in_context, (1.0, 0.0, 0.0): covariance[3, 3]}

    information, strata = torch.ones(1), torch.full((2, 1), of_stratum)
    for dosage, variance in true.items():
        treatments = torch.nonzero(torch.tensor(dosage)).squeeze(1)
        coefficients = effects.coefficients(torch.tensor(dosage), treatments, information)
        own = coefficients * effects.deviation(treatments, information)
        base = (coefficients * effects.base_deviation(treatments, information, strata)).sum()
        sd = float((own.square().sum() + base.square()).sqrt().detach())
        assert sd == pytest.approx(variance**0.5, rel=0.08)

"""The family: what members declare, their objective by hand in float64, and a sixth of them in one declaration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Beta, NegativeBinomial, Normal, kl_divergence

import cradlevae as cv
from cradlevae import api
from cradlevae.api import PerturbationVAE
from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.minibatch import Minibatch, make_minibatch
from cradlevae.errors import DataError
from cradlevae.model import family
from cradlevae.model.config import ModelConfig
from cradlevae.model.family import FAMILY, ModelDeclaration, register
from cradlevae.model.module import CradleModule
from cradlevae.model.objective import draw_noise, iwelbo, loss_terms
from cradlevae.model.trained import as_treated
from cradlevae.model.training.fit import split_sizes

SIBLINGS = ("sams_vae", "svae_plus", "cpa_vae", "conditional_vae")
TERMS = {
    "sams_vae": {"mask", "embedding"},
    "svae_plus": {"mask"},
    "cpa_vae": {"embedding"},
    "conditional_vae": set(),
}


# -- declarations ----------------------------------------------------------------------------------------------


def test_the_family_is_complete() -> None:
    assert {"cradle_vae", *SIBLINGS} <= set(FAMILY)
    for key, member in FAMILY.items():
        assert member.key == key
        assert getattr(cv, member.name).declaration is member
        assert "\n" not in member.description
    assert [key for key, member in FAMILY.items() if member.artifact] == ["cradle_vae"]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"prior": "shifted", "guide": ("mean-field",)}, r"a shifted prior sees z alone; declare decode=\('sum',\)"),
        ({"embedding": "one-hot"}, "can only be concatenated"),
        ({"embedding": "one-hot", "decode": ("concat",), "mask": "bernoulli"}, "can only be concatenated, unmasked"),
        ({}, "a gaussian embedding needs a guide"),
        ({"embedding": "points", "guide": ("mean-field",)}, "no other has one"),
        ({"guide": ("correlated",)}, "a correlated guide depends on a mask"),
    ],
)
def test_a_declaration_that_makes_no_model_is_refused(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ModelDeclaration("odd", "OddVAE", "odd", **declared)


def test_names_are_taken_once() -> None:
    with pytest.raises(DataError, match=r"'sams_vae' .* is already registered"):
        register(ModelDeclaration("sams_vae", "Another", "again", guide=("mean-field",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "sams"}, r"unknown model 'sams'; did you mean 'sams_vae'"),
        ({"model": "cpa_vae", "guide": "correlated"}, "CPAVAE has no guide='correlated'; choose one of mean-field"),
        ({"model": "svae_plus", "guide": "mean-field"}, "SVAEPlus has no guide='mean-field'; leave it out"),
        ({"model": "svae_plus", "decode": "concat"}, "SVAEPlus has no decode='concat'; choose one of sum"),
        ({"model": "conditional_vae", "decode": "sum"}, "ConditionalVAE has no decode='sum'"),
        ({"model": "sams_vae", "objective": "released"}, "SAMSVAE has no objective='released'"),
        ({"model": "cpa_vae", "mask_prior": 0.1}, "CPAVAE has no mask with a fixed prior, so mask_prior means nothing"),
        ({"model": "sams_vae", "counterfactual_weight": 0.1}, "SAMSVAE has no artifact latent, so counterfactual"),
        ({"model": "sams_vae", "alpha": 0.1}, "SAMSVAE has no artifact latent, so alpha means nothing"),
        ({"train_on": "failed"}, "train_on is 'failed'; choose one of all, passing"),
    ],
)
def test_settings_that_a_model_has_no_use_for_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ModelConfig(**options)


def test_defaults_are_the_members() -> None:
    for key, decode, guide, train_on in [
        ("cradle_vae", "concat", "correlated", "all"), ("sams_vae", "sum", "correlated", "passing"),
        ("svae_plus", "sum", None, "passing"), ("cpa_vae", "sum", "mean-field", "passing"),
        ("conditional_vae", "concat", None, "passing"),
    ]:  # fmt: skip
        found = ModelConfig(model=key).resolved(combinations=True)
        assert (found.decode, found.guide, found.train_on) == (decode, guide, train_on)
        assert found.artifact_model == ("cell" if key == "cradle_vae" else None)


# -- the objective by hand -------------------------------------------------------------------------------------


def experiment(key: str) -> Experiment:
    """Control, A, B, A+B; some cells failed."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.5, (14, 6)).astype(np.float32)
    counts[:, 0] += 1
    data = Experiment(
        cells=pd.Index([f"cell{i}" for i in range(14)]),
        genes=pd.Index([f"gene{i}" for i in range(6)]),
        counts=sp.csr_matrix(counts),
        condition=np.arange(14) % 4,
        conditions=("control", "A", "B", "A+B"),
        perturbations=("A", "B"),
        artifact=(rng.random((14, 1)) < 0.3).astype(np.float32),
        criteria=("artifact",),
        library_size=counts.sum(axis=1),
    )
    return as_treated(data, FAMILY[key])


def problem(key: str, n_particles: int = 2, **options: Any) -> tuple[CradleModule, Any, Any, Any, Experiment]:
    data = experiment(key)
    given = {"n_latent": 3, "width": 5, "basal_width": 4, "weight_scale": 0.0, "model": key} | options
    settings = ModelConfig(**given).resolved(combinations=True)
    torch.manual_seed(0)
    n_treatments = data.dosage.shape[1]
    module = CradleModule(settings, 6, n_treatments, 1).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    module.basal_encoder.log_mean.copy_(torch.from_numpy(np.log1p(data.counts.toarray()).mean(0)))
    rows = np.arange(data.n_cells)
    batch, sizes = make_minibatch(data, rows), split_sizes(data, rows, settings)
    batch = replace(batch, **{k: v.double() for k, v in vars(batch).items() if _floats(v)})
    sizes = replace(sizes, **{k: v.double() for k, v in vars(sizes).items() if _floats(v)})
    return module, batch, sizes, draw_noise(module, data.n_cells, n_particles), data


def _floats(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def by_hand(module: CradleModule, noise: Any, data: Experiment, n_particles: int) -> dict[str, Tensor]:
    """Minus the ELBO's terms, a cell and a particle at a time; SVAE+ as z ~ Normal(shift, I), not as z^b."""
    key, config = module.config.model, module.config
    dosage = torch.from_numpy(data.dosage).double()
    n_t = dosage[data.condition].sum(0)
    standard = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    total = {name: torch.zeros((), dtype=torch.float64) for name in ("reconstruction", "basal", *TERMS[key])}
    counts = torch.from_numpy(data.counts.toarray()).double()
    normalised = torch.log1p(counts) - module.basal_encoder.log_mean
    for p in range(n_particles):
        effects, mask = [], None
        for t in range(dosage.shape[1]):
            cost: dict[str, Tensor] = {}
            if key in ("sams_vae", "svae_plus"):
                logits = module.mask.logits[t]
                mask = (torch.sigmoid(logits + noise.first.mask[p, t]) > 0.5).double()
                prior = Bernoulli(torch.full_like(mask, config.mask_prior or 0.5))
                cost["mask"] = kl_divergence(Bernoulli(logits=logits), prior).sum()
            if key == "svae_plus":
                cost["mask"] = -Beta(1.0, 2.0).log_prob(torch.sigmoid(logits)).sum()
                effect = mask * module.embedding.points[t]
            elif key == "conditional_vae":
                effect = torch.eye(dosage.shape[1], dtype=torch.float64)[t]
            else:
                if config.guide == "mean-field":
                    q = Normal(module.embedding.loc[t], module.embedding.log_scale[t].exp())
                else:
                    head = module.embedding.encoder(mask, torch.eye(dosage.shape[1], dtype=torch.float64)[t])
                    q = Normal(head.loc, head.scale)
                cost["embedding"] = kl_divergence(q, standard).sum()
                effect = q.loc + q.scale * noise.first.embedding[p, t]
                effect = effect if mask is None else mask * effect
            effects.append(effect)
            for name, value in cost.items():  # a share of it in each of its cells
                total[name] = total[name] + value * (dosage[data.condition][:, t] != 0).sum() / n_t[t]
        for i in range(data.n_cells):
            moved = dosage[data.condition[i]] @ torch.stack(effects)
            seen = (normalised[i],) if key == "svae_plus" else (normalised[i], moved)
            q = module.basal_encoder(*seen)
            z = q.loc + q.scale * noise.basal[p, i]
            prior = Normal(moved, 1.0) if key == "svae_plus" else standard
            total["basal"] = total["basal"] + kl_divergence(Normal(q.loc, q.scale), prior).sum()
            if key == "svae_plus":
                latents: tuple[Tensor, ...] = (z,)
            else:
                latents = (z, moved) if config.decode == "concat" else (z + moved,)
            hidden = torch.cat([module.decoder.mlp(*latents), *latents])
            mean = counts[i].sum() * torch.softmax(module.decoder.gene_linear(hidden), dim=0)
            theta = module.likelihood.log_concentration.exp()
            log_prob = NegativeBinomial(theta, probs=1 / (1 + theta / (mean + 1e-4))).log_prob(counts[i]).sum()
            total["reconstruction"] = total["reconstruction"] - log_prob
    return {name: value / n_particles / data.n_cells for name, value in total.items()}


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("sams_vae", {}), ("sams_vae", {"guide": "mean-field", "decode": "concat"}), ("svae_plus", {}),
        ("cpa_vae", {}), ("cpa_vae", {"decode": "concat"}), ("conditional_vae", {}),
    ],
)  # fmt: skip
def test_terms_are_those_of_the_description(key: str, options: dict[str, Any]) -> None:
    module, batch, sizes, noise, data = problem(key, **options)
    found, expected = loss_terms(module, batch, sizes, noise), by_hand(module, noise, data, 2)
    assert set(found) == {"reconstruction", "basal", *TERMS[key]} == set(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-6), name
    sum(found.values()).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def bound(module: CradleModule, batch: Minibatch, n_particles: int) -> Tensor:
    """IWELBO of each cell with fresh random numbers."""
    draw = module.sample_globals(module.draw_noise(n_particles))
    like = module.basal_encoder.log_mean
    return iwelbo(module, batch, draw, like.new_empty(2 * n_particles, batch.n_cells, module.n_latent).normal_())


@pytest.mark.parametrize("key", SIBLINGS)
def test_more_particles_tighten_the_bound(key: str) -> None:
    module, batch, *_ = problem(key)
    with torch.no_grad():
        few, many = (
            torch.stack([bound(module, batch, n) for _ in range(400 // n)]).mean() for n in (2, 200)
        )  # fmt: skip
    assert few < many


def test_a_guide_of_counts_alone_is_computed_once_for_all_particles() -> None:
    module, *_ = problem("svae_plus")
    assert module.encode(torch.zeros(5, 4, dtype=torch.float64))[0].loc.shape == (1, 5, 3)
    draw = module.sample_globals(module.draw_noise(7))
    assert draw.shift.shape == (7, 3, 3)
    module, *_ = problem("conditional_vae")
    assert module.sample_globals(module.draw_noise(7)).shift.shape == (1, 2, 2)


# -- a sixth member --------------------------------------------------------------------------------------------


@pytest.fixture
def sixth() -> Iterator[type[PerturbationVAE]]:
    """A model that is none of the five: dense effects on the mean of the prior, guide of counts and effect."""
    before, classes = dict(family.FAMILY), dict(api.CLASSES)

    class SixthVAE(PerturbationVAE):
        """A shifted prior whose shifts add up."""

        declaration = register(
            ModelDeclaration(
                "sixth_vae",
                "SixthVAE",
                "a state whose prior mean perturbations shift additively",
                prior="shifted",
                artifact=True,
                decode=("sum",),
                guide=("mean-field",),
            )
        )

    yield SixthVAE
    for registry, kept in ((family.FAMILY, before), (api.CLASSES, classes)):
        registry.clear()
        registry.update(kept)


def test_a_sixth_member_is_one_declaration(
    sixth: type[PerturbationVAE], simulated: ad.AnnData, tiny_options: Any, quick: Any, tmp_path: Path
) -> None:
    model = cv.models()["sixth_vae"].make(simulated, split=cv.split(simulated, "combinations"), **tiny_options)
    assert repr(model) == "SixthVAE(60 genes, 5 perturbations, artifacts: artifact; not trained)"
    model.train(2, **quick)
    assert {"train_embedding", "train_artifact", "train_counterfactual"} <= set(model.history)
    assert "train_mask" not in model.history
    effects = model.effects(["A+B"], error=0.5)
    assert model.clean(simulated[:20]).shape == (20, 60)
    assert np.isfinite(model.log_likelihood(simulated[:20], n_particles=3)).all()
    model.save(tmp_path / "run")
    loaded = cv.load(tmp_path / "run")
    assert type(loaded) is sixth
    np.testing.assert_array_equal(loaded.effects(["A+B"], error=0.5).X, effects.X)
    assert loaded.predict(["A+B"], n_cells=7).shape == (7, 60)
    scores = cv.evaluate(loaded, simulated, n_cells=5)
    own = scores[scores["predictor"] == "model"].groupby("metric")["value"].mean()
    assert np.isfinite(own[["iwelbo", "ate_rho", "clean_deviance"]]).all()

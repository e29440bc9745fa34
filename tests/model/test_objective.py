"""The corrected objective against a plain float64 one written from the description, cell by cell, and its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.distributions import Bernoulli, NegativeBinomial, Normal, kl_divergence

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.data.loading.minibatch import Minibatch, make_minibatch
from cradlevae.model.config import ModelConfig
from cradlevae.model.globals import GlobalNoise
from cradlevae.model.module import CradleModule, sparse_counts
from cradlevae.model.objective import draw_noise, iwelbo, loss_terms
from cradlevae.model.objective_inputs import Noise, SplitSizes
from cradlevae.model.training.fit import split_sizes

pytestmark = pytest.mark.numeric

REPEATS = 100
"""How often each cell stands in the batches that bounds are averaged over."""

ORDER = ("reconstruction", "basal", "mask", "embedding", "artifact", "counterfactual")


# -- a small problem -------------------------------------------------------------------------------------------


def experiment(n_classes: int, n_cells: int = 14, n_genes: int = 6) -> Experiment:
    """Control, A, B, A+B; no cell with B alone failed, so some cells have no reference."""
    rng = np.random.default_rng(0)
    condition = np.arange(n_cells) % 4
    artifact = (rng.random((n_cells, n_classes)) < 0.5).astype(np.float32)
    artifact[condition == 2] = 0
    artifact[0], artifact[4] = 0, 1
    counts = rng.poisson(1.5, (n_cells, n_genes)).astype(np.float32)
    counts[:, 0] += 1
    return Experiment(
        cells=pd.Index([f"cell{i}" for i in range(n_cells)]),
        genes=pd.Index([f"gene{i}" for i in range(n_genes)]),
        counts=sp.csr_matrix(counts),
        condition=condition,
        conditions=("control", "A", "B", "A+B"),
        perturbations=("A", "B"),
        artifact=artifact,
        criteria=tuple(f"criterion{i}" for i in range(n_classes)),
        library_size=counts.sum(axis=1),
    )


def config(**options: Any) -> ModelConfig:
    given = {
        "n_latent": 3, "width": 5, "basal_width": 4, "mask_prior": 0.05, "counterfactual_weight": 0.7,
        "objective": "corrected", "balance_classes": False, "decode": "concat", "guide": "correlated",
        "linear_path": False, "artifact_model": "shared", "weight_scale": 0.0, "gene_effects": False,
        "embedding_layers": 4,
    }  # fmt: skip
    return ModelConfig(**(given | options))


def new_module(settings: ModelConfig, data: Experiment, seed: int = 0) -> CradleModule:
    """A module in float64 with weights large enough that every part of it matters."""
    torch.manual_seed(seed)
    module = CradleModule(settings, data.n_genes, len(data.perturbations), len(data.criteria)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    logs = np.log1p(data.counts.toarray())
    module.basal_encoder.log_mean.copy_(torch.from_numpy(logs.mean(axis=0)))
    module.basal_encoder.log_std.copy_(torch.from_numpy(logs.std(axis=0)))
    module.basal_encoder.log_std[2] = 0  # as of a gene that never varies
    if module.gene_effects is not None:
        module.gene_effects.mean_count.copy_(torch.from_numpy(data.counts.toarray().mean(axis=0)))
    return module


def double(value: Any) -> Any:
    """The same dataclass with floats in float64."""
    moved = {name: tensor.double() for name, tensor in vars(value).items()
             if isinstance(tensor, Tensor) and tensor.is_floating_point()}  # fmt: skip
    return replace(value, **moved)


@dataclass
class Case:
    """All that an evaluation of the objective needs."""

    module: CradleModule
    batch: Minibatch
    sizes: SplitSizes
    noise: Noise
    data: Experiment
    rows: np.ndarray

    @property
    def terms(self) -> dict[str, Tensor]:
        return loss_terms(self.module, self.batch, self.sizes, self.noise)


def case(n_classes: int = 1, n_particles: int = 2, seed: int = 0, **options: Any) -> Case:
    data = experiment(n_classes)
    settings = config(**options)
    module = new_module(settings, data, seed)
    split = np.arange(data.n_cells)
    rows = np.array([9, 0, 3, 1, 6, 7, 4, 11, 2])  # a batch is a part of the split
    batch = double(make_minibatch(data, rows, CounterfactualReferences(data, split)))
    sizes = double(split_sizes(data, split, settings))
    return Case(module, batch, sizes, draw_noise(module, len(rows), n_particles), data, rows)


# -- the oracle ------------------------------------------------------------------------------------------------


class Oracle:
    """The objective as the description has it: one particle, one cell, one gene vector at a time."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.config = case.module.config
        self.p = dict(case.module.named_parameters())
        self.log_mean, self.log_std = case.module.basal_encoder.log_mean, case.module.basal_encoder.log_std

    def linear(self, name: str, x: Tensor) -> Tensor:
        return self.p[f"{name}.weight"] @ x + self.p[f"{name}.bias"]

    def mlp(self, name: str, x: Tensor) -> Tensor:
        def act(value: Tensor) -> Tensor:
            return torch.where(value > 0, value, 0.01 * value)

        first = [value for key, value in self.p.items() if key.startswith(f"{name}.first.weights.")]
        hidden = act(torch.cat(first).T @ x + self.p[f"{name}.first.bias"])
        layer = 0
        while f"{name}.layers.{layer}.weight" in self.p:
            hidden = act(self.linear(f"{name}.layers.{layer}", hidden)) + hidden
            layer += 1
        return hidden

    def gaussian(self, name: str, x: Tensor) -> Normal:
        return self.head(f"{name}.head", self.mlp(f"{name}.mlp", x))

    def head(self, name: str, hidden: Tensor) -> Normal:
        loc, log_variance = self.linear(f"{name}.linear", hidden).chunk(2)
        return Normal(loc, (log_variance.exp() + 1e-4).sqrt())

    def normalised(self, x: Tensor) -> Tensor:
        logs = torch.log(1 + x)
        return torch.stack(
            [
                (v - m) / s if s > 0 else torch.zeros_like(v)
                for v, m, s in zip(logs, self.log_mean, self.log_std, strict=True)
            ]
        )

    def q_embedding(self, mask: Tensor, t: int) -> Normal:
        if self.config.guide == "mean-field":
            return Normal(self.p["embedding.loc"][t], self.p["embedding.log_scale"][t].exp())
        one_hot = torch.eye(len(self.case.data.perturbations), dtype=torch.float64)[t]
        return self.gaussian("embedding.encoder", torch.cat([mask, one_hot]))

    def q_artifact(self, c: int, n_classes: int) -> Normal:
        k = self.config.n_latent
        given = torch.ones(k, dtype=torch.float64) if n_classes == 1 else torch.eye(n_classes, dtype=torch.float64)[c]
        return self.gaussian("artifact.encoder", given)

    def seen(self, x: Tensor, offset: Tensor) -> Tensor:
        """Standardised counts without what gene effects did to them, on average."""
        if not self.config.gene_effects:
            return self.normalised(x)
        count = self.case.module.gene_effects.mean_count
        moved = offset.detach() * count / (count + 1 / math.log(2))
        return self.normalised(x) - torch.where(self.log_std > 0, moved / self.log_std, 0.0)

    def q_basal(self, x: Tensor, z_p: Tensor, z_a: Tensor, offset: Tensor) -> Normal:
        return self.gaussian("basal_encoder", torch.cat([self.seen(x, offset), z_p, z_a]))

    def q_cell_artifact(self, x: Tensor, z_p: Tensor, z_a: Tensor, offset: Tensor) -> Normal:
        hidden = self.mlp("basal_encoder.mlp", torch.cat([self.seen(x, offset), z_p, z_a]))
        return self.head("own_artifact_head", hidden)

    def gene_effects_cost(self, t: int, n_cells: float) -> Tensor:
        """Minus the log evidence by Laplace, and the prior of the treatment's strength."""
        strength = self.p["gene_effects.log_strength"][t]
        theta, count = self.p["likelihood.log_concentration"].exp().detach(), self.case.module.gene_effects.mean_count
        cost = 0.5 * strength**2
        for g, value in enumerate(self.p["gene_effects.value"][t]):
            variance = torch.exp(2 * strength + 2 * self.p["gene_effects.log_spread"][g])
            information = n_cells / (1 / count[g] + 1 / theta[g])
            cost = cost + value**2 / (2 * variance) + 0.5 * torch.log(1 + variance * information)
        return cost

    def weight_cost(self) -> Tensor:
        """Each column of the gene weights is normal with a variance of its own, above a floor."""
        weight, floor = self.p["decoder.gene_linear.weight"], self.config.weight_scale**2
        cost = torch.zeros((), dtype=torch.float64)
        for column in weight.T:
            variance = floor + (column**2).mean()
            cost = cost + 0.5 * len(column) * torch.log(variance / floor)
        return cost / self.case.data.n_cells

    def log_likelihood(
        self, x: Tensor, library: Tensor, z_b: Tensor, z_p: Tensor, z_a: Tensor, offset: Tensor
    ) -> Tensor:
        h = torch.cat([z_b, z_p, z_a]) if self.config.decode == "concat" else z_b + z_p + z_a
        hidden = self.mlp("decoder.mlp", h)
        logits = self.linear("decoder.gene_linear", torch.cat([hidden, h]) if self.config.linear_path else hidden)
        if self.config.gene_effects:
            kept = torch.sigmoid(self.linear("shown_head", z_a)) if z_a.any() else 1.0
            logits = logits + kept * offset
        mean = library * torch.softmax(logits, dim=0)
        theta = self.p["likelihood.log_concentration"].exp()
        rate = torch.clamp(theta / (mean + 1e-4), min=1e-6)
        return NegativeBinomial(theta, probs=1 / (1 + rate)).log_prob(x).sum()

    def terms(self) -> dict[str, Tensor]:
        case, data = self.case, self.case.data
        noise = case.noise
        n_particles = len(noise.first.mask)
        n_t, n_c = len(data.perturbations), len(data.criteria)
        split_dosage = data.dosage[data.condition]
        cells_of_t = [(split_dosage[:, t] != 0).sum() for t in range(n_t)]
        cells_of_c = [(data.artifact[:, c] != 0).sum() for c in range(n_c)]
        n_failed = data.failed.sum()
        standard = Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
        prior = Bernoulli(torch.tensor(self.config.mask_prior, dtype=torch.float64))
        counts = torch.from_numpy(data.counts.toarray()).double()
        total = {name: torch.zeros((), dtype=torch.float64) for name in ORDER}
        if self.config.artifact_model == "cell":
            total["cell_artifact"] = torch.zeros((), dtype=torch.float64)
        if self.config.gene_effects:
            spread = self.p["gene_effects.log_spread"] - math.log(0.1)
            total["gene_effects"] = -0.5 * (spread**2).sum() / data.n_cells
        if self.config.weight_scale:
            total["weights"] = -self.weight_cost()
        for p in range(n_particles):
            soft = torch.sigmoid(self.p["mask.logits"] + noise.first.mask[p])
            mask = (soft > 0.5).double() + (soft - soft.detach())
            q_e = [self.q_embedding(mask[t], t) for t in range(n_t)]
            q_a = [self.q_artifact(c, n_c) for c in range(n_c)]
            embedding = [q.loc + q.scale * noise.first.embedding[p, t] for t, q in enumerate(q_e)]
            artifact = [q.loc + q.scale * noise.first.artifact[p, c] for c, q in enumerate(q_a)]
            for i, cell in enumerate(case.rows):
                weight = 1.0
                if self.config.balance_classes:
                    weight = data.n_cells / 2 / (n_failed if data.failed[cell] else data.n_cells - n_failed)
                share = weight / (len(case.rows) * n_particles)
                dosage, own = split_dosage[cell], data.artifact[cell]
                zero = torch.zeros(self.config.n_latent, dtype=torch.float64)
                z_p = zero + sum(float(dosage[t]) * mask[t] * embedding[t] for t in range(n_t))
                z_a = zero + sum(float(own[c]) * artifact[c] for c in range(n_c))
                x = counts[cell]
                offset = torch.zeros(data.n_genes, dtype=torch.float64)
                if self.config.gene_effects:
                    offset = torch.from_numpy(dosage).double() @ self.p["gene_effects.value"]
                q_b = self.q_basal(x, z_p, z_a, offset)
                z_b = q_b.loc + q_b.scale * noise.basal[p, i]
                decoded = z_a
                if self.config.artifact_model == "cell" and own.any():
                    q_s = self.q_cell_artifact(x, z_p, z_a, offset)
                    decoded = z_a + q_s.loc + q_s.scale * noise.cell[p, i]
                    total["cell_artifact"] -= share * kl_divergence(q_s, standard).sum()
                total["reconstruction"] += share * self.log_likelihood(x, x.sum(), z_b, z_p, decoded, offset)
                total["basal"] -= share * kl_divergence(q_b, standard).sum()
                for t in range(n_t):
                    if dosage[t] != 0:
                        q_m = Bernoulli(logits=self.p["mask.logits"][t])
                        total["mask"] -= share / cells_of_t[t] * kl_divergence(q_m, prior).sum()
                        if self.config.gene_effects:
                            cost = self.gene_effects_cost(t, float(cells_of_t[t]))
                            total["gene_effects"] -= share / cells_of_t[t] * cost
                        total["embedding"] -= share / cells_of_t[t] * kl_divergence(q_e[t], standard).sum()
                for c in range(n_c):
                    if own[c] != 0:
                        total["artifact"] -= share / cells_of_c[c] * kl_divergence(q_a[c], standard).sum()
                reference, flipped = self.reference(cell)
                if reference is not None:
                    z_flipped = zero + sum(float(flipped[c]) * artifact[c] for c in range(n_c))
                    kl = kl_divergence(
                        self.q_basal(reference, z_p, z_flipped, offset), self.q_basal(x, z_p, z_flipped, offset)
                    )
                    beta = self.config.counterfactual_weight
                    total["counterfactual"] -= beta * kl.sum() / (len(case.rows) * n_particles)
        return {name: -value for name, value in total.items()}

    def reference(self, cell: int) -> tuple[Tensor | None, np.ndarray]:
        """Mean of the same condition's cells of the opposite class, and the artifact that it stands for."""
        data = self.case.data
        same = data.condition == data.condition[cell]
        alike = same & (data.failed != data.failed[cell])
        flipped = 1 - data.artifact[cell]
        if not alike.any():
            return None, flipped
        if len(data.criteria) > 1:
            flipped = np.zeros(len(data.criteria)) if data.failed[cell] else data.artifact[alike].mean(axis=0)
        return torch.from_numpy(data.counts.toarray()[alike].mean(axis=0)).double(), flipped


VARIANTS = [
    {
        "n_classes": c,
        "decode": d,
        "guide": g,
        "balance_classes": b,
        "linear_path": path,
        "artifact_model": "cell" if a else "shared",
        "weight_scale": w,
        "gene_effects": e,
    }
    for c, d, g, b, path, a, w, e in [
        (1, "concat", "correlated", False, False, False, 0.0, False),
        (1, "sum", "correlated", True, False, False, 0.0, False),
        (1, "concat", "mean-field", True, False, False, 0.0, False),
        (3, "concat", "correlated", True, False, False, 0.0, False),
        (3, "sum", "mean-field", False, False, False, 0.0, True),
        (1, "concat", "correlated", False, True, True, 0.2, False),
        (1, "concat", "correlated", False, True, True, 0.2, True),
        (3, "sum", "mean-field", True, True, True, 0.1, True),
    ]
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(str(value) for value in v.values()))
def test_terms_and_gradients_are_those_of_the_description(variant: dict[str, Any]) -> None:
    problem = case(**variant)
    assert (problem.batch.reference == -1).any()
    assert (problem.batch.reference >= 0).any()
    found, expected = problem.terms, Oracle(problem).terms()
    assert set(found) == set(expected)
    for name in expected:
        # references and flipped indicators are held in float32
        assert found[name].item() == pytest.approx(expected[name].item(), rel=2e-6), name
        assert abs(expected[name].item()) > 1e-4, name
    parameters = dict(problem.module.named_parameters())
    gradients = torch.autograd.grad(sum(found.values()), list(parameters.values()))
    wanted = torch.autograd.grad(sum(expected.values()), list(parameters.values()))
    for name, one, two in zip(parameters, gradients, wanted, strict=True):
        scale = float(two.abs().max())
        assert scale > 0, name
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5 * scale, err_msg=name)


def test_class_weights_have_mean_one_and_make_the_classes_equal() -> None:
    data = experiment(1)
    rows = np.arange(data.n_cells)
    weight = split_sizes(data, rows, config(balance_classes=True)).class_weight.numpy()
    per_cell = weight[data.failed.astype(int)]
    assert per_cell.mean() == pytest.approx(1)
    assert per_cell[data.failed].sum() == pytest.approx(per_cell[~data.failed].sum())
    passing = rows[~data.failed]
    for part, balance in ((rows, False), (passing, True)):
        np.testing.assert_array_equal(split_sizes(data, part, config(balance_classes=balance)).class_weight, [1, 1])


def test_cells_that_share_a_variable_are_counted_in_the_split() -> None:
    data = experiment(3)
    rows = np.arange(3, 11)
    sizes = split_sizes(data, rows, config())
    np.testing.assert_array_equal(sizes.per_perturbation, data.dosage[data.condition[rows]].sum(axis=0))
    np.testing.assert_array_equal(sizes.per_class, data.artifact[rows].sum(axis=0))


def test_a_whole_pass_scores_each_global_variable_once() -> None:
    # every cell in one batch: Σ_i 1[d_it ≠ 0] / n_t is 1 for each t, so the term is the KL over the number of cells
    problem = case()
    everything = np.arange(problem.data.n_cells)
    batch = double(make_minibatch(problem.data, everything, CounterfactualReferences(problem.data, everything)))
    terms = loss_terms(problem.module, batch, problem.sizes, draw_noise(problem.module, len(everything), 1))
    q = Bernoulli(logits=problem.module.mask.logits)
    kl = kl_divergence(q, Bernoulli(torch.full_like(problem.module.mask.logits, 0.05))).sum()
    assert terms["mask"].item() * len(everything) == pytest.approx(kl.item())


def test_a_variable_without_cells_in_the_split_weighs_nothing() -> None:
    problem = case()
    only_controls = np.flatnonzero(problem.data.is_control & ~problem.data.failed)
    batch = double(make_minibatch(problem.data, only_controls, CounterfactualReferences(problem.data, only_controls)))
    sizes = double(split_sizes(problem.data, only_controls, problem.module.config))
    terms = loss_terms(problem.module, batch, sizes, draw_noise(problem.module, len(only_controls), 2))
    for name in ("mask", "embedding", "artifact", "counterfactual"):
        assert terms[name].item() == 0, name
    assert all(torch.isfinite(term) for term in terms.values())


def test_no_counterfactual_weight_leaves_the_term_out() -> None:
    problem = case(counterfactual_weight=0.0)
    assert "counterfactual" not in problem.terms


def test_the_counterfactual_term_ignores_the_size_of_the_batch() -> None:
    problem = case()
    twice = np.concatenate([problem.rows, problem.rows])
    batch = double(
        make_minibatch(problem.data, twice, CounterfactualReferences(problem.data, np.arange(problem.data.n_cells)))
    )
    noise = replace(problem.noise, basal=problem.noise.basal.repeat(1, 2, 1))
    doubled = loss_terms(problem.module, batch, problem.sizes, noise)
    for name, value in problem.terms.items():
        assert doubled[name].item() == pytest.approx(value.item(), rel=1e-9), name


@pytest.mark.parametrize("objective", ["corrected", "released"])
def test_genes_may_stand_in_any_order(objective: str) -> None:
    problem = case(objective=objective)
    order = np.array([4, 1, 5, 0, 3, 2])
    data = replace(problem.data, counts=sp.csr_matrix(problem.data.counts[:, order]))
    shuffled = new_module(problem.module.config, data)
    state = {name: value.clone() for name, value in problem.module.state_dict().items()}
    for name in (
        "basal_encoder.log_mean",
        "basal_encoder.log_std",
        "likelihood.log_concentration",
        "decoder.gene_linear.weight",
        "decoder.gene_linear.bias",
    ):
        state[name] = state[name][order]
    first = "basal_encoder.mlp.first.weights.0"
    state[first] = state[first][order]
    shuffled.load_state_dict(state)
    batch = double(make_minibatch(data, problem.rows, CounterfactualReferences(data, np.arange(data.n_cells))))
    found = loss_terms(shuffled, batch, problem.sizes, problem.noise)
    for name, value in problem.terms.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-7), name


def test_cells_may_stand_in_any_order() -> None:
    problem = case(n_classes=3, balance_classes=True)
    order = np.random.default_rng(0).permutation(len(problem.rows))
    references = CounterfactualReferences(problem.data, np.arange(problem.data.n_cells))
    batch = double(make_minibatch(problem.data, problem.rows[order], references))
    noise = replace(problem.noise, basal=problem.noise.basal[:, order])
    found = loss_terms(problem.module, batch, problem.sizes, noise)
    for name, value in problem.terms.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-9), name


# -- bounds ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def controls() -> tuple[CradleModule, Minibatch, Tensor]:
    """Passing control cells, each a hundred times, of a model with one latent; log p(x) by quadrature over z^b."""
    data = experiment(1)
    settings = config(n_latent=1)
    module = new_module(settings, data, seed=3)
    rows = np.tile(np.flatnonzero(data.is_control & ~data.failed), REPEATS)
    batch = double(make_minibatch(data, rows))
    grid = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    counts = torch.from_numpy(data.counts.toarray()[rows]).double()
    with torch.no_grad():
        none = torch.zeros(len(grid), 1, 1, dtype=torch.float64)
        share = module.decode_share(grid[:, None, None], none, none)[:, 0]  # (points, genes)
        theta = module.likelihood.log_concentration.exp()
        log_joint = []
        for x in counts[: len(rows) // REPEATS]:
            rate = theta / (x.sum() * share + 1e-4)
            log_joint.append(NegativeBinomial(theta, probs=1 / (1 + rate)).log_prob(x).sum(-1))
        prior = Normal(0.0, 1.0).log_prob(grid) + math.log(float(grid[1] - grid[0]))
        exact = torch.logsumexp(torch.stack(log_joint) + prior, dim=1).repeat(REPEATS)
    return module, batch, exact


def elbo(module: CradleModule, batch: Minibatch, n_particles: int) -> float:
    """Mean per cell of reconstruction and basal terms, all that the bound on a passing control has."""
    sizes = SplitSizes(torch.ones(2).double(), torch.ones(1).double(), torch.ones(2).double())
    with torch.no_grad():
        terms = loss_terms(module, batch, sizes, draw_noise(module, batch.n_cells, n_particles))
    return -float(terms["reconstruction"] + terms["basal"])


def bound(module: CradleModule, batch: Minibatch, n_particles: int) -> Tensor:
    """IWELBO of each cell with fresh random numbers."""
    draw = module.sample_globals(module.draw_noise(n_particles))
    like = module.basal_encoder.log_mean
    return iwelbo(module, batch, draw, like.new_empty(2 * n_particles, batch.n_cells, module.n_latent).normal_())


def mean_iwelbo(module: CradleModule, batch: Minibatch, n_particles: int, repeats: int) -> float:
    with torch.no_grad():
        return float(torch.stack([bound(module, batch, n_particles) for _ in range(repeats)]).mean())


def test_elbo_and_iwelbo_are_bounds_that_tighten(controls: tuple[CradleModule, Minibatch, Tensor]) -> None:
    module, batch, exact = controls
    torch.manual_seed(0)
    truth = float(exact.mean())
    lower = elbo(module, batch, 50)
    one, few, many = (mean_iwelbo(module, batch, n, 300 // n) for n in (1, 10, 100))
    assert one == pytest.approx(lower, abs=0.05)  # the same expectation
    assert lower < few - 0.02
    assert few < many - 0.01
    assert many < truth + 0.005
    assert mean_iwelbo(module, batch, 1000, 1) == pytest.approx(truth, abs=0.01)


def test_iwelbo_of_one_particle_is_its_weight(controls: tuple[CradleModule, Minibatch, Tensor]) -> None:
    module, batch, exact = controls
    torch.manual_seed(1)
    found = bound(module, batch, 1)
    assert found.shape == exact.shape
    torch.manual_seed(1)
    noise: GlobalNoise = module.draw_noise(1)
    z_p = torch.zeros(1, batch.n_cells, 1, dtype=torch.float64)
    dense = torch.zeros(batch.n_cells, batch.n_genes, dtype=torch.float64)
    for cell, (start, stop) in enumerate(zip(batch.starts[:-1], batch.starts[1:], strict=True)):
        dense[cell, batch.genes[start:stop]] = batch.values[start:stop]
    q, _ = module.encode(module.encode_counts(sparse_counts(batch))[0], z_p, z_p)
    z_b = q.loc + q.scale * torch.randn(2, *q.loc.shape[1:], dtype=q.loc.dtype)[:1]
    theta = module.likelihood.log_concentration.exp()
    rate = theta / (dense.sum(1, keepdim=True) * module.decode_share(z_b, z_p, z_p)[0] + 1e-4)
    log_p = NegativeBinomial(theta, probs=1 / (1 + rate)).log_prob(dense).sum(-1)
    ratio = Normal(0.0, 1.0).log_prob(z_b) - Normal(q.loc, q.scale).log_prob(z_b)
    assert noise.mask.shape == (1, 2, 1)
    np.testing.assert_allclose(found.detach(), (log_p + ratio.sum(-1)[0]).detach(), rtol=1e-9)


@pytest.mark.parametrize(("decode", "guide"), list(product(["concat", "sum"], ["correlated", "mean-field"])))
def test_scores_of_perturbed_and_failed_cells_rise_with_particles(decode: str, guide: str) -> None:
    problem = case(n_classes=3, decode=decode, guide=guide)
    torch.manual_seed(0)
    few = mean_iwelbo(problem.module, problem.batch, 2, 200)
    many = mean_iwelbo(problem.module, problem.batch, 200, 5)
    assert few < many

"""The direct formulation of a training step, which the package is timed and checked against.

It is what one writes from the model's description: a dense minibatch; the basal encoder run on every cell for every
particle, and again for the counterfactual; every cell decoded with and without artifact; its counts sampled, as
probabilistic programs do, and thrown away; and three lgammas for every particle × cell × gene. It begins with the
weights of a module of the package but uses none of its shortcuts, so loss and gradients of both must agree.

It covers the objective ``corrected`` with one artifact class, with or without what the package adds to the published
architecture: gene effects, the cell's own artifact state, the linear path and the prior of the gene weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.model.module import CradleModule
from cradlevae.model.objective_inputs import Noise, SplitSizes
from cradlevae.nn.mlp import MLP, Gaussian, GaussianHead


@dataclass(frozen=True)
class DenseMinibatch:
    """Cells as plain tensors: counts and references (cells, genes), dosage (cells, T), artifact (cells, 1)."""

    counts: Tensor
    references: Tensor
    has_reference: Tensor
    dosage: Tensor
    artifact: Tensor


class DenseData:
    """An experiment as two dense cells × genes matrices: the counts, and the reference of every cell."""

    def __init__(self, data: Experiment, references: CounterfactualReferences) -> None:
        profiles, reference, *_ = references.of_rows(np.arange(data.n_cells))
        self.counts = torch.from_numpy(data.counts.toarray())
        self.references = torch.from_numpy(profiles[np.maximum(reference, 0)])
        self.has_reference = torch.from_numpy(reference >= 0)
        self.dosage = torch.from_numpy(data.dosage[data.condition])
        self.artifact = torch.from_numpy(data.artifact)

    def to(self, device: torch.device) -> DenseData:
        """The same, moved to a device."""
        for name, tensor in vars(self).items():
            setattr(self, name, tensor.to(device))
        return self

    def minibatch(self, rows: np.ndarray) -> DenseMinibatch:
        chosen = torch.from_numpy(rows).to(self.counts.device)
        return DenseMinibatch(
            self.counts[chosen], self.references[chosen], self.has_reference[chosen], self.dosage[chosen],
            self.artifact[chosen],
        )  # fmt: skip


class Network(nn.Module):
    """Linear + LeakyReLU layers, the later ones residual, and two heads where it makes a Gaussian."""

    def __init__(self, mlp: MLP, head: GaussianHead | None = None) -> None:
        super().__init__()
        first = torch.cat([weight.detach() for weight in mlp.first.weights]).T
        self.layers = nn.ModuleList([_linear(first, mlp.first.bias), *(_linear(x.weight, x.bias) for x in mlp.layers)])
        if head is not None:
            weights, biases = head.linear.weight.chunk(2), head.linear.bias.chunk(2)
            self.loc, self.log_variance = (_linear(w, b) for w, b in zip(weights, biases, strict=True))

    def hidden(self, inputs: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.layers[0](inputs))
        for layer in self.layers[1:]:
            hidden = F.leaky_relu(layer(hidden)) + hidden
        return hidden

    def forward(self, inputs: Tensor) -> Gaussian:
        hidden = self.hidden(inputs)
        return _gaussian(self.loc(hidden), self.log_variance(hidden))

    def gradients(self) -> tuple[Tensor, ...]:
        """Gradients in the order and shapes of the package's parameters."""
        first, *rest = self.layers
        gradients = [first.weight.grad.T, first.bias.grad, *(p.grad for layer in rest for p in layer.parameters())]
        if hasattr(self, "loc"):
            gradients += _joint_gradients(self.loc, self.log_variance)
        return tuple(gradients)


def _joint_gradients(loc: nn.Linear, log_variance: nn.Linear) -> list[Tensor]:
    """Gradients of two Linears as those of one, whose outputs stand side by side."""
    heads = (loc, log_variance)
    return [torch.cat([head.weight.grad for head in heads]), torch.cat([head.bias.grad for head in heads])]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(*weight.T.shape, dtype=weight.dtype)
    linear.weight.data.copy_(weight.detach())
    linear.bias.data.copy_(bias.detach())
    return linear


class GeneEffects(nn.Module):
    """What a treatment adds to the log rate of each gene, and how much of it a damaged cell still shows."""

    def __init__(self, module: CradleModule) -> None:
        super().__init__()
        theirs = module.gene_effects
        for name in ("value", "log_spread", "log_strength"):
            setattr(self, name, nn.Parameter(getattr(theirs, name).detach().clone()))
        self.mean_count, self.n_cells = theirs.mean_count, theirs.n_cells
        self.shown_head = _linear(module.shown_head.weight, module.shown_head.bias)

    def visible(self, z_a: Tensor) -> Tensor:
        """Share of the effects that a cell with this artifact state shows, (..., K) → (..., 1)."""
        damaged = (z_a != 0).any(dim=-1, keepdim=True)
        return torch.where(damaged, torch.sigmoid(self.shown_head(z_a)), 1.0)

    def in_counts(self, effects: Tensor) -> Tensor:
        """What effects on log rates add to log(1 + counts), on average."""
        return effects * self.mean_count / (self.mean_count + 1 / math.log(2))

    def cost(self, n_cells: Tensor, concentration: Tensor) -> Tensor:
        """Minus the log evidence of each treatment's effects (Laplace), (T,)."""
        variance = (self.log_strength[:, None] + self.log_spread).exp() ** 2
        information = self.mean_count * concentration / (self.mean_count + concentration)
        of_gene = self.value**2 / (2 * variance) + 0.5 * (1 + variance * n_cells[:, None] * information).log()
        return of_gene.sum(1) + 0.5 * self.log_strength**2

    def prior_cost(self) -> Tensor:
        """Minus the log prior of the genes' scales, a log-normal of median 0.1."""
        return 0.5 * ((self.log_spread - math.log(0.1)) ** 2).sum()

    def gradients(self) -> tuple[Tensor, ...]:
        head = self.shown_head
        return (self.value.grad, self.log_spread.grad, self.log_strength.grad, head.weight.grad, head.bias.grad)


class DirectModel(nn.Module):
    """The weights of a package's module, in plain networks.

    Raises
    ------
    ValueError
        If the module has a part that the direct formulation does not have.
    """

    def __init__(self, module: CradleModule) -> None:
        super().__init__()
        config = module.config
        covered = {"objective": "corrected", "decode": "concat", "guide": "correlated", "balance_classes": False}
        for name, value in covered.items():
            if getattr(config, name) != value:
                raise ValueError(f"the direct formulation has no {name}={getattr(config, name)!r}, only {value!r}")
        if module.n_classes != 1:
            raise ValueError(f"the direct formulation has one artifact class, not {module.n_classes}")
        self.config = config
        self.log_mean, self.log_std = module.basal_encoder.log_mean, module.basal_encoder.log_std
        self.mask_logits = nn.Parameter(module.mask.logits.detach().clone())
        self.log_concentration = nn.Parameter(module.likelihood.log_concentration.detach().clone())
        self.embedding_encoder = Network(module.embedding.encoder.mlp, module.embedding.encoder.head)
        self.artifact_encoder = Network(module.artifact.encoder.mlp, module.artifact.encoder.head)
        self.basal_encoder = Network(module.basal_encoder.mlp, module.basal_encoder.head)
        self.decoder = Network(module.decoder.mlp)
        self.gene_linear = _linear(module.decoder.gene_linear.weight, module.decoder.gene_linear.bias)
        self.gene_effects = GeneEffects(module) if config.gene_effects else None
        if config.artifact_model == "cell":
            linear = module.own_artifact_head.linear
            self.own_loc, self.own_log_variance = (
                _linear(w, b) for w, b in zip(linear.weight.chunk(2), linear.bias.chunk(2), strict=True)
            )

    def terms(self, minibatch: DenseMinibatch, sizes: SplitSizes, noise: Noise) -> dict[str, Tensor]:
        """Terms of the loss, as :func:`cradlevae.model.objective.loss_terms` gives them."""
        config = self.config
        n_particles = len(noise.basal)

        # the guide's global draws
        mask, q_embedding, q_artifact = self.guide(noise)
        embedding = q_embedding.loc + q_embedding.scale * noise.first.embedding
        artifact = q_artifact.loc + q_artifact.scale * noise.first.artifact
        effects = None if self.gene_effects is None else minibatch.dosage @ self.gene_effects.value

        # the guide's draws per cell
        x = minibatch.counts.expand(n_particles, -1, -1)
        z_p = minibatch.dosage @ (mask * embedding)
        z_a = minibatch.artifact @ artifact
        hidden = self.basal_encoder.hidden(self.basal_input(x, z_p, z_a, effects))
        q_basal = _gaussian(self.basal_encoder.loc(hidden), self.basal_encoder.log_variance(hidden))
        z_b = q_basal.loc + q_basal.scale * noise.basal
        own: Tensor | float = 0.0
        if config.artifact_model == "cell":
            q_cell = _gaussian(self.own_loc(hidden), self.own_log_variance(hidden))
            own = q_cell.loc + q_cell.scale * noise.cell

        # every cell decoded twice
        library = minibatch.counts.sum(1, keepdim=True)
        passing = self.log_prob(x, library, z_b, z_p, torch.zeros_like(z_a), effects)
        failed = self.log_prob(x, library, z_b, z_p, artifact.expand_as(z_a) + own, effects)
        u = minibatch.artifact.squeeze(1)
        log_prob = (1 - u) * passing + u * failed  # (particles, cells)

        terms = {"reconstruction": -log_prob.mean(), "basal": _kl(q_basal, STANDARD).sum(-1).mean()}
        terms |= self.global_terms(minibatch, sizes, q_embedding, q_artifact)
        if config.artifact_model == "cell":
            terms["cell_artifact"] = (_kl(q_cell, STANDARD).sum(-1) * u).mean()

        # the same cells, had their artifact been the other
        flipped = (1 - minibatch.artifact) @ artifact
        references = minibatch.references.expand(n_particles, -1, -1)
        of_cell = self.basal_encoder(self.basal_input(x, z_p, flipped, effects))
        of_reference = self.basal_encoder(self.basal_input(references, z_p, flipped, effects))
        divergence = (_kl(of_reference, of_cell).sum(-1) * minibatch.has_reference).mean()
        terms["counterfactual"] = config.counterfactual_weight * divergence
        return terms

    def guide(self, noise: Noise) -> tuple[Tensor, Gaussian, Gaussian]:
        """A draw of the mask, and the posteriors of embeddings and artifact."""
        n_particles = len(noise.basal)
        n_perturbations, n_latent = self.mask_logits.shape
        soft = torch.sigmoid(self.mask_logits + noise.first.mask)
        mask = (soft > 0.5).to(soft.dtype) + (soft - soft.detach())
        one_hot = torch.eye(n_perturbations, dtype=mask.dtype, device=mask.device).expand(n_particles, -1, -1)
        q_embedding = self.embedding_encoder(torch.cat([mask, one_hot], dim=-1))
        return mask, q_embedding, self.artifact_encoder(mask.new_ones(n_particles, 1, n_latent))

    def global_terms(
        self, minibatch: DenseMinibatch, sizes: SplitSizes, q_embedding: Gaussian, q_artifact: Gaussian
    ) -> dict[str, Tensor]:
        """What the variables that cells share cost these cells."""
        config = self.config
        p = torch.sigmoid(self.mask_logits)
        prior = p.new_tensor(config.mask_prior)
        mask_kl = p * (p.log() - prior.log()) + (1 - p) * ((1 - p).log() - (1 - prior).log())
        share = (minibatch.dosage != 0).to(p.dtype) / sizes.per_perturbation.clamp_min(1)
        share_class = (minibatch.artifact != 0).to(p.dtype) / sizes.per_class.clamp_min(1)
        terms = {
            "mask": (share @ mask_kl.sum(-1)).mean(),
            "embedding": (share @ _kl(q_embedding, STANDARD).sum(-1).mean(0)).mean(),
            "artifact": (share_class @ _kl(q_artifact, STANDARD).sum(-1).mean(0)).mean(),
        }
        if self.gene_effects is not None:
            cost = self.gene_effects.cost(sizes.per_perturbation, self.log_concentration.detach().exp())
            terms["gene_effects"] = (share @ cost).mean() + self.gene_effects.prior_cost() / sizes.n_cells
        if config.weight_scale:
            mean_square = self.gene_linear.weight.square().mean(0)
            cost = 0.5 * len(self.gene_linear.weight) * (1 + mean_square / config.weight_scale**2).log().sum()
            terms["weights"] = cost / sizes.n_cells
        return terms

    def basal_input(self, counts: Tensor, z_p: Tensor, z_a: Tensor, effects: Tensor | None) -> Tensor:
        """What the basal encoder sees: standardised log counts without the gene effects, z^p and z^a."""
        log_counts = counts.log1p()
        if self.gene_effects is not None:
            log_counts = log_counts - self.gene_effects.in_counts(effects.detach())
        scale = torch.where(self.log_std > 0, self.log_std, 1.0)
        normalised = torch.where(self.log_std > 0, (log_counts - self.log_mean) / scale, 0.0)
        return torch.cat([normalised, z_p, z_a], dim=-1)

    def log_prob(
        self, counts: Tensor, library: Tensor, z_b: Tensor, z_p: Tensor, z_a: Tensor, effects: Tensor | None
    ) -> Tensor:
        """Log-probability of the counts of each cell in each particle."""
        latent = torch.cat([z_b, z_p, z_a], dim=-1)
        hidden = self.decoder.hidden(latent)
        if self.config.linear_path:
            hidden = torch.cat([hidden, latent], dim=-1)
        logits = self.gene_linear(hidden)
        if self.gene_effects is not None:
            logits = logits + self.gene_effects.visible(z_a) * effects
        mean = library * torch.softmax(logits, dim=-1)
        concentration = self.log_concentration.exp().expand_as(mean)
        rate = (concentration / (mean + 1e-4)).clamp_min(1e-6)
        with torch.no_grad():  # drawn and thrown away, as probabilistic programs do
            torch.poisson(torch._standard_gamma(concentration.contiguous()) / rate)
        log_prob = (
            concentration * (rate.log() - rate.log1p())
            - counts * rate.log1p()
            + torch.lgamma(concentration + counts)
            - torch.lgamma(concentration)
            - torch.lgamma(counts + 1)
        )
        return log_prob.sum(-1)

    def gradients(self) -> dict[str, tuple[Tensor, ...]]:
        """Gradients of each part, in the order and shapes of :func:`package_gradients`."""
        gradients = {name: getattr(self, name).gradients() for name in NETWORKS}
        gradients["mask_logits"] = (self.mask_logits.grad,)
        gradients["log_concentration"] = (self.log_concentration.grad,)
        gradients["gene_linear"] = (self.gene_linear.weight.grad, self.gene_linear.bias.grad)
        if self.gene_effects is not None:
            gradients["gene_effects"] = self.gene_effects.gradients()
        if self.config.artifact_model == "cell":
            gradients["cell_artifact"] = tuple(_joint_gradients(self.own_loc, self.own_log_variance))
        return gradients


NETWORKS = {
    "embedding_encoder": "embedding.encoder",
    "artifact_encoder": "artifact.encoder",
    "basal_encoder": "basal_encoder",
    "decoder": "decoder",
}
"""Networks here, and what they are called in the package."""


def package_gradients(module: CradleModule) -> dict[str, tuple[Tensor, ...]]:
    """Gradients of a package's module, a joint Linear's weights in one."""
    gradients: dict[str, tuple[Tensor, ...]] = {}
    for name, theirs in NETWORKS.items():
        part = module.get_submodule(theirs)
        mlp, head = part.mlp, None if name == "decoder" else part.head
        first = torch.cat([weight.grad for weight in mlp.first.weights])
        rest = [p.grad for layer in mlp.layers for p in layer.parameters()]
        heads = [] if head is None else [head.linear.weight.grad, head.linear.bias.grad]
        gradients[name] = (first, mlp.first.bias.grad, *rest, *heads)
    gradients["mask_logits"] = (module.mask.logits.grad,)
    parameters = dict(module.named_parameters())
    gradients["log_concentration"] = tuple(p.grad for name, p in parameters.items() if "log_concentration" in name)
    gradients["gene_linear"] = (module.decoder.gene_linear.weight.grad, module.decoder.gene_linear.bias.grad)
    if module.config.gene_effects:
        theirs, head = module.gene_effects, module.shown_head
        gradients["gene_effects"] = (
            theirs.value.grad, theirs.log_spread.grad, theirs.log_strength.grad, head.weight.grad, head.bias.grad,
        )  # fmt: skip
    if module.config.artifact_model == "cell":
        linear = module.own_artifact_head.linear
        gradients["cell_artifact"] = (linear.weight.grad, linear.bias.grad)
    return gradients


def largest_difference(first: dict[str, tuple[Tensor, ...]], second: dict[str, tuple[Tensor, ...]]) -> float:
    """Largest norm of a parameter's difference, relative to the norm of its gradient; no gradient may be 0."""
    assert first.keys() == second.keys()
    pairs = [pair for name in first for pair in zip(first[name], second[name], strict=True)]
    assert all(a.norm() > 0 for a, _ in pairs)
    return max(float((a - b).norm() / a.norm()) for a, b in pairs)


STANDARD = Gaussian(torch.tensor(0.0), torch.tensor(1.0))


def _gaussian(loc: Tensor, log_variance: Tensor) -> Gaussian:
    return Gaussian(loc, (log_variance.exp() + 1e-4).sqrt())


def _kl(first: Gaussian, second: Gaussian) -> Tensor:
    ratio = (first.scale / second.scale) ** 2
    return 0.5 * (ratio + ((first.loc - second.loc) / second.scale) ** 2 - 1 - ratio.log())

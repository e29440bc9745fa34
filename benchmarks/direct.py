"""The direct formulation of a training step, which the package is timed and checked against.

It is what one writes from the model's description: a dense batch; the basal encoder run on every cell for every
particle, and again for the counterfactual; every cell decoded with and without artifact; its counts sampled, as
probabilistic programs do, and thrown away; and three lgammas for every particle × cell × gene. It begins with the
weights of a module of the package but uses none of its shortcuts, so loss and gradients of both must agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cradlevae.data.experiment import Experiment
from cradlevae.data.loading.counterfactual_references import CounterfactualReferences
from cradlevae.model.module import CradleModule
from cradlevae.model.objective import Noise, SplitSizes
from cradlevae.nn.mlp import MLP, Gaussian, GaussianHead


@dataclass(frozen=True)
class DenseBatch:
    """A batch as plain tensors: counts and references (cells, genes), dosage (cells, T), artifact (cells, 1)."""

    counts: Tensor
    references: Tensor
    has_reference: Tensor
    dosage: Tensor
    artifact: Tensor


class DenseData:
    """An experiment as two dense cells × genes matrices: the counts, and the reference of every cell."""

    def __init__(self, data: Experiment, references: CounterfactualReferences) -> None:
        rows = np.arange(data.n_cells)
        profiles, reference, _ = references.of_rows(rows)
        self.counts = torch.from_numpy(data.counts.toarray())
        self.references = torch.from_numpy(profiles[np.maximum(reference, 0)])
        self.has_reference = torch.from_numpy(reference >= 0)
        self.dosage = torch.from_numpy(data.dosage[data.condition])
        self.artifact = torch.from_numpy(data.artifact)

    def batch(self, rows: np.ndarray) -> DenseBatch:
        chosen = torch.from_numpy(rows)
        return DenseBatch(
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
        return Gaussian(self.loc(hidden), (self.log_variance(hidden).exp() + 1e-4).sqrt())

    def gradients(self) -> tuple[Tensor, ...]:
        """In the order and shapes of the package's parameters."""
        first, *rest = self.layers
        heads = (self.loc, self.log_variance) if hasattr(self, "loc") else ()
        found = [first.weight.grad.T, first.bias.grad, *(p.grad for layer in rest for p in layer.parameters())]
        if heads:
            found += [torch.cat([head.weight.grad for head in heads]), torch.cat([head.bias.grad for head in heads])]
        return tuple(found)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(*weight.T.shape)
    linear.weight.data.copy_(weight.detach())
    linear.bias.data.copy_(bias.detach())
    return linear


class DirectModel(nn.Module):
    """The weights of a package's module (one artifact class, ``concat``, ``correlated``), in plain networks."""

    def __init__(self, module: CradleModule) -> None:
        super().__init__()
        config = module.config
        assert (config.objective, config.decode, config.guide) == ("corrected", "concat", "correlated")
        assert module.n_classes == 1
        self.config = config
        self.log_mean, self.log_std = module.log_mean, module.log_std
        self.mask_logits = nn.Parameter(module.mask.logits.detach().clone())
        self.log_concentration = nn.Parameter(module.log_concentration.detach().clone())
        self.embedding_encoder = Network(module.embedding.encoder.mlp, module.embedding.encoder.head)
        self.artifact_encoder = Network(module.artifact_encoder.mlp, module.artifact_encoder.head)
        self.basal_encoder = Network(module.basal_encoder.mlp, module.basal_encoder.head)
        self.decoder = Network(module.decoder)
        self.gene_linear = _linear(module.gene_linear.weight, module.gene_linear.bias)
        if config.cell_artifact:
            linear = module.cell_artifact_head.linear
            self.own_loc, self.own_log_variance = (
                _linear(w, b) for w, b in zip(linear.weight.chunk(2), linear.bias.chunk(2), strict=True)
            )

    def terms(self, batch: DenseBatch, sizes: SplitSizes, noise: Noise) -> dict[str, Tensor]:
        """Terms of the loss, as :func:`cradlevae.model.objective.loss_terms` gives them."""
        config = self.config
        n_particles = len(noise.basal)
        n_perturbations, n_latent = self.mask_logits.shape

        # the guide's global draws
        soft = torch.sigmoid(self.mask_logits + noise.first.mask)
        mask = (soft > 0.5).float() + (soft - soft.detach())
        one_hot = torch.eye(n_perturbations).expand(n_particles, -1, -1)
        q_embedding = self.embedding_encoder(torch.cat([mask, one_hot], dim=-1))
        embedding = q_embedding.loc + q_embedding.scale * noise.first.embedding
        q_artifact = self.artifact_encoder(torch.ones(n_particles, 1, n_latent))
        artifact = q_artifact.loc + q_artifact.scale * noise.first.artifact

        # the guide's draws per cell
        x = batch.counts.expand(n_particles, -1, -1)
        z_p = batch.dosage @ (mask * embedding)
        z_a = batch.artifact @ artifact
        hidden = self.basal_encoder.hidden(self.basal_input(x, z_p, z_a))
        q_basal = Gaussian(
            self.basal_encoder.loc(hidden), (self.basal_encoder.log_variance(hidden).exp() + 1e-4).sqrt()
        )
        z_b = q_basal.loc + q_basal.scale * noise.basal
        own: Tensor | float = 0.0
        if config.cell_artifact:
            assert noise.cell is not None
            q_cell = Gaussian(self.own_loc(hidden), (self.own_log_variance(hidden).exp() + 1e-4).sqrt())
            own = q_cell.loc + q_cell.scale * noise.cell

        # every cell decoded twice
        library = batch.counts.sum(1, keepdim=True)
        passing = self.log_prob(x, library, z_b, z_p, torch.zeros_like(z_a))
        failed = self.log_prob(x, library, z_b, z_p, artifact.expand_as(z_a) + own)
        u = batch.artifact.squeeze(1)
        log_prob = (1 - u) * passing + u * failed  # (particles, cells)

        # divergences
        prior = torch.tensor(config.mask_prior)
        p = torch.sigmoid(self.mask_logits)
        mask_kl = p * (p.log() - prior.log()) + (1 - p) * ((1 - p).log() - (1 - prior).log())
        standard = Gaussian(torch.tensor(0.0), torch.tensor(1.0))
        share = (batch.dosage != 0).float() / sizes.per_perturbation.clamp_min(1)
        share_class = (batch.artifact != 0).float() / sizes.per_class.clamp_min(1)
        terms = {
            "reconstruction": -log_prob.mean(),
            "basal": _kl(q_basal, standard).sum(-1).mean(),
            "mask": (share @ mask_kl.sum(-1)).mean(),
            "embedding": (share @ _kl(q_embedding, standard).sum(-1).mean(0)).mean(),
            "artifact": (share_class @ _kl(q_artifact, standard).sum(-1).mean(0)).mean(),
        }
        if config.cell_artifact:
            terms["cell_artifact"] = (_kl(q_cell, standard).sum(-1) * u).mean()
        if config.weight_scale:
            mean_square = self.gene_linear.weight.square().mean(0)
            cost = 0.5 * len(self.gene_linear.weight) * (1 + mean_square / config.weight_scale**2).log().sum()
            terms["weights"] = cost / sizes.n_cells

        # the same cells, had their artifact been the other
        flipped = (1 - batch.artifact) @ artifact
        of_cell = self.basal_encoder(self.basal_input(x, z_p, flipped))
        of_reference = self.basal_encoder(self.basal_input(batch.references.expand(n_particles, -1, -1), z_p, flipped))
        divergence = (_kl(of_reference, of_cell).sum(-1) * batch.has_reference).mean()
        terms["counterfactual"] = config.counterfactual_weight * divergence
        return terms

    def basal_input(self, counts: Tensor, z_p: Tensor, z_a: Tensor) -> Tensor:
        scale = torch.where(self.log_std > 0, self.log_std, 1.0)
        normalised = torch.where(self.log_std > 0, (counts.log1p() - self.log_mean) / scale, 0.0)
        return torch.cat([normalised, z_p, z_a], dim=-1)

    def log_prob(self, counts: Tensor, library: Tensor, z_b: Tensor, z_p: Tensor, z_a: Tensor) -> Tensor:
        latent = torch.cat([z_b, z_p, z_a], dim=-1)
        hidden = self.decoder.hidden(latent)
        if self.config.linear_path:
            hidden = torch.cat([hidden, latent], dim=-1)
        mean = library * torch.softmax(self.gene_linear(hidden), dim=-1)
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
        """Of each part, in the order and shapes of :func:`package_gradients`."""
        found = {name: getattr(self, name).gradients() for name in NETWORKS}
        found["mask_logits"] = (self.mask_logits.grad,)
        found["log_concentration"] = (self.log_concentration.grad,)
        found["gene_linear"] = (self.gene_linear.weight.grad, self.gene_linear.bias.grad)
        return found


NETWORKS = {
    "embedding_encoder": "embedding.encoder",
    "artifact_encoder": "artifact_encoder",
    "basal_encoder": "basal_encoder",
    "decoder": "decoder",
}
"""Networks here, and what they are called in the package."""


def package_gradients(module: CradleModule) -> dict[str, tuple[Tensor, ...]]:
    """Gradients of a package's module, a joint Linear's weights in one."""
    found = {}
    for name, ours in NETWORKS.items():
        part = module.get_submodule(ours)
        mlp, head = (part, None) if name == "decoder" else (part.mlp, part.head)
        first = torch.cat([weight.grad for weight in mlp.first.weights])
        rest = [p.grad for layer in mlp.layers for p in layer.parameters()]
        heads = [] if head is None else [head.linear.weight.grad, head.linear.bias.grad]
        found[name] = (first, mlp.first.bias.grad, *rest, *heads)
    found["mask_logits"] = (module.mask.logits.grad,)
    found["log_concentration"] = (module.log_concentration.grad,)
    found["gene_linear"] = (module.gene_linear.weight.grad, module.gene_linear.bias.grad)
    return found


def _kl(first: Gaussian, second: Gaussian) -> Tensor:
    ratio = (first.scale / second.scale) ** 2
    return 0.5 * (ratio + ((first.loc - second.loc) / second.scale) ** 2 - 1 - ratio.log())

"""The direct formulation of a training step, which the package is timed and checked against.

It is what one writes from the model's description: a dense batch; the basal encoder run on every cell for every
particle, and again for the counterfactual; every cell decoded with and without artifact; its counts sampled, as
probabilistic programs do, and thrown away; and three lgammas for every particle × cell × gene. It uses a module's
parameters but none of the package's shortcuts, so its loss and gradients must agree with the package's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cradlevae.data.batches import References
from cradlevae.data.contract import Experiment
from cradlevae.model.module import CradleModule
from cradlevae.model.objective import Noise, SplitSizes
from cradlevae.nn.mlp import Gaussian


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

    def __init__(self, data: Experiment, references: References) -> None:
        rows = np.arange(data.n_cells)
        profiles, reference, _ = references.of(rows)
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


def direct_loss(module: CradleModule, batch: DenseBatch, sizes: SplitSizes, noise: Noise) -> dict[str, Tensor]:
    """Terms of the loss, as :func:`cradlevae.model.objective.loss_terms` gives them (one artifact class)."""
    config = module.config
    assert config.objective == "corrected"
    assert config.decode == "concat"
    assert config.guide == "correlated"
    assert module.n_classes == 1
    n_particles, n_cells, _ = noise.basal.shape
    n_perturbations, n_latent = module.mask_logits.shape

    # the guide's global draws
    soft = torch.sigmoid(module.mask_logits + noise.first.mask)
    mask = (soft > 0.5).float() + (soft - soft.detach())
    one_hot = torch.eye(n_perturbations).expand(n_particles, -1, -1)
    q_embedding = module.embedding_encoder(torch.cat([mask, one_hot], dim=-1))
    embedding = q_embedding.loc + q_embedding.scale * noise.first.embedding
    q_artifact = module.artifact_encoder(torch.ones(n_particles, 1, n_latent))
    artifact = q_artifact.loc + q_artifact.scale * noise.first.artifact

    # the guide's draws per cell
    x = batch.counts.expand(n_particles, -1, -1)
    z_p = batch.dosage @ (mask * embedding)
    z_a = batch.artifact @ artifact
    hidden = _basal_hidden(module, x, z_p, z_a)
    q_basal = module.basal_encoder.head(hidden)
    z_b = q_basal.loc + q_basal.scale * noise.basal
    own: Tensor | float = 0.0
    if config.cell_artifact:
        assert noise.cell is not None
        q_cell = module.cell_artifact_head(hidden)
        own = batch.artifact * (q_cell.loc + q_cell.scale * noise.cell)

    # every cell decoded twice
    library = batch.counts.sum(1, keepdim=True)
    passing = _count_log_prob(module, x, library, z_b, z_p, torch.zeros_like(z_a))
    failed = _count_log_prob(module, x, library, z_b, z_p, (1.0 * artifact).expand_as(z_a) + own)
    u = batch.artifact.squeeze(1)
    log_prob = (1 - u) * passing + u * failed  # (particles, cells)

    # divergences
    prior = torch.tensor(config.mask_prior)
    p = torch.sigmoid(module.mask_logits)
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
        mean_square = module.gene_linear.weight.square().mean(0)
        cost = 0.5 * len(module.gene_linear.weight) * (1 + mean_square / config.weight_scale**2).log().sum()
        terms["weights"] = cost / sizes.n_cells

    # the same cells, had their artifact been the other
    flipped = (1 - batch.artifact) @ artifact
    of_cell = module.basal_encoder.head(_basal_hidden(module, x, z_p, flipped))
    of_reference = module.basal_encoder.head(
        _basal_hidden(module, batch.references.expand(n_particles, -1, -1), z_p, flipped)
    )
    divergence = (_kl(of_reference, of_cell).sum(-1) * batch.has_reference).mean()
    terms["counterfactual"] = config.counterfactual_weight * divergence
    return terms


def _basal_hidden(module: CradleModule, counts: Tensor, z_p: Tensor, z_a: Tensor) -> Tensor:
    scale = torch.where(module.log_std > 0, module.log_std, 1.0)
    normalised = torch.where(module.log_std > 0, (counts.log1p() - module.log_mean) / scale, 0.0)
    return module.basal_encoder.mlp(torch.cat([normalised, z_p, z_a], dim=-1))


def _count_log_prob(
    module: CradleModule, counts: Tensor, library: Tensor, z_b: Tensor, z_p: Tensor, z_a: Tensor
) -> Tensor:
    latent = torch.cat([z_b, z_p, z_a], dim=-1)
    hidden = module.decoder(latent)
    if module.config.linear_path:
        hidden = torch.cat([hidden, latent], dim=-1)
    mean = library * torch.softmax(module.gene_linear(hidden), dim=-1)
    concentration = module.log_concentration.exp().expand_as(mean)
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


def _kl(first: Gaussian, second: Gaussian) -> Tensor:
    ratio = (first.scale / second.scale) ** 2
    return 0.5 * (ratio + ((first.loc - second.loc) / second.scale) ** 2 - 1 - ratio.log())

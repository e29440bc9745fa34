"""What training maximises, and what scores a model: ELBO, counterfactual term and IWELBO (model.md).

Terms are losses: minus the mean over cells and particles, so that ``loss`` is their sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cradlevae.data.loading.minibatch import Minibatch
from cradlevae.model.damage.pair_term import pair_terms
from cradlevae.model.globals import Globals, artifact_state, perturbation_state
from cradlevae.model.level_effects import membership
from cradlevae.model.module import CradleModule, failed_cells, sparse_counts
from cradlevae.model.objective_inputs import Noise, SplitSizes
from cradlevae.model.weight_prior import WeightPrior
from cradlevae.nn.counts import SparseCounts
from cradlevae.nn.mlp import Gaussian, gaussian_kl, standard_log_prob


def draw_noise(module: CradleModule, n_cells: int, n_particles: int) -> Noise:
    """Fresh random numbers for :func:`loss_terms`."""
    basal = module.basal_encoder.log_mean.new_empty(n_particles, n_cells, module.n_latent).normal_()
    first = module.draw_noise(n_particles)
    return Noise(
        first,
        basal,
        second=module.draw_noise(n_particles) if module.config.objective == "released" else None,
        cell=torch.randn_like(basal) if module.has_own_artifact else None,
    )


def loss_terms(module: CradleModule, minibatch: Minibatch, sizes: SplitSizes, noise: Noise) -> dict[str, Tensor]:
    """The terms of the loss of a minibatch; ``sum(terms.values())`` is the loss.

    What repeats is computed once: the counts' part of the encoder per cell (not per particle, nor again for the
    counterfactual), perturbations per condition, artifacts per class, references per (condition, class).

    Returns
    -------
    dict
        ``reconstruction`` and ``basal``, and as far as the model has them ``mask``, ``embedding``, ``artifact``,
        ``cell_artifact``, ``gene_effects`` and ``level_effects`` (the ELBO, each as a loss); ``weights`` (the prior of
        the gene weights), ``counterfactual`` (β included), ``pair_counts`` and ``pair_damage``
        (:mod:`cradlevae.model.damage.pair_term`) where they count. Scalars.
    """
    beta = module.config.counterfactual_weight
    draw = module.sample_globals(noise.first.of(minibatch.treatments), minibatch.treatments)
    references = minibatch.references if beta else None
    in_counts = references is None or not len(references)  # of references, too, effects have to be taken out
    shared = _shared(module, minibatch, draw, in_counts=in_counts)
    counts = sparse_counts(minibatch)
    encoded, profiles = module.encode_counts(
        counts, references, shared.offset if in_counts else None, minibatch.condition
    )
    if shared.levels is not None:
        encoded = encoded + shared.levels.of_cells @ shared.levels.encoded
        if beta and len(profiles):
            assert minibatch.reference_levels is not None
            profiles = profiles + minibatch.reference_levels @ shared.levels.encoded
    placed = _placed(encoded, shared, minibatch.condition)  # (P, N, width), artifact left out
    states = _states(module, minibatch, noise, shared, placed)
    gene_weight, weight_cost = _gene_weight(module)
    weight = _cell_weight(module, minibatch, sizes)
    prior_weight = None if module.config.objective == "released" else weight
    terms = {
        "reconstruction": _reconstruction(module, minibatch, draw, shared, states, gene_weight, counts, weight),
        "basal": _basal_term(module, states, prior_weight),
    }
    terms |= _global_terms(module, minibatch, sizes, draw, prior_weight)
    if weight_cost is not None:
        terms["weights"] = weight_cost / sizes.n_cells
    if states.q_own is not None:
        terms["cell_artifact"] = _own_term(minibatch, states.q_own, weight)
    if module.damage_guide is not None:
        terms |= _pair_terms(module, minibatch, beta, like=encoded)
    elif beta and len(minibatch.references):
        terms["counterfactual"] = beta * _counterfactual(module, minibatch, placed, profiles, shared, noise)
    elif beta:
        terms["counterfactual"] = encoded.new_zeros(())
    return terms


def _pair_terms(module: CradleModule, minibatch: Minibatch, beta: float | None, like: Tensor) -> dict[str, Tensor]:
    """The terms of the minibatch's counterfactual pairs; each process has its part of their mean."""
    pairs = minibatch.pairs
    if pairs is None:
        names = (*(("counterfactual",) if beta else ()), "pair_counts", "pair_damage")
        assert module.damage_guide is not None
        nothing = 0 * sum(parameter.sum() for parameter in module.damage_guide.parameters())  # which processes wait for
        return {name: nothing * like.new_ones(()) for name in names}
    part = pairs.n_own * (minibatch.whole or minibatch.n_cells) / (pairs.whole * minibatch.n_cells)
    return {name: part * term for name, term in pair_terms(module, pairs).items()}


@dataclass(frozen=True)
class _Shared:
    """What the cells of a minibatch share: z^p of its conditions, and what that adds to the encoder's first layer."""

    shift: Tensor  # (P, conditions, W)
    by_condition: Tensor | None  # (P, conditions, width); None where the encoder sees the counts alone
    by_class: Tensor | None  # (P, C, width); None where there is no artifact
    offset: Tensor | None  # what gene effects add to the log rates, (conditions, G)
    levels: _Levels | None  # None where cells differ in no column


@dataclass(frozen=True)
class _Levels:
    """Batches, covariates and contexts."""

    of_cells: Tensor  # which levels the cells have, (N, L)
    effects: Tensor  # what levels add to the log rates, (L, G)
    encoded: Tensor  # what they add to the encoder's first layer, (L, width)


def _levels(module: CradleModule, minibatch: Minibatch) -> _Levels | None:
    if module.level_effects is None or minibatch.levels is None:
        return None
    effects = module.level_effects.value
    return _Levels(membership(minibatch.levels, len(effects)), effects, module.encoded_levels())


def _shared(module: CradleModule, minibatch: Minibatch, draw: Globals, *, in_counts: bool = False) -> _Shared:
    """What cells share; with ``in_counts``, gene effects are taken out of the counts themselves."""
    encoder = module.basal_encoder
    shift = minibatch.treatment_dosage @ draw.shift
    offset = module.offset(minibatch.treatment_dosage, minibatch.treatments)
    by_condition = encoder.of_effect(shift) if encoder.sees_effect else None
    if offset is not None and not in_counts:
        without = module.encoded_offset(offset)
        by_condition = without.unsqueeze(0) if by_condition is None else by_condition + without
    return _Shared(
        shift,
        by_condition,
        None if draw.artifact is None else encoder.of_artifact(draw.artifact),
        offset,
        _levels(module, minibatch),
    )


def _placed(encoded: Tensor, shared: _Shared, condition: Tensor) -> Tensor:
    """The encoder's first layer of cells, from what their counts add, (N, width), → (P or 1, N, width)."""
    if shared.by_condition is None:
        return encoded.unsqueeze(0)
    return encoded + shared.by_condition.index_select(1, condition)


def _damaged(placed: Tensor, shared: _Shared, artifact: Tensor) -> Tensor:
    """The encoder's first layer of cells with these artifacts, (N, C)."""
    return placed if shared.by_class is None else placed + artifact @ shared.by_class


@dataclass(frozen=True)
class _States:
    """Draws of the cells' own states, and the posteriors that they come from."""

    q_basal: Gaussian
    z_basal: Tensor  # (P, N, K)
    q_own: Gaussian | None  # of failed cells; None where they have no artifact state of their own
    own: Tensor | None  # (P, failed, K); 0 for the rows that pad


def _states(module: CradleModule, minibatch: Minibatch, noise: Noise, shared: _Shared, placed: Tensor) -> _States:
    encoder = module.basal_encoder
    hidden = encoder.mlp.rest(_damaged(placed, shared, minibatch.artifact))
    moved = shared.shift.index_select(1, minibatch.condition) if encoder.shifted else None
    q_basal = encoder.posterior(hidden, moved)
    z_basal = q_basal.sample(noise.basal)
    if module.own_artifact_head is None:
        return _States(q_basal, z_basal, None, None)
    assert noise.cell is not None
    q_own: Gaussian = module.own_artifact_head(hidden.index_select(1, minibatch.failed))
    own = q_own.sample(noise.cell.index_select(1, minibatch.failed)) * minibatch.failed_weight.unsqueeze(1)
    return _States(q_basal, z_basal, q_own, own)


def _gene_weight(module: CradleModule) -> tuple[Tensor, Tensor | None]:
    """The weights of the gene Linear, and what their prior costs; ``None`` where they have none."""
    weight = module.decoder.gene_linear.weight
    if not module.config.weight_scale:
        return weight, None
    with_prior: tuple[Tensor, Tensor] = WeightPrior.apply(weight, module.config.weight_scale)  # type: ignore[no-untyped-call]
    return with_prior


def _reconstruction(
    module: CradleModule,
    minibatch: Minibatch,
    draw: Globals,
    shared: _Shared,
    states: _States,
    gene_weight: Tensor,
    counts: SparseCounts,
    weight: Tensor,
) -> Tensor:
    """Minus the log probability of the counts, mean over the minibatch's cells."""
    hidden, z_artifact = module.decoder.hidden_of_minibatch(
        states.z_basal, shared.shift, draw.artifact, states.own, minibatch, with_state=module.gene_effects is not None
    )
    of_level = None if shared.levels is None else (shared.levels.of_cells, shared.levels.effects)
    hidden, gene_weight, added = module.with_effects(
        hidden, gene_weight, shared.offset, minibatch.condition, z_artifact, of_level
    )
    bias, library_size = module.decoder.gene_linear.bias, minibatch.library_size
    total, _ = module.likelihood.linear_log_prob(hidden, gene_weight, bias, counts, library_size, weight, added)
    return -total / minibatch.n_cells


def _basal_term(module: CradleModule, states: _States, weight: Tensor | None) -> Tensor:
    """What the basal states cost, mean over the minibatch's cells."""
    score = _score(states.q_basal, states.z_basal, sampled=module.config.objective == "released")  # (N,)
    return -(score if weight is None else score * weight).sum() / len(score)


def _own_term(minibatch: Minibatch, q_own: Gaussian, weight: Tensor) -> Tensor:
    """What the artifact states of failed cells' own cost, mean over the minibatch's cells."""
    divergence = q_own.kl_to_standard().sum(-1).mean(0)  # (failed,)
    of_failed = weight.index_select(0, minibatch.failed) * minibatch.failed_weight
    return (divergence * of_failed).sum() / minibatch.n_cells


def _global_terms(
    module: CradleModule, minibatch: Minibatch, sizes: SplitSizes, draw: Globals, weight: Tensor | None
) -> dict[str, Tensor]:
    """What mask, embedding and artifact cost the cells that share them; only those that the model has.

    In expectation over the last draw (KL in closed form, which has less variance); ``released`` scores the draw.
    """
    sampled = module.config.objective == "released"
    n_t = sizes.per_perturbation.index_select(0, minibatch.treatments)
    of_treatment = _share(minibatch.treatment_dosage, n_t, minibatch.condition, weight)
    terms = {}
    if module.mask is not None:
        assert draw.mask is not None
        treatments = minibatch.treatments
        score = module.mask.sampled_score(draw.mask, treatments) if sampled else module.mask.expected_score(treatments)
        terms["mask"] = -(of_treatment @ score)
    if draw.q_embedding is not None:
        terms["embedding"] = -(of_treatment @ _score(draw.q_embedding, draw.embedding, sampled=sampled))
    if module.artifact is not None and draw.artifact is not None and draw.q_artifact is not None:
        of_class = _share(minibatch.artifact, sizes.per_class, None, weight)
        terms["artifact"] = -(of_class @ module.artifact.score(draw.q_artifact, draw.artifact, sampled=sampled))
    if module.gene_effects is not None:
        information = module.likelihood.information(module.gene_effects.mean_count)
        cost = of_treatment @ module.gene_effects.cost(minibatch.treatments, n_t, information)
        terms["gene_effects"] = cost + module.gene_effects.prior_cost() / sizes.n_cells
    if module.level_effects is not None and minibatch.levels is not None:
        levels, n_l = module.level_effects, sizes.per_level
        of_level = _share(membership(minibatch.levels, len(n_l)), n_l, None, weight)
        information = module.likelihood.information(levels.mean_count)
        cost = of_level @ levels.cost_of_all(n_l, information)
        terms["level_effects"] = cost + levels.prior_cost() / sizes.n_cells
    return terms


def _counterfactual(
    module: CradleModule, minibatch: Minibatch, placed: Tensor, profiles: Tensor, shared: _Shared, noise: Noise
) -> Tensor:
    """How far the posteriors of cells are from those of their references, at the flipped artifact."""
    encoder = module.basal_encoder
    of_cell = encoder.head(encoder.mlp.rest(_damaged(placed, shared, minibatch.flipped)))
    has = (minibatch.reference >= 0).to(placed.dtype)
    if module.config.objective != "released":
        return _divergence(_reference_posterior(module, minibatch, profiles, shared), of_cell, has)
    assert noise.second is not None  # there the reference's posterior has a draw of its own
    second = _shared(
        module, minibatch, module.sample_globals(noise.second.of(minibatch.treatments), minibatch.treatments)
    )
    return _released_divergence(_reference_posterior(module, minibatch, profiles, second), of_cell, has)


def _reference_posterior(module: CradleModule, minibatch: Minibatch, profiles: Tensor, shared: _Shared) -> Gaussian:
    """q(z^b | reference, z^p, flipped z^a) of each cell, (P, N, K); computed once where cells share all three."""
    one = minibatch.twin_cells
    placed = profiles.index_select(0, minibatch.reference.index_select(0, one).clamp_min(0))
    placed = _placed(placed, shared, minibatch.condition.index_select(0, one))
    placed = _damaged(placed, shared, minibatch.flipped.index_select(0, one))
    posterior = module.basal_encoder.head(module.basal_encoder.mlp.rest(placed))
    return Gaussian(posterior.loc.index_select(1, minibatch.twin), posterior.scale.index_select(1, minibatch.twin))


def iwelbo(module: CradleModule, minibatch: Minibatch, draw: Globals, noise: Tensor) -> Tensor:
    """Importance-weighted bound on log p(x) per cell, (N,): log-mean-exp over particles; globals are not scored.

    Parameters
    ----------
    module, minibatch
        A module and cells.
    draw
        A draw of the globals for each particle.
    noise
        Standard normal, behind the cells' basal states and their own artifact states, (2P, N, K).
    """
    n_particles = len(noise) // 2
    counts = sparse_counts(minibatch)
    z_p = perturbation_state(draw, minibatch.dosage, minibatch.condition)
    z_a = artifact_state(draw, minibatch.artifact)
    offset = module.offset(minibatch.dosage)
    of_cells = None if offset is None else offset.index_select(0, minibatch.condition)
    q_basal, q_cell = module.encode(module.encode_counts(counts)[0], z_p, z_a, of_cells, minibatch.levels)
    z_b = q_basal.sample(noise[:n_particles])
    log_ratio = (standard_log_prob(z_b) - q_basal.log_prob(z_b)).sum(-1)
    if q_cell is not None:
        own = q_cell.sample(noise[n_particles:])
        assert z_a is not None
        failed = failed_cells(minibatch.artifact)
        z_a = z_a + failed.unsqueeze(1) * own
        log_ratio = log_ratio + failed * (standard_log_prob(own) - q_cell.log_prob(own)).sum(-1)
    hidden = module.decoder.hidden(z_b, z_p, z_a)
    gene_linear = module.decoder.gene_linear
    levels = _levels(module, minibatch)
    of_level = None if levels is None else (levels.of_cells, levels.effects)
    hidden, weight, added = module.with_effects(hidden, gene_linear.weight, offset, minibatch.condition, z_a, of_level)
    _, log_prob = module.likelihood.linear_log_prob(
        hidden, weight, gene_linear.bias, counts, minibatch.library_size, added=added
    )
    return torch.logsumexp(log_prob + log_ratio, dim=0) - math.log(n_particles)


def _cell_weight(module: CradleModule, minibatch: Minibatch, sizes: SplitSizes) -> Tensor:
    """Weight of each cell's reconstruction, (N,)."""
    share = failed_cells(minibatch.artifact)
    if module.config.objective == "released":
        alpha = share.mean() if module.config.alpha is None else module.config.alpha
        return alpha * (1 - share) + (1 - alpha) * share
    return sizes.class_weight[share.long()]


def _share(indicator: Tensor, n: Tensor, rows: Tensor | None, weight: Tensor | None) -> Tensor:
    """Mean over cells of 1[indicator ≠ 0] / n per column; 0 where the indicator is 0 (also if n = 0)."""
    present = (indicator != 0).to(n.dtype)
    if rows is not None:
        present = present.index_select(0, rows)
    share = (present if weight is None else present * weight.unsqueeze(1)).mean(0)
    return torch.where(share > 0, share / n.clamp_min(1), 0.0)


def _score(posterior: Gaussian, draw: Tensor, *, sampled: bool) -> Tensor:
    """Log p − log q of what is standard normal a priori, summed over latents, mean over particles, (N,)."""
    score = standard_log_prob(draw) - posterior.log_prob(draw) if sampled else -posterior.kl_to_standard()
    return score.sum(-1).mean(0)


def _divergence(of_reference: Gaussian, of_cell: Gaussian, has: Tensor) -> Tensor:
    """KL(q(z^b | reference) ‖ q(z^b | cell)), both at the flipped artifact, mean over the minibatch's cells."""
    return (gaussian_kl(of_reference, of_cell).sum(-1) * has).mean()


def _released_divergence(of_reference: Gaussian, of_cell: Gaussian, has: Tensor) -> Tensor:
    """The public implementation's: no division of the squared difference, summed over cells."""
    ratio = (of_reference.scale / of_cell.scale) ** 2
    terms = (of_reference.loc - of_cell.loc) ** 2 + ratio - ratio.log() - 1
    return 0.5 * (terms.sum(-1) * has).sum() / len(terms)

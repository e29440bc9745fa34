"""The five models of the family as classes; they differ in what they declare and in nothing else."""

from __future__ import annotations

from cradlevae.api.perturbation_vae import PerturbationVAE
from cradlevae.model.family import CONDITIONAL_VAE, CPA_VAE, CRADLE_VAE, SAMS_VAE, SVAE_PLUS
from cradlevae.utils.docs import documented_by


@documented_by(PerturbationVAE)
class CradleVAE(PerturbationVAE):
    """CRADLE-VAE: basal state + sparse perturbation effect + artifact, trained on cells that failed QC as well.

    Ablations are settings: ``counterfactual_weight=0``, ``train_on="passing"``, ``decode="sum"``,
    ``guide="mean-field"``, ``reference=...``, ``artifact_key`` with one criterion (without an artifact latent it is a
    :class:`SAMSVAE` with ``train_on="all", decode="concat"``).

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> adata.obs["artifact"] = adata.obs["true_artifact"]  # or cv.annotate_qc(adata)
    >>> model = cv.CradleVAE(adata, split=cv.split(adata, "cells", seed=0), n_latent=8, width=16)
    >>> model.train(max_epochs=1, progress=False)
    >>> model
    CradleVAE(60 genes, 4 perturbations, artifacts: artifact; trained, 1 epochs)
    >>> model.predict(["A+B", "C"], n_cells=10).shape
    (20, 60)
    >>> sorted(model.effects(["A+B"], credible=0.9, error=1.0).layers)
    ['high', 'lfsr', 'low', 'mc_error', 'sd']
    >>> sorted(model.clean(adata, cells="failed").layers)
    ['expected', 'uncertainty']
    """

    declaration = CRADLE_VAE


@documented_by(PerturbationVAE)
class SAMSVAE(PerturbationVAE):
    """SAMS-VAE: basal state + sparse additive effect, without artifact (Bereket & Karaletsos, NeurIPS 2023).

    The model is trained on the cells that passed QC unless ``train_on="all"`` pools the others with them.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> model = cv.SAMSVAE(adata, artifact_key="true_artifact", n_latent=8, width=16)
    >>> model.train(max_epochs=1, progress=False)
    >>> model.mask_probabilities().shape
    (4, 8)
    """

    declaration = SAMS_VAE


@documented_by(PerturbationVAE)
class SVAEPlus(PerturbationVAE):
    """SVAE+: treatments shift the prior mean of the state sparsely (Lopez et al., CLeaR 2023).

    Every condition is a treatment of its own, so the model cannot predict combinations that were not measured; to ask
    for one is an error that names it.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> model = cv.SVAEPlus(adata, artifact_key="true_artifact", n_latent=8, width=16)
    >>> model
    SVAEPlus(60 genes, 7 conditions, no artifact; not trained)
    """

    declaration = SVAE_PLUS


@documented_by(PerturbationVAE)
class CPAVAE(PerturbationVAE):
    """CPA-VAE: basal state + dense additive effect (the compositional perturbation autoencoder as a VAE).

    Every latent of every perturbation has an effect of its own; there is no mask that switches some of them off.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> model = cv.CPAVAE(adata, artifact_key="true_artifact", n_latent=8, width=16)
    >>> model
    CPAVAE(60 genes, 4 perturbations, no artifact; not trained)
    """

    declaration = CPA_VAE


@documented_by(PerturbationVAE)
class ConditionalVAE(PerturbationVAE):
    """A conditional VAE: encoder and decoder see an indicator of the perturbation, of a combination those of both.

    Nothing is learned of a perturbation but what the networks make of its indicator.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> model = cv.ConditionalVAE(adata, artifact_key="true_artifact", n_latent=8, width=16)
    >>> model
    ConditionalVAE(60 genes, 4 perturbations, no artifact; not trained)
    """

    declaration = CONDITIONAL_VAE

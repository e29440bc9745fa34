"""The family: models that differ in what they declare; networks, likelihood, training and scoring are the same.

All share counts with the mean ℓ · softmax of a decoder. A declaration says how a perturbation moves a cell and what is
known of the move, whether damage has a latent of its own, and what the decoder and the guide of the basal state see.
The engine (:mod:`cradlevae.model.module`, :mod:`cradlevae.model.objective`) reads nothing else of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cradlevae.errors import DataError
from cradlevae.utils.names import closest

Mask = Literal["bernoulli", "beta-bernoulli"]
Embedding = Literal["gaussian", "points", "one-hot"]
Decode = Literal["concat", "sum"]
Guide = Literal["correlated", "mean-field"]
Objective = Literal["corrected", "released"]


@dataclass(frozen=True)
class ModelDeclaration:
    """What a model of the family declares.

    Where several values are listed, the first is the default and the others can be chosen as settings.

    Attributes
    ----------
    key
        Name in registries, files and on the command line, e.g. ``sams_vae``.
    name
        Name of the class that users hold, e.g. ``SAMSVAE``.
    description
        One line.
    embedding
        What a treatment adds to z^p: E_t ~ Normal(0, 1) with a guide (``gaussian``), learned ``points`` without a
        prior, or its own indicator (``one-hot``: z^p is the dosage itself).
    mask
        Whether M ∘ E is what it adds, with a sparse M_tk: ``bernoulli`` (prior π a setting, q(M) of its own) or
        ``beta-bernoulli`` (π_tk ~ Beta(1, 2) at its most probable value, M ~ Bernoulli(π) in prior and guide alike);
        ``None`` is no mask.
    artifact
        Whether cells that failed quality control have a latent z^a of their own.
    treatments
        What has an embedding: the single ``perturbations``, which add up in combinations, or every one of the
        ``conditions`` seen in training; then unseen combinations cannot be predicted.
    prior
        Prior of the basal state: ``standard`` (z^b ~ Normal(0, I), z^p stands beside it) or ``shifted`` (z ~
        Normal(z^p, I); z^b is then z − z^p, which is standard, too).
    encoder
        What the guide of the basal state sees: the ``effect`` z^p beside the counts, or the ``counts`` alone.
    decode
        How the decoder takes the latents: side by side (``concat``) or their ``sum``.
    gene_effects
        Whether a treatment also adds to the log rates of the genes directly (:mod:`cradlevae.model.gene_effects`),
        unless the settings say otherwise.
    guide
        Guides of a ``gaussian`` embedding: ``correlated`` with the mask, or ``mean-field``.
    objective
        Objectives that are known for it.
    """

    key: str
    name: str
    description: str
    embedding: Embedding = "gaussian"
    mask: Mask | None = None
    artifact: bool = False
    treatments: Literal["perturbations", "conditions"] = "perturbations"
    prior: Literal["standard", "shifted"] = "standard"
    encoder: Literal["effect", "counts"] = "effect"
    decode: tuple[Decode, ...] = ("sum", "concat")
    gene_effects: bool = False
    guide: tuple[Guide, ...] = ()
    objective: tuple[Objective, ...] = ("corrected",)

    def __post_init__(self) -> None:
        if self.prior == "shifted" and self.decode != ("sum",):
            raise DataError(f"{self.name}: the decoder of a shifted prior sees z alone; declare decode=('sum',)")
        if self.embedding == "one-hot" and (self.mask or self.prior == "shifted" or self.decode != ("concat",)):
            raise DataError(f"{self.name}: one-hot indicators are no latents; they can only be concatenated, unmasked")
        if bool(self.guide) != (self.embedding == "gaussian"):
            raise DataError(f"{self.name}: a gaussian embedding needs a guide, and no other has one")
        if "correlated" in self.guide and self.mask is None:
            raise DataError(f"{self.name}: a correlated guide depends on a mask; declare one, or guide=('mean-field',)")


FAMILY: dict[str, ModelDeclaration] = {}
"""The declaration of every model, by its key."""


def register(declaration: ModelDeclaration) -> ModelDeclaration:
    """Make a model known; :class:`DataError` if its key or name is taken."""
    if any(declaration.key == other.key or declaration.name == other.name for other in FAMILY.values()):
        raise DataError(
            f"a model {declaration.key!r} ({declaration.name}) is already registered; choose another key and name"
        )
    FAMILY[declaration.key] = declaration
    return declaration


def declaration_of(key: str) -> ModelDeclaration:
    """The declaration with a key; :class:`DataError` if there is none."""
    if key not in FAMILY:
        raise DataError(f"unknown model {key!r}{closest(key, list(FAMILY))}")
    return FAMILY[key]


CRADLE_VAE = register(
    ModelDeclaration(
        "cradle_vae",
        "CradleVAE",
        "basal state + sparse additive effect + artifact, with a counterfactual term",
        mask="bernoulli",
        artifact=True,
        gene_effects=True,
        decode=("concat", "sum"),
        guide=("correlated", "mean-field"),
        objective=("corrected", "released"),
    )
)
SAMS_VAE = register(
    ModelDeclaration(
        "sams_vae",
        "SAMSVAE",
        "basal state + sparse additive effect",
        mask="bernoulli",
        guide=("correlated", "mean-field"),
    )
)
SVAE_PLUS = register(
    ModelDeclaration(
        "svae_plus",
        "SVAEPlus",
        "a state whose prior mean each treatment shifts sparsely",
        embedding="points",
        mask="beta-bernoulli",
        treatments="conditions",
        prior="shifted",
        encoder="counts",
        decode=("sum",),
    )
)
CPA_VAE = register(ModelDeclaration("cpa_vae", "CPAVAE", "basal state + dense additive effect", guide=("mean-field",)))
CONDITIONAL_VAE = register(
    ModelDeclaration(
        "conditional_vae",
        "ConditionalVAE",
        "a state and the perturbation's indicator, in encoder and decoder",
        embedding="one-hot",
        decode=("concat",),
    )
)

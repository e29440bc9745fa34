"""What a model is made of, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from cradlevae.data.damage.operators import DAMAGES, damage_of
from cradlevae.errors import DataError
from cradlevae.model.family import Decode, Guide, ModelDeclaration, Objective, declaration_of
from cradlevae.utils.checks import check_at_least, check_choice
from cradlevae.utils.fields import normalise_fields

TrainOn = Literal["all", "passing"]
"""Cells that a model is trained on: all, or only those that passed quality control."""

Reference = Literal["damaged", "mean", "median", "cell"]
"""What stands for "the same cell, had it been of the other class"."""

PAIR_SHARE = 0.5
"""Counterfactual pairs in a minibatch, as a share of its cells."""

CHOICES: dict[str, tuple[str, ...]] = {
    "decode": get_args(Decode),
    "guide": get_args(Guide),
    "objective": get_args(Objective),
}
"""Settings of which a model offers some of the values."""


@dataclass(frozen=True)
class ModelConfig:
    """Which model of the family, its architecture, priors and objective.

    ``None`` is filled in from the model and from the data: whether it has combinations (Norman, Dixit) or single
    perturbations only (Adamson, Replogle). A setting that a model has no use for is refused.

    Parameters
    ----------
    model
        Key of a model of the family (:data:`cradlevae.model.family.FAMILY`); the class that is trained sets it.
    train_on
        Cells that train and validate: ``all``, or those ``passing`` quality control. ``None`` is ``all`` for a model
        with an artifact latent and ``passing`` for the others; ``all`` then pools failed cells with the others.
    n_latent
        Latent dimensions K; 200 with combinations, 100 without.
    width
        Hidden width of the networks.
    basal_width
        Hidden width of the basal encoder; 400 with combinations, 200 without.
    decode
        How basal state, perturbation effect and artifact meet in the decoder: ``concat`` (CRADLE-VAE's) or ``sum``
        (the siblings').
    guide
        Variational posterior of the perturbation embedding: ``correlated`` (depends on the mask; the default where
        there is one) or ``mean-field``.
    mask_prior
        Prior probability π that a latent is touched by a perturbation; 0.01 with combinations, 0.001 without.
    objective
        ``corrected`` (a bound, a true divergence, references of the opposite class) or ``released`` (the public
        implementation to float32 rounding).
    counterfactual_weight
        Weight β of the counterfactual term; 0.05, and for ``released`` 0.5 with combinations, 0.1 without; 0 without an
        artifact latent.
    alpha
        ``released`` only: weight of passing cells' reconstruction; ``None`` is the minibatch's share of failed cells.
    reference
        What stands for "the same cell, had it been of the other class": ``damaged``, a damaged copy of a passing cell,
        or, of the cells of the other class, their ``mean``, their ``median`` or a random ``cell``. ``released`` always
        takes medians of failed cells.
    damages
        ``reference="damaged"`` only: what may happen to the copies (:data:`cradlevae.data.damage.operators.DAMAGES`).
    pair_share
        ``reference="damaged"`` only: number of counterfactual pairs in a minibatch, as a share of its cells.
    balance_classes
        ``corrected`` only: weigh cells so that passing and failed ones count alike (weights of mean 1).
    linear_path
        ``corrected`` only: the latents also reach the log rates of the genes directly, past the decoder's hidden
        layers, so that effects which add up in the latent space add up in the genes.
    artifact_model
        What damage does to the latent state of a failed cell, for models with an artifact latent
        (:data:`cradlevae.model.artifact.ARTIFACT_MODELS`): ``cell``, a vector for each artifact class and a state of
        the cell's own, so that the basal state need not explain which kind of damage it took; or ``shared``, the vector
        alone (``released`` knows no other).
    likelihood
        Distribution of a count given its mean (:data:`cradlevae.nn.likelihood.LIKELIHOODS`): ``gamma-poisson``.
    gene_effects
        ``corrected`` only: a treatment also adds to the log rate of each gene directly, with an effect that is shrunk
        by a scale of the gene and a scale of the treatment, both learned; by default for CRADLE-VAE alone.
    weight_scale
        ``corrected`` only: smallest prior standard deviation of a column of the gene weights (each has a variance of
        its own); 0 is no prior.
    decoder_layers
        Hidden layers of the decoder.
    basal_layers
        Hidden layers of the basal encoder.
    embedding_layers
        Hidden layers of the embedding and artifact encoders.

    Examples
    --------
    >>> import cradlevae as cv
    >>> config = cv.ModelConfig("sams_vae", n_latent=50)
    >>> config.resolved(combinations=True).mask_prior
    0.01
    """

    model: str = "cradle_vae"
    train_on: TrainOn | None = None
    n_latent: int | None = None
    width: int = 400
    basal_width: int | None = None
    decode: Decode | None = None
    guide: Guide | None = None
    mask_prior: float | None = None
    objective: Objective = "corrected"
    counterfactual_weight: float | None = None
    alpha: float | None = None
    reference: Reference | None = None
    damages: tuple[str, ...] | None = None
    pair_share: float | None = None
    balance_classes: bool = False
    linear_path: bool | None = None
    artifact_model: str | None = None
    likelihood: str = "gamma-poisson"
    gene_effects: bool | None = None
    weight_scale: float | None = None
    decoder_layers: int = 2
    basal_layers: int = 1
    embedding_layers: int | None = None

    def __post_init__(self) -> None:
        normalise_fields(self)
        self._check_offered()
        if self.train_on is not None:
            check_choice("train_on", self.train_on, ("all", "passing"))
        if self.reference is not None:
            check_choice("reference", self.reference, get_args(Reference))
        if self.damages is not None:
            for key in self.damages:
                damage_of(key)
            if not self.damages or len(set(self.damages)) < len(self.damages):
                raise DataError(f"damages={self.damages!r} must name one or more damages, each once")
        if self.pair_share is not None and not 0 < self.pair_share <= 4:
            raise DataError(f"pair_share is {self.pair_share}; it must be above 0 and at most 4")
        if self.objective == "released" and self.likelihood != "gamma-poisson":
            raise DataError("objective='released' is the published model, whose likelihood is 'gamma-poisson'")
        self._check_useful()
        if self.mask_prior is not None and not 0 < self.mask_prior < 1:
            raise DataError(f"mask_prior is {self.mask_prior}; it must lie between 0 and 1")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise DataError(f"alpha is {self.alpha}; it must lie between 0 and 1")
        check_at_least(0, weight_scale=self.weight_scale or 0, counterfactual_weight=self.counterfactual_weight or 0)
        sizes = ("n_latent", "width", "basal_width", "decoder_layers", "basal_layers", "embedding_layers")
        check_at_least(1, **{name: getattr(self, name) for name in sizes if getattr(self, name) is not None})

    @property
    def declaration(self) -> ModelDeclaration:
        """What the model declares."""
        return declaration_of(self.model)

    @property
    def trained_on(self) -> TrainOn:
        """``train_on``, with the model's own choice where it is not set."""
        return self.train_on or ("all" if self.declaration.artifact else "passing")

    def _check_offered(self) -> None:
        """Raise :class:`DataError` for a choice that the model does not offer."""
        declaration = self.declaration
        for name, known in CHOICES.items():
            value, offered = getattr(self, name), getattr(declaration, name)
            if value is None:
                continue
            check_choice(name, value, known)
            if value not in offered:
                choices = f"choose one of {', '.join(offered)}" if offered else "leave it out"
                raise DataError(f"{declaration.name} has no {name}={value!r}; {choices}")

    def _check_useful(self) -> None:
        """Raise :class:`DataError` for a setting that means nothing beside the others."""
        for name, reason in self._useless().items():
            if reason and getattr(self, name):
                raise DataError(f"{reason}, so {name} means nothing; leave it out")

    def _useless(self) -> dict[str, str]:
        """Why settings mean nothing here; an empty text where they do mean something."""
        declaration, released = self.declaration, self.objective == "released"
        no_artifact = "" if declaration.artifact else f"{declaration.name} has no artifact latent"
        published = "objective='released' is the published model, which has none" if released else ""
        networks = (declaration.mask and "correlated" in declaration.guide) or declaration.artifact
        unused = self.counterfactual_weight == 0 and self.reference != "damaged"
        pairs = no_artifact or ("counterfactual_weight is 0" if unused else "")
        copies = pairs or (
            "" if self.reference in (None, "damaged") else f"reference={self.reference!r} damages no copies"
        )
        medians = "objective='released' always takes medians" if released and self.reference != "median" else ""
        one_class = "" if self.trained_on == "all" else f"{declaration.name} is trained on passing cells alone"
        shared = "objective='released' knows the shared one alone" if self.artifact_model != "shared" else ""
        return {
            "mask_prior": ""
            if declaration.mask == "bernoulli"
            else f"{declaration.name} has no mask with a fixed prior",
            "counterfactual_weight": no_artifact,
            "alpha": no_artifact or ("" if released else "objective='corrected' weighs cells by their class"),
            "reference": pairs or medians,
            "damages": published or copies,
            "pair_share": published or copies,
            "balance_classes": published or one_class,
            "linear_path": published,
            "weight_scale": published,
            "gene_effects": published,
            "artifact_model": no_artifact or (shared if released else ""),
            "embedding_layers": "" if networks else f"{declaration.name} has no embedding or artifact encoder",
        }

    def resolved(self, *, combinations: bool) -> ModelConfig:
        """The configuration with every ``None`` that depends on the model or the data filled in."""
        declaration = self.declaration
        released = self.objective == "released"
        weight = (0.5 if combinations else 0.1) if released else 0.05
        weight = (weight if self.counterfactual_weight is None else self.counterfactual_weight) * declaration.artifact
        defaults: dict[str, Any] = {
            "train_on": self.trained_on,
            "n_latent": 200 if combinations else 100,
            "basal_width": 400 if combinations else 200,
            "decode": declaration.decode[0],
            "guide": declaration.guide[0] if declaration.guide else None,
            "mask_prior": (0.01 if combinations else 0.001) if declaration.mask == "bernoulli" else None,
            "counterfactual_weight": weight,
            "reference": ("median" if released else "damaged") if weight else None,
            # the published model has none of these
            "gene_effects": declaration.gene_effects and not released,
            "linear_path": not released,
            "weight_scale": 0.0 if released else 0.02,
            "artifact_model": ("shared" if released else "cell") if declaration.artifact else None,
            "embedding_layers": 4 if not self._useless()["embedding_layers"] else None,
        }
        if (self.reference or defaults["reference"]) == "damaged":
            defaults |= {"damages": tuple(DAMAGES), "pair_share": PAIR_SHARE}
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

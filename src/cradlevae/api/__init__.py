"""The classes and functions that users hold: a model for an experiment, and every question that it answers."""

from cradlevae.api.family import CPAVAE, SAMSVAE, ConditionalVAE, CradleVAE, SVAEPlus
from cradlevae.api.load import load
from cradlevae.api.perturbation_vae import CLASSES, PerturbationVAE
from cradlevae.api.score import evaluate, to_cell_eval

__all__ = [
    "CLASSES",
    "CPAVAE",
    "SAMSVAE",
    "ConditionalVAE",
    "CradleVAE",
    "PerturbationVAE",
    "SVAEPlus",
    "evaluate",
    "load",
    "to_cell_eval",
]

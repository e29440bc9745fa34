"""Figures: of answers, of cells, of an experiment and of a training.

Each function of one panel takes axes (``ax=``) and then returns them, or makes a figure; the others return a figure.
A notebook shows a figure where it is the value of a cell. Figures have the width of one or two columns of a journal
page (85 and 180 mm); ``figure.savefig("figure.pdf")`` writes one.

Names are imported when they are first used, as those of :mod:`cradlevae` are.

Examples
--------
>>> import cradlevae as cv
>>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
>>> figure = cv.pl.confounding(cv.confounding_alarm(adata, artifact_key="true_artifact"))
>>> figure.get_suptitle()
'None of 7 perturbations is seen to change how often cells fail quality control'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cradlevae.reporting.answers.expression import expression as expression
    from cradlevae.reporting.answers.heatmap import effect_heatmap as effect_heatmap
    from cradlevae.reporting.answers.interactions import interactions as interactions
    from cradlevae.reporting.answers.responders import responders as responders
    from cradlevae.reporting.answers.volcano import volcano as volcano
    from cradlevae.reporting.cleaned import cleaned as cleaned
    from cradlevae.reporting.damage import damage as damage
    from cradlevae.reporting.effects import effects as effects
    from cradlevae.reporting.scores import scores as scores
    from cradlevae.reporting.screen.confounding import confounding as confounding
    from cradlevae.reporting.screen.guides import guides as guides
    from cradlevae.reporting.screen.qc import qc as qc
    from cradlevae.reporting.screen.strata import balance as balance
    from cradlevae.reporting.screen.strata import batches as batches
    from cradlevae.reporting.screen.strata import contexts as contexts
    from cradlevae.reporting.signature import signature as signature
    from cradlevae.reporting.training import training as training

_HOMES = {
    "answers.expression": ("expression",),
    "answers.heatmap": ("effect_heatmap",),
    "answers.interactions": ("interactions",),
    "answers.responders": ("responders",),
    "answers.volcano": ("volcano",),
    "cleaned": ("cleaned",),
    "damage": ("damage",),
    "effects": ("effects",),
    "scores": ("scores",),
    "screen.confounding": ("confounding",),
    "screen.guides": ("guides",),
    "screen.qc": ("qc",),
    "screen.strata": ("balance", "batches", "contexts"),
    "signature": ("signature",),
    "training": ("training",),
}
"""The public names by the module of :mod:`cradlevae.reporting` that defines them."""

_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cradlevae.pl' has no attribute {name!r}")
    value = getattr(import_module(f"cradlevae.reporting.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

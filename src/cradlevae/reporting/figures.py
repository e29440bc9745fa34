"""All figures of the report, by name; each returns a matplotlib Figure and draws nothing on any screen."""

from __future__ import annotations

from cradlevae.reporting.cleaned import cleaned_figure
from cradlevae.reporting.damage import damage_figure
from cradlevae.reporting.effects import effects_figure
from cradlevae.reporting.own_scores import own_scores_figure
from cradlevae.reporting.save import save_figure
from cradlevae.reporting.scores import scores_figure
from cradlevae.reporting.screen.balance import balance_figure, batches_figure, contexts_figure
from cradlevae.reporting.screen.confounding import confounding_figure
from cradlevae.reporting.screen.guides import guides_figure
from cradlevae.reporting.screen.qc import qc_figure
from cradlevae.reporting.signature import signature_figure
from cradlevae.reporting.training import training_figure

__all__ = [
    "balance_figure",
    "batches_figure",
    "cleaned_figure",
    "confounding_figure",
    "contexts_figure",
    "damage_figure",
    "effects_figure",
    "guides_figure",
    "own_scores_figure",
    "qc_figure",
    "save_figure",
    "scores_figure",
    "signature_figure",
    "training_figure",
]

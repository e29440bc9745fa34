"""All figures of the report, by name; each returns a matplotlib Figure and draws nothing on any screen."""

from __future__ import annotations

from cradlevae.reporting.answers.expression import expression as expression_figure
from cradlevae.reporting.answers.heatmap import effect_heatmap
from cradlevae.reporting.answers.interactions import interactions as interactions_figure
from cradlevae.reporting.answers.responders import responders as responders_figure
from cradlevae.reporting.answers.volcano import volcano as volcano_figure
from cradlevae.reporting.cleaned import cleaned as cleaned_figure
from cradlevae.reporting.damage import damage as damage_figure
from cradlevae.reporting.effects import effects_figure
from cradlevae.reporting.own_scores import own_scores_figure
from cradlevae.reporting.save import save_figure
from cradlevae.reporting.scores import scores as scores_figure
from cradlevae.reporting.screen.balance import balance_figure, batches_figure, contexts_figure
from cradlevae.reporting.screen.confounding import confounding as confounding_figure
from cradlevae.reporting.screen.guides import guides as guides_figure
from cradlevae.reporting.screen.qc import qc as qc_figure
from cradlevae.reporting.signature import signature as signature_figure
from cradlevae.reporting.training import training as training_figure

__all__ = [
    "balance_figure",
    "batches_figure",
    "cleaned_figure",
    "confounding_figure",
    "contexts_figure",
    "damage_figure",
    "effect_heatmap",
    "effects_figure",
    "expression_figure",
    "guides_figure",
    "interactions_figure",
    "own_scores_figure",
    "qc_figure",
    "responders_figure",
    "save_figure",
    "scores_figure",
    "signature_figure",
    "training_figure",
    "volcano_figure",
]

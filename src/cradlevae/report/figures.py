"""All figures of the report, by name; each returns a matplotlib Figure and draws nothing on any screen."""

from __future__ import annotations

from cradlevae.report.cleaned import cleaned_figure
from cradlevae.report.confounding import confounding_figure
from cradlevae.report.effects import effects_figure
from cradlevae.report.qc import qc_figure
from cradlevae.report.save import save_figure
from cradlevae.report.scores import scores_figure
from cradlevae.report.signature import signature_figure
from cradlevae.report.training import training_figure

__all__ = [
    "cleaned_figure",
    "confounding_figure",
    "effects_figure",
    "qc_figure",
    "save_figure",
    "scores_figure",
    "signature_figure",
    "training_figure",
]

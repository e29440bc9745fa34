"""Metrics: functions that turn a prediction and what it is compared with into a number, registered by name.

Importing the package registers its own metrics; it depends on nothing else of the evaluation.
"""

from cradlevae.evaluation.metrics import calibration, cells, clean, de, effects, latents, mixing, responses, vcc2026

__all__ = ["calibration", "cells", "clean", "de", "effects", "latents", "mixing", "responses", "vcc2026"]

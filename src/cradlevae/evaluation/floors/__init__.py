"""Floors: what a line of algebra predicts. Importing the package registers its own floors."""

from cradlevae.evaluation.floors import algebra, other_contexts

__all__ = ["algebra", "other_contexts"]

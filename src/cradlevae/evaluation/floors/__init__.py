"""Floors: what a line of algebra predicts. Importing the package registers its own floors."""

from cradlevae.evaluation.floors import algebra

__all__ = ["algebra"]

"""Numbers of the published count likelihood."""

from __future__ import annotations

MEAN_OFFSET = 1e-4
"""Added to the mean of a count."""

MIN_RATE = 1e-6
"""Floor of the rate of the Gamma-Poisson distribution."""

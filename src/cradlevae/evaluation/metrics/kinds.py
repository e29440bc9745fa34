"""The kinds of metrics: what a metric of each kind is given, and so which scorer computes it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import product

LATENTS = ("z_basal", "z_perturbation")
"""Latent states that should not tell whether a cell is damaged."""

DRAWS, MEANS = "draws", "means"
"""What stands for a latent state of a cell: draws from its posterior, or its posterior mean."""

LEAKAGE_DRAWS = 5
"""Draws from the posterior of each cell's latent states."""

MADS = (3.0, 4.0, 5.0)
"""Numbers of median absolute deviations at which the QC thresholds are set."""

PREDICTIVE, CREDIBLE = "predictive", "credible"
"""Intervals for measured effects (widened by the noise of the measurement), and for true effects."""

LEVELS = (50, 90)
"""Nominal coverage of the intervals, in percent."""

ALL_GENES, LARGEST_GENES = "all genes", "largest effects"
"""Which effects of a perturbation are looked at: all, or those on its genes of largest real effect."""


@dataclass(frozen=True)
class Kind:
    """A kind of metric.

    Attributes
    ----------
    name
        Name of the kind, as given to :func:`~cradlevae.evaluation.metrics.registry.metric`.
    arguments
        What every function of this kind is given, in this order.
    options
        What a function of this kind is given by keyword if it has a parameter of that name.
    on
        The inputs on which a metric can be computed, the default first; empty where there is only one.
    """

    name: str
    arguments: tuple[str, ...]
    options: tuple[str, ...] = ()
    on: tuple[Hashable, ...] = ()

    @property
    def signature(self) -> str:
        """The signature in words, e.g. ``"(real, predicted, *, perturbations, genes)"``."""
        star = ("*",) if self.options else ()
        return f"({', '.join((*self.arguments, *star, *self.options))})"


_INTERVALS = tuple(product((PREDICTIVE, CREDIBLE), sorted(LEVELS, reverse=True), (ALL_GENES, LARGEST_GENES)))

KINDS = {
    kind.name: kind
    for kind in (
        Kind("effect", ("real", "predicted"), ("perturbations", "genes", "symbols")),
        Kind("response", ("real", "predicted"), ("weights", "hits")),
        Kind("counts", ("real", "predicted")),
        Kind("cells", ("real", "generated")),
        Kind("de", ("real", "predicted")),
        Kind("qc", ("fails",), on=MADS),
        Kind("calibration", (), ("real", "low", "high", "where"), on=_INTERVALS),
        Kind("likelihood", ("log_likelihood",)),
        Kind("leakage", ("states", "failed"), ("seed",), on=tuple(product(LATENTS, (DRAWS, MEANS)))),
        Kind("mask", ("true_mask", "probability")),
        Kind("signature", ("truth", "log2_fold_change")),
        Kind("clean", ("true_counts", "profile")),
        Kind("mixing", ("cells",), ("seed",)),
    )
}
"""Every kind by name; each is scored by one function of :mod:`cradlevae.evaluation.scorers`."""

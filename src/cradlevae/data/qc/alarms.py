"""What quality control warns about: criteria that fail suspiciously many cells, gene names, small batches."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from cradlevae.data.qc.gene_families import GENE_FAMILIES, LOOKED_FOR
from cradlevae.data.qc.rules import MIN_BATCH, Batches, small_batches
from cradlevae.utils.types import BoolArray, FloatArray

NORMAL_MAD = NormalDist().inv_cdf(0.75)
"""MAD of a normal distribution, in standard deviations."""

MANY_SHARE, MANY_TIMES = 0.1, 5.0
"""A criterion that fails more than this share, and more than so many times the tail, fails suspiciously many cells."""

HEALTHY_SHARE, HEALTHY_TIMES = 0.05, 2.0
"""The same where the cells that fail have as many counts as those that pass."""


def warn_of_shares(
    fails: Mapping[str, BoolArray], values: Mapping[str, FloatArray], n_mads: float, max_fail_share: float
) -> None:
    """Warn of each criterion that fails so many cells that it may be biology, not damage.

    A criterion is named if one of these holds:

    - It fails more than ``max_fail_share`` of the cells.
    - It is a percentage that fails more than a tenth of the cells, and more than five times as many as lie beyond the
      threshold in a normal distribution of the same median and MAD (2.2 % at 3 MADs): its values have a second mode.
    - It is a percentage that fails more than 5 % of the cells, and more than twice that tail, and these cells have more
      counts than those that pass, in more than half of all pairs: damaged cells lose mRNA, so they look healthy.

    Parameters
    ----------
    fails
        Which cells fail each assessed criterion, (cells,).
    values
        Value of each cell by criterion, (cells,).
    n_mads
        Number of MADs between median and threshold.
    max_fail_share
        Share of the cells; 1 switches all warnings off.
    """
    if max_fail_share == 1:
        return
    tail = 1 - NormalDist().cdf(n_mads * NORMAL_MAD)
    for criterion, failed in fails.items():
        share = float(failed.mean())
        why = ""
        if share > max_fail_share:
            why = f"more than {max_fail_share:.0%} (max_fail_share)"
        elif criterion in GENE_FAMILIES and share > max(MANY_SHARE, MANY_TIMES * tail):
            why = f"{share / tail:.0f} times the tail of a normal distribution with its median and MAD"
        elif (
            criterion in GENE_FAMILIES
            and share > max(HEALTHY_SHARE, HEALTHY_TIMES * tail)
            and _more_often_larger(values["umi"], failed)
        ):
            why = (
                f"{share / tail:.1f} times the tail of a normal distribution with its median and MAD, and these cells "
                "have no fewer counts than the others, as damaged ones would"
            )
        if why:
            _warn_of_share(criterion, share, why)


def _warn_of_share(criterion: str, share: float, why: str) -> None:
    warnings.warn(
        f"QC criterion {criterion!r} fails {share:.0%} of the cells, {why}. "
        "That may be biology and not damage: K562 cells, for one, express haemoglobin. "
        "It counts; to switch it off, leave it out of criteria=",
        stacklevel=4,
    )


def _more_often_larger(values: FloatArray, chosen: BoolArray) -> bool:
    """Whether the values of chosen cells exceed those of other cells in more than half of all pairs."""
    others = np.sort(values[~chosen])
    if len(others) == 0:
        return False
    below, up_to = (np.searchsorted(others, values[chosen], side=side) for side in ("left", "right"))
    return bool((below + up_to).mean() > len(others))


def warn_of_absent_genes(criteria: Sequence[str], absent: Mapping[str, str], advice: str) -> None:
    """Warn where no gene of any family that is to be assessed has a name that is recognised."""
    families = [criterion for criterion in criteria if criterion in GENE_FAMILIES]
    unnamed = [criterion for criterion in families if absent.get(criterion, "").startswith("no ")]
    if unnamed and unnamed == families:
        looked_for = "; ".join(f"{criterion}: {LOOKED_FOR[criterion]}" for criterion in unnamed)
        warnings.warn(
            f"not assessed: {', '.join(unnamed)}. No gene has a fitting name ({looked_for}): {advice}", stacklevel=3
        )


def warn_of_small_batches(batches: Batches, empty: BoolArray) -> None:
    """Warn of batches that are too small for thresholds of their own."""
    small = [batches.names[index] for index in small_batches(batches, empty)]
    if small:
        shown = ", ".join(map(repr, small[:5])) + (", …" if len(small) > 5 else "")
        warnings.warn(
            f"batches with fewer than {MIN_BATCH} cells with counts get the thresholds of all batches together: "
            f"{shown}",
            stacklevel=3,
        )

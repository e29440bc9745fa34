"""The likelihoods that are known: the one that ships with the package, and those that are registered beside it."""

from __future__ import annotations

import cradlevae.nn.gamma_poisson  # noqa: F401 (registers itself)
from cradlevae.errors import DataError
from cradlevae.nn.likelihood import LIKELIHOODS, Likelihood
from cradlevae.utils.names import closest


def likelihood_of(key: str) -> type[Likelihood]:
    """The likelihood with a key.

    Raises
    ------
    DataError
        If there is none; the message gives the closest keys.
    """
    if key not in LIKELIHOODS:
        raise DataError(f"unknown likelihood {key!r}{closest(key, list(LIKELIHOODS))}")
    return LIKELIHOODS[key]

"""What the data of a training were: digests that tell, on resuming and on attaching data again, what is another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from cradlevae.data.experiment import Experiment
from cradlevae.data.identity.fingerprint import count_sums, gene_keys
from cradlevae.data.storage.stored_matrix import StoredMatrix, row_blocks
from cradlevae.errors import DataError
from cradlevae.utils.types import IndexArray

PARTS = {
    "genes": "the genes or their order",
    "perturbations": "the perturbations",
    "cells": "the training and validation cells",
    "order": "the order of the cells",
    "labels": "the perturbation labels of the cells",
    "artifact": "the artifact columns",
    "levels": "the batches, covariates or contexts of the cells",
    "counts": "the counts",
}
"""What is digested, in words."""


def training_content(data: Experiment, rows: Mapping[str, IndexArray]) -> dict[str, str]:
    """Digests of all that training reads of the data, by the names in :data:`PARTS`.

    Parameters
    ----------
    data
        The experiment.
    rows
        Rows of the training and of the validation cells.
    """
    used = np.sort(np.concatenate(list(rows.values())))
    names = np.array(data.cells[used], dtype=object)
    by_name = np.argsort(names, kind="stable")
    in_order = used[by_name]  # by name, so that the digests of what belongs to cells do not depend on their order
    keys = gene_keys(list(data.genes))
    sums = np.concatenate(
        [np.zeros(0, np.int64), *(count_sums(part, keys) for _, part in row_blocks(data.counts, used))]
    )
    return {
        "genes": _digest(data.genes),
        "perturbations": _digest(data.own_treatments),
        "cells": _digest(names[by_name]),
        "order": _digest(names),
        "labels": _digest(data.conditions[code] for code in data.condition[in_order]),
        "levels": _digest(
            part
            for factor in data.factors
            for part in (factor.key, *factor.levels, factor.codes[in_order].tobytes().hex())
        ),
        "artifact": _digest([*data.criteria, data.artifact[in_order].tobytes().hex()]),
        "counts": _digest([sums[by_name].tobytes().hex()]),
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs between two contents, in words."""
    return [text for name, text in PARTS.items() if before.get(name) != now.get(name)]


def content_in_memory(data: Experiment, rows: Mapping[str, IndexArray]) -> dict[str, str] | None:
    """Digests of the cells that train and validate, where their counts are in memory, which may be the AnnData's own.

    ``None`` for counts on disk, which nobody changes by accident.
    """
    if isinstance(data.counts, StoredMatrix):
        return None
    return training_content(data, rows)


def refuse_changed(before: dict[str, str] | None, now: dict[str, str]) -> None:
    """Raise :class:`DataError` if the counts in memory were changed after they were read."""
    if before is not None and differences(before, now):
        raise DataError(
            "the counts of the AnnData were changed in place after the model was made, so its library sizes and "
            "statistics are no longer theirs; make the model anew"
        )


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(str(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()

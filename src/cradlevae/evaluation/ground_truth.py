"""What simulated data, and data with planted artifacts, know of the truth: counts without artifact, and a signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cradlevae.data.experiment import Experiment
from cradlevae.data.storage.counts import Counts
from cradlevae.data.storage.stored_matrix import CountMatrix, subset_rows
from cradlevae.utils.types import AnnDataLike, FloatArray, IndexArray


def clean_counts(adata: AnnDataLike, data: Experiment, layer: str) -> CountMatrix:
    """The true artifact-free counts of the experiment's cells, which a layer holds."""
    rows = np.sort(adata.obs_names.get_indexer(data.cells))
    columns = adata.var_names.get_indexer(data.genes)
    return subset_rows(Counts(adata, layer).matrix(columns), rows)


def truth_columns(truth: Any, genes: Sequence[str]) -> IndexArray | None:
    """Columns of the arrays in ``uns["truth"]`` that hold these genes; ``None`` where it does not know all of them."""
    if truth is None or "genes" not in truth:
        return None
    columns = pd.Index([str(name) for name in truth["genes"]]).get_indexer(pd.Index(genes))
    return None if (columns < 0).any() else np.asarray(columns)


def true_signature(truth: Any, genes: Sequence[str]) -> FloatArray | None:
    """True artifact signature of these genes in simulated data, (genes,); ``None`` where it is not known.

    Parameters
    ----------
    truth
        ``uns["truth"]`` of simulated data, or ``None``.
    genes
        Names of the genes.
    """
    columns = truth_columns(truth, genes)
    if columns is None or "artifact_signature" not in truth:
        return None
    return np.asarray(truth["artifact_signature"], dtype=np.float64)[columns]


def true_effects(truth: Any) -> dict[tuple[str | None, str], FloatArray]:
    """True effects by context (``None`` for the mean over contexts) and condition, (all simulated genes,) each."""
    tables: dict[str | None, Any] = {None: truth["effects"]}
    if "effects_by_context" in truth:
        contexts = [str(name) for name in truth["contexts"]]
        tables |= dict(zip(contexts, truth["effects_by_context"], strict=True))
    names = [str(name) for name in truth["effect_conditions"]]
    return {
        (context, name): np.asarray(row, dtype=np.float64)
        for context, table in tables.items()
        for name, row in zip(names, table, strict=True)
    }

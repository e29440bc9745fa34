"""What figures read of tables of effects: conditions × genes with layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from cradlevae.errors import DataError
from cradlevae.utils.checks import check_anndata
from cradlevae.utils.types import AnnDataLike, FloatArray


def need_layers(effects: AnnDataLike, *names: str) -> None:
    """Raise :class:`DataError` unless this is an AnnData with these layers, of at least one condition and gene."""
    check_anndata(effects, "effects")
    absent = [name for name in names if name not in effects.layers]
    if absent:
        raise DataError(f"the effects have no layer {absent[0]!r}; give what model.effects returns")
    if 0 in effects.shape:
        raise DataError(f"the effects are {effects.shape[0]} conditions × {effects.shape[1]} genes: there is nothing")


def matrix_of(effects: AnnDataLike) -> FloatArray:
    """Effects, (conditions, genes)."""
    return _dense(effects.X)


def layer_of(effects: AnnDataLike, name: str) -> FloatArray:
    """A layer of the effects, (conditions, genes)."""
    return _dense(effects.layers[name])


def n_cells_of(effects: AnnDataLike) -> FloatArray | None:
    """Training cells of each condition, (conditions,); ``None`` where that is not known."""
    return effects.obs["n_cells"].to_numpy(dtype=np.float64) if "n_cells" in effects.obs else None


def effect_unit(effects: AnnDataLike) -> str:
    """Unit of the effects."""
    settings = dict(getattr(effects, "uns", {}).get("effects", {}))
    return "Δ counts" if settings.get("scale") == "mean" else "Δ log2"


def _dense(matrix: Any) -> FloatArray:
    dense = matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
    return np.asarray(dense, dtype=np.float64)

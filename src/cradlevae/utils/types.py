"""Types that every part uses: arrays by their content, and the parts of an AnnData that this package reads."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
"""Integer codes, such as the condition of each cell."""

TextArray = npt.NDArray[np.object_]
"""Texts, such as the label of each cell."""

IndexArray = npt.NDArray[np.intp]
"""Positions of cells or genes."""

AnyIntArray = npt.NDArray[np.integer[Any]]


class AnnDataLike(Protocol):
    """An AnnData in memory, a backed one or a view of one, or :class:`cradlevae.StoredCells`."""

    obs: pd.DataFrame
    """A row for each cell."""

    @property
    def var(self) -> pd.DataFrame:
        """A row for each gene."""

    @property
    def obs_names(self) -> pd.Index[str]:
        """Names of the cells."""

    @property
    def var_names(self) -> pd.Index[str]:
        """Names of the genes."""

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of cells and of genes."""

    @property
    def n_obs(self) -> int:
        """The number of cells."""

    @property
    def n_vars(self) -> int:
        """The number of genes."""

    @property
    def X(self) -> Any:
        """The main matrix, cells × genes."""

    @property
    def layers(self) -> Mapping[str, Any]:
        """Further matrices of the same shape."""

    @property
    def obsm(self) -> Mapping[str, Any]:
        """Matrices with a row for each cell."""

    @property
    def uns(self) -> MutableMapping[str, Any]:
        """Unstructured annotation."""

    def __getitem__(self, index: Any) -> Any:
        """Return some cells, by name, position or mask."""

"""Where an AnnData holds the labels, the artifact columns and the counts that a model reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from cradlevae.data.labels import DEFAULT_CONTROLS, closest
from cradlevae.errors import DataError
from cradlevae.utils.types import AnnDataLike


@dataclass(frozen=True)
class DataFields:
    """Where an AnnData holds the labels, the artifact columns and the counts that a model reads.

    Parameters
    ----------
    perturbation_key
        Column of ``obs`` with the perturbation labels.
    artifact_key
        Boolean (or 0/1) column of ``obs``, true for cells that failed quality control; or several columns, one per
        QC criterion.
    layer
        Layer with the raw counts; ``None`` reads ``X``.
    control_labels
        Labels of unperturbed cells; case does not matter.
    separator
        Text between the single perturbations of a combination in a label; ``None`` where no label is a combination, so
        that names may hold any text (``Na+``).
    guides_key
        Key of ``obsm`` with a guide-count matrix (a DataFrame, cells × target genes), read instead of
        ``perturbation_key``; a column whose name is a control label holds non-targeting guide RNAs.
    guide_min_count
        Smallest count at which a guide RNA counts as present.
    gene_symbols
        Column of ``var`` with gene symbols, where ``var_names`` are Ensembl ids; labels are compared with it to find
        the genes that a perturbation targets. ``None`` where ``var_names`` are the symbols.

    Raises
    ------
    DataError
        If ``separator`` is empty.

    Examples
    --------
    >>> import cradlevae as cv
    >>> fields = cv.DataFields(perturbation_key="gene", control_labels="NT", artifact_key=("umi", "mito"))
    >>> fields.control_labels, fields.criteria
    (('NT',), ('umi', 'mito'))
    """

    perturbation_key: str = "perturbation"
    artifact_key: str | tuple[str, ...] = "artifact"
    layer: str | None = None
    control_labels: tuple[str, ...] = DEFAULT_CONTROLS
    separator: str | None = "+"
    guides_key: str | None = None
    guide_min_count: float = 1.0
    gene_symbols: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.control_labels, str):  # one label, not its letters
            object.__setattr__(self, "control_labels", (self.control_labels,))
        for name in ("control_labels", "artifact_key"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.separator is not None and not self.separator.strip():
            raise DataError(
                "separator is empty; name what stands between the perturbations of a combination, e.g. '+', or use "
                "separator=None where there are no combinations"
            )

    @property
    def criteria(self) -> tuple[str, ...]:
        """Names of the artifact classes: one ``obs`` column each."""
        return (self.artifact_key,) if isinstance(self.artifact_key, str) else tuple(self.artifact_key)


def obs_column(adata: AnnDataLike, key: str, mend: str) -> pd.Series[Any]:
    """Return a column of ``obs``; where it is missing, raise :class:`DataError` that ends with the ``mend``."""
    if key not in adata.obs:
        raise DataError(f"no column {key!r} in obs{closest(key, list(adata.obs.columns))}; {mend}")
    column: pd.Series[Any] = adata.obs[key]
    return column

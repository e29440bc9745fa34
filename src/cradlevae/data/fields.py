"""Where an AnnData holds the labels, the artifact columns and the counts that a model reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from cradlevae.data.labels import DEFAULT_CONTROLS
from cradlevae.errors import DataError
from cradlevae.utils.checks import check_columns, real_number, texts
from cradlevae.utils.fields import normalise_fields
from cradlevae.utils.names import closest
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
    batch_key
        Column of ``obs`` with the experimental batch of each cell (10x lane, replicate, day): a nuisance. Effects are
        then contrasts within batch. ``None`` takes all cells for one batch.
    covariate_keys
        Further columns of ``obs`` with categories that change expression and are of no interest (sex, protocol); what
        they change adds up with the batch.
    context_key
        Column of ``obs`` with what an effect may depend on (cell line, donor, stimulus): effects can be asked for in
        each context, and are scored within it. ``None`` takes all cells for one context.

    Raises
    ------
    DataError
        If a field is of another type than it should be, ``separator`` or a name is empty, or one column stands for two
        things.

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
    batch_key: str | None = None
    covariate_keys: tuple[str, ...] = ()
    context_key: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "control_labels", texts("control_labels", self.control_labels, empty=True))
        object.__setattr__(self, "covariate_keys", texts("covariate_keys", self.covariate_keys or ()))
        if not isinstance(self.artifact_key, str):
            object.__setattr__(self, "artifact_key", texts("artifact_key", self.artifact_key))
        normalise_fields(self)
        self._check_names()
        real_number("guide_min_count", self.guide_min_count, above=0)
        if self.separator == "":
            raise DataError(
                "separator is empty; name what stands between the perturbations of a combination, e.g. '+', or use "
                "separator=None where there are no combinations"
            )

    def _check_names(self) -> None:
        """Raise :class:`DataError` for names that are empty or stand twice."""
        for name in ("perturbation_key", "artifact_key", "layer", "guides_key", "batch_key", "context_key"):
            if getattr(self, name) in ("", ()):
                raise DataError(f"{name} is empty; name a key of the AnnData")
        if len(set(self.criteria)) < len(self.criteria):
            raise DataError(f"artifact_key is {self.artifact_key!r}; name each column once")
        self._check_columns()

    def _check_columns(self) -> None:
        """Raise :class:`DataError` where one column of ``obs`` is to be two things."""
        labels = (self.perturbation_key,) if self.guides_key is None else ()
        used = {"perturbation_key": labels, "artifact_key": self.criteria}
        used |= {
            "batch_key": () if self.batch_key is None else (self.batch_key,),
            "covariate_keys": self.covariate_keys,
            "context_key": () if self.context_key is None else (self.context_key,),
        }
        seen: dict[str, str] = {}
        for field, columns in used.items():
            for column in columns:
                if column not in seen:
                    seen[column] = field
                elif {seen[column], field} == {"batch_key", "context_key"}:
                    raise DataError(
                        f"batch_key and context_key are both {column!r}: what effects depend on is a context, and each "
                        "context has its own controls in any case; leave batch_key out"
                    )
                else:
                    raise DataError(f"{field} and {seen[column]} both name the column {column!r}; give it once")

    @property
    def criteria(self) -> tuple[str, ...]:
        """Names of the artifact classes: one ``obs`` column each."""
        return (self.artifact_key,) if isinstance(self.artifact_key, str) else tuple(self.artifact_key)


def fields_of(given: DataFields | None, options: Mapping[str, Any]) -> DataFields:
    """Return the fields that a caller means who gives them as a whole, one by one, or both.

    Parameters
    ----------
    given
        All fields, or ``None``.
    options
        Single fields by name; they complete ``given`` where it leaves a field at its default.

    Raises
    ------
    DataError
        If an option is unknown, or says something else than ``given``.
    """
    known = [entry.name for entry in fields(DataFields)]
    for name in options:
        if name not in known:
            raise DataError(f"unknown option {name!r}{closest(name, known)}")
    single = DataFields(**options)
    if given is None:
        return single
    if not isinstance(given, DataFields):
        raise DataError(f"fields is {given!r}; it must be a cradlevae.DataFields")
    for name in options:
        whole, own = getattr(given, name), getattr(single, name)
        if whole != own and whole != getattr(DataFields(), name):
            raise DataError(f"{name} is {own!r}, but fields= has {whole!r}; give it once")
    return replace(given, **{name: getattr(single, name) for name in options})


def obs_column(adata: AnnDataLike, key: str, mend: str) -> pd.Series[Any]:
    """Return a column of ``obs``; where it is missing, raise :class:`DataError` that ends with the ``mend``."""
    check_columns(adata.obs, "obs")
    if key not in adata.obs:
        raise DataError(f"no column {key!r} in obs{closest(key, list(adata.obs.columns))}; {mend}")
    column: pd.Series[Any] = adata.obs[key]
    return column

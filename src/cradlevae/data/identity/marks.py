"""Marks in ``uns``: of data whose truth is known, and of cells that a model made.

``layers["clean"]`` or ``uns["truth"]`` are anyone's names. What :func:`cradlevae.simulate` and
:func:`cradlevae.plant_artifacts` write carries a mark with sketches of the cells, so that only their truth, and only of
the cells that they were written for, is taken for the truth without being named.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cradlevae.data.experiment import Experiment
from cradlevae.data.identity.cell_sketch import ENOUGH_PROBES, SketchArray, choose_probes, sketch_values
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError
from cradlevae.utils.constants import MADE_MARK
from cradlevae.utils.types import AnnDataLike

TRUTH_MARK = "cradlevae_truth"
"""Key of ``uns`` that marks data whose truth is known."""

CLEAN_LAYER, TRUTH_KEY = "clean", "truth"
"""The layer of undamaged counts, and the key of ``uns`` with what is known of simulated data."""

SAME_SHARE = 0.99
"""Share of the cells that must be those of the mark; single cells may have been renamed or corrected."""


@dataclass(frozen=True)
class KnownTruth:
    """What of some data is taken for the truth.

    Attributes
    ----------
    layer
        Layer with the true artifact-free counts, or ``None``.
    simulated
        What is known of simulated data (``uns["truth"]``), or ``None``.
    """

    layer: str | None = None
    simulated: Any = None


def mark_truth(adata: AnnDataLike, maker: Literal["simulate", "plant_artifacts"], layer: str | None = None) -> None:
    """Mark data whose counts (``X`` or a layer) and undamaged counts (``layers["clean"]``) a function has written."""
    genes = choose_probes(Counts(adata, CLEAN_LAYER).matrix(), adata.var_names)
    adata.uns[TRUTH_MARK] = {
        "made_by": maker,
        "version": version("cradlevae"),
        "cells": _name_hashes(adata.obs_names),
        "genes": np.array(genes, dtype=object),
        "clean": _sketch(adata, CLEAN_LAYER, genes),
        "counts": _sketch(adata, layer, genes),
    }


def known_truth(adata: AnnDataLike, data: Experiment, truth: bool | str) -> KnownTruth:
    """Find what is taken for the truth.

    Parameters
    ----------
    adata, data
        The data, and what was read of them.
    truth
        ``"auto"`` (or ``True``): what carries a mark that fits these cells; ``False``: nothing; or the name of a layer
        with true artifact-free counts.

    Raises
    ------
    DataError
        If a layer is named that is absent or holds no counts.

    Warns
    -----
    UserWarning
        Where the data hold something under the name of the truth whose mark is missing, is of other cells, or cannot
        be compared, because too few of its genes are left.
    """
    if isinstance(truth, bool | np.bool_) and not truth:
        return KnownTruth()
    if not isinstance(truth, bool | np.bool_ | str):
        raise DataError(f"truth is {truth!r}; it must be 'auto', False, or the name of a layer")
    simulated = adata.uns.get(TRUTH_KEY)
    unmarked = []
    if simulated is not None and not _is_marked(adata, "counts", data.cells, data.genes, data.sketch):
        simulated = None
        unmarked.append(f"uns[{TRUTH_KEY!r}]")
    if isinstance(truth, str) and truth != "auto":
        Counts(adata, truth).check()
        _warn_of_unmarked(unmarked)
        return KnownTruth(truth, simulated)
    clean = CLEAN_LAYER if CLEAN_LAYER in adata.layers else None
    if clean is not None and not _is_marked(
        adata, "clean", adata.obs_names, adata.var_names, lambda genes: _sketch(adata, CLEAN_LAYER, genes)
    ):
        clean = None
        unmarked.insert(0, f"layers[{CLEAN_LAYER!r}]")
    _warn_of_unmarked(unmarked)
    return KnownTruth(clean, simulated)


def made_by(query: Literal["predict", "clean", "counterfactual"], *, label: bool | None = None) -> dict[str, Any]:
    """The mark of cells that a model made, for their ``uns``.

    Parameters
    ----------
    query
        What made them.
    label
        Whether twins of real cells were decoded with the cells' perturbation labels; ``None`` where there are no such.
    """
    of_label = {} if label is None else {"label": "used" if label else "unused"}
    return {MADE_MARK: {"made_by": query, "version": version("cradlevae"), **of_label}}


CIRCULAR = {
    "used": "each was decoded with its perturbation label, so effects of perturbations in them are those that the "
    "model believes in, whatever the cells show",
    "unused": "they were decoded without their labels, but vary only as the model has learned that cells vary, so they "
    "are no further evidence for it",
}
"""Why it is circular to take twins for raw data, by whether their labels were used."""

CIRCULAR_PREDICTION = "their effects are those that the model believes in"
"""Why it is circular to take predicted cells for raw data."""


def warn_if_made(adata: Any, what: str) -> None:
    """Warn where a model made the cells that are given as raw data, and say what is circular.

    Parameters
    ----------
    adata
        The cells.
    what
        What they are given to.
    """
    mark = getattr(adata, "uns", {}).get(MADE_MARK)
    if mark is not None:
        warnings.warn(
            f"these cells were made by {mark['made_by']} of a model, and are no raw data; {what} takes them for raw "
            f"data all the same, which is circular: {CIRCULAR.get(mark.get('label'), CIRCULAR_PREDICTION)} (to be "
            f"without this warning: del adata.uns[{MADE_MARK!r}])",
            stacklevel=3,
        )


def _warn_of_unmarked(names: Sequence[str]) -> None:
    if names:
        layer = f"; if it holds true counts, name it with truth={CLEAN_LAYER!r}" if "layers" in names[0] else ""
        warnings.warn(
            f"{' and '.join(names)} not taken for the truth: no mark of simulate or plant_artifacts says that it is of "
            f"these cells{layer}",
            stacklevel=4,
        )


def _is_marked(
    adata: AnnDataLike,
    entry: Literal["clean", "counts"],
    cells: pd.Index[str],
    genes: pd.Index[str],
    sketch: Callable[[tuple[str, ...]], SketchArray],
) -> bool:
    """Whether a mark is there, and cells, sketched by its genes, are those that it was made for."""
    mark: Any = adata.uns.get(TRUTH_MARK)
    try:
        probes = tuple(str(gene) for gene in mark["genes"])
        place = pd.Index(mark["cells"]).get_indexer(pd.Index(_name_hashes(cells)))
        recorded = np.asarray(mark[entry], dtype=np.uint8)
    except (TypeError, KeyError, IndexError, ValueError):  # absent, or not of this form
        return False
    shared = np.flatnonzero(pd.Index(probes).isin(genes))
    if len(shared) < min(ENOUGH_PROBES, max(1, len(probes))):
        return False  # too few genes are left by which the cells could be known
    present = sketch(probes)
    recorded, present = recorded[:, shared], present[:, shared]
    if (place >= 0).all():
        same = (recorded[place] == present).all(axis=1)
    else:  # renamed, all or some: known by their counts alone
        same = np.isin(_rows(present), _rows(recorded)) & present.any(axis=1)
    return bool(same.mean() >= SAME_SHARE)


def _rows(sketches: SketchArray) -> npt.NDArray[np.void]:
    """Each sketch as one value, (cells,)."""
    width = max(1, sketches.shape[1])
    padded = np.zeros((len(sketches), width), dtype=np.uint8)
    padded[:, : sketches.shape[1]] = sketches
    return padded.view(np.dtype((np.void, width))).ravel()


def _sketch(adata: AnnDataLike, layer: str | None, genes: tuple[str, ...]) -> SketchArray:
    return sketch_values(Counts(adata, layer).blocks(), adata.n_obs, adata.var_names, genes)[:, : len(genes)]


def _name_hashes(names: pd.Index[str]) -> npt.NDArray[np.int64]:
    """A number for each cell name: names themselves would take more room, and cells may be left out later."""
    digests = b"".join(hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, dtype=np.int64)

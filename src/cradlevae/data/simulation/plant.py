"""Artifacts planted into real counts, so that the undamaged counts of each damaged cell are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.identity.marks import mark_truth, warn_if_made
from cradlevae.data.simulation.damage import CLEAN, Profile, damage
from cradlevae.data.storage.counts import Counts
from cradlevae.errors import DataError
from cradlevae.utils.checks import check_anndata, optional_text, real_number, seed_number, texts

if TYPE_CHECKING:
    from anndata import AnnData

PLANTED_KINDS = ("low_umi", "low_genes", "doublet", "ambient")
"""Kinds of artifact that can be planted: those that need no marker genes."""

POOL_SKEW = 1.5
"""Log-sd by which the ambient pool departs from the mean expression."""


def plant_artifacts(
    adata: AnnData,
    *,
    share: float = 0.25,
    kinds: Sequence[str] = ("low_umi", "doublet", "ambient"),
    layer: str | None = None,
    seed: int = 0,
) -> AnnData:
    """Damage a share of the cells of an experiment; a layer holds the undamaged counts.

    ``low_umi`` thins a cell's counts to 10–40 %; ``doublet`` adds a random other cell; ``ambient`` redraws
    40–80 % of the counts from one pool, the mean expression skewed by log-normal weights; ``low_genes``
    redraws all counts from 3–20 % of the molecules. All kinds are equally likely, whatever the
    perturbation.

    Parameters
    ----------
    adata
        Raw counts, cells × genes; the AnnData is not changed.
    share
        Share of the cells that are damaged.
    kinds
        Kinds of artifact, from :data:`PLANTED_KINDS`.
    layer
        Layer with the counts; ``None`` takes ``X``. In the result, the damaged counts replace it.
    seed
        Seed of everything random.

    Returns
    -------
    anndata.AnnData
        A copy in memory, cells × genes, with ``obs["artifact"]`` (0/1), ``obs["artifact_kind"]`` (``"none"`` for clean
        cells), ``obs["true_severity"]`` (share of the counts that are lost or foreign, 0 to 1) and ``layers["clean"]``
        (the undamaged counts). ``uns["cradlevae_truth"]`` marks them, for :func:`cradlevae.evaluate`.

    Raises
    ------
    DataError
        If the counts are not raw, there is one cell only, an argument is out of range, or artifacts are planted
        already.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=200, n_genes=50, n_perturbations=3, n_combinations=2, artifact_rate=0)
    >>> del adata.layers["clean"]
    >>> planted = cv.plant_artifacts(adata, share=0.25)
    >>> int(planted.obs["artifact"].sum()), planted.layers["clean"].shape
    (50, (200, 50))
    """
    share = real_number("share", share)
    if not 0.0 <= share <= 1.0:
        raise DataError(f"share={share!r} must lie between 0 and 1")
    kinds, layer, seed = texts("kinds", kinds), optional_text("layer", layer), seed_number(seed)
    unknown = [kind for kind in kinds if kind not in PLANTED_KINDS]
    if unknown or not kinds:
        raise DataError(f"kinds={kinds!r} must name one or more of {', '.join(PLANTED_KINDS)}")
    check_anndata(adata)
    warn_if_made(adata, "plant_artifacts")
    if "clean" in adata.layers:
        raise DataError("layers['clean'] is there already: plant into an AnnData whose artifacts are not known")
    if "doublet" in kinds and adata.n_obs == 1:
        raise DataError("a doublet needs two cells, but the AnnData has one; leave 'doublet' out of kinds")
    counts = Counts(adata, layer)
    counts.check()
    clean = counts.read()
    rng = np.random.default_rng(seed)
    planted = np.full(adata.n_obs, CLEAN, dtype=f"<U{max(map(len, PLANTED_KINDS))}")
    cells = rng.permutation(adata.n_obs)[: round(share * adata.n_obs)]
    planted[cells] = rng.choice(np.array(kinds), len(cells))
    damaged, severity = damage(clean, planted, {"ambient": _ambient_pool(clean, rng)}, rng)

    result = adata.to_memory() if adata.isbacked else adata.copy()
    if layer is None:
        result.X = damaged
    else:
        result.layers[layer] = damaged
    result.layers["clean"] = clean
    result.obs["artifact"] = (planted != CLEAN).astype(np.int64)
    result.obs["artifact_kind"] = pd.Categorical(planted, categories=[CLEAN, *kinds])
    result.obs["true_severity"] = severity
    mark_truth(result, "plant_artifacts", layer)
    return result


def _ambient_pool(clean: sp.csr_matrix, rng: np.random.Generator) -> Profile:
    """Draw the ambient profile: the mean expression with random log-normal weights, sums to 1, (genes,)."""
    pool = np.asarray(clean.sum(axis=0), dtype=np.float64).ravel()
    pool *= np.exp(rng.normal(0.0, POOL_SKEW, len(pool)))
    return np.asarray(pool / max(pool.sum(), 1.0))

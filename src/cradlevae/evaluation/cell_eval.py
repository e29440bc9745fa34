"""Files for `cell-eval` and `cell-eval2` (Arc Institute): real and generated cells, which they score in their own way.

Our effects on log2 scale are `cell-eval`'s effects on natural-log scale, divided by ln 2.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from cradlevae.data.identity.marks import made_by, warn_if_made
from cradlevae.data.storage.input_files import refuse_read
from cradlevae.errors import DataError
from cradlevae.evaluation.matched_cells import CellPair, generate_alike
from cradlevae.evaluation.metrics.pca_space import log_normalised
from cradlevae.evaluation.predictor import Learner, Predictor, as_predictor, symbols_of_genes
from cradlevae.evaluation.reference_effects import ReferenceCells, check_reference, reference_rows, scored_conditions
from cradlevae.evaluation.scorers.count_groups import own_columns, predicted_cells
from cradlevae.model.trained import TrainedModel
from cradlevae.utils.atomic import make_folder, write_h5ad
from cradlevae.utils.checks import check_anndata, flag, output_folder, seed_number, shown
from cradlevae.utils.names import closest, listed
from cradlevae.utils.outputs import check_output
from cradlevae.utils.types import AnnDataLike, IndexArray, TextArray

REAL_FILE = "real.h5ad"
PREDICTED_FILE = "predicted.h5ad"

TARGET_CONTROL = "non-targeting"
"""What `cell-eval2` calls controls."""


def to_cell_eval(
    model: TrainedModel | Predictor,
    adata: AnnDataLike,
    folder: str | Path,
    *,
    reference: ReferenceCells = "held-out",
    counts: bool = False,
    targets: Mapping[str, str] | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write real reference cells and as many generated ones of each condition.

    Both files have the same genes in the same order, and the same conditions in ``obs["perturbation"]``, ``control``
    among them: those that the model can answer for and of which at least two passing reference cells are there.
    ``X`` = ln(1 + 1e4·x/Σx) (CSR, float32). Score them with::

        cell-eval run -ap predicted.h5ad -ar real.h5ad --pert-col perturbation --control-pert control

    With ``counts=True`` they are what the preset of the Virtual Cell Challenge 2026 expects: ``X`` are raw counts (CSR,
    int32), the controls of *both* files are the real ones, and ``obs["target"]`` is the gene that a single perturbation
    targets, ``non-targeting`` for controls, and the name of a condition that targets no gene of the data, as
    combinations do. Score them with::

        cell-eval2 run --preset vcc2026 -ap predicted.h5ad -ar real.h5ad

    and, where no condition targets a gene of the data, with ``--no-target-genes``; a warning then says so. The six
    metrics of the preset are among the scores of :func:`cradlevae.evaluate`, too.

    Parameters
    ----------
    model
        A trained model or a floor.
    adata
        The experiment; it is read once.
    folder
        Where ``real.h5ad`` and ``predicted.h5ad`` go; made where it is missing.
    reference
        Which cells are the real ones, as for :func:`cradlevae.evaluate`.
    counts
        Whether to write raw counts for `cell-eval2`, not log-normalised ones for `cell-eval`.
    targets
        With ``counts=True``: the gene (a name in ``var_names``) that a single perturbation targets, for those whose own
        name is neither the name of their gene nor its symbol.
    overwrite
        Whether to replace files that are there; a file that ``adata`` is read from never is.
    seed
        Seed of the generated cells.

    Returns
    -------
    Paths of the predicted and of the real cells, in `cell-eval`'s order.

    Raises
    ------
    DataError
        If a file is there already or is one that is read, no condition has two passing reference cells and two
        controls, or ``targets`` names what is not there, or one gene for two conditions.

    Warns
    -----
    UserWarning
        With ``counts=True``, where no condition targets a gene of the data.
    """
    check_reference(reference)
    counts = flag("counts", counts)
    seed, overwrite = seed_number(seed), flag("overwrite", overwrite)
    check_anndata(adata)
    folder = make_folder(output_folder("folder", folder))
    predicted, real = folder / PREDICTED_FILE, folder / REAL_FILE
    for path in (predicted, real):
        refuse_read(path, adata)
        check_output(path, overwrite=overwrite)
    predictor = as_predictor(model)
    warn_if_made(adata, "to_cell_eval")
    known = _checked(targets, predictor, counts=counts)
    data = predictor.read(adata)
    rows = reference_rows(predictor, data, reference).rows
    passing = rows[~data.failed[rows]]
    pair = generate_alike(predictor, data, passing, scored_conditions(predictor, data, passing)[0], seed=seed)
    if pair is None:
        raise DataError("no condition has two passing reference cells and two passing reference controls to write")
    real_cells, generated = (_counted if counts else _log_normalised)(pair, data.cells[passing], predictor)
    if counts:
        labels = _labels(pair.names, predictor, known)
        for cells in (real_cells, generated):
            cells.obs.insert(0, "target", pd.Categorical(labels[cells.obs["perturbation"].cat.codes]))
    generated.uns.update(made_by("predict"))
    write_h5ad(real_cells, real)
    write_h5ad(generated, predicted)
    return predicted, real


def _checked(targets: Any, model: Learner, *, counts: bool) -> dict[str, str]:
    """The targets that a user names; :class:`DataError` where they are none, or no gene has such a name."""
    if targets is None:
        return {}
    if not isinstance(targets, Mapping) or not all(isinstance(text, str) for pair in targets.items() for text in pair):
        raise DataError(f"targets is {shown(targets)}; it must map perturbations to the genes that they target")
    if not counts:
        raise DataError("targets are written for cell-eval2 only; leave them out, or set counts=True")
    genes = [str(gene) for gene in model.genes]
    unknown = [gene for gene in targets.values() if gene not in set(genes)]
    if unknown:
        raise DataError(f"targets names {unknown[0]!r}, which is no gene of the data{closest(unknown[0], genes)}")
    return dict(targets)


def _labels(names: Sequence[str], model: Learner, targets: Mapping[str, str]) -> TextArray:
    """What each condition is called for `cell-eval2`: the gene that it targets, or its own name."""
    genes = np.array([str(gene) for gene in model.genes], dtype=object)
    unknown = [name for name in targets if name not in names]
    if unknown:
        raise DataError(f"targets names {unknown[0]!r}, which is none of the conditions{closest(unknown[0], names)}")
    labels = np.array([TARGET_CONTROL, *map(str, names[1:])], dtype=object)
    own = own_columns(names[1:], list(genes), symbols_of_genes(model))
    labels[1:][own >= 0] = genes[own[own >= 0]]
    for place, name in enumerate(names):
        labels[place] = targets.get(str(name), labels[place])
    seen: dict[str, str] = {}
    for name, label in zip(map(str, names), labels, strict=True):
        if label in seen:
            raise DataError(f"{listed([seen[label], name])} would both be called {label!r}; name one target (targets=)")
        seen[label] = name
    if not set(labels) & set(genes):
        warnings.warn(
            "no condition targets a gene of the data: run cell-eval2 with --no-target-genes, or name the genes that "
            "perturbations target (targets=)",
            stacklevel=4,
        )
    return labels


def _log_normalised(pair: CellPair, cells: pd.Index[str], model: Learner) -> tuple[Any, Any]:
    """Real and generated cells, controls too, log-normalised."""
    chosen, matched = np.flatnonzero(pair.real_codes >= 0), pair.matched()
    real = log_normalised(pair.real[chosen]).astype(np.float32)
    generated = log_normalised(pair.generated[matched]).astype(np.float32)
    return (
        _cells(real, pair.real_codes[chosen], pair.names, cells[chosen], model),
        _cells(generated, pair.generated_codes[matched], pair.names, _made(len(matched)), model),
    )


def _counted(pair: CellPair, cells: pd.Index[str], model: Learner) -> tuple[Any, Any]:
    """Real cells, and generated ones beside the real controls, raw counts."""
    chosen, controls = np.flatnonzero(pair.real_codes >= 0), np.flatnonzero(pair.real_codes == 0)
    counts, codes = predicted_cells(pair)
    names = cells[controls].append(_made(len(codes) - len(controls)))
    return (
        _cells(pair.real[chosen].astype(np.int32), pair.real_codes[chosen], pair.names, cells[chosen], model),
        _cells(counts.astype(np.int32), codes, pair.names, names, model),
    )


def _made(n: int) -> pd.Index[str]:
    """Names of so many generated cells."""
    return pd.Index([f"predicted{cell}" for cell in range(n)])


def _cells(
    matrix: sp.csr_matrix, codes: IndexArray, names: tuple[str, ...], cells: pd.Index[str], model: Learner
) -> Any:
    import anndata as ad

    perturbation = pd.Categorical.from_codes(codes, categories=pd.Index([str(name) for name in names]))
    obs = pd.DataFrame({"perturbation": perturbation}, index=cells)
    return ad.AnnData(X=matrix, obs=obs, var=pd.DataFrame(index=pd.Index(model.genes)))

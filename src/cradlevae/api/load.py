"""Read a trained model of whichever class from its folder."""

from __future__ import annotations

from pathlib import Path

from cradlevae.api.perturbation_vae import CLASSES, PerturbationVAE
from cradlevae.model.store import load_model
from cradlevae.utils.checks import check_anndata, path_of
from cradlevae.utils.default_dtype import float32_default
from cradlevae.utils.types import AnnDataLike


def load(folder: str | Path, adata: AnnDataLike | None = None) -> PerturbationVAE:
    """Read a trained model of whichever class; nothing that the files contain is executed.

    Parameters
    ----------
    folder
        Folder that the ``save`` of a model has written.
    adata
        The experiment that the model was trained on, to train it further; without it the model answers all questions.

    Returns
    -------
    PerturbationVAE
        An object of the class that declares the model, e.g. :class:`cradlevae.SAMSVAE`. A subclass without a
        declaration of its own reads its models with its own ``load``.

    Raises
    ------
    DataError
        If the folder holds no model or a damaged one, or the model was trained on other data.

    Examples
    --------
    >>> import tempfile
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=300, n_genes=60, n_perturbations=4, n_combinations=3, seed=0)
    >>> model = cv.SAMSVAE(adata, artifact_key="true_artifact", n_latent=8, width=16)
    >>> model.train(max_epochs=1, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(folder)
    ...     cv.load(folder)
    SAMSVAE(60 genes, 4 perturbations, no artifact; trained, 1 epochs)
    """
    if adata is not None:
        check_anndata(adata)
    with float32_default():
        trained = load_model(path_of("folder", folder))
        return CLASSES[trained.declaration.key].of_trained(trained, adata)

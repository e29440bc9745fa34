"""The questions that a trained model answers, as methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from cradlevae.data.experiment import Experiment
from cradlevae.data.storage.input_files import refuse_read
from cradlevae.model.estimation.effect_estimator import Scale
from cradlevae.model.estimation.latent_draws import Basal
from cradlevae.model.trained import TrainedModel
from cradlevae.query import (
    counterfactual as counterfactual_query,
)
from cradlevae.query import (
    diagnose as diagnose_query,
)
from cradlevae.query import (
    effects as effects_query,
)
from cradlevae.query import (
    latents as latents_query,
)
from cradlevae.query import (
    predict as predict_query,
)
from cradlevae.query import (
    signature as signature_query,
)
from cradlevae.query.arguments import PUBLISHED_LIBRARY_SIZE
from cradlevae.query.contrasts import contrast as contrast_query
from cradlevae.query.contrasts import expression as expression_query
from cradlevae.query.contrasts import interactions as interactions_query
from cradlevae.query.counterfactual import OWN
from cradlevae.query.library_sizes import Batches, LibrarySize
from cradlevae.utils.checks import optional_output
from cradlevae.utils.default_dtype import float32_default
from cradlevae.utils.docs import documented_by
from cradlevae.utils.types import AnnDataLike

if TYPE_CHECKING:
    import anndata as ad


class Questions:
    """Whatever holds a trained model can be asked all that :mod:`cradlevae.query` answers."""

    trained: TrainedModel
    """The trained model."""

    data: Experiment | None = None
    """The experiment that it was, or will be, trained on; ``None`` where it is not at hand."""

    def _refuse_own_data(self, path: Path | None) -> None:
        """Raise :class:`DataError` where a file to write is one that the cells of the training are read from."""
        if path is not None and self.data is not None:
            refuse_read(path, self.data)

    @documented_by(predict_query.predict)
    def predict(
        self,
        perturbations: str | Sequence[str],
        n_cells: int = 500,
        *,
        artifact: bool | str | Sequence[str] = False,
        library_size: LibrarySize = "controls",
        basal: Basal = "controls",
        batch: Batches | None = None,
        context: str | None = None,
        seed: int = 0,
        output: str | Path | None = None,
        overwrite: bool = False,
    ) -> ad.AnnData:
        """Generate cells of any combination of known perturbations.

        Parameters
        ----------
        output
            ``.h5ad`` file to write the cells into as they are generated; memory then does not grow with their number.
        """
        self._refuse_own_data(optional_output("output", output))
        with float32_default():
            return predict_query.predict(
                self.trained, perturbations, n_cells=n_cells, artifact=artifact, library_size=library_size,
                basal=basal, batch=batch, context=context, seed=seed, output=output, overwrite=overwrite,
            )  # fmt: skip

    @documented_by(effects_query.effects)
    def effects(
        self,
        perturbations: str | Sequence[str] | None = None,
        credible: float = 0.9,
        *,
        error: float | None = None,
        scale: Scale = "perturbseq",
        basal: Basal = "controls",
        residual: bool = True,
        batch: str | None = None,
        context: str | None = None,
        seed: int = 0,
    ) -> ad.AnnData:
        """Effect of each condition on each gene, treated minus control and free of artifacts, with intervals."""
        with float32_default():
            return effects_query.effects(
                self.trained, perturbations, credible=credible, error=error, scale=scale, basal=basal,
                residual=residual, batch=batch, context=context, seed=seed,
            )  # fmt: skip

    @documented_by(contrast_query.contrast)
    def contrast(
        self,
        first: str,
        second: str,
        credible: float = 0.9,
        *,
        error: float | None = None,
        batch: str | None = None,
        context: str | None = None,
        seed: int = 0,
    ) -> ad.AnnData:
        """How much more the first of two conditions expresses each gene than the second, with intervals."""
        with float32_default():
            return contrast_query.contrast(
                self.trained, first, second, credible=credible, error=error, batch=batch, context=context, seed=seed
            )

    @documented_by(interactions_query.interactions)
    def interactions(
        self,
        pairs: str | Sequence[str] | None = None,
        credible: float = 0.9,
        *,
        error: float | None = None,
        batch: str | None = None,
        context: str | None = None,
        seed: int = 0,
    ) -> ad.AnnData:
        """What each pair of perturbations does beyond the sum of its single ones, with intervals and its class."""
        with float32_default():
            return interactions_query.interactions(
                self.trained, pairs, credible=credible, error=error, batch=batch, context=context, seed=seed
            )

    @documented_by(expression_query.expression)
    def expression(
        self,
        gene: str,
        perturbations: str | Sequence[str] | None = None,
        credible: float = 0.9,
        *,
        error: float | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Expected expression of a gene in controls and in each condition, with credible intervals."""
        with float32_default():
            return expression_query.expression(
                self.trained, gene, perturbations, credible=credible, error=error, seed=seed
            )

    @documented_by(effects_query.published_effects)
    def published_effects(
        self,
        perturbations: str | Sequence[str],
        *,
        n_particles: int = 2500,
        library_size: float = PUBLISHED_LIBRARY_SIZE,
        scale: Scale = "perturbseq",
        seed: int = 0,
    ) -> ad.AnnData:
        """Effects as the released evaluation takes them, for comparison with published numbers."""
        with float32_default():
            return effects_query.published_effects(
                self.trained, perturbations, n_particles=n_particles, library_size=library_size, scale=scale, seed=seed
            )

    @documented_by(counterfactual_query.clean)
    def clean(
        self,
        adata: AnnDataLike,
        cells: Literal["all", "failed"] = "all",
        *,
        library_size: Literal["passing", "own"] = "passing",
        batch: str = OWN,
        n_draws: int = 16,
        seed: int = 0,
        output: str | Path | None = None,
        overwrite: bool = False,
    ) -> ad.AnnData:
        """The artifact-free twin of each cell: its basal state and its Gamma factors, decoded without artifact."""
        self._refuse_own_data(optional_output("output", output))
        with float32_default():
            return counterfactual_query.clean(
                self.trained, adata, cells=cells, library_size=library_size, batch=batch, n_draws=n_draws, seed=seed,
                output=output, overwrite=overwrite,
            )  # fmt: skip

    @documented_by(counterfactual_query.counterfactual, counterfactual_query.clean)
    def counterfactual(
        self,
        adata: AnnDataLike,
        *,
        artifact: bool | str | Sequence[str] | None = None,
        perturbation: str | None = None,
        cells: Literal["all", "failed"] = "all",
        library_size: Literal["passing", "own"] = "own",
        batch: str = OWN,
        n_draws: int = 16,
        seed: int = 0,
        output: str | Path | None = None,
        overwrite: bool = False,
    ) -> ad.AnnData:
        """Each cell, had its artifact, its perturbation or its batch been another.

        Returns
        -------
        anndata.AnnData
            Cells with the matrices, layers and columns that :meth:`clean` gives.
        """
        self._refuse_own_data(optional_output("output", output))
        with float32_default():
            return counterfactual_query.counterfactual(
                self.trained, adata, artifact=artifact, perturbation=perturbation, cells=cells,
                library_size=library_size, batch=batch, n_draws=n_draws, seed=seed, output=output, overwrite=overwrite,
            )  # fmt: skip

    @documented_by(diagnose_query.diagnose)
    def diagnose(
        self, adata: AnnDataLike, *, cells: Literal["failed", "all"] = "failed", credible: float = 0.9, seed: int = 0
    ) -> pd.DataFrame:
        """What happened to each failed cell: kinds of damage with probabilities, severity, and second parents."""
        with float32_default():
            return diagnose_query.diagnose(self.trained, adata, cells=cells, credible=credible, seed=seed)

    @documented_by(signature_query.artifact_signature)
    def artifact_signature(
        self, *, credible: float = 0.9, n_draws: int = 50, n_states: int = 256, seed: int = 0
    ) -> pd.DataFrame:
        """Log2 fold change of each gene's share of the counts by each artifact class, in control cells."""
        with float32_default():
            return signature_query.artifact_signature(
                self.trained, credible=credible, n_draws=n_draws, n_states=n_states, seed=seed
            )

    @documented_by(latents_query.latents)
    def latents(self, adata: AnnDataLike, *, n_draws: int = 16, sample: bool = False, seed: int = 0) -> ad.AnnData:
        """Latent states of cells: the means of their posterior, or one draw from it."""
        with float32_default():
            return latents_query.latents(self.trained, adata, n_draws=n_draws, sample=sample, seed=seed)

    @documented_by(latents_query.mask_probabilities)
    def mask_probabilities(self) -> pd.DataFrame:
        """Posterior probability that each treatment acts on each latent, (treatments, latents)."""
        with float32_default():
            return latents_query.mask_probabilities(self.trained)

    @documented_by(latents_query.log_likelihood)
    def log_likelihood(self, adata: AnnDataLike, *, n_particles: int = 100, seed: int = 0) -> pd.Series[float]:
        """IWELBO of each cell in nats: an importance-weighted lower bound on log p(x).

        Returns
        -------
        pandas.Series
            The bound of each cell, by the cell's name.
        """
        with float32_default():
            return latents_query.log_likelihood(self.trained, adata, n_particles=n_particles, seed=seed)

"""The ground truth of a simulated experiment: the exact action of each perturbation on each gene.

It is the generative model of CRADLE-VAE (arXiv 2409.05484) with a linear decoder. A cell has a basal state
z^b ~ Normal(0, I_K) and a perturbation shift z^p = d (M∘E) with a sparse mask M, plus a sparse vector of
its own for each *interacting* pair. The log-expression of gene g is, up to a softmax,

    baseline_g + loadings_basal_g · z^b + loadings_perturbation_g · z^p,

and its counts are Gamma-Poisson with mean library size × expression and concentration (dispersion) θ_g.

The first half of the perturbation programmes *are* basal programmes (a perturbation pushes cells along an
axis on which they vary anyway, as along the cell cycle); the other half have genes of their own. The more a
gene is expressed, the smaller its loadings, so that no gene dominates a cell.

Marker genes (mitochondrial, ribosomal, haemoglobin) take a share of the counts that depends on the
basal state only; the softmax distributes the rest over the other genes. So a perturbation as such does not make a
cell fail quality control.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cradlevae.data.dosage import dosage_table
from cradlevae.data.labels import CONTROL, condition_name
from cradlevae.utils.types import BoolArray, Float32Array, FloatArray

MITOCHONDRIAL = tuple(
    f"MT-{name}"
    for name in ("CO1", "CO2", "CO3", "ND1", "ND2", "ND4", "CYB", "ATP6", "ND3", "ND5", "ND4L", "ATP8", "ND6")
)
RIBOSOMAL = (
    "RPLP1", "RPS3", "RPL13", "RPS18", "RPL10", "RPS2", "RPLP0", "RPL3", "RPS6", "RPL7A",
    "RPS12", "RPL11", "RPS27A", "RPL19", "RPS4X", "RPL32", "RPS14", "RPL5", "RPS8", "RPL27",
)  # fmt: skip
HAEMOGLOBIN = ("HBA1", "HBA2", "HBB")

MARKERS: dict[str, tuple[tuple[str, ...], float, int]] = {
    "mito": (MITOCHONDRIAL, 0.05, 12),
    "ribo": (RIBOSOMAL, 0.12, 10),
    "haemo": (HAEMOGLOBIN, 0.01, 20),
}
"""Per marker group: gene names, share of a clean cell's counts, and the genes per marker gene (small panels
have fewer). Haemoglobin is at 1 %, as in cells that express some: at a trace most cells would have none,
and the median absolute deviation would be zero."""

BASELINE_SD, BASELINE_CAP = 2.7, 2.5
"""Log-sd of the expression over genes, and how many of it the highest gene may lie above the median: most
genes are low, and of 600 none takes more than about 7 % of the counts."""

LOADING_SD, HALF_LOADING = 0.3, 0.02
"""Sd of the loadings of a programme's genes, and the share of the counts at which a gene has half of it."""

MARKER_LOADING = 0.15
"""Loading of mitochondrial and of ribosomal genes, each on one basal latent."""

PROGRAMME_DENSITY = 0.2
"""Share of the genes in a programme."""

INTERACTION_SIZE = 0.6
"""Size of an interaction in units of the perturbations' own effects."""

EMBEDDING_SPREAD = (0.6, 1.3)
"""Range of the size of an active entry of E, in units of ``effect_size``; the sign is random."""


@dataclass(frozen=True)
class GroundTruth:
    """The parameters that a simulated experiment is drawn from: T perturbations, K latents, G genes.

    Attributes
    ----------
    genes
        Gene names, (G,).
    perturbations
        Names of the single perturbations, (T,).
    conditions
        ``control``, every single, then the combinations, (conditions,).
    mask
        Which latents a perturbation acts on, 0/1, (T, K).
    embedding
        Strength of the action on each latent, in standard deviations of the basal state, (T, K).
    interacting
        Names of the pairs that are not additive, (pairs,).
    interactions
        Shift of such a pair beyond the sum of the two single shifts, (pairs, K).
    baseline
        Log-expression of the genes in a control cell at z^b = 0, before the softmax; log-share of the counts
        for marker genes, (G,).
    loadings_basal, loadings_perturbation
        Log-expression per unit of z^b and of z^p, (G, K).
    dispersion
        Gamma-Poisson concentration θ per gene, (G,).
    """

    genes: npt.NDArray[np.str_]
    perturbations: tuple[str, ...]
    conditions: tuple[str, ...]
    mask: Float32Array
    embedding: Float32Array
    interacting: tuple[str, ...]
    interactions: Float32Array
    baseline: Float32Array
    loadings_basal: Float32Array
    loadings_perturbation: Float32Array
    dispersion: Float32Array

    @property
    def n_latent(self) -> int:
        """Number of latents K."""
        return int(self.mask.shape[1])

    @property
    def shifts(self) -> Float32Array:
        """Perturbation shift z^p of every condition, (conditions, K)."""
        shift = dosage_table(self.conditions, self.perturbations) @ (self.mask * self.embedding)
        for pair, extra in zip(self.interacting, self.interactions, strict=True):
            shift[self.conditions.index(pair)] += extra
        return np.asarray(shift, dtype=np.float32)

    def marker_profile(self, group: str) -> FloatArray:
        """Return the expression of one marker group at baseline: sums to 1, zero for all other genes, (G,)."""
        profile = np.exp(self.baseline, dtype=np.float64) * np.isin(self.genes, MARKERS[group][0])
        return np.asarray(profile / profile.sum())

    def expression(
        self, z_basal: Float32Array, z_perturbation: Float32Array, log_shift: Float32Array | None = None
    ) -> Float32Array:
        """Compute the share of every gene in the expected counts of each cell; rows sum to 1, (cells, G).

        Parameters
        ----------
        z_basal, z_perturbation
            Basal state and perturbation shift, (cells, K).
        log_shift
            What batch and context add to the log rates, natural log, (cells, G); ``None`` adds nothing. The share of
            the marker genes depends on their own shifts only, not on those of the other genes.
        """
        logits = z_basal @ self.loadings_basal.T
        logits += z_perturbation @ self.loadings_perturbation.T
        logits += self.baseline
        n_plain = int((~_is_marker(self.genes)).sum())
        plain, markers = logits[:, :n_plain], logits[:, n_plain:]  # views: the names have the markers last
        if log_shift is not None:
            plain += log_shift[:, :n_plain]
        plain -= plain.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        rest = 1.0 - markers.sum(axis=1, keepdims=True)
        if log_shift is not None:
            markers *= np.exp(log_shift[:, n_plain:])
            whole = rest + markers.sum(axis=1, keepdims=True)
            markers /= whole
            rest /= whole
        plain *= rest / plain.sum(axis=1, keepdims=True)
        return logits

    def gamma(self, n_cells: int, rng: np.random.Generator) -> Float32Array:
        """Draw the Gamma factor of the Gamma-Poisson, mean 1, (cells, G)."""
        shape = np.broadcast_to(self.dispersion, (n_cells, len(self.genes)))
        factor = rng.standard_gamma(shape, dtype=np.float32)
        factor /= self.dispersion
        return factor


def perturbation_names(number: int) -> tuple[str, ...]:
    """Return ``A``, ``B``, … ``Z``, ``AA``, ``AB`` and so on."""
    names = []
    for index in range(number):
        name, rest = "", index + 1
        while rest:
            rest, letter = divmod(rest - 1, 26)
            name = chr(ord("A") + letter) + name
        names.append(name)
    return tuple(names)


def draw_truth(
    *,
    n_genes: int,
    n_perturbations: int,
    n_combinations: int,
    n_interacting: int,
    n_latent: int,
    mask_probability: float,
    effect_size: float,
    rng: np.random.Generator,
) -> GroundTruth:
    """Draw a ground truth; see :func:`cradlevae.data.simulation.simulate.simulate` for the arguments."""
    genes = _gene_names(n_genes)
    expression = _mean_expression(genes, rng)
    basal, perturbation = _loadings(genes, expression, n_latent, rng)
    # Variation of the basal state alone would raise a gene's mean by exp(|loadings|²/2).
    baseline = np.log(expression) - 0.5 * (basal**2).sum(axis=1)
    perturbations = perturbation_names(n_perturbations)
    pairs = rng.permutation(np.stack(np.triu_indices(n_perturbations, k=1), axis=1))[:n_combinations]
    combinations = [condition_name((perturbations[a], perturbations[b])) for a, b in pairs]
    mask, embedding = _sparse_vectors(n_perturbations, n_latent, mask_probability, effect_size, rng)
    extra_size = INTERACTION_SIZE * effect_size
    extra_mask, extra = _sparse_vectors(n_interacting, n_latent, mask_probability, extra_size, rng)
    return GroundTruth(
        genes=genes,
        perturbations=perturbations,
        conditions=(CONTROL, *perturbations, *sorted(combinations)),
        mask=mask,
        embedding=embedding,
        interacting=tuple(combinations[:n_interacting]),
        interactions=extra_mask * extra,
        baseline=baseline.astype(np.float32),
        loadings_basal=basal,
        loadings_perturbation=perturbation,
        dispersion=np.exp(rng.normal(np.log(4.0), 0.5, n_genes)).astype(np.float32),
    )


def _gene_names(n_genes: int) -> npt.NDArray[np.str_]:
    markers = [name for names, _, per in MARKERS.values() for name in names[: max(1, n_genes // per)]]
    n_plain = n_genes - len(markers)
    width = max(4, len(str(n_plain)))
    return np.array([*(f"G{index:0{width}d}" for index in range(1, n_plain + 1)), *markers])


def _is_marker(genes: npt.NDArray[np.str_]) -> BoolArray:
    return np.isin(genes, [name for names, _, _ in MARKERS.values() for name in names])


def _mean_expression(genes: npt.NDArray[np.str_], rng: np.random.Generator) -> FloatArray:
    """Draw log-normal expression, the marker groups scaled to their shares; sums to 1, (G,)."""
    expression = np.exp(BASELINE_SD * np.minimum(rng.standard_normal(len(genes)), BASELINE_CAP))
    plain = ~_is_marker(genes)
    expression[plain] *= (1.0 - sum(share for _, share, _ in MARKERS.values())) / expression[plain].sum()
    for names, share, _ in MARKERS.values():
        group = np.isin(genes, names)
        # Marker genes differ less among themselves than genes at large.
        weight = np.exp(rng.normal(0.0, 0.5, int(group.sum())))
        expression[group] = share * weight / weight.sum()
    return np.asarray(expression)


def _loadings(
    genes: npt.NDArray[np.str_],
    expression: FloatArray,
    n_latent: int,
    rng: np.random.Generator,
) -> tuple[Float32Array, Float32Array]:
    size = LOADING_SD / (1.0 + expression / HALF_LOADING) * ~_is_marker(genes)

    def programmes() -> FloatArray:
        in_programme = rng.random((len(genes), n_latent)) < PROGRAMME_DENSITY
        return np.asarray(in_programme * rng.standard_normal((len(genes), n_latent)) * size[:, None])

    basal, own = programmes(), programmes()
    shared = np.arange(n_latent) < n_latent // 2
    perturbation = np.where(shared, basal, own)
    for latent, group in enumerate(("mito", "ribo")):
        basal[np.isin(genes, MARKERS[group][0]), latent % n_latent] = MARKER_LOADING
    return basal.astype(np.float32), perturbation.astype(np.float32)


def _sparse_vectors(
    number: int, n_latent: int, probability: float, size: float, rng: np.random.Generator
) -> tuple[Float32Array, Float32Array]:
    """Draw masks with at least one active latent each, and the vectors that they select from."""
    mask = rng.random((number, n_latent)) < probability
    mask[np.arange(number), rng.integers(n_latent, size=number)] = True
    sign = rng.choice([-1.0, 1.0], (number, n_latent))
    vectors = size * sign * rng.uniform(*EMBEDDING_SPREAD, (number, n_latent))
    return mask.astype(np.float32), vectors.astype(np.float32)

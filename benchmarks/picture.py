"""The picture of the README: failed cells before and after cleaning, and the effects that are learnt with them.

    python benchmarks/picture.py papalexi2021_299g_planted_artifacts.h5ad --condition IFNGR1

Held-out cells of an annotated file (``obs["artifact"]``), in a UMAP of the principal components of the passing ones;
the twins are made without the label. ``--folder`` keeps the trained model.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
from mixing import trained

import cradlevae as cv
from cradlevae.reporting.cell_map import cell_map
from cradlevae.reporting.style import FAILED, INK, MODEL, PASSING, TICK_SIZE, dress, name_axes, new_figure

PICTURE = Path(__file__).parents[1] / "docs" / "figures" / "cradlevae.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--condition", required=True, help="whose effects are drawn")
    parser.add_argument("--basis", choices=("pca", "umap"), default="umap")
    parser.add_argument("--epochs", type=int, help="at most; by default as many as the package takes")
    parser.add_argument("--folder", type=Path, help="where trained models are kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=PICTURE)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(options.threads)
    adata = ad.read_h5ad(options.data)
    adata.obs["artifact"] = adata.obs["artifact"].astype(bool)
    model = trained(adata, 0, options)
    draw(model, adata[model.split.cells("test")].copy(), options)


def draw(model: cv.CradleVAE, cells: ad.AnnData, options: argparse.Namespace) -> None:
    """Draw the three panels."""
    twins = model.clean(cells, cells="failed", use_label=False)
    passing, before, after = cell_map(cells, twins, None, "artifact", None).plane(options.basis)
    figure = new_figure(2.7)
    axes = figure.subplots(1, 3, width_ratios=[1, 1, 1.15])
    low, high = np.quantile(np.concatenate([passing, before, after]), [0.002, 0.998], axis=0)
    margin = 0.05 * (high - low)
    panels = (
        (f"{len(before):,} failed cells as measured", "failed", before, FAILED),
        ("The same, damage taken away", "cleaned", after, MODEL),
    )
    for ax, (title, name, failed, colour) in zip(axes, panels, strict=False):
        dress(ax)
        ax.scatter(*passing.T, s=3, color=PASSING, alpha=0.35, linewidths=0, label="passed QC")
        ax.scatter(*failed.T, s=4, color=colour, alpha=0.7, linewidths=0, label=name)
        ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
        ax.set_ylim(low[1] - 3 * margin[1], high[1] + margin[1])
        ax.set_xticks([])
        ax.set_yticks([])
        name_axes(ax, x=f"{options.basis.upper()} 1", y=f"{options.basis.upper()} 2", title=title)
        ax.legend(
            loc="lower left", fontsize=TICK_SIZE, labelcolor=INK, markerscale=2.5, handletextpad=0.1, frameon=False,
            ncols=2, columnspacing=0.8, borderaxespad=0.1,
        )  # fmt: skip
    cv.pl.volcano(model.effects(options.condition), options.condition, n_labels=6, ax=axes[2])
    labels = axes[2].get_xlabel(), axes[2].get_ylabel()
    name_axes(axes[2], x=labels[0], y=labels[1], title=f"What losing {options.condition} does, by gene")
    figure.savefig(options.output, dpi=200)
    print(f"{len(before):,} failed cells in {options.output}")


if __name__ == "__main__":
    main()

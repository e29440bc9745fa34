"""Effects by sampling counts, and as the package estimates them: CPU time and standard error of both.

python benchmarks/effects.py effects.json                    # 100 perturbations × 20,000 genes
python benchmarks/effects.py effects.json --conditions 5     # the same with fewer effects asked for

Sampling decodes 2,500 particles a condition, draws their counts, and averages log2(1 + 1e4·x/Σx); basal states and
library sizes are those of controls, as in the package, and the control's 2,500 are drawn once for all conditions. It is
timed on a few conditions, and its cost grows in proportion with their number. The package is asked for the error that
sampling has on 99 % of the genes (and once for its default). The standard error is the true one: the standard deviation
over runs with other seeds, root mean square over genes and conditions.

The model is not trained. Its decoder starts at the mean profile of simulated counts; a tenth of the mask is on, a
perturbation's embedding is known to a third of the prior's width, and the gene weights are scaled until log
shares differ by 0.5 (standard deviation) between perturbations. So effects, posterior and states spread as in a model
of real data, and every matrix has the size that it has there.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import cradlevae as cv
from cradlevae.model.estimation.latent_draws import draw_basal, draw_globals
from cradlevae.model.estimation.streams import seeded
from cradlevae.model.trained import TrainedModel
from cradlevae.model.training.bank_states import with_banks
from cradlevae.query.effects import effects
from cradlevae.utils.atomic import write_text
from cradlevae.utils.constants import TARGET_SUM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cells", type=int, default=1500, help="simulated cells")
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--perturbations", type=int, default=100)
    parser.add_argument("--conditions", type=int, default=100, help="effects asked of the package")
    parser.add_argument("--sampled", type=int, default=2, help="conditions that are sampled")
    parser.add_argument("--particles", type=int, default=2500, help="particles of sampling")
    parser.add_argument("--runs", type=int, default=6, help="runs for the standard error")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = untrained_model(options.cells, options.genes, options.perturbations)
    names = list(model.perturbations[: options.conditions])
    few = names[: options.sampled]

    sampled, stated = [], []
    started = time.process_time()
    for seed in range(options.runs):
        value, error = sampling(model, few, options.particles, seed)
        sampled.append(value)
        stated.append(error)
    per_profile = (time.process_time() - started) / options.runs / (len(few) + 1)  # the control is one more
    theirs = per_profile * (len(names) + 1) / len(names)
    target = float(np.quantile(stated, 0.99))

    started = time.process_time()
    answer = effects(model, names, error=target)
    ours = (time.process_time() - started) / len(names)
    runs = [effects(model, few, error=target, seed=seed) for seed in range(options.runs)]
    started = time.process_time()
    default = effects(model, names)
    by_default = (time.process_time() - started) / len(names)

    error, sampled_error = standard_error([run.X for run in runs]), standard_error(sampled)
    difference = np.mean([run.X for run in runs], axis=0) - np.mean(sampled, axis=0)
    result = {
        "genes": options.genes,
        "perturbations": options.perturbations,
        "conditions": len(names),
        "error_asked": target,
        "particles": {
            "sampling": options.particles,
            "package": particles(answer),
            "by default": particles(default),
        },
        "cpu_seconds_a_condition": {"sampling": theirs, "package": ours, "by default": by_default},
        "standard_error": {"sampling": sampled_error, "package": error},
        "stated_error": {"sampling": rms(stated), "package": rms([run.layers["mc_error"] for run in runs])},
        "cpu_ratio": theirs / ours,
        "cpu_ratio_at_the_same_error": theirs / ours * (sampled_error / error) ** 2,
        "effect_rms": rms(answer.X),
        "posterior_sd_rms": rms(answer.layers["sd"]),
        "mean_difference_rms": rms(difference),
        "its_standard_error": float(np.sqrt((error**2 + sampled_error**2) / options.runs)),
    }
    write_text(options.output, json.dumps(result, indent=1) + "\n")
    show(result)


def rms(values: Any) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def particles(answer: Any) -> float:
    """Mean number of particles of a condition."""
    return float(answer.obs["n_particles"].mean())


def untrained_model(n_cells: int, n_genes: int, n_perturbations: int) -> TrainedModel:
    """A model of this size, not trained; see above."""
    adata = cv.simulate(n_cells=n_cells, n_genes=n_genes, n_perturbations=n_perturbations, n_combinations=0, seed=0)
    adata.obs["artifact"] = adata.obs["true_artifact"]
    model = cv.CradleVAE(adata, split=cv.split(adata, "cells", seed=0), n_latent=200, basal_width=400)
    module = model.trained.module
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        on = torch.rand(module.mask.logits.shape, generator=generator) < 0.1
        module.mask.logits.copy_(torch.where(on, 3.0, -5.0))
        bias = module.embedding.encoder.head.linear.bias
        bias[:200].copy_(torch.randn(200, generator=generator))
        bias[200:].fill_(-2.2)
        shift = draw_globals(model.trained, 1).shift[0]
        none = torch.zeros_like(shift)[:, None]
        change = module.decode_share(none, shift[:, None], none).log()
        module.decoder.gene_linear.weight.mul_(0.5 / change.std(0).mean())
    assert model.data is not None
    return with_banks(replace(model.trained, module=module), model.data)


def sampling(model: TrainedModel, conditions: list[str], n_particles: int, seed: int) -> tuple[Any, Any]:
    """Effects by sampling counts and their standard errors, conditions × genes."""
    generator = np.random.default_rng(seed)
    with seeded(seed):
        dosages = torch.cat([torch.zeros(1, len(model.perturbations)), model.dosage(tuple(conditions))])
        moments = [sampled_moments(model, dosage, n_particles, generator) for dosage in dosages]
    means, variances = (torch.stack(parts) for parts in zip(*moments, strict=True))
    error = ((variances[1:] + variances[0]) / n_particles).sqrt()
    return (means[1:] - means[0]).numpy(), error.numpy()


def sampled_moments(model: TrainedModel, dosage: Any, n_particles: int, generator: np.random.Generator) -> Any:
    """Mean and variance of the log expression of sampled cells, (genes,) each."""
    treatments = torch.nonzero(dosage).squeeze(1)
    total = torch.zeros(len(model.var))
    squares = torch.zeros(len(model.var))
    for start in range(0, n_particles, 250):
        n = min(250, n_particles - start)
        states = draw_basal(model, (n, 1), "controls", generator)
        z_b, library = states.state, states.library_size
        z_p = torch.zeros_like(z_b)
        if len(treatments):
            z_p = draw_globals(model, n, treatments).shift.sum(1, keepdim=True)
        share = model.module.decode_share(z_b, z_p, torch.zeros_like(z_b))[:, 0]
        counts = model.module.likelihood.sample(share * torch.from_numpy(library))
        value = torch.log2(1 + TARGET_SUM * counts / counts.sum(1, keepdim=True).clamp_min(1))
        total += value.sum(0)
        squares += value.square().sum(0)
    mean = total / n_particles
    return mean, squares / n_particles - mean.square()


def standard_error(runs: list[Any]) -> float:
    """Standard deviation over runs, root mean square over genes and conditions."""
    return float(np.sqrt(np.var(np.stack(runs), axis=0, ddof=1).mean()))


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    print(f"{result['conditions']} of {result['perturbations']} perturbations, {result['genes']:,} genes, CPU only")
    columns = ("sampling", "package", "by default")
    print(" " * 32 + "".join(f"{name:>12}" for name in columns))
    for name, value in result.items():
        label = f"{name.replace('_', ' '):<32}"
        if isinstance(value, dict):
            print(label + "".join(f"{value[column]:>12.4g}" for column in columns if column in value))
        elif isinstance(value, float):
            print(f"{label}{value:>12.4g}")


if __name__ == "__main__":
    main()

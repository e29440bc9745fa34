"""Every command of the command line: its name, one line about it, and where its function is.

This module imports none of the functions, so that an overview of the commands takes no time. A new command is a
function in a module beside this one and an entry in :data:`COMMANDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

SETTINGS_FILE = "settings.yaml"
"""What a command used, beside what it wrote; it can be given back with `--config`."""


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes
    ----------
    name
        What follows ``cradlevae`` on the command line.
    summary
        One line for the overview.
    module
        Module that holds the command's function, under the command's name. Parameters without a default are the
        words that follow the command; all others are options.
    texts
        Functions, ``module:name``, whose docstrings describe the options that the command's own does not.
    everyday
        Options that most users need, in the order of the help; it has the others below, as advanced ones. Empty where
        there are so few options that all are.
    """

    name: str
    summary: str
    module: str
    texts: tuple[str, ...] = ()
    everyday: tuple[str, ...] = ()

    def function(self) -> Callable[..., None]:
        """What the command does; imports it."""
        function: Callable[..., None] = getattr(import_module(self.module), self.name)
        return function

    def described_by(self) -> tuple[Any, ...]:
        """The command's function, and those that describe its other options; imports them."""
        homes = [text.split(":") for text in (*self.texts, *SHARED)]
        return (self.function(), *(getattr(import_module(module), name) for module, name in homes))


SHARED = tuple(f"cradlevae.commands.files:{name}" for name in ("load_with_cells", "open_data", "check_outputs"))
"""Functions whose docstrings describe the options that many commands have."""

COMMANDS = {
    command.name: command
    for command in (
        Command(
            "assign",
            "assign guide RNAs to cells: the perturbation of each",
            "cradlevae.commands.guides",
            ("cradlevae.data.guides.assignment:assign_guides",),
        ),
        Command(
            "guides",
            "compare the guide RNAs of each target: effects and outliers",
            "cradlevae.commands.guides",
            ("cradlevae.query.guide_effects:guide_effects", "cradlevae.commands.files:open_data"),
        ),
        Command(
            "qc",
            "annotate cells that fail quality control",
            "cradlevae.commands.prepare",
            ("cradlevae.data.qc.annotate:annotate_qc",),
        ),
        Command(
            "split",
            "assign cells to train, validation and test",
            "cradlevae.commands.prepare",
            ("cradlevae.data.split:split", "cradlevae.commands.files:open_data"),
        ),
        Command(
            "train",
            "train CRADLE-VAE, or a sibling (--model)",
            "cradlevae.commands.train",
            ("cradlevae.commands.files:open_data",),
            everyday=(
                "output",
                "split",
                "perturbation_key",
                "artifact_key",
                "layer",
                "control_labels",
                "batch_key",
                "context_key",
                "model",
                "max_epochs",
                "seed",
                "resume",
                "overwrite",
            ),
        ),
        Command(
            "predict",
            "predict counts for perturbations and unseen combinations",
            "cradlevae.commands.ask",
            ("cradlevae.query.predict:predict",),
        ),
        Command(
            "effects",
            "effect of each perturbation on each gene, with intervals",
            "cradlevae.commands.ask",
            ("cradlevae.query.effects:effects", "cradlevae.query.effects_table:effects_table"),
        ),
        Command(
            "contrast",
            "difference of two perturbations on each gene",
            "cradlevae.commands.ask",
            ("cradlevae.query.contrasts.contrast:contrast", "cradlevae.query.effects_table:effects_table"),
        ),
        Command(
            "interactions",
            "what pairs of perturbations do beyond the sum of both",
            "cradlevae.commands.ask",
            ("cradlevae.query.contrasts.interactions:interactions", "cradlevae.query.effects_table:effects_table"),
        ),
        Command(
            "expression",
            "expected expression of a gene in every perturbation",
            "cradlevae.commands.ask",
            ("cradlevae.query.contrasts.expression:expression",),
        ),
        Command(
            "clean",
            "the artifact-free twin of each cell",
            "cradlevae.commands.ask",
            ("cradlevae.query.counterfactual:clean",),
        ),
        Command(
            "diagnose",
            "what happened to each failed cell: kinds of damage and severity",
            "cradlevae.commands.ask",
            ("cradlevae.query.diagnose:diagnose",),
        ),
        Command(
            "responders",
            "which cells respond to their perturbation, and the share that does",
            "cradlevae.commands.ask",
            ("cradlevae.query.responders.respond:responders",),
        ),
        Command(
            "evaluate",
            "score a model on held-out cells, with floors and ceiling",
            "cradlevae.commands.evaluate",
            ("cradlevae.evaluation.evaluate:evaluate",),
        ),
        Command(
            "report",
            "one page: verdict, effects, cells, quality control, scores",
            "cradlevae.commands.report",
            ("cradlevae.reporting.report:report",),
        ),
        Command("download", "download a published data set and convert it", "cradlevae.commands.prepare"),
        Command(
            "simulate",
            "simulate an experiment with known artifacts",
            "cradlevae.commands.prepare",
            ("cradlevae.data.simulation.simulate:simulate",),
        ),
        Command(
            "benchmark",
            "models × data sets × seeds by a plan; resumable, in parallel",
            "cradlevae.commands.benchmark",
            ("cradlevae.benchmarking.benchmark:benchmark",),
        ),
        Command(
            "sweep",
            "search hyper-parameters of a model, on validation cells",
            "cradlevae.commands.benchmark",
            ("cradlevae.benchmarking.sweep:sweep",),
        ),
        Command(
            "reproduce",
            "the published settings on a published data set",
            "cradlevae.commands.benchmark",
            ("cradlevae.benchmarking.benchmark:benchmark",),
        ),
        Command(
            "demo",
            "all of it on simulated data, in a few minutes",
            "cradlevae.commands.demo",
            ("cradlevae.demo:run_demo",),
        ),
    )
}
"""The commands by name, in the order of the overview."""

"""The command line: ``cradlevae COMMAND``, options from the typed signatures of :mod:`cradlevae.commands`."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = {
    "qc": "annotate cells that fail quality control",
    "split": "assign cells to train, validation and test",
    "train": "train CRADLE-VAE, or a sibling (--model)",
    "predict": "predict counts for perturbations and unseen combinations",
    "effects": "effect of each perturbation on each gene, with intervals",
    "clean": "the artifact-free twin of each cell",
    "evaluate": "score a model on held-out cells, with floors and ceiling",
    "download": "download a published data set and convert it",
    "simulate": "simulate an experiment with known artifacts",
    "benchmark": "models × data sets × seeds by a plan; resumable, in parallel",
    "sweep": "search hyper-parameters of a model, on validation cells",
    "reproduce": "the published settings on a published data set",
    "demo": "all of it on simulated data, in a few minutes",
}

SETTINGS_FILE = "settings.yaml"
FLAT = ("fields", "model", "training")
"""Groups of options that stand on the command line under their own names, as they do in Python."""


LISTS = ("perturbations", "criteria")
"""Options that take several words."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status (0 well, 1 an error that the message explains, 2 wrong usage)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"cradlevae {version('cradlevae')}")
        return 0
    name = arguments[0]
    if name not in NAMES:
        from cradlevae.data.labels import closest

        print(f"cradlevae: unknown command {name!r}{closest(name, list(NAMES))}", file=sys.stderr)
        return 2
    from cradlevae.errors import CradleError

    try:
        parser, function = _parser(name)
        options = parser.parse_args(arguments[1:])
        _show_warnings()
        keywords = _keywords(function, options)
        function(**keywords)
        _record(parser, options)
    except CradleError as error:
        print(f"cradlevae {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"cradlevae {name}: interrupted", file=sys.stderr)
        return 130
    return 0


def _overview() -> str:
    lines = "\n".join(f"  {name:<10}{what}" for name, what in NAMES.items())
    return (
        "usage: cradlevae COMMAND [options]\n\n"
        "Artifact-free predictions from Perturb-seq (CRADLE-VAE), QC-failed cells included.\n\n"
        f"commands:\n{lines}\n\n"
        "`cradlevae COMMAND --help` lists a command's options; each can also stand in a YAML file (--config FILE).\n"
        "First steps: `cradlevae demo`, then `cradlevae train data.h5ad --output run/`."
    )


def _parser(name: str) -> tuple[Any, Any]:
    from jsonargparse import ActionConfigFile, ArgumentParser

    from cradlevae.commands import COMMANDS

    function = COMMANDS[name]
    summary = (function.__doc__ or "").split("\n\n")[0]
    parser = ArgumentParser(prog=f"cradlevae {name}", description=summary)
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options.")
    lists = [key for key in LISTS if key in function.__annotations__]
    parser.add_function_arguments(function, as_positional=True, skip={*FLAT, *lists})
    for key in lists:
        _add_list(parser, function, key)
    for kind in _groups(function).values():
        parser.add_class_arguments(kind, None)
    return parser, function


def _groups(function: Any) -> dict[str, Any]:
    """Groups of options that a command takes, with the dataclass of each."""
    from cradlevae.data.experiment import DataFields
    from cradlevae.model.config import ModelConfig, TrainConfig

    kinds = {"fields": DataFields, "model": ModelConfig, "training": TrainConfig}
    return {group: kinds[group] for group in FLAT if group in function.__annotations__}


def _add_list(parser: Any, function: Any, key: str) -> None:
    """An option of several words, positional where the command needs it."""
    from inspect import Parameter, signature

    text = re.search(rf"^ +{key}: (.+)$", function.__doc__ or "", re.MULTILINE)
    help_text = text.group(1) if text else None
    if signature(function).parameters[key].default is Parameter.empty:
        parser.add_argument(key, nargs="+", type=str, help=help_text)
    else:
        parser.add_argument(f"--{key}", nargs="+", type=str, default=None, help=help_text)


def _keywords(function: Any, options: Any) -> dict[str, Any]:
    """Arguments of the command's function: its own, and its groups made of their flat options."""
    given = {key: value for key, value in options.as_dict().items() if key != "config"}
    groups = {}
    for group, kind in _groups(function).items():
        groups[group] = kind(**{name: given.pop(name) for name in kind.__dataclass_fields__})
    return {**given, **groups}


def _record(parser: Any, options: Any) -> None:
    """Write what the command used beside what it wrote; it can be given back with ``--config``."""
    from cradlevae.utils.atomic import write_text

    output = Path(options.output)
    path = output / SETTINGS_FILE if output.is_dir() else output.with_name(f"{output.name}.{SETTINGS_FILE}")
    write_text(path, parser.dump(options.clone(with_meta=False)))


def _show_warnings() -> None:
    """Warnings as lines of text, once each, without the code that raised them."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, UserWarning):
            print(f"warning: {message}", file=sys.stderr)

    warnings.simplefilter("once", UserWarning)
    warnings.showwarning = show


if __name__ == "__main__":
    sys.exit(main())

"""The command that takes a simulated experiment through every step."""

from __future__ import annotations

from pathlib import Path


def demo(*, output: Path = Path("demo"), max_epochs: int | None = None, seed: int = 0) -> None:
    """Simulate, annotate, split, train, evaluate, predict and clean; takes a few minutes."""
    from cradlevae.demo import run_demo

    run_demo(output, max_epochs=max_epochs, seed=seed)

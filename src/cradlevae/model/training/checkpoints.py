"""Checkpoints written straight to disk; Lightning makes them whole in memory first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cradlevae.utils.atomic import atomic_path


class StreamedCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint without a copy of it in memory, which would be three times the weights; atomic."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; it appears when it is whole."""
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

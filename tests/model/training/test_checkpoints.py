"""A checkpoint is whole or it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cradlevae.model.training.checkpoints import StreamedCheckpoints


def test_a_checkpoint_comes_back_and_an_error_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "last.ckpt"
    StreamedCheckpoints().save_checkpoint({"epoch": 3, "weights": torch.arange(5.0)}, path)
    with pytest.raises((AttributeError, TypeError)):
        StreamedCheckpoints().save_checkpoint({"epoch": 4, "broken": lambda: None}, path)
    found = StreamedCheckpoints().load_checkpoint(path)
    assert found["epoch"] == 3
    torch.testing.assert_close(found["weights"], torch.arange(5.0))
    assert list(path.parent.iterdir()) == [path]

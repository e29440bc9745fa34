"""Training on a CUDA device gives a model that answers as one trained on the CPU does."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch

import cradlevae as cv

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_training_on_a_gpu(simulated: ad.AnnData, tiny_options, quick) -> None:
    models = {}
    for accelerator in ("cpu", "gpu"):
        models[accelerator] = cv.CradleVAE(simulated, seed=0, **tiny_options)
        models[accelerator].train(5, **(quick | {"accelerator": accelerator}))
    cpu, gpu = (models[name].history["val_loss"].to_numpy() for name in ("cpu", "gpu"))
    np.testing.assert_allclose(cpu, gpu, rtol=0.02)
    assert next(models["gpu"].trained.module.parameters()).device.type == "cpu"
    assert np.isfinite(models["gpu"].effects(["A"]).X).all()

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


@pytest.mark.parametrize("reference", ["mean", "cell"])
def test_where_the_cells_are_has_no_say_on_a_gpu(simulated: ad.AnnData, tiny_options, quick, reference: str) -> None:
    losses = {}
    for place in ("never", "auto"):
        model = cv.CradleVAE(simulated, seed=0, reference=reference, **tiny_options)
        model.train(2, **(quick | {"accelerator": "gpu", "data_on_device": place}))
        losses[place] = model.history["val_loss"].to_numpy()
    np.testing.assert_allclose(losses["never"], losses["auto"], rtol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
def test_two_gpus_give_what_one_gives(simulated: ad.AnnData, tiny_options, quick) -> None:
    losses = {}
    for devices in (1, 2):
        model = cv.CradleVAE(simulated, seed=0, **tiny_options)
        model.train(2, **(quick | {"accelerator": "gpu", "devices": devices}))
        losses[devices] = model.history["val_loss"].to_numpy()
    np.testing.assert_allclose(losses[1], losses[2], rtol=1e-4)

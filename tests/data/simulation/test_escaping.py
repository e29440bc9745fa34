"""Escaping cells: what they have and what they carry, and what that makes of the true effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cradlevae.data.simulation.simulate import simulate
from cradlevae.errors import DataError

SMALL: dict[str, Any] = {
    "n_cells": 900, "n_genes": 60, "n_perturbations": 4, "n_combinations": 2, "n_interacting": 1, "n_latent": 6,
    "artifact_rate": 0,
}  # fmt: skip
SCREEN: dict[str, Any] = SMALL | {"n_batches": 2, "n_contexts": 2, "context_sd": 0.5}


@pytest.mark.parametrize("sizes", [SMALL, SCREEN], ids=["plain", "batches and contexts"])
def test_without_escaping_nothing_tells_that_cells_might(sizes: dict[str, Any]) -> None:
    plain, none = simulate(**sizes), simulate(**sizes, escaping={"A": 0.0})
    assert "true_escaped" not in plain.obs
    assert not {"escaping", "effects_of_responders"} & set(plain.uns["truth"])
    assert plain.obs.equals(none.obs)
    assert (plain.X != none.X).nnz == 0
    np.testing.assert_array_equal(plain.uns["truth"]["effects"], none.uns["truth"]["effects"])


def test_escaping_cells_carry_the_label_and_have_the_state_of_controls() -> None:
    plain, adata = simulate(**SMALL), simulate(**SMALL, escaping=0.4)
    escaped = adata.obs["true_escaped"].to_numpy()
    labels = adata.obs["perturbation"]
    assert not escaped[labels == "control"].any()
    assert 0.3 < escaped[labels != "control"].mean() < 0.5
    assert labels.equals(plain.obs["perturbation"])
    assert not adata.obsm["true_z_perturbation"][escaped].any()
    np.testing.assert_array_equal(
        adata.obsm["true_z_perturbation"][~escaped], plain.obsm["true_z_perturbation"][~escaped]
    )
    np.testing.assert_array_equal(adata.obsm["true_z_basal"], plain.obsm["true_z_basal"])


def test_cells_escape_by_the_share_of_their_condition() -> None:
    pair = str(simulate(**SMALL).uns["truth"]["effect_conditions"][-1])
    obs = simulate(**SMALL, escaping={"A": 0.5, pair: 1}).obs
    shares = obs.groupby("perturbation", observed=True)["true_escaped"].mean()
    assert shares[pair] == 1
    assert 0.3 < shares["A"] < 0.7
    assert shares.drop(["A", pair]).eq(0).all()


@pytest.mark.parametrize("sizes", [SMALL, SCREEN], ids=["plain", "batches and contexts"])
def test_effects_of_all_labelled_cells_are_those_of_responders_diluted(sizes: dict[str, Any]) -> None:
    truth = simulate(**sizes, escaping={"A": 0.25, "B": 1}).uns["truth"]
    whole = simulate(**sizes).uns["truth"]
    names = list(truth["effect_conditions"])
    responding = 1 - truth["escaping"]
    assert responding[names.index("A")] == 0.75
    assert not truth["effects"][names.index("B")].any()
    np.testing.assert_array_equal(truth["effects_of_responders"], whole["effects"])
    np.testing.assert_allclose(truth["effects"], responding[:, None] * whole["effects"], rtol=1e-6)
    if "effects_by_context" in whole:
        np.testing.assert_allclose(
            truth["effects_by_context"], responding[:, None] * whole["effects_by_context"], rtol=1e-6
        )


def test_the_true_effect_is_what_labelled_cells_show() -> None:
    sizes = SMALL | {"n_perturbations": 2, "n_combinations": 0, "n_interacting": 0, "n_cells": 6000, "n_genes": 40}
    adata = simulate(**sizes, effect_size=5, control_share=0.4, library_size=(2000, 0.2), escaping=0.5)
    counts = adata.X.toarray().astype(np.float64)
    logged = np.log2(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True))
    label = adata.obs["perturbation"].to_numpy()
    measured = logged[label == "A"].mean(axis=0) - logged[label == "control"].mean(axis=0)
    true = adata.uns["truth"]["effects"][list(adata.uns["truth"]["effect_conditions"]).index("A")]
    assert np.corrcoef(measured, true)[0, 1] > 0.95
    assert 0.9 < (measured @ true) / (true @ true) < 1.1


@pytest.mark.parametrize(
    ("escaping", "message"),
    [
        (-0.1, "share from 0 to 1"),
        (1.5, "share from 0 to 1"),
        (True, "share from 0 to 1"),
        ("many", "share from 0 to 1"),
        (float("nan"), "share from 0 to 1"),
        ({"A": 2}, "escaping of 'A'"),
        ({"control": 0.5}, "controls cannot escape"),
        ({"nonsense": 0.5}, "not simulated"),
    ],
)
def test_what_is_no_share_is_refused(escaping: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        simulate(**SMALL, escaping=escaping)

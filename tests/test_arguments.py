"""Arguments mean what they say: NumPy's numbers are Python's, nothing is ignored, nothing breaks without a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import cradlevae as cv
from cradlevae.data.fields import fields_of


@pytest.fixture(scope="module")
def floor(simulated: ad.AnnData) -> cv.FloorModel:
    floor = cv.FloorModel("hierarchical_mean", simulated)
    floor.train()
    return floor


def plain(value: Any) -> bool:
    """Whether a value consists of Python's own types, arrays and tables."""
    if isinstance(value, dict):
        return all(plain(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(plain(item) for item in value)
    return not isinstance(value, np.generic)


class TestNumpy:
    def test_questions_to_a_model(self, model: cv.CradleVAE, simulated: ad.AnnData) -> None:
        cells = model.predict(np.array(["A"]), np.int64(5), seed=np.int64(1), library_size=np.float32(500))
        np.testing.assert_array_equal(cells.X.toarray(), model.predict("A", 5, seed=1, library_size=500).X.toarray())
        effects = model.effects("A", np.float64(0.9), error=np.float32(0.5), seed=np.int32(0), residual=np.bool_(True))
        assert plain(dict(effects.uns["effects"]))
        np.testing.assert_array_equal(effects.X, model.effects("A", 0.9, error=0.5).X)
        few = simulated[:20]
        cleaned = model.clean(few, n_draws=np.int64(2), seed=np.uint8(3))
        again = model.clean(few, n_draws=2, seed=3)
        np.testing.assert_array_equal(cleaned.X.toarray(), again.X.toarray())
        table = model.artifact_signature(n_draws=np.int64(2), n_states=np.int64(3), credible=np.float32(0.5))
        assert len(table) == simulated.n_vars
        assert len(model.log_likelihood(few, n_particles=np.int64(2))) == 20
        assert model.latents(few, n_draws=np.int64(2), sample=np.bool_(True)).n_obs == 20
        model.published_effects("A", n_particles=np.int64(2), library_size=np.int64(500))

    def test_a_model_of_numpy_numbers_is_trained_saved_and_read(
        self, simulated: ad.AnnData, tmp_path: Path, quick: dict[str, Any]
    ) -> None:
        model = cv.CradleVAE(
            simulated,
            artifact_key=np.array(["low_umi", "other_damage"]),
            control_labels=np.array(["control", "NT"]),
            guide_min_count=np.int64(1),
            n_latent=np.int64(4),
            width=np.int32(8),
            seed=np.int64(0),
        )
        assert plain(asdict(model.trained.fields))
        assert plain(asdict(model.config))
        options = quick | {"batch_size": np.int64(64), "learning_rate": np.float64(1e-3), "patience": np.int64(3)}
        model.train(np.int64(1), output=tmp_path / "run", **options)
        model.save(str(tmp_path / "run"))
        assert cv.load(tmp_path / "run").trained.fields == model.trained.fields

    def test_floors_and_scores(self, floor: cv.FloorModel, simulated: ad.AnnData) -> None:
        answer = floor.effects(["A"], np.float64(0.5))
        assert plain(dict(answer.uns["effects"]))
        assert floor.predict("A", np.int64(3), library_size=np.float64(900), seed=np.int64(1)).n_obs == 3
        scores = cv.evaluate(floor, simulated, n_cells=np.int64(5), seed=np.int64(0), published=np.bool_(False))
        assert len(scores)

    def test_data(self, simulated: ad.AnnData, tmp_path: Path) -> None:
        adata = cv.simulate(n_cells=np.int64(80), n_genes=np.int32(30), n_perturbations=np.int64(3),
                            n_combinations=np.int8(2), effect_size=np.float32(2), seed=np.uint64(1))  # fmt: skip
        again = cv.simulate(n_cells=80, n_genes=30, n_perturbations=3, n_combinations=2, effect_size=2.0, seed=1)
        np.testing.assert_array_equal(adata.X.toarray(), again.X.toarray())
        cv.annotate_qc(adata, criteria=np.array(["umi", "mito"]), n_mads=np.float32(3), max_fail_share=np.float64(1))
        assert plain({k: v for k, v in adata.uns["cradlevae_qc"].items() if not isinstance(v, np.ndarray)})
        assert len(cv.confounding_alarm(adata, fdr=np.float64(0.1)))
        split = cv.split(adata, "perturbations", seed=np.int64(1), n_shared=np.int64(0))
        split.save(str(tmp_path / "split.json"))
        assert json.loads((tmp_path / "split.json").read_text())["seed"] == 1
        assert cv.Split.load(str(tmp_path / "split.json")).hash == cv.split(adata, "perturbations", seed=1).hash
        del adata.layers["clean"]
        planted = cv.plant_artifacts(adata, share=np.float32(0.5), kinds=np.array(["low_umi"]), seed=np.int64(0))
        assert int(planted.obs["artifact"].sum()) == 40

    def test_fields_are_plain(self) -> None:
        fields = cv.DataFields(
            perturbation_key=np.str_("gene"), control_labels={"NT"}, artifact_key=["umi", np.str_("mito")],
            guide_min_count=np.int64(2),
        )  # fmt: skip
        assert fields == cv.DataFields("gene", ("umi", "mito"), control_labels=("NT",), guide_min_count=2.0)
        assert type(fields.perturbation_key) is str
        assert type(fields.guide_min_count) is float
        json.dumps(asdict(fields))


class TestNothingIsIgnored:
    def test_keywords_complete_the_fields_of_a_split_or_are_refused(self, simulated: ad.AnnData) -> None:
        adata = simulated.copy()
        adata.obs["gene"] = adata.obs["perturbation"].astype(str).str.replace("+", "_")
        fields = cv.DataFields(perturbation_key="gene")
        both = cv.split(adata, "combinations", fields=fields, separator="_")
        whole = cv.split(adata, "combinations", fields=cv.DataFields("gene", separator="_"))
        assert both.hash == whole.hash
        with pytest.raises(cv.DataError, match=r"perturbation_key is 'perturbation', but fields= has 'gene'"):
            cv.split(adata, fields=fields, perturbation_key="perturbation")
        with pytest.raises(cv.DataError, match=r"separator is '_', but fields= has ';'"):
            fields_of(cv.DataFields(separator=";"), {"separator": "_"})
        with pytest.raises(cv.DataError, match="unknown option 'seperator'; did you mean 'separator'"):
            cv.split(adata, seperator="_")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"recipe": "cells", "n_shared": 1}, "'cells' has no n_shared"),
            ({"recipe": "combinations", "column": "artifact"}, "'combinations' reads no column"),
            ({"recipe": "column", "column": "part", "seed": 1}, "draws nothing at random"),
        ],
    )
    def test_options_of_another_recipe(self, options: dict[str, Any], message: str, simulated: ad.AnnData) -> None:
        adata = simulated.copy()
        adata.obs["part"] = "train"
        with pytest.raises(cv.DataError, match=message):
            cv.split(adata, **options)

    def test_what_needs_a_folder(self, untrained: cv.CradleVAE) -> None:
        with pytest.raises(cv.DataError, match="resume needs a folder"):
            untrained.train(1, resume=True)
        with pytest.raises(cv.DataError, match="tensorboard needs a folder"):
            untrained.train(1, tensorboard=True)

    def test_cells_that_are_not_generated(self, floor: cv.FloorModel, simulated: ad.AnnData) -> None:
        with pytest.raises(cv.DataError, match="n_cells means nothing"):
            cv.evaluate(floor, simulated, generated=False, n_cells=5)

    def test_a_layer_of_cells_on_disk(self, simulated: ad.AnnData, tmp_path: Path) -> None:
        simulated.write_h5ad(tmp_path / "a.h5ad")
        with pytest.raises(cv.DataError, match="layer 'counts' is not in"):
            cv.open_cells(tmp_path / "a.h5ad").load("counts")

    def test_mirror_beside_a_path(self, tmp_path: Path) -> None:
        with pytest.raises(cv.DataError, match="mirror= means nothing"):
            cv.datasets.norman(path=tmp_path / "a.h5ad", mirror="http://example.org", cache=tmp_path)


class TestOrder:
    """What is wrong is said before the counts are read."""

    @pytest.fixture
    def unreadable(self, simulated: ad.AnnData) -> ad.AnnData:
        """An experiment whose counts are refused as soon as they are read."""
        adata = simulated.copy()
        adata.X = adata.X * 0.5
        return adata

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"perturbation_key": "gene"}, "no column 'gene'"),
            ({"artifact_key": "qc"}, "no column 'qc'"),
            ({"split": "cells"}, "split is 'cells'"),
            ({"seed": None}, "seed is None"),
            ({"n_latent": 0}, "n_latent is 0"),
            ({"artifact_key": ["low_umi", "other_damage"], "objective": "released"}, "one artifact class"),
            ({}, "fractional values"),
        ],
    )
    def test_of_construction(self, options: dict[str, Any], message: str, unreadable: ad.AnnData) -> None:
        with pytest.raises(cv.DataError, match=message):
            cv.CradleVAE(unreadable, **options)

    def test_controls_and_unknown_perturbations(self, model: cv.CradleVAE, unreadable: ad.AnnData) -> None:
        unreadable.obs["perturbation"] = unreadable.obs["perturbation"].astype(str).replace("control", "Z")
        with pytest.raises(cv.DataError, match="no control cells"):
            cv.FloorModel("shrunk_mean", unreadable)
        with pytest.raises(cv.DataError, match=r"'Z'.*unknown to the model"):
            model.clean(unreadable)


class TestBareErrors:
    def test_a_column_that_stands_twice(self, model: cv.CradleVAE, simulated: ad.AnnData) -> None:
        adata = simulated.copy()
        adata.obs = pd.concat([adata.obs, adata.obs[["perturbation"]]], axis=1)
        calls = [
            lambda: cv.CradleVAE(adata),
            lambda: cv.FloorModel("zero", adata),
            lambda: cv.split(adata),
            lambda: cv.annotate_qc(adata, criteria="umi"),
            lambda: cv.confounding_alarm(adata),
            lambda: model.clean(adata),
            lambda: cv.evaluate(model, adata),
        ]
        for call in calls:
            with pytest.raises(cv.DataError, match="several columns 'perturbation'"):
                call()

    def test_outputs_that_are_folders_and_folders_that_are_files(
        self, model: cv.CradleVAE, simulated: ad.AnnData, tmp_path: Path
    ) -> None:
        folder = tmp_path / "cells.h5ad"
        folder.mkdir()
        file = tmp_path / "file"
        file.write_text("")
        for call in (
            lambda: model.predict("A", 2, output=folder),
            lambda: model.clean(simulated, output=folder),
            lambda: model.split.save(folder),
        ):
            with pytest.raises(cv.DataError, match="is a folder; name a file"):
                call()
        for call in (
            lambda: model.save(file),
            lambda: cv.to_cell_eval(model, simulated, file),
            lambda: cv.CradleVAE(simulated, n_latent=4, width=8).train(1, output=file),
        ):
            with pytest.raises(cv.DataError, match="is a file; name a folder"):
                call()
        with pytest.raises(cv.DataError, match="cannot read the split manifest"):
            cv.Split.load(folder)

    def test_a_view_of_an_anndata_on_disk(self, simulated: ad.AnnData, tmp_path: Path) -> None:
        simulated.write_h5ad(tmp_path / "a.h5ad")
        backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
        with pytest.raises(cv.DataError, match=r"view of an AnnData on disk.*to_memory"):
            cv.annotate_qc(backed[:100], criteria="umi")
        cv.annotate_qc(backed, criteria="umi", key_added="failed")
        assert "failed" in backed.obs

    def test_every_device_of_a_processor_is_one(self, simulated: ad.AnnData, quick: dict[str, Any]) -> None:
        model = cv.CradleVAE(simulated, n_latent=4, width=8)
        model.train(1, devices="auto", **quick)
        again = cv.CradleVAE(simulated, n_latent=4, width=8)
        again.train(1, **quick)
        assert model.history.drop(columns="seconds").equals(again.history.drop(columns="seconds"))

    def test_untrained_models_are_not_scored(self, untrained: cv.CradleVAE, simulated: ad.AnnData) -> None:
        with pytest.raises(cv.DataError, match="has not been trained"):
            cv.evaluate(untrained, simulated)

    def test_one_gene(self, simulated: ad.AnnData) -> None:
        one = simulated[:, [30]].copy()
        one.X = one.X + sp.csr_matrix(np.ones(one.shape, dtype=np.float32))
        floor = cv.FloorModel("shrunk_mean", one)
        floor.train()
        with pytest.raises(cv.DataError, match="one gene"):
            cv.evaluate(floor, one)

    @pytest.mark.filterwarnings("ignore:100% of the reference cells")
    @pytest.mark.parametrize("n_genes", [2, 3])
    def test_few_genes(self, n_genes: int, simulated: ad.AnnData) -> None:
        few = simulated[:, :n_genes].copy()
        few.X = few.X + sp.csr_matrix(np.ones(few.shape, dtype=np.float32))
        del few.layers["clean"]
        del few.uns["truth"]
        floor = cv.FloorModel("shrunk_mean", few)
        floor.train()
        assert len(cv.evaluate(floor, few, n_cells=5))


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.filterwarnings("ignore:the Monte-Carlo error")
def test_torch_with_another_default_dtype(
    simulated: ad.AnnData, quick: dict[str, Any], tmp_path: Path, float64: None
) -> None:
    def answers() -> list[Any]:
        model = cv.CradleVAE(simulated, n_latent=4, width=8)
        model.train(1, **quick)
        model.save(tmp_path / "run", overwrite=True)
        model = cv.CradleVAE.load(tmp_path / "run")
        signature = model.artifact_signature(n_draws=2, n_states=3)
        return [
            model.predict("A", 5).X.toarray(), model.effects("A", error=0.5).X,
            model.clean(simulated[:20]).layers["expected"],
            signature["log2_fold_change"], model.latents(simulated[:20]).obsm["z_basal"],
            cv.evaluate(model, simulated, n_cells=5)["value"],
        ]  # fmt: skip

    other = answers()
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)
    for mine, usual in zip(other, answers(), strict=True):
        np.testing.assert_array_equal(mine, usual)


def test_the_alarm_reads_an_anndata(simulated: ad.AnnData) -> None:
    renamed = simulated.copy()
    renamed.obs["gene"] = renamed.obs["perturbation"].astype(str).str.replace("+", "_").replace("control", "NT")
    renamed.obs["bad"] = renamed.obs["artifact"].astype(int)
    keys = {"perturbation_key": "gene", "artifact_key": "bad", "control_labels": "NT", "separator": "_"}
    table = cv.confounding_alarm(renamed, **keys)
    usual = cv.confounding_alarm(simulated)
    assert list(table["perturbation"].str.replace("_", "+")) == list(usual["perturbation"])
    assert table["p_value"].equals(usual["p_value"])
    a = simulated.obs["perturbation"] == usual["perturbation"][0]
    assert usual["n_failed"][0] == simulated.obs["artifact"][a].sum()

"""What a user does first, from the data to the answers, and what the package refuses on the way."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

import cradlevae as cv
from cradlevae.api import CLASSES, PerturbationVAE
from cradlevae.errors import CradleError, DataError, TrainingError
from cradlevae.evaluation import cell_eval, evaluate
from cradlevae.query import counterfactual, effects, latents, predict, signature
from cradlevae.utils.docs import parameter_texts

Options = dict[str, Any]


@pytest.mark.filterwarnings("ignore:.*fails .* of the cells:UserWarning")
def test_from_data_to_answers(tiny_options: Options, quick: Options, tmp_path: Path) -> None:
    adata = cv.simulate(n_cells=300, n_genes=50, n_perturbations=3, n_combinations=3, n_interacting=0, seed=0)
    cv.annotate_qc(adata, criteria=("umi", "genes", "mito"))
    split = cv.split(adata, "combinations", seed=0)
    model = cv.CradleVAE(adata, perturbation_key="perturbation", artifact_key="artifact", split=split, **tiny_options)
    assert repr(model) == "CradleVAE(50 genes, 3 perturbations, artifacts: artifact; not trained)"
    model.train(max_epochs=2, **quick, output=tmp_path / "run")
    assert repr(model).endswith("trained, 2 epochs)")
    predicted = model.predict(["A+B", "C"], n_cells=5)
    assert predicted.shape == (10, 50)
    assert model.effects(["A+B"], credible=0.9).shape == (1, 50)
    assert model.clean(adata).shape == adata.shape
    assert len(model.artifact_signature()) == 50
    model.save(tmp_path / "run")
    loaded = cv.CradleVAE.load(tmp_path / "run")
    assert loaded.perturbations == ("A", "B", "C")
    assert loaded.split.hash == split.hash
    assert loaded.config.n_latent == 8
    assert loaded.trained.qc is not None
    np.testing.assert_array_equal(loaded.predict(["A+B", "C"], n_cells=5).X.toarray(), predicted.X.toarray())
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == [
        "checkpoints",
        "controls.h5ad",
        "history.csv",
        "model.json",
        "model.safetensors",
        "run.json",
        "split.json",
    ]
    with pytest.raises(DataError, match="already holds a run"):
        cv.CradleVAE(adata, split=split, **tiny_options).train(1, output=tmp_path / "run")


def test_a_backed_file_trains_to_the_same_model(
    simulated: ad.AnnData, tiny_options: Options, quick: Options, tmp_path: Path
) -> None:
    simulated.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    models = [cv.CradleVAE(adata, **tiny_options) for adata in (simulated, backed)]
    for model in models:
        model.train(1, **quick)
    backed.file.close()
    one, two = (model.predict("A+B", 5).X.toarray() for model in models)
    np.testing.assert_array_equal(one, two)


def test_a_model_with_a_guide_matrix_and_a_layer(simulated: ad.AnnData, tiny_options: Options, quick: Options) -> None:
    import pandas as pd

    adata = ad.AnnData(np.log1p(simulated.X), obs=simulated.obs[["artifact"]], var=simulated.var)
    adata.layers["counts"] = simulated.X
    labels = simulated.obs["perturbation"].astype(str)
    names = ["control", *"ABCDE"]
    table = np.array([[name in label.split("+") for name in names] for label in labels], dtype=int)
    adata.obsm["guides"] = pd.DataFrame(table, columns=names, index=adata.obs_names)
    split = cv.split(adata, "combinations", guides_key="guides")
    assert split.hash == cv.split(simulated, "combinations").hash
    one = cv.CradleVAE(adata, split=split, layer="counts", guides_key="guides", **tiny_options)
    two = cv.CradleVAE(simulated, split=split, **tiny_options)
    for model in (one, two):
        model.train(1, **quick)
    np.testing.assert_array_equal(one.effects("A").X, two.effects("A").X)


def test_unknown_options_are_refused_with_the_closest(simulated: ad.AnnData, model: cv.CradleVAE) -> None:
    with pytest.raises(DataError, match=r"unknown option 'n_latents'; did you mean 'n_latent'"):
        cv.CradleVAE(simulated, n_latents=3)
    with pytest.raises(DataError, match=r"unknown option 'batchsize'; did you mean 'batch_size'"):
        model.train(1, batchsize=3)
    with pytest.raises(DataError, match="objective is 'released2'; choose one of corrected, released"):
        cv.CradleVAE(simulated, objective="released2")
    with pytest.raises(DataError, match="max_epochs is 0"):
        model.train(0)


def test_bad_data_are_refused_before_any_work(simulated: ad.AnnData) -> None:
    with pytest.raises(DataError, match="no column 'gene' in obs"):
        cv.CradleVAE(simulated, "gene")
    with pytest.raises(DataError, match="no column 'qc' in obs"):
        cv.CradleVAE(simulated, artifact_key="qc")
    with pytest.raises(DataError, match="layer 'counts' is not in the AnnData"):
        cv.CradleVAE(simulated, layer="counts")
    logged = simulated.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(DataError, match="looks log-normalised"):
        cv.CradleVAE(logged)


def test_released_knows_one_artifact_class(simulated: ad.AnnData) -> None:
    with pytest.raises(DataError, match="objective='released' knows one artifact class, but artifact_key names 2"):
        cv.CradleVAE(simulated, artifact_key=("low_umi", "other_damage"), objective="released")


def test_a_split_that_does_not_fit_is_refused(simulated: ad.AnnData, tiny_options: Options) -> None:
    other = simulated.copy()
    other.obs_names = [f"other-{name}" for name in other.obs_names]
    with pytest.raises(DataError, match="none of the split's training cells are in the data"):
        cv.CradleVAE(simulated, split=cv.split(other, "cells"), **tiny_options)

    controls = simulated[simulated.obs["perturbation"] == "control"]
    with pytest.raises(DataError, match="all training cells are controls"):
        cv.CradleVAE(controls.copy(), **tiny_options)

    adata = simulated.copy()
    label = adata.obs["perturbation"].astype(str)
    adata.obs["part"] = np.where(label == "control", "test", "train")
    with pytest.raises(DataError, match="no control cells are in the training part of the split"):
        cv.CradleVAE(adata, split=cv.split(adata, "column", column="part"), **tiny_options)

    adata.obs["part"] = np.where(label.str.contains("C"), "test", "train")
    with pytest.raises(DataError, match=r"no training cells for 'C' \(1 perturbations\) in the split 'column'"):
        cv.CradleVAE(adata, split=cv.split(adata, "column", column="part"), **tiny_options)


def test_the_default_split_is_by_cell(simulated: ad.AnnData, tiny_options: Options) -> None:
    model = cv.CradleVAE(simulated, **tiny_options)
    assert model.split.hash == cv.split(simulated, "cells", seed=0).hash


def test_errors_can_be_caught_by_their_usual_kinds() -> None:
    assert issubclass(DataError, ValueError)
    assert issubclass(TrainingError, RuntimeError)
    assert issubclass(DataError, CradleError)
    assert issubclass(TrainingError, CradleError)


def test_every_public_name_is_there() -> None:
    for name in cv.__all__:
        assert getattr(cv, name) is not None
    assert set(cv.__all__) < set(dir(cv))
    assert cv.__version__.count(".") >= 1
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        cv.nonsense  # noqa: B018


def test_type_checkers_see_the_public_names() -> None:
    tree = ast.parse(Path(cv.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [(alias.name, alias.asname, node.module) for node in block.body for alias in node.names]  # type: ignore[attr-defined]
    assert all(name == public for name, public, _ in imports)  # `import X as X` is public for a type checker
    assert sorted(name for name, *_ in imports) == cv.__all__
    for name, _, module in imports:
        assert getattr(__import__(module, fromlist=[name]), name) is getattr(cv, name)


METHODS = {
    cv.CradleVAE.predict: predict.predict,
    cv.CradleVAE.effects: effects.effects,
    cv.CradleVAE.published_effects: effects.published_effects,
    cv.CradleVAE.clean: counterfactual.clean,
    cv.CradleVAE.counterfactual: counterfactual.counterfactual,
    cv.CradleVAE.artifact_signature: signature.artifact_signature,
    cv.CradleVAE.latents: latents.latents,
    cv.CradleVAE.mask_probabilities: latents.mask_probabilities,
    cv.CradleVAE.log_likelihood: latents.log_likelihood,
    cv.evaluate: evaluate.evaluate,
    cv.to_cell_eval: cell_eval.to_cell_eval,
}
"""The functions that methods pass their arguments on to."""


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_methods_have_the_parameters_of_what_they_call_with_a_text_for_each(method: Any) -> None:
    shown = list(inspect.signature(method).parameters.values())[1:]  # without self, or the model
    called = list(inspect.signature(METHODS[method]).parameters.values())[1:]
    assert [(one.name, one.default) for one in shown] == [(one.name, one.default) for one in called]
    texts, sources = parameter_texts(method), parameter_texts(METHODS[method])
    for one in shown:
        assert texts[one.name]
        if (method, one.name) != (cv.CradleVAE.predict, "output"):  # says more where it is read
            assert texts[one.name] == sources[one.name] or sources[one.name].startswith("As in")
    assert "options as in" not in method.__doc__.lower()
    assert "Returns\n-------" in method.__doc__ or method is cv.CradleVAE.mask_probabilities


@pytest.mark.parametrize("kind", list(CLASSES.values()), ids=list(CLASSES))
def test_classes_describe_what_they_take(kind: type[PerturbationVAE]) -> None:
    texts, fields = parameter_texts(kind), parameter_texts(cv.DataFields)
    assert [name.strip("*") for name in texts] == list(inspect.signature(kind).parameters)
    assert all(texts[name] == text for name, text in fields.items())
    assert ">>> import cradlevae as cv" in (kind.__doc__ or "")


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "torch, lightning, scanpy, anndata, sklearn, matplotlib, scipy, pandas"
    code = (
        "import sys, time; start = time.perf_counter(); import cradlevae; dir(cradlevae); "
        "took = time.perf_counter() - start; "
        f"loaded = [name for name in '{heavy}'.split(', ') if name in sys.modules]; print(took); print(loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took, loaded = done.stdout.split("\n")[:2]
    assert loaded == "[]"
    assert float(took) < 1


def test_reading_and_splitting_load_no_torch() -> None:
    code = (
        "import sys, cradlevae; cradlevae.split; cradlevae.DataFields; cradlevae.DataError; "
        "print([name for name in ('torch', 'lightning', 'scanpy', 'sklearn', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- real counts -----------------------------------------------------------------------------------------------


def test_real_counts_go_through(data_file: Any, tiny_options: Options, quick: Options) -> None:
    adata = ad.read_h5ad(data_file("norman2019_500g.h5ad"))
    adata.obs["artifact"] = np.asarray(adata.X.sum(axis=1)).ravel() < 60
    split = cv.split(adata, "combinations_published", seed=0)
    with pytest.warns(UserWarning, match="no training cells for"):
        model = cv.CradleVAE(adata, split=split, **tiny_options)
    model.train(1, **(quick | {"batch_size": 512}))
    assert np.isfinite(model.history.to_numpy()).all()
    alone = [name for name in model.trained.trained if name in model.trained.n_cells]
    assert model.effects(alone[:2]).shape == (2, 500)

"""Plans: what they hold, what they refuse, and the jobs that they are made of."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cradlevae.benchmarking.benchmark import write_slurm
from cradlevae.benchmarking.data_source import DataSource
from cradlevae.benchmarking.jobs import FLOORS, expand
from cradlevae.benchmarking.plan import ModelRun, Plan, Scoring, load_plan, plan_dict, plan_of
from cradlevae.benchmarking.reproduce import reproduction_plan
from cradlevae.data.experiment import DataFields
from cradlevae.errors import DataError


def content(**more: Any) -> dict[str, Any]:
    return {
        "data": [{"simulate": {"n_cells": 100}}],
        "models": ["cradle_vae", {"model": "cradle_vae", "label": "short", "training": {"max_epochs": 3}}],
        "split_seeds": [0, 1],
        **more,
    }


def test_a_plan_reads_what_it_writes(tmp_path: Path) -> None:
    plan = plan_of(content(scoring={"references": ["held-out", "all"]}))
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan_dict(plan)))
    assert load_plan(tmp_path / "plan.yaml") == plan
    assert plan.data[0].name == "simulated"
    assert plan.data[0].recipe == "combinations"
    assert plan.data[0].n_mads == (3.0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modles": []}, r"the plan has no 'modles'; did you mean .*'models'"),
        ({"models": ["cradel_vae"]}, r"unknown model 'cradel_vae'; did you mean 'cradle_vae'"),
        ({"models": ["cpa_vae", "cpa_vae"]}, r"several models of the plan are called 'cpa_vae'"),
        ({"models": [{"model": "zero", "training": {"max_epochs": 1}}]}, r"the floor 'zero' has no settings"),
        ({"models": [{"model": "cpa_vae", "settings": {"widht": 3}}]}, r"settings of 'cpa_vae' has no 'widht'"),
        ({"models": [{"model": "cpa_vae", "settings": {"width": "3"}}]}, r"width of settings .* must be int, not '3'"),
        ({"models": [{"model": "cpa_vae", "settings": {"alpha": 0.5}}]}, r"no artifact latent"),
        (
            {"models": [{"model": "cpa_vae", "data": ["norman"]}]},
            r"'cpa_vae' is to run on 'norman'; .*'simulated'",
        ),
        ({"training": {"seed": 3}}, r"the seeds of a plan are its init_seeds"),
        ({"training": {"seed": 0}}, r"the seeds of a plan are its init_seeds"),
        ({"training": {"progress": True}}, r"nobody sees a progress bar"),
        ({"training": {"tensorboard": True}}, r"jobs keep no folder"),
        ({"models": [{"model": "cpa_vae", "settings": {"model": "sams_vae"}}]}, r"'cpa_vae' name a model"),
        ({"models": [{"model": "zero", "init_seeds": [1]}]}, r"'zero' is not initialised at random"),
        ({"models": [{"model": "cpa_vae", "split_seeds": []}]}, r"split_seeds of 'cpa_vae' is empty"),
        ({"models": [{"model": "cpa_vae", "data": []}]}, r"data of 'cpa_vae' is empty"),
        ({"models": [{"model": "cpa_vae", "init_seeds": [1, 1]}]}, r"init_seeds of 'cpa_vae' has 1 twice"),
        ({"models": [{"model": "cpa_vae", "label": "zero"}]}, r"is called 'zero', as a floor is"),
        ({"models": [{"model": "cpa_vae", "label": "best floor"}]}, r"is called 'best floor', as a floor is"),
        ({"models": ["zero", {"model": "zero", "label": "none"}]}, r"the floor 'zero' is in the plan twice"),
        ({"split_seeds": [0, 1, 0]}, r"split_seeds of the plan has 0 twice; its scores would count twice"),
        ({"split_seeds": [-1]}, r"split_seeds of the plan is -1; it must be at least 0"),
        ({"split_seeds": [0.5]}, r"split_seeds of the plan must be int, not 0.5"),
        ({"data": [{"simulate": {}, "n_mads": [3, 3.0]}]}, r"n_mads of data set 'simulated' has 3.0 twice"),
        ({"data": [{"simulate": {"n_cell": 3}}]}, r"simulate: of data set 'simulated' has no 'n_cell'"),
        ({"data": [{"simulate": {}, "max_genes": 0}]}, r"max_genes of data set 'simulated' is 0"),
        ({"data": [{"simulate": {}, "max_cells_per_condition": 0}]}, r"max_cells_per_condition .* is 0"),
        ({"data": [{"simulate": {}, "recipe_options": {"seed": 1}}]}, r"give the plan split_seeds"),
        (
            {"data": [{"simulate": {}, "recipe_options": {"n_shared": 1}}]},
            r"means nothing to the recipe 'combinations'",
        ),
        ({"data": [{"simulate": {}, "recipe_options": {"shared": 1}}]}, r"has no 'shared'; did you mean .*'n_shared'"),
        ({"data": [{"simulate": {}, "qc": {"n_mads": 4}}]}, r"has n_mads; say so by n_mads: of the data set"),
        ({"data": [{"simulate": {}, "qc": {"layer": "raw"}}]}, r"has layer; say so by layer: of its fields"),
        ({"data": [{"simulate": {}, "qc": {"criterias": []}}]}, r"has no 'criterias'; did you mean .*'criteria'"),
        (
            {"data": [{"simulate": {}, "fields": {"artifact_key": ["qc_umi", "bad"]}}]},
            r"its artifact_key names 'bad', which the annotation does not write",
        ),
        ({"scoring": {"references": ["all", "all"]}}, r"references of scoring has 'all' twice"),
        ({"scoring": {"n_cells": 0}}, r"n_cells is 0; it must be at least 1"),
        ({"scoring": {"n_cells": 9, "generated": False}}, r"has n_cells, but no cells are generated"),
        ({"data": [{"path": "a.h5ad", "simulate": {}}]}, r"simulated and has a path"),
        ({"data": [{"name": "a"}]}, r"needs path:, simulate: or published:"),
        ({"data": [{"path": "a.h5ad", "qc": {"criteria": ["umi"]}}]}, r"add n_mads: \[3\]"),
        ({"data": [{"path": "none.h5ad"}]}, r"no data at .*none.h5ad"),
        ({"baseline": "nothing"}, r"baseline 'nothing' is no model of the plan"),
        ({"scoring": {"references": ["test"]}}, r"references is 'test'; choose one of held-out"),
        ({"split_seeds": 3}, r"split_seeds of the plan must be a list"),
        ({"modules": ["no_such_module"]}, r"'no_such_module' cannot be imported"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        expand(plan_of(content(**change), folder=tmp_path))


def test_jobs_are_models_times_seeds_times_thresholds_and_the_floors_once() -> None:
    data = [{"simulate": {"n_cells": 100}, "n_mads": [3, 5]}]
    models = ["cpa_vae", "additive", {"model": "sams_vae", "split_seeds": [1], "init_seeds": [7]}]
    jobs = expand(plan_of(content(data=data, models=models, init_seeds=[0, 1])))
    found = [(job.qc, job.split_seed, job.label, job.init_seed) for job in jobs]
    one = [("MAD 3", 0, FLOORS, None), ("MAD 3", 0, "cpa_vae", 0), ("MAD 3", 0, "cpa_vae", 1),
           ("MAD 3", 0, "additive", None)]  # fmt: skip
    assert found[:4] == one
    assert len(found) == 2 * (2 * 4 + 1)
    assert ("MAD 5", 1, "sams_vae", 7) in found
    assert len({job.hash for job in jobs}) == len(jobs)


def test_a_model_trains_as_it_says_else_as_its_data_say_else_as_the_plan_says() -> None:
    data = [
        {"simulate": {"n_cells": 100}, "training": {"max_epochs": 5, "patience": 7}},
        {"simulate": {}, "name": "other"},
    ]
    plan = plan_of(content(data=data, training={"max_epochs": 9, "batch_size": 11}))
    found = [[plan.train_config(run, one) for one in plan.data] for run in plan.models]
    assert [[(one.max_epochs, one.patience, one.batch_size) for one in row] for row in found] == [
        [(5, 7, 11), (9, 25, 11)],
        [(3, 7, 11), (3, 25, 11)],
    ]
    longer = {job.hash for job in expand(plan_of(content(data=[{**data[0], "training": {}}])))}
    floors = {job.hash for job in expand(plan) if job.kind == "floors" and job.data == "simulated"}
    assert len(floors & longer) == 2  # how models train is nothing to them


def test_a_job_is_known_by_what_determines_it_alone(tmp_path: Path) -> None:
    plan = plan_of(content())

    def hashes(changed: Any) -> set[str]:
        return {job.hash for job in expand(changed)}

    renamed = replace(plan, models=tuple(replace(run, label=f"other {run.label}") for run in plan.models))
    assert hashes(renamed) == hashes(plan)
    assert hashes(replace(plan, training={"progress": False})) == hashes(plan)
    more = replace(plan, split_seeds=(0, 1, 2))
    assert hashes(plan) < hashes(more)
    wider = replace(plan, models=(ModelRun("cradle_vae", settings={"width": 10}),))
    floors = {job.hash for job in expand(plan) if job.kind == FLOORS}
    assert hashes(wider) & hashes(plan) == floors
    other_scores = replace(plan, scoring=replace(plan.scoring, n_cells=7))
    assert not hashes(other_scores) & hashes(plan)


def test_the_content_of_a_file_counts_not_its_place(tmp_path: Path) -> None:
    first, second = tmp_path / "a.h5ad", tmp_path / "sub" / "b.h5ad"
    second.parent.mkdir()
    first.write_bytes(b"one")
    second.write_bytes(b"one")

    def hashes(path: Path) -> list[str]:
        return [job.hash for job in expand(plan_of(content(data=[{"path": str(path)}])))]

    assert hashes(first) == hashes(second)
    second.write_bytes(b"two")
    assert not set(hashes(first)) & set(hashes(second))


def test_without_a_seed_every_split_seed_has_an_experiment_of_its_own() -> None:
    def experiments(simulate: dict[str, Any]) -> set[Any]:
        jobs = expand(plan_of(content(data=[{"simulate": simulate}])))
        return {job.key["data"]["simulate"]["seed"] for job in jobs}

    assert experiments({"n_cells": 100}) == {0, 1}
    assert experiments({"n_cells": 100, "seed": 5}) == {5}


def test_relative_paths_start_at_the_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content(data=[{"path": "data/cells.h5ad"}])))
    assert load_plan(tmp_path / "plan.yaml").data[0].path == str((tmp_path / "data" / "cells.h5ad").resolve())


def test_slurm_script_runs_a_part_a_task(tmp_path: Path) -> None:
    import subprocess

    plan, script = tmp_path / "plan.yaml", tmp_path / "array.sh"
    plan.write_text(yaml.safe_dump(content()))
    write_slurm(plan, tmp_path / "out", script, tasks=5, workers=2)
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text()
    assert "#SBATCH --array=1-5" in text
    assert f'benchmark {plan} --output {tmp_path / "out"} --workers 2 --part "${{SLURM_ARRAY_TASK_ID}}/5"' in text


def test_batches_and_contexts_of_a_plan_survive_yaml() -> None:
    fields = {"batch_key": "lane", "covariate_keys": ["sex"], "context_key": "donor"}
    plan = plan_of(content(data=[{"path": "a.h5ad", "fields": fields}]))
    assert plan.data[0].fields.covariate_keys == ("sex",)
    assert plan_of(yaml.safe_load(yaml.safe_dump(plan_dict(plan)))) == plan


def test_published_data_have_their_lanes_for_batches() -> None:
    assert DataSource(published="norman").fields.batch_key == "batch"
    own = DataSource(published="norman", fields=DataFields(batch_key="label"))
    assert own.fields.batch_key == "label"
    assert DataSource(published="norman", fields=DataFields(context_key="batch")).fields.batch_key is None
    assert DataSource(path="a.h5ad").fields.batch_key is None
    plan = reproduction_plan("replogle")
    assert plan.data[0].fields.batch_key == "batch"
    assert plan.data[0].qc == {"batch_key": None}
    assert plan_of(yaml.safe_load(yaml.safe_dump(plan_dict(plan)))) == plan


def test_the_published_settings() -> None:
    plan = reproduction_plan("norman")
    assert plan.data[0].n_mads == (3.0, 4.0, 5.0)
    assert plan.data[0].recipe == "combinations_published"
    assert plan.split_seeds == (0, 1, 2, 3, 4)
    assert {run.model for run in plan.models} == {"cradle_vae", "sams_vae", "cpa_vae", "svae_plus", "conditional_vae"}
    training = plan.train_config(plan.models[0], plan.data[0])
    assert (training.batch_size, training.n_particles, training.max_epochs, training.patience) == (512, 5, 2000, 50)
    assert plan.model_config(plan.models[0]).objective == "released"
    small = reproduction_plan("norman", budget="small")
    assert "NOT the published setting" in small.note
    assert not plan.note


CHANGES: dict[str, dict[str, Any]] = {
    "DataSource": {
        "simulate": {"n_cells": 90}, "recipe": "cells", "recipe_options": {"n_shared": 1}, "n_mads": [5],
        "fields": {"control_labels": ["ctrl"]}, "qc": {"criteria": ["umi"]}, "max_genes": 50,
        "max_cells_per_condition": 9, "training": {"max_epochs": 7}, "name": "other",
    },
    "ModelRun": {
        "model": "sams_vae", "label": "other", "settings": {"width": 9}, "training": {"max_epochs": 7},
        "split_seeds": [7], "init_seeds": [7], "data": ["simulated"],
    },
    "Scoring": {"references": ["all"], "published": True, "generated": False, "truth": False, "n_cells": 9,
                "denoiser": False},
}  # fmt: skip
"""Another value of every setting than that of :func:`content`."""

ELSEWHERE = {DataSource: {"path", "published"}}
"""Settings of other data sets, which tests above are about."""


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, changes in CHANGES.items() for name in changes])
def test_every_setting_changes_what_is_computed_or_what_it_is_called(kind: str, name: str) -> None:
    source, run = {"simulate": {"n_cells": 100}, "recipe": "perturbations"}, {"model": "cradle_vae"}
    other = {"simulate": {"n_cells": 50}, "name": "second"}
    plan = {"data": [source, other], "models": [run], "scoring": {}, "split_seeds": [0]}
    target = {"DataSource": source, "ModelRun": run, "Scoring": plan["scoring"]}[kind]

    def jobs() -> set[str]:
        return {f"{job} {job.hash}" for job in expand(plan_of(plan))}

    before = jobs()
    target[name] = CHANGES[kind][name]  # type: ignore[index]
    assert jobs() != before


def test_no_setting_is_left_out_of_that_test() -> None:
    for kind in (DataSource, ModelRun, Scoring):
        names = {entry.name for entry in fields(kind)}
        assert set(CHANGES[kind.__name__]) == names - ELSEWHERE.get(kind, set())


def test_numpy_scalars_and_other_types_of_python_callers_become_plain(tmp_path: Path) -> None:
    plain = plan_of(
        content(
            data=[{"simulate": {"n_cells": 100, "artifact_rate": 0.5}, "n_mads": [3, 4], "max_genes": 50,
                   "fields": {"guide_min_count": 2.0}}],
            split_seeds=[0, 1],
            training={"learning_rate": 0.5, "max_epochs": 4},
            scoring={"n_cells": 9, "truth": True},
        )
    )  # fmt: skip
    source = DataSource(
        simulate={"n_cells": np.int64(100), "artifact_rate": np.float64(0.5)}, n_mads=np.array([3, 4]),  # type: ignore[arg-type]
        max_genes=np.int32(50), fields=DataFields(guide_min_count=np.float32(2.0)),  # type: ignore[arg-type]
    )  # fmt: skip
    given = Plan(
        [source], ["cradle_vae", ModelRun("cradle_vae", "short", training={"max_epochs": np.int64(3)})],  # type: ignore[arg-type, list-item]
        split_seeds=np.arange(2), training={"learning_rate": np.float32(0.5), "max_epochs": np.int64(4)},  # type: ignore[arg-type]
        scoring=Scoring(n_cells=np.int64(9), truth=np.bool_(True)),  # type: ignore[arg-type]
    )  # fmt: skip
    assert given == plain
    assert [job.hash for job in expand(given)] == [job.hash for job in expand(plain)]
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan_dict(given)))
    assert load_plan(tmp_path / "plan.yaml") == plain
    (tmp_path / "a.h5ad").write_bytes(b"one")
    assert DataSource(path=tmp_path / "a.h5ad").path == str(tmp_path / "a.h5ad")  # type: ignore[arg-type]


def test_a_split_by_column_is_the_same_for_every_seed_and_runs_once(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_bytes(b"one")
    source = {"path": str(tmp_path / "a.h5ad"), "recipe": "column", "recipe_options": {"column": "part"}}
    jobs = expand(plan_of(content(data=[source], init_seeds=[0, 1])))
    assert {job.split_seed for job in jobs} == {0}
    assert {job.init_seed for job in jobs if job.kind == "model"} == {0, 1}

"""Plans: what they hold, what they refuse, and the cells that they are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cradlevae.benchmarking.jobs import FLOORS, expand
from cradlevae.benchmarking.plan import ModelRun, load_plan, plan_dict, plan_of
from cradlevae.benchmarking.reproduce import reproduction_plan
from cradlevae.benchmarking.slurm import write_slurm
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


def test_cells_are_models_times_seeds_times_thresholds_and_the_floors_once() -> None:
    data = [{"simulate": {"n_cells": 100}, "n_mads": [3, 5]}]
    models = ["cpa_vae", "additive", {"model": "sams_vae", "split_seeds": [1], "init_seeds": [7]}]
    cells = expand(plan_of(content(data=data, models=models, init_seeds=[0, 1])))
    found = [(cell.qc, cell.split_seed, cell.label, cell.init_seed) for cell in cells]
    one = [("MAD 3", 0, FLOORS, None), ("MAD 3", 0, "cpa_vae", 0), ("MAD 3", 0, "cpa_vae", 1),
           ("MAD 3", 0, "additive", None)]  # fmt: skip
    assert found[:4] == one
    assert len(found) == 2 * (2 * 4 + 1)
    assert ("MAD 5", 1, "sams_vae", 7) in found
    assert len({cell.hash for cell in cells}) == len(cells)


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
    longer = {cell.hash for cell in expand(plan_of(content(data=[{**data[0], "training": {}}])))}
    floors = {cell.hash for cell in expand(plan) if cell.kind == "floors" and cell.data == "simulated"}
    assert len(floors & longer) == 2  # how models train is nothing to them


def test_a_cell_is_known_by_what_determines_it_alone(tmp_path: Path) -> None:
    plan = plan_of(content())

    def hashes(changed: Any) -> set[str]:
        return {cell.hash for cell in expand(changed)}

    renamed = replace(plan, models=tuple(replace(run, label=f"other {run.label}") for run in plan.models))
    assert hashes(renamed) == hashes(plan)
    assert hashes(replace(plan, training={"progress": True})) == hashes(plan)
    more = replace(plan, split_seeds=(0, 1, 2))
    assert hashes(plan) < hashes(more)
    wider = replace(plan, models=(ModelRun("cradle_vae", settings={"width": 10}),))
    floors = {cell.hash for cell in expand(plan) if cell.kind == FLOORS}
    assert hashes(wider) & hashes(plan) == floors
    other_scores = replace(plan, scoring=replace(plan.scoring, n_cells=7))
    assert not hashes(other_scores) & hashes(plan)


def test_the_content_of_a_file_counts_not_its_place(tmp_path: Path) -> None:
    first, second = tmp_path / "a.h5ad", tmp_path / "sub" / "b.h5ad"
    second.parent.mkdir()
    first.write_bytes(b"one")
    second.write_bytes(b"one")

    def hashes(path: Path) -> list[str]:
        return [cell.hash for cell in expand(plan_of(content(data=[{"path": str(path)}])))]

    assert hashes(first) == hashes(second)
    second.write_bytes(b"two")
    assert not set(hashes(first)) & set(hashes(second))


def test_without_a_seed_every_split_seed_has_an_experiment_of_its_own() -> None:
    def experiments(simulate: dict[str, Any]) -> set[Any]:
        cells = expand(plan_of(content(data=[{"simulate": simulate}])))
        return {cell.key["data"]["simulate"]["seed"] for cell in cells}

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


def test_the_published_settings() -> None:
    plan = reproduction_plan("norman")
    assert plan.data[0].n_mads == (3.0, 4.0, 5.0)
    assert plan.data[0].recipe == "combinations"
    assert plan.split_seeds == (0, 1, 2, 3, 4)
    assert {run.model for run in plan.models} == {"cradle_vae", "sams_vae", "cpa_vae", "svae_plus", "conditional_vae"}
    training = plan.train_config(plan.models[0], plan.data[0])
    assert (training.batch_size, training.n_particles, training.max_epochs, training.patience) == (512, 5, 2000, 50)
    assert plan.model_config(plan.models[0]).objective == "released"
    small = reproduction_plan("norman", budget="small")
    assert "NOT the published setting" in small.note
    assert not plan.note

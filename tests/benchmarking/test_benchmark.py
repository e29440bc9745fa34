"""Running plans: resuming, sharing, failures, and the same results however they came about."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import cradlevae as cv
from cradlevae.benchmarking import benchmark as benchmark_module
from cradlevae.benchmarking import store as store_module
from cradlevae.benchmarking.jobs import FLOORS, Job, expand
from cradlevae.benchmarking.plan import Plan, plan_dict, plan_of
from cradlevae.benchmarking.record import Benchmark
from cradlevae.benchmarking.store import Store
from cradlevae.benchmarking.worker import work
from cradlevae.errors import CradleError, DataError
from cradlevae.evaluation.floors.registry import FLOORS as FLOOR_NAMES

SIZES = {"n_latent": 8, "width": 32, "basal_width": 32}
TINY: dict[str, Any] = {
    "data": [
        {
            "simulate": {"n_cells": 400, "n_genes": 60, "n_perturbations": 5, "n_combinations": 6, "n_interacting": 1,
                         "n_latent": 6, "seed": 0},
            "qc": {"criteria": ["umi", "genes", "mito"]},
        }
    ],
    "models": [
        {"model": "cradle_vae", "settings": SIZES},
        {"model": "svae_plus", "settings": SIZES},
    ],
    "training": {"max_epochs": 2, "batch_size": 64, "accelerator": "cpu"},
    "split_seeds": [0, 1],
    "scoring": {"generated": False, "truth": False, "references": ["held-out"]},
}  # fmt: skip


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are computed in this process."""

    def compute(store: Store, jobs: Sequence[Job], plan: Plan, workers: int) -> None:
        work(store, jobs, {source.name: source for source in plan.data})

    monkeypatch.setattr(benchmark_module, "compute_jobs", compute)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(TINY)


@pytest.fixture(scope="module")
def folder(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark that ran through, in two processes."""
    output = tmp_path_factory.mktemp("benchmark")
    cv.benchmark(plan, output, workers=2)
    return output


@pytest.fixture(scope="module")
def found(plan: Plan, folder: Path) -> Benchmark:
    again = cv.benchmark(plan, folder)
    assert again is not None
    return again


def test_results_are_tidy_and_floors_stand_once_a_split(found: Benchmark, folder: Path) -> None:
    results = pd.read_parquet(folder / "results.parquet")
    pd.testing.assert_frame_equal(results, found.results)
    rho = results[results["metric"] == "ate_rho"]
    assert not rho.duplicated(["split_seed", "init_seed", "model"]).any()
    of_one_context = {name for name, entry in FLOOR_NAMES.items() if not entry.needs_contexts}
    assert set(rho.loc[rho["kind"] == "floor", "model"]) == of_one_context
    models = rho[rho["kind"] == "model"]
    assert list(models["model"]) == ["cradle_vae"] * 2
    assert list(models["split_seed"]) == [0, 1]
    assert list(models["init_seed"]) == [0, 0]
    assert rho["init_seed"][rho["kind"] == "floor"].isna().all()
    assert list(found.timings["model"]) == [FLOORS, "cradle_vae"] * 2
    assert (found.timings["training_s"] > 0).all()
    for name in ("table.csv", "table.md", "failures.csv", "plan.resolved.yaml", "benchmark.png"):
        assert (folder / name).stat().st_size > 0
    assert not list((folder / "cells").glob("*.claim"))


def test_a_job_has_the_scores_of_the_same_training_by_hand(found: Benchmark) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few cells are warned about
        adata = cv.simulate(**TINY["data"][0]["simulate"])
        cv.annotate_qc(adata, criteria=("umi", "genes", "mito"))
        model = cv.CradleVAE(adata, split=cv.split(adata, "combinations", seed=1), seed=0, **SIZES)
        model.train(**TINY["training"], seed=0, progress=False)
        scores = cv.evaluate(model, adata, generated=False, truth=False)
    by_hand = scores.query("metric == 'ate_rho' and predictor == 'model'")["value"].item()
    row = found.results.query("metric == 'ate_rho' and model == 'cradle_vae' and split_seed == 1")
    assert row["value"].item() == pytest.approx(by_hand, abs=1e-3)  # other threads, other rounding
    floors = scores.query("metric == 'ate_r2'").set_index("predictor")["value"]
    mine = found.results.query("metric == 'ate_r2' and split_seed == 1 and kind == 'floor'").set_index("model")["value"]
    pd.testing.assert_series_equal(mine.dropna(), floors.reindex(mine.index).dropna(), check_names=False)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("wanted", [True, False])
def test_a_denoiser_is_a_floor_of_cleaned_cells_where_the_plan_wants_it(tmp_path: Path, wanted: bool) -> None:
    scoring = {"generated": False, "denoiser": wanted}
    plan = plan_of(TINY | {"models": TINY["models"][:1], "split_seeds": [0], "scoring": scoring})
    found = cv.benchmark(plan, tmp_path)
    assert found is not None
    rows = found.results[found.results["metric"] == "clean_deviance"]
    assert set(rows.loc[rows["kind"] == "floor", "model"]) >= {"own_damaged_profile", "perturbation_mean"}
    assert ("denoiser" in set(rows.loc[rows["kind"] == "floor", "model"])) == wanted


@pytest.mark.usefixtures("here")
def test_a_floor_of_the_plan_adds_its_generated_cells(tmp_path: Path) -> None:
    scoring = {"truth": False, "n_cells": 5}
    found = cv.benchmark(plan_of(TINY | {"models": ["additive"], "split_seeds": [0], "scoring": scoring}), tmp_path)
    assert found is not None
    assert not found.results.duplicated(["model", "reference", "metric", "predictor"]).any()
    rows = found.results.assign(name=found.results["metric"] + ", " + found.results["model"]).set_index("name")
    assert rows.loc["de_overlap, additive", "kind"] == "floor"
    assert 0 <= rows.loc["qc_pass_rate_mad3, additive", "value"] <= 1
    assert rows.loc["qc_pass_rate_mad3, real cells", "kind"] == "reference"
    assert "qc_pass_rate_mad3" in (tmp_path / "table.md").read_text()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("label", ["my floor", "model of nothing"])
def test_a_floor_under_a_label_of_the_user_stays_a_floor(label: str, tmp_path: Path) -> None:
    content = TINY | {
        "models": [{"model": "additive", "label": label}, {"model": "cpa_vae", "settings": SIZES}],
        "split_seeds": [0], "scoring": {"truth": False, "n_cells": 5}, "baseline": "additive",
    }  # fmt: skip
    found = cv.benchmark(plan_of(content), tmp_path)
    assert found is not None
    kinds = found.results.groupby("model")["kind"].unique()
    assert list(kinds[label]) == ["floor"]
    assert "additive" not in kinds.index
    assert not (found.results[["predictor", "best_floor"]] == "additive").any(axis=None)
    metrics = set(found.results.loc[found.results["model"] == label, "metric"])
    assert {"ate_rho", "de_overlap"} <= metrics  # its effects, and the cells that it generates
    table = pd.read_csv(tmp_path / "table.csv").set_index(["metric", "model"])
    assert table.loc[("ate_rho", "cpa_vae"), "baseline"] == label
    assert f"| floor: {label} |" in (tmp_path / "table.md").read_text()


@pytest.mark.usefixtures("here")
def test_simulated_data_are_restricted_as_files_are(tmp_path: Path) -> None:
    from cradlevae.benchmarking import compute as compute_module

    source = plan_of(TINY).data[0]
    whole = cv.simulate(**TINY["data"][0]["simulate"])
    limited = replace(source, max_genes=30, max_cells_per_condition=9)
    whole.write_h5ad(tmp_path / "a.h5ad")
    from_file = replace(limited, simulate=None, path=str(tmp_path / "a.h5ad"))
    plan = plan_of(TINY | {"models": ["zero"], "split_seeds": [0], "scoring": {"generated": False}})
    compute_module._cache.cache_clear()
    read = []
    for one in (limited, from_file):
        job = expand(replace(plan, data=(one,)))[0]
        read.append(compute_module._read(job.key["data"] | {"simulate": one.simulate}, job.n_mads, one))
    pd.testing.assert_frame_equal(read[0].obs, read[1].obs)
    assert read[0].n_vars == 30
    assert read[0].obs["perturbation"].value_counts().drop("control").max() <= 9
    assert (read[0].X != read[1].X).nnz == 0
    found = cv.benchmark(replace(plan, data=(limited,)), tmp_path / "out")  # the truth is of the genes that are left
    assert found is not None
    assert found.failures.empty


@pytest.mark.usefixtures("here")
def test_every_floor_and_model_runs_within_batches_and_contexts(tmp_path: Path) -> None:
    """QC takes the batches of the fields; floors of other contexts are in the tables like others."""
    from cradlevae.benchmarking import compute as compute_module

    simulate = {"n_cells": 900, "n_genes": 60, "n_perturbations": 4, "n_combinations": 0, "n_latent": 6, "seed": 0,
                "n_batches": 3, "batch_sd": 0.3, "confounding": 0.5, "n_contexts": 2}  # fmt: skip
    source = {"simulate": simulate, "recipe": "cells", "qc": {"criteria": ["umi", "genes"]},
              "fields": {"batch_key": "batch", "context_key": "context"}}  # fmt: skip
    members = ["cradle_vae", "sams_vae", "cpa_vae", "svae_plus", "conditional_vae"]
    models = [{"model": name, "settings": SIZES} for name in members]
    plan = plan_of(TINY | {"data": [source], "models": models, "split_seeds": [0], "training": {"max_epochs": 1}})
    found = cv.benchmark(plan, tmp_path / "out")
    assert found is not None
    assert found.failures.empty
    assert set(FLOOR_NAMES) | set(members) <= set(found.results["model"])
    job = expand(plan)[0]
    annotated = compute_module._read(job.key["data"], job.n_mads, plan.data[0])
    assert annotated.uns["cradlevae_qc"]["batch_key"] == "batch"


@pytest.mark.usefixtures("here")
def test_the_column_that_models_read_is_the_one_that_is_annotated(tmp_path: Path) -> None:
    from cradlevae.benchmarking import compute as compute_module

    adata = cv.simulate(**TINY["data"][0]["simulate"])
    adata.obs["bad"] = False
    adata.write_h5ad(tmp_path / "a.h5ad")
    source = {"path": str(tmp_path / "a.h5ad"), "fields": {"artifact_key": "bad"}, "n_mads": [3],
              "qc": {"criteria": ["umi"]}}  # fmt: skip
    plan = plan_of(TINY | {"data": [source], "models": ["zero"], "split_seeds": [0]})
    job = expand(plan)[0]
    with pytest.warns(UserWarning, match="'bad'. held other values, which are replaced"):
        read = compute_module._read(job.key["data"], job.n_mads, plan.data[0])
    assert read.obs["bad"].any()
    assert (read.obs["bad"] == read.obs["qc_umi"]).all()


def test_a_model_that_cannot_answer_is_recorded_and_the_rest_goes_on(found: Benchmark) -> None:
    assert list(found.failures["model"]) == ["svae_plus"] * 2
    assert found.failures["error"].str.contains("none of the held-out conditions can be predicted").all()


def test_it_is_refused_before_it_is_trained(
    plan: Plan, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv.SVAEPlus, "train", lambda *_, **__: pytest.fail("it was trained"))
    only = replace(plan, models=tuple(run for run in plan.models if run.model == "svae_plus"), split_seeds=(0,))
    found = cv.benchmark(only, tmp_path)
    assert found is not None
    assert found.failures["error"].str.contains("none of the held-out conditions can be predicted").all()


def test_finished_and_failed_jobs_are_not_computed_again(plan: Plan, folder: Path, found: Benchmark) -> None:
    files = ("results.parquet", "table.csv", "table.md", "failures.csv", "timings.csv")
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "cells").glob("*.json")}
    content = {name: (folder / name).read_bytes() for name in files}
    cv.benchmark(plan, folder)
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "cells").glob("*.json")} == before
    assert {name: (folder / name).read_bytes() for name in files} == content


@pytest.mark.usefixtures("here")
def test_parts_make_the_whole(plan: Plan, folder: Path, found: Benchmark, tmp_path: Path) -> None:
    for part in ("1/3", "2/3", "3/3"):
        assert cv.benchmark(plan, tmp_path, part=part) is None
    assert not (tmp_path / "results.parquet").exists()
    cv.benchmark(plan, tmp_path)
    close = pd.read_parquet(tmp_path / "results.parquet")  # this process has other threads
    pd.testing.assert_frame_equal(close, found.results, rtol=1e-2, atol=1e-3)
    for part in ("0/3", "4/3", "a"):
        with pytest.raises(DataError, match="it must be i/n"):
            cv.benchmark(plan, tmp_path, part=part)


@pytest.mark.usefixtures("here")
def test_failed_jobs_are_computed_again_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cradlevae.benchmarking import compute as compute_module

    floors_only = plan_of(TINY | {"models": ["zero"], "split_seeds": [0]})

    def broken(job: Job, source: Any) -> Any:
        raise ValueError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(compute_module, "compute", broken)
        with pytest.raises(CradleError, match="no job gave a score; the first failed with: ValueError: a bug"):
            cv.benchmark(floors_only, tmp_path)
    with pytest.raises(CradleError, match="a bug"):
        cv.benchmark(floors_only, tmp_path)
    again = cv.benchmark(floors_only, tmp_path, retry=True)
    assert again is not None
    assert again.failures.empty


def test_a_job_is_claimed_by_one_and_freed_by_death(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = expand(plan)[0]
    assert store.claim(job)
    assert not store.claim(job)
    store.release(job)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = store_module.socket.gethostname()

    def claimed(host: str, pid: int, age: float = 0.0) -> None:
        store.claim_path(job).write_text(json.dumps({"host": host, "pid": pid}))
        os.utime(store.claim_path(job), (time.time() - age,) * 2)

    claimed(owner, os.getpid())
    assert not store.claim(job)
    claimed("another machine", gone.pid)
    assert not store.claim(job)
    claimed("another machine", gone.pid, age=2 * store_module.STALE)
    assert store.claim(job)
    claimed(owner, gone.pid)
    assert store.claim(job)
    store.write_failure(job, "no")
    store.release(job)
    assert not store.claim(job)


def test_what_another_process_is_at_is_waited_for(tmp_path: Path) -> None:
    floors_only = plan_of(TINY | {"models": ["zero"], "split_seeds": [0]})
    jobs, store = expand(floors_only), Store(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"]) as other:
        claim = {"host": store_module.socket.gethostname(), "pid": other.pid}
        store.claim_path(jobs[0]).write_text(json.dumps(claim))
        threading.Thread(target=other.wait, daemon=True).start()  # its parent must take note that it ended
        work(store, jobs, {source.name: source for source in floors_only.data})
        assert other.poll() == 0
    assert [store.state(job) for job in jobs] == ["done"]


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_results(plan: Plan, folder: Path, tmp_path: Path) -> None:
    path, output = tmp_path / "plan.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(plan_dict(plan)))
    command = [sys.executable, "-m", "cradlevae", "benchmark", path, "--output", output, "--workers", "2"]
    rng = random.Random(0)
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.monotonic() - started
    reference = {name: (output / name).read_bytes() for name in ("results.parquet", "table.csv", "failures.csv")}
    killed = tmp_path / "killed"
    command[command.index(output)] = killed
    for _ in range(5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.1, 0.6) * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert {name: (killed / name).read_bytes() for name in reference} == reference
    assert not list((killed / "cells").glob("*.claim"))


@pytest.mark.slow
def test_a_worker_that_dies_takes_one_job_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly_model.py").write_text(
        "import os\n"
        "from dataclasses import replace\n"
        "from cradlevae.api import PerturbationVAE\n"
        "from cradlevae.model.family import CPA_VAE, register\n"
        "class Deadly(PerturbationVAE):\n"
        "    declaration = register(replace(CPA_VAE, key='deadly', name='Deadly'))\n"
        "    def train(self, **options):\n"
        "        os._exit(9)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    plan = plan_of(TINY | {"modules": ["deadly_model"], "models": ["deadly", "zero"], "split_seeds": [0]})
    found = cv.benchmark(plan, tmp_path / "out")
    assert found is not None
    assert list(found.failures["model"]) == ["deadly"]
    assert "the process died (status 9)" in found.failures["error"].item()
    assert list(found.timings["model"]) == [FLOORS]


@pytest.mark.slow
def test_an_interrupt_leaves_no_process_and_no_claim(plan: Plan, tmp_path: Path) -> None:
    path, output = tmp_path / "plan.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(plan_dict(plan)))
    command = [sys.executable, "-m", "cradlevae", "benchmark", path, "--output", output]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while not list(output.glob("cells/*.claim")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert not list(output.glob("cells/*.claim"))

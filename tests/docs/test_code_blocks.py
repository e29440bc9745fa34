"""Every code block of the README and of docs/ runs, with the substitutions listed here, or is listed as an exception.

The blocks of a page run in the order of the page: Python in one namespace, command lines one after the other, and a
block whose first line is a comment with a file name is written into that file (plans of benchmarks, and modules).
Python and command lines have a folder each, with small files in it under the names that the pages use.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import yaml

import cradlevae as cv
from cradlevae import api
from cradlevae.benchmarking import benchmark as benchmark_module
from cradlevae.benchmarking import reproduce as reproduce_module
from cradlevae.benchmarking import sweep as sweep_module
from cradlevae.benchmarking.jobs import Job
from cradlevae.benchmarking.plan import Plan, load_plan
from cradlevae.benchmarking.store import Store
from cradlevae.benchmarking.worker import work
from cradlevae.cli import main
from cradlevae.data.damage.operators import DAMAGES
from cradlevae.data.datasets.published import DATASETS
from cradlevae.evaluation.floors.registry import FLOORS
from cradlevae.evaluation.metrics.kinds import KINDS
from cradlevae.evaluation.metrics.registry import REGISTRY
from cradlevae.model.artifact import ARTIFACT_MODELS
from cradlevae.model.config import ModelConfig
from cradlevae.model.family import FAMILY
from cradlevae.nn.known_likelihoods import likelihood_of
from cradlevae.nn.likelihood import LIKELIHOODS
from cradlevae.query.effects import TARGET_ERROR

ROOT = Path(__file__).parents[2]
OF_THE_SITE = "index.md", "changelog.md", "contributing.md"
"""Pages that hold nothing but directives of the site, which its build runs."""

PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in OF_THE_SITE)]
REGISTRIES: list[dict[str, Any]] = [
    LIKELIHOODS, ARTIFACT_MODELS, DAMAGES, REGISTRY, FLOORS, DATASETS, FAMILY, api.CLASSES
]  # fmt: skip

SMALL_SIMULATION = (
    "simulate(n_cells=400, n_genes=60, n_perturbations=5, n_combinations=6, n_interacting=1, n_latent=6, seed=0)"
)
SMALLER: dict[str, str] = {
    "cv.simulate(seed=0)": f"cv.{SMALL_SIMULATION}",
    "context_sd=0.3, seed=0)": "context_sd=0.3, n_cells=600, n_genes=40, n_perturbations=4, n_combinations=3)",
    'f"{lane}/filtered_feature_bc_matrix/"': '"filtered_feature_bc_matrix/"',
    "max_epochs=30": "max_epochs=1",
    "max_epochs=100": "max_epochs=1",
    "model.train()": "model.train(**({} if isinstance(model, cv.FloorModel) else {'max_epochs': 1}))",
    "workers=4": "workers=1",
    "--workers 4": "--workers 1",
    "--trials 50": "--trials 1",
    "--output norman/": "--output norman/ --budget small",
    "--output docs/results/pairs.csv": "--quick --output docs/results/pairs.csv",
    "--seeds 0 1 2 3 4": "--seeds 0 --epochs 1",
    "--seeds 0 1 2 ": "--seeds 0 ",
    "--epochs 120": "--epochs 1",
    "--epochs 100": "--epochs 1 --cells 300 --genes 60",
    "answers.py": "answers.py --cells 400 --genes 60 --perturbations 5 --pairs 6",
    "held_out.py combinations": "held_out.py combinations --cells 400 --genes 60",
    "n_cells: 6000": "n_cells: 400, n_genes: 60, n_perturbations: 5, n_combinations: 6, n_interacting: 1",
    "n_mads: [3, 4, 5]": "n_mads: [3]",
    "max_epochs: 300": "max_epochs: 1",
    "max_epochs: 200": "max_epochs: 1",
    "max_epochs: 100": "max_epochs: 1",
    "split_seeds: [0, 1, 2, 3, 4]": "split_seeds: [0]",
    "split_seeds: [0, 1, 2] ": "split_seeds: [0] ",
    "split_seeds: [0, 1]\n": "split_seeds: [0]\ntraining: {max_epochs: 1}\n",
}
"""What the pages say, and the smaller thing that runs in its place. The others of a page's words run as they stand."""

SIZES = {"n_latent": 8, "width": 24, "basal_width": 16}
"""Sizes that the models of the pages have by default while the pages are run; effects are also less precise."""

ADDED: dict[str, tuple[str, ...]] = {"train": ("--max_epochs", "1", "--progress", "false")}
"""Options that are added to a command."""

NOT_RUN: dict[str, str] = {
    "make demo    # simulate → QC → split → train → evaluate → predict → clean; a few minutes; "
    "look at demo/report.html\n"
    "make test    # the test suite\n": "installs the package; tests/test_demo.py runs the demonstration",
    "python3 -m venv .venv\n"
    ".venv/bin/pip install -c constraints.txt torch\n"
    ".venv/bin/pip install -c constraints.txt -e '.[dev,tensorboard,benchmark,sweep]'\n"
    ".venv/bin/cradlevae demo --output demo\n"
    ".venv/bin/python -m pytest -q\n": "installs the package; tests/test_demo.py runs the demonstration",
    "pip install -c constraints.txt .\n": "installs the package; .ci/wheel installs it into an empty environment",
    "conda create -n cradlevae python=3.11\n"
    "conda activate cradlevae\n"
    "pip install -c constraints.txt torch\n"
    "pip install -c constraints.txt .\n": "installs the package with conda, which is not everywhere",
    "cradlevae demo --output demo\n": "tests/test_demo.py runs the demonstration",
    "cell-eval run -ap pair/predicted.h5ad -ar pair/real.h5ad --pert-col perturbation --control-pert control\n": (
        "the program of another package; tests/evaluation/test_cell_eval.py holds our metrics against it"
    ),
    "cell-eval2 run --preset vcc2026 -ap pair/predicted.h5ad -ar pair/real.h5ad\n": (
        "the program of another package; tests/evaluation/test_cell_eval2.py runs it"
    ),
    "cradlevae benchmark docs/benchmark/plan.yaml --output benchmark/ --workers 2\n": (
        "82 jobs, a part of them on real counts; a test below reads the plan"
    ),
}
"""Blocks that are not run, each by its exact text, with the reason."""

WRITTEN_TO = re.compile(r"# (?P<name>[\w/]+\.(?:py|yaml))\n")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text and the line where it begins."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """File that the block is written to, by its first line."""
        match = WRITTEN_TO.match(self.text)
        return None if match is None else match["name"]


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text = page.read_text()
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], text[: match.start()].count("\n") + 2) for match in fences]


def smaller(text: str) -> str:
    """A block with all substitutions made."""
    for said, run in SMALLER.items():
        text = text.replace(said, run)
    return text


# -- what the pages find in their folder -----------------------------------------------------------------------


def small_screen(seed: int) -> ad.AnnData:
    """A simulated screen of 400 cells."""
    adata = cv.simulate(
        n_cells=400, n_genes=60, n_perturbations=5, n_combinations=6, n_interacting=1, n_latent=6, seed=seed
    )
    adata.obs["gene"] = adata.obs["perturbation"].astype(str)
    adata.obs["lane"] = "1"
    return adata


def published_norman(screen: ad.AnnData) -> ad.AnnData:
    """The screen as Norman et al. is published: Ensembl ids and pairs of guide RNAs."""
    pairs = [
        "NegCtrl0_NegCtrl0" if name == "control" else name.replace("+", "_") if "+" in name else f"{name}_NegCtrl0"
        for name in screen.obs["perturbation"].astype(str)
    ]
    obs = pd.DataFrame({"guide_identity": [f"{pair}__{pair}" for pair in pairs], "gemgroup": 1}, screen.obs_names)
    ids = [f"ENSG{place:011d}" for place in range(screen.n_vars)]
    var = pd.DataFrame({"gene_symbols": list(screen.var_names)}, index=ids)
    return ad.AnnData(sp.csr_matrix(screen.X, dtype=np.float32), obs=obs, var=var)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, guide_screen: Any, written: Callable[..., Path]) -> dict[str, Path]:
    """Small files under the names that the pages use."""
    folder = tmp_path_factory.mktemp("files")
    screen = small_screen(0)
    screen.write_h5ad(folder / "data.h5ad")
    (folder / "screen").mkdir()
    for lane in (1, 2):
        part = small_screen(lane)
        part.obs_names = [f"{name}-{lane}" for name in part.obs_names]
        part.write_h5ad(folder / "screen" / f"lane{lane}.h5ad")
    published_norman(screen).write_h5ad(folder / "norman_2019_raw.h5ad")
    failed = screen.copy()
    failed.obs["artifact"] = failed.obs["true_artifact"]
    failed.write_h5ad(folder / "annotated.h5ad")
    clean = small_screen(3)
    del clean.uns["truth"], clean.layers["clean"]
    clean = ad.AnnData(clean.X, obs=clean.obs[["perturbation", "gene", "lane"]], var=clean.var[[]])
    planted = cv.plant_artifacts(clean, share=0.3, seed=0)
    planted.obs["n_counts_full"] = np.asarray(planted.X.sum(axis=1)).ravel()
    planted.obs["n_genes_full"] = np.asarray((planted.X > 0).sum(axis=1)).ravel()
    planted.write_h5ad(folder / "planted.h5ad")
    batches = cv.simulate(
        n_cells=400, n_genes=40, n_perturbations=4, n_combinations=2, control_share=0.3, n_batches=2, n_contexts=2
    )
    batches.obs["artifact"] = batches.obs["true_artifact"]
    batches.write_h5ad(folder / "batches.h5ad")
    written(guide_screen, "folder", folder)
    pd.Series(guide_screen.targets, name="target").to_csv(folder / "targets.csv", index_label="guide")
    return {path.name: path for path in folder.iterdir()}


NAMES = {
    "data.h5ad": "data.h5ad",
    "screen.h5ad": "annotated.h5ad",
    "batches.h5ad": "batches.h5ad",
    "screen": "screen",
    "filtered_feature_bc_matrix": "filtered_feature_bc_matrix",
    "targets.csv": "targets.csv",
    "norman_2019_raw.h5ad": "norman_2019_raw.h5ad",
    "papalexi2021_299g_planted_artifacts.h5ad": "planted.h5ad",
    "papalexi2021_299g.h5ad": "planted.h5ad",
    "planted50.h5ad": "planted.h5ad",
}
"""Names of files on the pages, and the small file that stands for each."""


@pytest.fixture
def registries() -> Iterator[None]:
    """What a page registers is taken out again."""
    likelihood_of("gamma-poisson")  # registers what the package brings
    before = [dict(registry) for registry in REGISTRIES]
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)
    sys.modules.pop("my_screens", None)
    sys.modules.pop("my_models", None)


class Runner:
    """Runs the blocks of one page."""

    def __init__(self, folder: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        self.namespace: dict[str, Any] = {"__name__": "page"}
        self.monkeypatch = monkeypatch
        self.folders = {language: folder / language for language in ("python", "sh")}
        for each in self.folders.values():
            each.mkdir()
            for name, stands in NAMES.items():
                copy = shutil.copytree if files[stands].is_dir() else shutil.copy
                copy(files[stands], each / name)
            (each / "my_models.py").write_text('"""Models of your own."""\n')
            (each / "docs" / "results").mkdir(parents=True)
            plan = {"data": [{"path": "screen.h5ad"}], "models": ["additive"], "split_seeds": [0]}
            (each / "plan.yaml").write_text(yaml.safe_dump(plan))
            plan |= {"models": ["sams_vae"], "training": {"max_epochs": 1}}
            plan |= {"sweep": {"settings": {"n_latent": {"choices": [4, 8]}}}}
            (each / "sweep.yaml").write_text(yaml.safe_dump(plan))

    def run(self, block: Block) -> None:
        """Write a block to its file, or execute it."""
        if block.file is not None:
            for each in self.folders.values():
                (each / block.file).write_text(smaller(block.text))
            if block.language == "yaml":
                self.check_plan(self.folders["sh"] / block.file)
            return
        self.monkeypatch.chdir(self.folders[block.language])
        if block.language == "python":
            exec(compile(smaller(block.text), f"block of line {block.line}", "exec"), self.namespace)
        else:
            for line in re.sub(r"\\\n\s*", "", smaller(block.text)).splitlines():
                self.command(shlex.split(line, comments=True))

    def check_plan(self, path: Path) -> None:
        """Every YAML block is the plan of a benchmark, or of a sweep."""
        content = yaml.safe_load(path.read_text())
        content.pop("sweep", None)
        path = path.with_name("checked.yaml")
        path.write_text(yaml.safe_dump(content))
        self.monkeypatch.chdir(path.parent)
        assert load_plan(path).models

    def command(self, words: Sequence[str]) -> None:
        """Run a command line: one of ours, or a script of benchmarks/."""
        if not words:
            return
        if words[0] == "cradlevae":
            assert main([*words[1:], *ADDED.get(words[1], ())]) == 0, words
            return
        assert words[0] == "python", f"{words[0]} is not a command that this test knows"
        self.monkeypatch.setattr(sys, "argv", list(words[1:]))
        self.monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        runpy.run_path(str(ROOT / words[1]), run_name="__main__")


@pytest.fixture
def runner(
    tmp_path: Path, files: dict[str, Path], registries: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Runner]:
    """A runner in folders of its own; jobs of benchmarks are computed in this process."""

    def compute(store: Store, jobs: Sequence[Job], plan: Plan, workers: int) -> None:
        few = [job for job in jobs if job.split_seed == 0]
        work(store, few, {source.name: source for source in plan.data})

    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "norman_2019_raw.h5ad").symlink_to(files["norman_2019_raw.h5ad"])
    monkeypatch.setenv("CRADLEVAE_CACHE", str(tmp_path / "cache"))
    for module in (benchmark_module, sweep_module):
        monkeypatch.setattr(module, "compute_jobs", compute)
    monkeypatch.setattr(reproduce_module, "SMALL", {"max_epochs": 1, "accelerator": "cpu"})
    monkeypatch.setattr(reproduce_module, "MODELS", reproduce_module.MODELS[1:2])
    monkeypatch.setitem(TARGET_ERROR, "perturbseq", 0.5)
    sizes = [SIZES.get(field.name, field.default) for field in fields(ModelConfig)]
    monkeypatch.setattr(ModelConfig.__init__, "__defaults__", tuple(sizes))
    threads = torch.get_num_threads()
    runner = Runner(tmp_path, files, monkeypatch)
    monkeypatch.syspath_prepend(str(runner.folders["python"]))
    yield runner
    torch.set_num_threads(threads)


# -- the tests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.name)
def test_every_block_of_the_page_runs(page: Path, runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks_of(page):
        if block.text in NOT_RUN:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # so few cells are warned about
            try:
                runner.run(block)
            except Exception as error:
                error.add_note(f"{page.name}, block of line {block.line}:\n{block.text}")
                raise
    if page.name == "extending.md":
        check_extensions(runner.namespace)


def check_extensions(namespace: dict[str, Any]) -> None:
    """Every part that the page declares is known, and has been scored."""
    own = {name: entry for name, entry in REGISTRY.items() if entry.own}
    assert {entry.kind for entry in own.values()} == set(KINDS)
    assert set(own) <= namespace["metrics_scored"]
    assert {"median_effect", "model"} <= namespace["floors_scored"]
    assert {"poisson"} < set(LIKELIHOODS)
    assert {"point"} < set(ARTIFACT_MODELS)
    assert cv.models()["my_vae"].make is namespace["MyVAE"]
    assert type(cv.load("my_vae/")) is namespace["MyVAE"]
    for table in ("benchmark_of_a_file", "benchmark_of_my_screen"):
        assert Path(table, "table.md").exists()
    scores = namespace["scores"]
    value = scores.loc[(scores["metric"] == "ate_rho") & (scores["predictor"] == "model"), "value"]
    assert len(value) > 0
    assert np.isfinite(value).all()


def test_every_block_has_a_language_that_is_run() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            assert block.language in ("python", "sh", "yaml"), f"{page.name}, line {block.line}"
            assert block.language != "yaml" or block.file, f"{page.name}, line {block.line}: no file for the plan"


def test_no_code_stands_outside_of_fenced_blocks() -> None:
    code = re.compile(r"^ {4,}(?:cradlevae |python |import |from |cv\.|\w+ = cv\.).*$", re.MULTILINE)
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert not code.findall(text), page


def test_every_exception_and_every_substitution_still_stands_in_a_page() -> None:
    blocks = [block.text for page in PAGES for block in blocks_of(page)]
    assert set(NOT_RUN) <= set(blocks)
    run = [text for text in blocks if text not in NOT_RUN]
    for said in SMALLER:
        assert any(said in text for text in run), f"{said!r} stands in no block"


def test_the_plan_of_the_score_table_can_be_read() -> None:
    plan = load_plan(ROOT / "docs" / "benchmark" / "plan.yaml")
    assert {run.model for run in plan.models} == set(FAMILY)
    assert [source.name for source in plan.data] == ["papalexi_planted", "simulated"]


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
            linked = (page.parent / target).resolve() if target else page
            assert linked.exists(), f"{page.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor in anchors, f"{page.name}: {target}#{anchor}"

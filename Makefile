# `make demo` and `make test` work from a fresh clone: each makes .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all test-processors lint types docs linkcheck wheel bench profile install clean

install: $(INSTALLED)

# torch first and alone, so that its pinned version (on Linux without a GPU, its CPU build where one is found) is kept
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,tensorboard,benchmark,sweep]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/cradlevae demo --output demo

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadscope

test-all: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadscope -m ''

# what depends on rounding, as on processors without AVX-512, and without AVX2 (the libraries then take other kernels)
test-processors: $(INSTALLED)
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
		$(BIN)/python -m pytest -q -n 2 --dist loadscope -m 'numeric and not slow'
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
		$(BIN)/python -m pytest -q -n 2 --dist loadscope -m 'numeric and not slow'

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(INSTALLED)
	$(BIN)/mypy

# the site, its tutorials executed; a warning is an error
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -j 2 -q docs docs/_build/html

linkcheck: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx -W -q -b linkcheck -D nb_execution_mode=off docs docs/_build/linkcheck

# wheel and sdist in dist/, and the wheel tried in an empty environment
wheel:
	PYTHON=$(PYTHON) .ci/wheel

# a training step against the direct formulation: results.json, the picture and the table of docs/speed.md; and an epoch
# against scVI's, where the extra `peers` is installed (quiet machine!)
bench: $(INSTALLED)
	$(BIN)/python benchmarks/speed.py run
	$(BIN)/python benchmarks/peers.py run

profile: $(INSTALLED)
	$(BIN)/python benchmarks/speed.py profile

clean:
	rm -rf $(VENV) demo dist docs/_build docs/api/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis

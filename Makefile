# Two commands matter: `make run` and `make test`. Both install what they need into .venv first.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
INSTALLED := .venv/.installed
export PATH := $(BIN):$(PATH)

.PHONY: install run diff test test-fast test-slow lint format clean

run: $(INSTALLED)
	dvc --wait-for-lock repro
	pose-rft tables

# What moved since a revision, or between two: make diff REV=HEAD~1, make diff REV="v1 v2".
REV ?= HEAD
diff: $(INSTALLED)
	@python -m flows.metrics_diff $(REV)

install: $(INSTALLED)

$(INSTALLED): constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[sample,flows,agents,cluster,dev]"
	$(BIN)/pose-rft fetch
	touch $@

test: test-fast
	pytest -m "pipeline and not slow"

# Two at a time with a core each; stages and servers, which take all cores, come one after the other.
test-fast: $(INSTALLED)
	OMP_NUM_THREADS=1 pytest -m "not slow and not pipeline" --numprocesses 2 --dist loadfile

test-slow: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[slow]"
	pytest -m slow

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy

format: $(INSTALLED)
	ruff check --fix .
	ruff format .

clean:
	rm -rf .scratch report

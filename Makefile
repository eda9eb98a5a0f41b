# Every command works on a fresh checkout: it first builds .venv, or brings it up to date.
# Another interpreter than the first of python3.11, python3: make PYTHON=/path/to/python3.12 test

SHELL := /bin/bash
BIN := .venv/bin
PINS := pyproject.toml constraints-ci.txt
PYTEST := $(BIN)/pytest --quiet
# Two workers: more do not pay for their start.
WORKERS ?= 2
export PYTHON

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench validate lowest hf exports gpu wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.core ## predict published training runs and show how far off the predictions are
	@$(BIN)/towtank demo

test: .venv/.dev ## fast tests: everything that a change should be tried with
	@$(PYTEST) --numprocesses $(WORKERS)

lint: .venv/.dev ## style, types, and imports that go only downward
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/.dev ## timings of engines and searches; never a pass or fail
	@$(PYTEST) --numprocesses 0 -m benchmark tests/benchmarks

validate: .venv/.dev ## predict all published runs, write error tables and intervals; slow tests and error gates
	@$(BIN)/python -m towtank.validation.readme
	@$(PYTEST) --numprocesses $(WORKERS) -m slow

lowest: ## fast tests with the lowest versions that pyproject.toml allows
	@scripts/lowest.sh

hf: ## model counts against the transformers library (brings torch, 1 GB)
	@scripts/hf.sh

exports: ## exported plans through the parsers of Megatron-LM, torchtitan and DeepSpeed (brings torch, 2 GB)
	@scripts/exports.sh

gpu: ## with a GPU: validate, tune and measure its kernels (PYTHON that has torch for it, PROFILE=h200-141gb)
	@scripts/gpu.sh $(or $(PYTHON),python3) kernels/captures $(or $(PROFILE),h200-141gb)

wheel: .venv/.dev ## build the wheel, install it into an empty environment, use it from elsewhere
	@scripts/wheel.sh

clean: ## remove the environment, builds and caches
	rm -rf .venv build dist src/*.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last: an environment whose installation broke off is made up to date by the next command.
# One after the other, never beside each other, also under make -j.
.venv/.core: $(PINS)
	@scripts/environment.sh .venv --editable .
	@touch $@

.venv/.dev: .venv/.core
	@scripts/environment.sh .venv --editable '.[dev]'
	@touch $@

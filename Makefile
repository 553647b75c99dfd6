# Every door of the project: `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || echo python3)
BIN := .venv/bin
UV := $(BIN)/uv
# A folder of wheels that pip is told about (PIP_FIND_LINKS) is passed on to uv; without one, PyTorch's CPU index is asked.
TORCH_SOURCE := $(if $(PIP_FIND_LINKS),,--torch-backend cpu)
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONDONTWRITEBYTECODE :=
# The models here are tiny: threads of one process would only get in the way of the others.
export OMP_NUM_THREADS ?= 1
PARTS := libs/kit libs/contract libs/scoring libs/agent libs/client libs/atlas services/tools services/subagent services/lead services/inference services/trainer cli
CODE := $(PARTS) protos/generate.py tests bench

.PHONY: help setup up down demo learn seed-policy test gen gen-check fmt lint types imports buf check alone bench clean

help: ## this list
	@grep -hE '^[a-z-]+[a-z%-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/.stamp ## the virtual environment with everything in it (2.3 GB)

.venv/.stamp: requirements/local.txt requirements/dev.txt requirements/editable.txt requirements/uv.txt $(PARTS:%=%/pyproject.toml) protos/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/uv.txt
	$(UV) pip install --quiet --no-deps $(TORCH_SOURCE) --compile-bytecode -p .venv -r requirements/local.txt -r requirements/dev.txt
	$(UV) pip install --quiet --no-deps --no-build-isolation -p .venv -r requirements/editable.txt
	@touch $@

demo: setup ## the whole loop on this machine: ask, train, swap, ask again
	$(BIN)/wideseek demo

up: setup ## start the suite here
	$(BIN)/wideseek up

down: ## stop it
	$(BIN)/wideseek down

learn: setup ## train longer and draw the learning and width curves (about an hour; writes docs/learning.md)
	$(BIN)/python -m wideseek_cli.learn

seed-policy: setup ## rebuild the seed policy from random weights
	$(BIN)/python -m wideseek_atlas.seed.train

test: setup ## all tests, each part in a process of its own, as its service runs in one of its own
	failed=; for part in $(PARTS) tests/contract tests/e2e; do echo "== $$part"; $(BIN)/python -m pytest -q $$part || failed="$$failed $$part"; done; \
	test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

test-%: setup ## the tests of one part, e.g. test-lead
	$(BIN)/python -m pytest $(firstword $(wildcard services/$* libs/$* $* tests/$*))

gen: setup ## generate protos/gen
	$(BIN)/python protos/generate.py

gen-check: setup ## prove that protos/gen is fresh
	$(BIN)/python protos/generate.py --check

fmt: setup ## format
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix-only --quiet $(CODE)

lint: setup ## style
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: setup ## types, strictly
	for part in $(PARTS) tests/contract tests/e2e tests/alone.py bench protos/generate.py; do $(BIN)/mypy $$part || exit 1; done # one by one: each has a conftest

imports: setup ## who may import whom
	$(BIN)/lint-imports

buf: setup ## the contract's style
	$(BIN)/buf lint

check: lint types imports gen-check buf ## everything but the tests

alone: setup ## each service in an environment with only its own dependencies
	$(BIN)/python tests/alone.py

bench: setup ## the figures of docs/benchmarks.md, one table a question
	for file in bench/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean: ## remove what was built
	rm -rf .venv .wideseek build

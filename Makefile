# `make` lists the verbs. Each does its own set-up: a virtual environment in .venv, made anew when pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/citeflow/__init__.py)
TAG ?= $(VERSION)-python3.11
ENGINE ?= docker
TORCH := $(shell sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help setup check generate run test faults e2e bench image locks

help: ## list the verbs
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(READY) ## make the virtual environment

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'error: Python 3.11 or newer is needed' >&2; echo 'hint: make PYTHON=python3.11' >&2; exit 64; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[train,kfp,tune,mlflow,dev]'
	@touch $@

check: $(READY) ## format, lint, types, and that the compiled files are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/citeflow compile --check

generate: $(READY) ## compile components and pipelines
	$(BIN)/citeflow compile

run: $(READY) ## the demo: a synthetic citation graph, 2 workers, one minute of training, the whole pipeline here
	$(BIN)/citeflow run --dataset synthetic --workers 2 --set train.minutes=1

test: $(READY) ## the tests
	$(BIN)/pytest

faults: $(READY) ## kills, cuts, full disks, hostile files: every row of docs/faults.md that needs no cluster; writes the page
	CITEFLOW_FAULTS=docs/faults.jsonl $(BIN)/pytest -m fault; code=$$?; \
	  PYTHONPATH=tests $(BIN)/python -m faults.page && exit $$code

e2e: $(READY) ## the tests on the cluster of the kubeconfig, 20 minutes; CITEFLOW_E2E_NAME=value each (docs/e2e.md)
	CITEFLOW_E2E=1 $(BIN)/python -m pytest tests/e2e -s -rs -W ignore

bench: $(READY) ## how the synthetic graph compares with ogbl-citation2
	$(BIN)/python benchmarks/synthetic_calibration.py

image: ## the four images: PIP_CONF=file says where CPU builds of torch are, ENGINE=podman, TAG, OPTIONS (docs/images.md)
	for image in train step small tensorboard; do \
	  DOCKER_BUILDKIT=1 $(ENGINE) build --file docker/Dockerfile --target $$image --tag citeflow-$$image:$(TAG) \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) \
	    $(PIP_CONF:%=--secret id=pip,src=%) $(OPTIONS) . || exit; \
	done

locks: $(READY) ## what the images install, with hashes, anew from pyproject.toml
	$(BIN)/python docker/lock.py

# `make` lists the targets. Each does its own set-up: a virtual environment in .venv, as requirements/dev.txt locks it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
LOCK := requirements/dev.txt
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/citeflow/__init__.py)
TAG ?= $(VERSION)-python3.11
ENGINE ?= docker

.DEFAULT_GOAL := help
IMAGES := train step serve small tensorboard ray

.PHONY: help setup check versions generate web run test faults e2e bench docs image push locks hooks

help: ## list the targets
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(READY) ## create the virtual environment

$(READY): pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'error: Python 3.11 or newer is needed' >&2; echo 'hint: make PYTHON=python3.11' >&2; exit 64; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

check: $(READY) ## format, lint, types, shell scripts, and whether generated files are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck scripts/*.sh docker/*.sh .ci/run
	$(BIN)/citeflow compile --check
	$(BIN)/python scripts/settings_reference.py --check
	$(BIN)/python scripts/component_docs.py --check
	$(BIN)/python scripts/monitoring.py --check
	$(BIN)/python scripts/openapi.py --check
	$(BIN)/python scripts/web_page.py --check

versions: $(READY) ## the compiled files against other versions of Kubeflow Pipelines; fetches their packages
	$(BIN)/python scripts/kfp_versions.py

generate: $(READY) ## compile components and pipelines, write the generated pages
	$(BIN)/citeflow compile
	$(BIN)/python scripts/settings_reference.py
	$(BIN)/python scripts/component_docs.py
	$(BIN)/python scripts/monitoring.py
	$(BIN)/python scripts/openapi.py

web: $(READY) ## build the platform's page from web/ into the package; needs npm
	$(BIN)/python scripts/web_page.py

run: $(READY) ## the demo: a synthetic citation graph, 2 workers, one minute of training, the whole pipeline here
	$(BIN)/citeflow run --dataset synthetic --workers 2 --set train.minutes=1

test: $(READY) ## the tests
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadgroup

faults: $(READY) ## kills, cuts, full disks, hostile files: docs/faults.md, slow tests included
	$(BIN)/pytest -m fault

e2e: $(READY) ## the tests on the cluster of the kubeconfig, 30 minutes; CITEFLOW_E2E_NAME=value each (docs/e2e.md)
	CITEFLOW_E2E=1 $(BIN)/python -m pytest tests/e2e -s -rs -W ignore

bench: $(READY) ## compare the synthetic graph with ogbl-citation2
	$(BIN)/python benchmarks/synthetic_calibration.py

docs: $(READY) ## the documentation as a site, in build/site
	$(BIN)/mkdocs build --strict --quiet

image: ## the five images: PIP_CONF=file says where CPU builds of torch are, ENGINE=podman, TAG, OPTIONS (docs/images.md)
	for image in $(IMAGES); do \
	  DOCKER_BUILDKIT=1 $(ENGINE) build --file docker/Dockerfile --target $$image --tag citeflow-$$image:$(TAG) \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) \
	    $${PIP_CONF:+--secret "id=pip,src=$$PIP_CONF"} $(OPTIONS) . || exit; \
	done

push: ## push the images: REGISTRY=ghcr.io/lab, ENGINE, TAG; then `citeflow compile --registry` (docs/images.md)
	@test -n '$(REGISTRY)' || { echo 'error: no registry' >&2; echo 'hint: make push REGISTRY=ghcr.io/lab' >&2; exit 64; }
	for image in $(IMAGES); do \
	  $(ENGINE) tag citeflow-$$image:$(TAG) $(REGISTRY)/citeflow-$$image:$(TAG) || exit; \
	  $(ENGINE) push $(REGISTRY)/citeflow-$$image:$(TAG) || exit; \
	done

locks: $(READY) ## resolve pyproject.toml again: requirements/dev.txt, and what the images install
	$(BIN)/python scripts/lock.py

hooks: $(READY) ## run format, lint and types before each commit
	$(BIN)/pre-commit install

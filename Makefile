# `make demo` and `make test` set up all they need first (scripts/setup.py) and may be run again at any time.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo salus test test-disruptions test-pace lint generate check-generated lock transcript bench cluster cluster-down image clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 18

setup:  ## the virtual environment, pinned packages, Helm and a renderer for the cameras
	@$(PYTHON) scripts/setup.py

setup-dev:
	@$(PYTHON) scripts/setup.py --dev

demo: setup  ## collect, train (interrupted once), resume and evaluate: at most 10 minutes on 2 cores
	@$(BIN)/python scripts/demo.py

salus: setup  ## the job at its source's scale (500 episodes, three seeds), and the tables of docs/salus.md: an hour
	@$(BIN)/python scripts/salus.py

test: setup-dev lint check-generated  ## linters, types, the import rule, generated files, all tests
	$(BIN)/python -m pytest

test-disruptions: setup-dev  ## every disruption of running jobs on the cluster; writes its figures into docs/disruptions.md
	@JOBCTL_REQUIRE_CLUSTER=1 $(BIN)/python scripts/disruptions.py

test-pace: setup-dev  ## the tests that hold jobs in the middle, with loops ten times slower and with steps that take nothing
	@for pace in 10 0; do \
	  echo "== pace $$pace"; JOBCTL_TEST_PACE=$$pace $(BIN)/python -m pytest -m 'held and not disruptions' || exit 1; \
	done

lint:  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

generate: setup-dev  ## everything in the tree that is made from something else
	$(BIN)/python -m workers.describe --write
	$(BIN)/python scripts/schemas.py
	$(BIN)/python scripts/golden.py
	$(BIN)/python scripts/dashboards.py
	$(BIN)/python -m jobctl.local.fields > docs/local-backend.md
	$(BIN)/python -m jobctl.cluster.rights > docs/rbac.md
	$(BIN)/python -m jobctl.cli.program > jobctl/cli/help_text.py

check-generated:
	$(BIN)/python -m workers.describe --check
	$(BIN)/python scripts/schemas.py --check
	$(BIN)/python scripts/golden.py --check
	$(BIN)/python scripts/dashboards.py --check
	$(BIN)/python -m jobctl.local.fields | diff docs/local-backend.md - || (echo "docs/local-backend.md is stale: make generate"; exit 1)
	$(BIN)/python -m jobctl.cluster.rights | diff docs/rbac.md - || (echo "docs/rbac.md is stale: make generate"; exit 1)
	$(BIN)/python -m jobctl.cli.program | diff jobctl/cli/help_text.py - || (echo "jobctl/cli/help_text.py is stale: make generate"; exit 1)

lock:  ## requirements/*.txt from pyproject.toml (needs uv)
	$(PYTHON) scripts/lock.py

transcript: setup  ## run the demo and put what it prints into README.md
	@$(BIN)/python scripts/transcript.py

bench: setup-dev  ## every benchmark, each against its baseline in the same run
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

cluster: setup  ## a kind cluster with fake GPUs, a registry and a shared volume (or keep the one that runs)
	@$(BIN)/python scripts/cluster.py up

cluster-down: setup  ## remove that cluster; what its jobs wrote stays in .jobctl/cluster
	@$(BIN)/python scripts/cluster.py down

image: setup  ## build the images of the workers and of jobctl, and push them to the cluster's registry
	@$(BIN)/python scripts/cluster.py image

clean:  ## remove the virtual environment and the demo's files
	rm -rf .venv .jobctl

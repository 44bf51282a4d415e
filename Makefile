# Every target builds what it needs from a bare Python 3.11, 3.12 or 3.13. `make help` lists them.
SHELL := /bin/bash
# The suites start a hundred processes, each of which would otherwise recompile the package.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCE ?= replay
PORT ?= 3000
HOME_DIR ?=

.DEFAULT_GOAL := help
.PHONY: help demo up ui test test-fast test-on-jvm test-everything test-acceptance test-full coverage ci check bench drill databricks-standin lock clean uninstall install install-dev

help: ## List the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed, this is %s; set PYTHON=python3.11" % sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.python requirements.lock pyproject.toml setup.cfg
	@echo "Installing the runtime into $(VENV): about 0.8 GB to download, 2 GB on disk, 2-4 minutes; once."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.python requirements-dev.lock pyproject.toml setup.cfg
	@echo "Installing the development tools and the runtime into $(VENV): 3-5 minutes; once."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@ $(VENV)/.runtime

install: $(VENV)/.runtime ## Install the runtime
install-dev: $(VENV)/.dev ## Install the runtime and the development tools

demo: $(VENV)/.runtime ## Run two real days end to end (SOURCE=simulator DAYS=45: ten coins, the whole life of a model)
	@$(BIN)/crypto-assets demo --source $(SOURCE) $(if $(DAYS),--days $(DAYS)) $(if $(HOME_DIR),--home $(HOME_DIR))

up: $(VENV)/.runtime ## Run the pipeline until Ctrl-C (SOURCE=coingecko|replay|simulator, PORT=3000)
	@exec $(BIN)/crypto-assets up --source $(SOURCE) --port $(PORT) $(if $(HOME_DIR),--home "$(HOME_DIR)")

ui: $(VENV)/.runtime ## Open the demo's home in the Dagster UI with automation off (HOME_DIR=... for another)
	@exec $(BIN)/crypto-assets ui --source $(SOURCE) --port $(PORT) $(if $(HOME_DIR),--home "$(HOME_DIR)",--demo)

drill: $(VENV)/.runtime ## Inject six faults; watch each alert fire and resolve
	@$(BIN)/crypto-assets drill

databricks-standin: $(VENV)/.dev ## Run a local stand-in for a Databricks workspace (OPTIONS=--mlflow|--dbfs|--port=N)
	@exec $(BIN)/python -m crypto_assets_tests.databricks_standin $(OPTIONS)

check: $(VENV)/.dev ## Format, lint, types, import contracts, Dagster definitions
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/lint-imports
	@$(BIN)/dg check defs
	@$(BIN)/python -m crypto_assets.settings_docs --check
	@$(BIN)/python -m crypto_assets.rendered_files --check

WORKERS = 2
JVM_WORKERS = 2
PYTEST = $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 25 --durations-min 10
COVERAGE = --cov --cov-append --cov-report=
ON_EVERY_ENGINE = crypto_assets_tests/storage crypto_assets_tests/transforms
QUICK = -m "not slow and not jvm and not acceptance"

test: $(VENV)/.dev ## Component tests, the graph once by launcher, stores and transforms also on JVM Spark
	@$(PYTEST) -m "not acceptance"
	@$(MAKE) --no-print-directory test-on-jvm

test-on-jvm: WORKERS = $(JVM_WORKERS)
test-on-jvm: $(VENV)/.dev ## Tests of stores and transforms on JVM Spark
	@$(PYTEST) --engine spark $(ON_EVERY_ENGINE)

test-everything: WORKERS = 3
test-everything: $(VENV)/.dev ## Component and end-to-end tests in one session with shared broker, JVMs and filled home
	@$(PYTEST)

test-fast: WORKERS = 4
test-fast: $(VENV)/.dev ## Subset of `test` without JVM Spark, own broker or filled home, a few seconds per test
	@$(PYTEST) $(QUICK)

test-acceptance: $(VENV)/.dev ## End-to-end tests: demo, up, parity, serverless, models by launcher, pipeline, catalog
	@$(PYTEST) -m acceptance

coverage: WORKERS = 3
coverage: export COVERAGE_CORE ?= sysmon
coverage: $(VENV)/.dev ## test-fast with coverage, by sys.monitoring on Python 3.12 and later
	@$(PYTEST) $(QUICK) --cov --cov-report=term --cov-fail-under=80

ci: $(VENV)/.dev ## Continuous integration: check, then all tests, those on JVM Spark concurrently
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory --jobs 2 --keep-going --output-sync=target test-everything test-on-jvm JVM_WORKERS=1

test-full: $(VENV)/.dev ## Full matrix: every test, every engine, long variants and drills
	@rm -f .coverage; failed=0; \
	for engine in spark connect; do echo "On $$engine:"; \
	  $(PYTEST) --full --engine $$engine $(COVERAGE) $(ON_EVERY_ENGINE) crypto_assets_tests/streaming || failed=1; done; \
	echo "Everything, on the default engine:"; $(PYTEST) --full $(COVERAGE) || failed=1; \
	$(BIN)/python -m coverage report --fail-under=90 || failed=1; exit $$failed

bench: $(VENV)/.dev ## Measure and print throughput, memory and growth
	@$(BIN)/python -m bench

lock: $(VENV)/.python ## Resolve the two lock files to the newest compatible versions
	@$(BIN)/python -m pip install --quiet uv
	@for x in "" "-dev"; do $(BIN)/uv pip compile pyproject.toml $${x:+--extra dev -c requirements.lock} \
	  --upgrade --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --no-strip-extras -q -o requirements$$x.lock; done

clean: ## Remove caches and build output; keeps the environment and all homes
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .coverage* .hypothesis
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

uninstall: ## Remove the environment and the demo and default homes (tables included)
	@rm -rf $(VENV) .crypto_assets
	@echo "Left: the Kafka jars in ~/.cache/crypto_assets; remove them with: rm -rf ~/.cache/crypto_assets"

# The embedded deployment and the checks. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo compare test check bench-peers-env bench-train bench-peers bench-whole bench-etl bench-audit bench-eval bench-serve bench-step bench-scale bench-gpu bench-report up down constraints picture clean

PYTHON ?= python3
EXTRAS ?= dev
AIRFLOW_PORT ?= 8080
MLFLOW_PORT ?= 5000
DATA ?=
WORLD ?=
SEEDS ?= 5
MODELS ?=
TRIALS ?= 8
CUT ?=
MINUTES ?=
RECBOLE ?=
JOBS ?= 2

comma := ,
empty :=
space := $(empty) $(empty)

BIN := .venv/bin
STAMP := .venv/installed-$(subst $(comma),-,$(EXTRAS))
# uv does not read pip's find-links, where a CPU build of torch may be offered.
UV := $(if $(PIP_FIND_LINKS),UV_FIND_LINKS="$(subst $(space),$(comma),$(strip $(PIP_FIND_LINKS)))") $(BIN)/uv
OF_DATA := $(if $(DATA),--data '$(DATA)')

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name text; do printf '  make %-16s %s\n' "$$name" "$$text"; done

install: $(STAMP) ## Create .venv and install the exact versions of constraints.txt (EXTRAS=dev,spark,celery,kubernetes)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"MFN needs Python 3.11 or newer; $(PYTHON) is {sys.version.split()[0]}. Name another: make $(MAKECMDGOALS) PYTHON=python3.12")'
	@echo "Installing into .venv (downloads on the first run)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP) ## Raw logs to a registered model through the real DAGs: simulated, or DATA=<folder> of your own
	@$(BIN)/python -m deploy.local.demo $(OF_DATA)

compare: $(STAMP) ## Every model on DATA=<folder> or WORLD=<world>: table, chart and benchmarks/results (SEEDS=5 MODELS= TRIALS=8 CUT= MINUTES= RECBOLE= JOBS=2)
	@$(BIN)/python -m deploy.local.compare $(OF_DATA) --seeds $(SEEDS) --trials $(TRIALS) --jobs $(JOBS) $(if $(WORLD),--world $(WORLD)) \
	  $(if $(MODELS),--models $(MODELS)) $(if $(CUT),--cut $(CUT)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RECBOLE),--recbole '$(RECBOLE)')

test: $(STAMP) ## Run the tests
	@$(BIN)/python -m pytest

check: $(STAMP) ## Lint, format, types, import contracts, tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest

bench-peers-env: .venv-rectools/installed .venv-replay/installed .venv-bench/installed ## Create the environments of RecTools, RePlay and RecBole (python3.11)

.venv-rectools/installed .venv-replay/installed: .venv-%/installed: benchmarks/peers/requirements-%.txt
	@python3.11 -m venv .venv-$*
	@.venv-$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.venv-bench/installed: benchmarks/recbole/requirements.txt
	@python3.11 -m venv .venv-bench
	@.venv-bench/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@.venv-bench/bin/pip install --quiet --disable-pip-version-check --no-deps recbole==1.2.1
	@touch $@

bench-train: $(STAMP) bench-peers-env ## Speed of training beside RecTools, RePlay and RecBole: DATA=<dataset folder>
	@$(BIN)/python -m benchmarks.train $(OF_DATA)

bench-peers: $(STAMP) bench-peers-env ## Accuracy of SASRec here and elsewhere after equal seconds of training: DATA=<dataset folder>
	@$(BIN)/python -m benchmarks.train $(OF_DATA) --equal-time

bench-whole: $(STAMP) ## Raw logs to a champion under a real scheduler, 1M simulated rows: where the time goes, task by task
	@$(BIN)/python -m benchmarks.whole

bench-etl: $(STAMP) ## Raw Parquet to histories, 10M simulated rows: rows a second, peak memory, what one more day costs
	@$(BIN)/python -m benchmarks.etl

bench-audit: $(STAMP) ## The audit of one curated day of 10M rows, beside plain DuckDB
	@$(BIN)/python -m benchmarks.audit

bench-eval: $(STAMP) bench-peers-env ## Full ranking of 50,000 users beside RePlay, batch scoring beside the bare forward pass
	@$(BIN)/python -m benchmarks.eval

bench-serve: $(STAMP) ## How long the answer to one user takes
	@$(BIN)/python -m benchmarks.serve

bench-step: $(STAMP) ## A training step beside what this CPU can do
	@$(BIN)/python -m benchmarks.step

bench-scale: $(STAMP) ## Time and memory against users, events, items and categories
	@$(BIN)/python -m benchmarks.scale

bench-gpu: ## A training step on a GPU, by any Python that has torch, numpy, pandas, pyarrow and pydantic (PYTHON=python3)
	@$(PYTHON) -m benchmarks.step --device cuda

bench-report: $(STAMP) ## Write docs/benchmarks.md and docs/comparisons.md from benchmarks/results
	@$(BIN)/python -m benchmarks.report
	@$(BIN)/python -m benchmarks.comparisons

up: $(STAMP) ## Start Airflow and the MLflow UI on loopback (AIRFLOW_PORT=8080 MLFLOW_PORT=5000 DATA=<folder of a demo>)
	@$(BIN)/python -m deploy.local.services up --airflow-port $(AIRFLOW_PORT) --mlflow-port $(MLFLOW_PORT) $(OF_DATA)

down: $(STAMP) ## Stop them, and every process they started
	@$(BIN)/python -m deploy.local.services down $(OF_DATA)

constraints: $(STAMP) ## Resolve every extra anew and rewrite constraints.txt
	@# A constraint holds on every machine: no local version (+cpu), and none of the CUDA packages that torch asks for on its own.
	@$(UV) pip compile pyproject.toml --all-extras --upgrade --quiet --no-header --no-annotate --no-emit-find-links --no-emit-index-url \
	  | sed -E 's/\+[a-z0-9.]+$$//' | grep -vE '^(nvidia-|cuda-|triton==)' > .venv/constraints.txt
	@mv .venv/constraints.txt constraints.txt
	@echo "constraints.txt is new; read git diff, then make check"

picture: $(STAMP) ## Print the flow of the DAGs as Mermaid, for README.md
	@$(BIN)/python -m deploy.local.flow

clean: ## Delete .venv, the environments of the peers and the caches; var/ (data, databases, models) stays
	@rm -rf .venv .venv-bench .venv-rectools .venv-replay .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

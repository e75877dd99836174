# The habits. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced

.PHONY: help setup demo test test-long check generate lock bench bench-peers clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make the virtual environment with everything pinned

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Fenrun needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/python -m uv pip sync --quiet --compile-bytecode requirements.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/python -m uv pip install --quiet --no-deps --editable .
	@touch $(STAMP)

demo: $(STAMP) ## Start the service on the embedded database and play a short story
	$(BIN)/python -m services.demo

test: $(STAMP) ## Run the tests against a real PostgreSQL
	$(BIN)/python -m pytest -q -m "not long"

test-long: $(STAMP) ## Run all tests, the long ones too
	$(BIN)/python -m pytest -q

check: $(STAMP) ## Everything CI checks besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python proto/generate.py --check
	$(BIN)/buf lint build/fenrun.binpb
	$(BIN)/buf breaking build/fenrun.binpb --against proto/released.binpb

generate: $(STAMP) ## Generate Python beside each .proto
	$(BIN)/python proto/generate.py

lock: $(STAMP) ## Pin every dependency anew
	$(BIN)/python -m uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --all-extras \
	  --custom-compile-command "make lock" pyproject.toml -o requirements.lock

bench: $(STAMP) ## Measure throughput and write docs/performance.md
	$(BIN)/python -m tests.bench

bench-peers: $(STAMP) ## Measure others beside Fenrun on the same orders; PGLEDGER=FILE names pgledger.sql
	$(BIN)/python -m tests.bench --peers $(if $(PGLEDGER),--pgledger $(PGLEDGER))

clean: ## Remove what was made
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache

.DEFAULT_GOAL := help
.PHONY: help run ui test check bench chaos clean

PYTHON ?= python3
VENV := .venv
BENCH_VENV := .venv-bench
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 3000
NAME ?= backfill
export DAGSTER_HOME := $(CURDIR)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1	\2/' | expand -t 16

run: $(VENV)/.run .env ## install, measure the newest 60 days of the paper bot, show the table
	@$(BIN)/trading-ops backfill --days 60 --missing

ui: $(VENV)/.run .env ## the Dagster UI with schedules, sensors, guard and watchdog, on http://127.0.0.1:3000 (PORT=...)
	@exec $(BIN)/trading-ops up --host $(HOST) --port $(PORT)

test: $(VENV)/.dev .env ## the test suite, in parallel
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.dev ## formatting, lint, types and import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(BENCH_VENV)/.bench ## one benchmark: make bench NAME=backfill (or backtest, bulk, guard_latency, notifications, startup, store, training)
	@$(BENCH_VENV)/bin/python benchmarks/$(NAME).py $(ARGS)

chaos: $(VENV)/.dev ## the proofs too long for the tests: kill storms, fuzzing by the ten thousand
	@$(BIN)/python -m pytest -m chaos -n 0 $(ARGS)

clean: ## remove what was installed and everything written (the audit trail too)
	rm -rf $(VENV) $(BENCH_VENV) var logs .logs_queue

# one recipe for each environment: it is installed again when the dependencies change
$(VENV)/.run: EXTRAS :=
$(VENV)/.dev: EXTRAS := [dev,ml,oracles]
$(BENCH_VENV)/.bench: EXTRAS := [bench,ml,oracles]
$(VENV)/.run $(VENV)/.dev $(BENCH_VENV)/.bench: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say make PYTHON=/path/to/python3")'
	@echo "installing trading_ops$(EXTRAS) into $(@D) (a few minutes the first time)"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet -c constraints.txt -e '.$(EXTRAS)'
	@touch $@

.env:
	@sed 's|^DAGSTER_HOME=.*|DAGSTER_HOME=$(CURDIR)|' .env.example > $@
	@chmod 600 $@

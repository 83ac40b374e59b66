# The only entry point for every task. `make` lists the targets.
SHELL := bash
PYTHON ?= $(or $(shell for python in python3.13 python3.12 python3.11 python3; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done),python3)
VENV := .venv
BIN := $(VENV)/bin
CARGO := cargo
RUST := walcore/rust
export PATH := $(CURDIR)/$(BIN):$(PATH):$(HOME)/.cargo/bin

# Tests wait for servers half of their time: on two cores a third worker pays, a fourth only makes deadlines late.
WORKERS ?= 3
PYTEST_ARGS ?=
# What the long runs draw from.
SEED ?= $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help preflight dev native hooks fmt lint test test-rust test-fast sim sim-long explore explore-large mutants demo bench matrix oracle redo-coverage fuzz upgrade chaos failover clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

preflight: ## say what this machine lacks
	@tools/preflight.sh $(PYTHON)

dev: $(VENV)/.native ## environment with the native core built in

$(VENV)/.python: pyproject.toml
	@tools/preflight.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python tools/requirements.py > $(VENV)/requirements.txt
	$(BIN)/python -m pip install -q -r $(VENV)/requirements.txt
	@touch $@

NATIVE_SOURCES := $(shell find $(RUST)/core $(RUST)/binding -name '*.rs') $(RUST)/Cargo.toml $(RUST)/Cargo.lock $(RUST)/core/Cargo.toml $(RUST)/binding/Cargo.toml
$(VENV)/.native: $(VENV)/.python $(NATIVE_SOURCES)
	PIP_QUIET=1 VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop -q --release
	@touch $@

native: $(VENV)/.native ## build the native core into the environment

hooks: $(VENV)/.python ## install the pre-commit hooks into this clone
	$(BIN)/pre-commit install

fmt: $(VENV)/.python ## format Python and Rust
	$(BIN)/ruff format
	$(BIN)/ruff check --fix-only --quiet
	$(CARGO) fmt --manifest-path $(RUST)/Cargo.toml --all

lint: $(VENV)/.native ## formatting, ruff, mypy, import contracts, house rules, clippy
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tools.tidy
	$(CARGO) fmt --manifest-path $(RUST)/Cargo.toml --all --check
	$(CARGO) clippy --manifest-path $(RUST)/Cargo.toml --locked --quiet --all-targets --features walcore-explore/python -- -D warnings

test: dev test-rust ## every test that fits 20 minutes, servers included
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations 20 $(PYTEST_ARGS)

test-rust: $(VENV)/.python ## the native core's own tests
	$(CARGO) test --manifest-path $(RUST)/Cargo.toml --locked --quiet -p walcore -p walcore-explore -p walcore-fuzz

test-fast: dev ## what needs no server, in under a minute
	$(BIN)/pytest -q tests/unit tests/property tests/test_tidy.py $(PYTEST_ARGS)

sim: dev ## the quorum's simulation under faults: 2,000 seeds; a minute and a half on two cores
	$(BIN)/python -m tests.sim --workers $(WORKERS)

sim-long: dev ## ten million simulated events, a million with changing members (docs/results/sim.json); goes on where it stopped
	$(BIN)/python -m tests.sim --workers $(WORKERS) --events 10000000 --results docs/results/sim.json
	$(BIN)/python -m tests.sim --workers $(WORKERS) --events 1000000 --results docs/results/sim.json --membership

explore: dev ## every state of small worlds of the quorum (docs/results/explore.json); a few minutes
	$(BIN)/python -m tests.explore

explore-large: dev ## larger worlds, as far as memory goes; hours
	$(BIN)/python -m tests.explore --large

mutants: dev ## break each rule of the quorum and see who notices (docs/quorum-mutants.md); minutes
	$(BIN)/python -m tests.mutants --workers $(WORKERS) $(MUTANTS_ARGS)

demo: dev ## the whole main job on loopback, ending with a report (build/demo.json)
	$(BIN)/python -m demo

bench: dev ## the benchmarks, each beside its peer (build/bench.json)
	$(BIN)/python -m tests.bench

matrix: dev ## every combination of settings and kills, on 15 and 18; forty minutes (build/matrix.json)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m matrix --matrix --timeout 2400 --draw-seed $(SEED) \
	  --results build/matrix.json tests/e2e $(PYTEST_ARGS)

oracle: dev ## redo against every image that servers of 15 to 18 log, inspect against their pg_waldump; two hours, 30 GB (docs/results)
	$(BIN)/python -m tests.oracle

redo-coverage: dev ## docs/redo-coverage.md, from what `make oracle` found
	$(BIN)/python -m tests.oracle --table

FUZZ_SECONDS ?= 20
FUZZ_ARGS ?=
fuzz: dev ## hostile bytes: each target for FUZZ_SECONDS, damaged records and pages, every flip of 1 MB; a release takes 600
	$(BIN)/python -m tools.fuzz --seconds $(FUZZ_SECONDS) --seed $(SEED) $(FUZZ_ARGS)

# The last commit whose nodes speak protocol 1.
FROM ?= 7087563
upgrade: dev ## nodes and a pageserver of an earlier commit (FROM, built first), upgraded in turn under load
	$(BIN)/pytest -m upgrade --upgrade-from $(FROM) --timeout 1200 --results build/upgrade.json tests/e2e $(PYTEST_ARGS)

CHAOS_SECONDS ?= 1800
PG ?= 18
chaos: dev ## faults on real processes, links and disks for CHAOS_SECONDS, drawn from SEED; root (build/chaos-PG.json)
	$(BIN)/python -m tests.chaos --seconds $(CHAOS_SECONDS) --seed $(SEED) --pg $(PG)

failover: dev ## how long commits wait when the proposer is killed, stopped or cut off; root (build/failover-PG.json)
	$(BIN)/python -m tests.chaos.failover --pg $(PG)

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache $(RUST)/target
	find walcore walproxy pageserver tools tests demo -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	rm -f walcore/_native*.so

# The only entry point for every task. `make` lists the targets.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help dev native fmt lint test clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

dev: $(VENV)/.native ## environment with the native core built in

$(VENV)/.python: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python tools/requirements.py > $(VENV)/requirements.txt
	$(BIN)/pip install -q -r $(VENV)/requirements.txt
	@touch $@

NATIVE_SOURCES := $(shell find walcore/rust -name '*.rs' -not -path '*/target/*') walcore/rust/Cargo.toml walcore/rust/Cargo.lock walcore/rust/core/Cargo.toml walcore/rust/binding/Cargo.toml
$(VENV)/.native: $(VENV)/.python $(NATIVE_SOURCES)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop -q --release
	@touch $@

native: $(VENV)/.native ## build the native core into the environment

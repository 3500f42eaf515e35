# Every target makes .venv from the files of this folder alone, once; after that it works offline.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow conformance lint format bench

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# torch first and by its pin alone: pip then takes a build already on disk (PIP_FIND_LINKS) before any other.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## answer questions about the sample clip and about one rendered on the spot
	HF_HUB_OFFLINE=1 $(BIN)/mirasol demo

test: $(STAMP)  ## the quick tests
	$(BIN)/python -m pytest

test-slow: $(STAMP)  ## the slow tests (exit status 5: none were collected)
	$(BIN)/python -m pytest -m 'slow and not gpu' || { status=$$?; [ $$status -eq 5 ]; }

conformance: $(STAMP)  ## the library's own common tests; downloads them once
	MIRASOL_CONFORMANCE=required $(BIN)/python -m pytest -m slow tests/conformance

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## time the import and the first answer, count what longer videos cost
	HF_HUB_OFFLINE=1 $(BIN)/mirasol bench import
	HF_HUB_OFFLINE=1 $(BIN)/mirasol bench answer
	HF_HUB_OFFLINE=1 $(BIN)/mirasol bench scaling

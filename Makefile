# Every target makes its environment from the files of this folder alone, once; after that it works offline.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NEWEST := .venv-newest
PIP_INSTALL := -m pip install -qq --disable-pip-version-check
# as many processes as there are cores, each with one thread
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

.DEFAULT_GOAL := help
.PHONY: help demo test test-newest test-slow conformance lint format bench

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

# torch first and by its pin alone: pip then takes a build already on disk (PIP_FIND_LINKS) before any other.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	@echo "Installing mirasol_hf and what it needs into $(VENV) (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt torch
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "Installing the development tools into $(VENV) (once)"
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed  ## answer questions about the sample clip and about one rendered on the spot
	@HF_HUB_OFFLINE=1 $(BIN)/mirasol demo

test: $(VENV)/.dev  ## the quick tests
	$(PYTEST)

# The package is installed as a user would, without constraints, and the demo runs outside this folder. torch alone
# keeps its pin: other builds of it weigh gigabytes.
test-newest:  ## the demo and the quick tests with the newest version of everything
	@echo "Installing mirasol_hf with the newest of what it needs into $(NEWEST)"
	@test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	@grep '^torch==' constraints.txt > $(NEWEST)/torch.txt
	@$(NEWEST)/bin/python $(PIP_INSTALL) -c $(NEWEST)/torch.txt torch
	@$(NEWEST)/bin/python $(PIP_INSTALL) -c $(NEWEST)/torch.txt --upgrade --upgrade-strategy eager .
	@$(NEWEST)/bin/python -m pip list --format=freeze | grep -E '^(transformers|torch|accelerate|datasets|peft|av)=='
	cd $(NEWEST) && HF_HUB_OFFLINE=1 bin/mirasol demo
	@$(NEWEST)/bin/python $(PIP_INSTALL) -c $(NEWEST)/torch.txt '.[dev,quantization,web]'
	$(subst $(BIN),$(NEWEST)/bin,$(PYTEST))

test-slow: $(VENV)/.dev  ## the slow tests (exit status 5: none were collected)
	$(PYTEST) -m 'slow and not gpu' || { status=$$?; [ $$status -eq 5 ]; }

conformance: $(VENV)/.dev  ## the library's own common tests; downloads them once
	MIRASOL_CONFORMANCE=required $(PYTEST) -m slow tests/conformance

lint: $(VENV)/.dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed  ## time the import and the first answer, count what longer videos cost
	HF_HUB_OFFLINE=1 $(BIN)/mirasol bench import
	HF_HUB_OFFLINE=1 $(BIN)/mirasol bench answer
	HF_HUB_OFFLINE=1 $(BIN)/mirasol bench scaling

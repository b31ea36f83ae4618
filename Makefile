# `make demo` and `make test` do everything on a fresh machine with Python >= 3.11, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := demo

.DEFAULT_GOAL := help
.PHONY: help setup demo browser test test-all bench bench-serving lint format wheel clean

help:  ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Install everything into .venv (does nothing when nothing changed)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("stnkit needs Python >= 3.11, $(PYTHON) is %d.%d: run make PYTHON=python3.12 setup" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (about 1 GB is downloaded the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[gpu,convert,serve,dev]'
	@touch $@

demo: setup  ## Convert the shipped model, prove it, and run it on real digits
	@mkdir -p $(DEMO)
	$(BIN)/stnkit samples digits --output $(DEMO)/samples --force
	$(BIN)/stnkit convert digits --output $(DEMO)/digits.bundle --samples $(DEMO)/samples --force
	$(BIN)/stnkit verify $(DEMO)/digits.bundle
	$(BIN)/stnkit run $(DEMO)/digits.bundle $(DEMO)/samples/00?_*.png --save-warp $(DEMO)/warped

browser:  ## Install Chromium, in which the tests open the report (Debian, as root; else they skip that)
	@if command -v chromium >/dev/null; then exit 0; \
	elif [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	  echo "no chromium, and no right to install it: the tests that need a browser are skipped"; \
	else \
	  echo "installing chromium"; \
	  apt-get update -qq -o Acquire::Retries=3 && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
	    -o Acquire::Retries=3 chromium fonts-dejavu-core >/dev/null; \
	fi

test: setup  ## Run the tests
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow"

test-all: setup  ## Run the tests, the slow ones too
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal

bench: setup  ## Time samplers side by side, in 10 minutes (torch, onnxscript: where installed)
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@$(BIN)/python benchmarks/samplers.py

bench-serving: setup  ## Load `stnkit serve`, MLServer and PyTriton side by side, in 20 minutes
	@$(BIN)/python -m benchmarks.serving.compare

lint: setup  ## Check style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: setup  ## Put the code into its house form
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

wheel: setup  ## Build the wheel into dist/
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean:  ## Remove what was built, but not .venv
	@rm -rf build dist $(DEMO) *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Two commands for a fresh machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed-dev
RUN     ?= runs/demo
WORKERS ?= 2

# Where it is set, every process that a test starts would compile all of our modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test slow check docs claims clean

help:            ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# Half of the time went into compiling what nobody imports.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[dev,docs]"
	@touch $@

demo: $(STAMP)   ## train a digits network, bring it under a budget, show the front (< 2 minutes)
	rm -rf $(RUN)
	$(BIN)/python examples/digits/train.py --out $(RUN)-network
	@# 3 means: the budget was missed, and the table says by how much; the files are there.
	$(BIN)/lilliput compress examples/digits/net.py:build --weights $(RUN)-network/net.safetensors \
	    --data digits --target onnxruntime --max-drop 1.0 --max-size 40kB --time-budget 45s --out $(RUN)
	@echo
	@echo "Look next at $(RUN)/report.html (or report.md), and at the recipe that ran: $(RUN)/recipe.yaml"

test: $(STAMP)   ## the tests (< 6 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" \
	    --cov --cov-report=term:skip-covered --cov-fail-under=90

slow: $(STAMP)   ## the tests that take longer than a few seconds each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

check: $(STAMP)  ## formatting, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(STAMP)   ## build the documentation strictly, and run its snippets
	$(BIN)/python -m pytest -q docs/test_snippets.py
	$(BIN)/mkdocs build --strict --site-dir site

claims: $(STAMP) ## rebuild the tables of README and docs from benchmarks/results
	$(BIN)/python -m benchmarks --table

clean:           ## remove what the targets made
	rm -rf $(VENV) site runs .pytest_cache .mypy_cache .ruff_cache

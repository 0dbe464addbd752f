# Common tasks: `make train` trains and evaluates a first model, `make test` runs all tests but the long ones.
# Both create .venv and install the project into it if it does not exist.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help setup check train test short-tests test-all lint type docs bench clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## create .venv and install the package with its development tools

# torch and torchvision are installed in one command, so that pip picks a matching pair
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,sweep,slurm]"
	@$(BIN)/python -c "import torchvision" || \
	  { echo "error: torch and torchvision do not match. Delete .venv and run make again"; exit 1; }
	@touch $(STAMP)

# prints a clear message instead of a traceback if torch and torchvision no longer match
check: $(STAMP)
	@$(BIN)/python -c "import torchvision" 2>/dev/null || \
	  { echo "error: torchvision cannot be imported: it does not match torch. Delete .venv and run make again"; exit 1; }

train: check  ## train and evaluate a long-tailed classifier of handwritten digits
	$(BIN)/ltr-train

test: $(STAMP)  ## run linter, type checker and all tests but the long ones
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory -j2 type short-tests

short-tests: $(STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not long"

test-all: $(STAMP)  ## run the whole suite, including the long tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: $(STAMP)  ## format and lint the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

type: $(STAMP)  ## check types
	$(BIN)/mypy

docs: $(STAMP)  ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/ltr-report --leaderboard results --out site/leaderboard.html

bench: $(STAMP)  ## run all benchmarks; they report ratios
	for script in scripts/bench_*.py; do $(BIN)/python $$script || exit 1; done

clean:  ## remove .venv and caches; outputs stay
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache

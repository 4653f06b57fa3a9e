# make demo        install, distil the handwritten digits, evaluate the result, draw it
# make test        install with the test extras, run the test suite
# make test-fast   the same without the tests marked slow: under 90 s on two cores
# make lint        what CI checks besides
# make package     build wheel and sdist into dist/, check their content, install the wheel and try it
# make index       write anew what the command line knows without loading torch
# make campaign    kills and failing writes at every change of a folder, thousands of damaged files: an hour
# make docs        install with the docs extra, build the site of docs/ into site/, without a warning or a dead link
PYTHON ?= python3
BIN := .venv/bin
TESTING := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=

.PHONY: demo test test-fast tests-1 tests-2 lint package index campaign

demo: .venv/installed
	$(BIN)/dsdistill distill --dataset digits --method dm --ipc 10 --output digits.h5 --overwrite
	$(BIN)/dsdistill evaluate digits.h5 --protocol dm --epochs 300 --repeats 5
	$(BIN)/dsdistill show digits.h5 --output digits.png

# Two processes of one thread each: on small tensors two threads of torch are slower than one. What tests start
# need not compile the package anew: an empty PYTHONDONTWRITEBYTECODE lets bytecode be kept.
test: .venv/installed-for-tests
	$(TESTING) $(MAKE) --jobs=2 tests-1 tests-2

test-fast: .venv/installed-for-tests
	$(TESTING) $(MAKE) --jobs=2 tests-1 tests-2 SELECT='-m "not slow"'

tests-1:
	$(BIN)/python -m pytest $(SELECT) tests/augment/ tests/bench/ tests/d*/ tests/cli/ tests/config/ tests/evaluation/

tests-2:
	$(BIN)/python -m pytest $(SELECT) tests/benchmarks/ tests/compute/ tests/e[nx]*/ tests/[f-z]*/ tests/test_*.py

lint: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

package: .venv/installed-for-packaging
	rm -rf dist build
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python .ci/package.py dist

index: .venv/installed-for-tests
	$(BIN)/python -c "from dsdistill.cli import index; index.write()"

campaign: .venv/installed-for-tests
	OMP_NUM_THREADS=1 DSDISTILL_CAMPAIGN=artifacts/faults.json $(BIN)/python -m pytest tests/faults

.PHONY: docs
docs: .venv/installed-for-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/installed-for-docs: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-for-tests: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

.venv/installed-for-packaging: .venv/installed-for-tests
	$(BIN)/python -m pip install --quiet --editable ".[dev]" "setuptools>=77"
	touch $@

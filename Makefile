# `make demo` and `make test` need nothing but Python 3.11 or newer, and (for the tests, as root) Debian's apt.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: help demo check test soak bench lock clean

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## demo   back up real files to a virtual library, lose them, restore and verify them
demo: $(VENV)/.installed
	$(BIN)/capstan --home $(or $(DEMO_HOME),$(CURDIR)/.demo) demo

## check  lint, types, layers and the fast tests; under a minute
check: $(VENV)/.dev
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	$(BIN)/pytest -m "not slow" -n 2

## test   everything; as root on Debian it installs the programs that the tests need
test: $(VENV)/.dev
	./tests/packages.sh
	$(BIN)/python tests/wine/windows_python.py
	$(BIN)/pytest -n 2

## soak   every fault there is, hours of it; make soak PART="kills disks/8": one part, and 1 of 8 cases of another
soak: $(VENV)/.dev
	./tests/packages.sh
	$(BIN)/python tests/soak.py run $(PART); status=$$?; $(BIN)/python tests/soak.py report; exit $$status

## bench  measure: make bench ONLY=P1 (or P4, sealed, twice, 7z-copy, 7z-lzma2, scale, iscsi, sg)
bench: $(VENV)/.dev
	$(if $(filter scale iscsi sg,$(ONLY)),,$(BIN)/python bench/run.py $(if $(ONLY),--only $(ONLY)))
	$(foreach path,$(if $(ONLY),$(filter iscsi sg,$(ONLY)),iscsi sg),$(BIN)/python bench/transports.py $(path) &&) true
	$(if $(filter-out scale,$(ONLY)),,$(BIN)/python bench/scale.py)

## lock   write down the versions that are installed; every install is held to them
lock: $(BIN)/python
	$(PIP) install -U --upgrade-strategy eager -e '.[dev]'
	$(PIP) list --format=freeze --exclude-editable --exclude pip --exclude setuptools | LC_ALL=C sort > requirements.lock

## clean  remove what make has made
clean:
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) install -c requirements.lock -e .
	touch $@

$(VENV)/.dev: pyproject.toml requirements.lock | $(BIN)/python
	$(PIP) install -c requirements.lock -e '.[dev]'
	touch $@ $(VENV)/.installed

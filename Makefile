# The same checks as CI, in the environment that is active.
PYTHON ?= python

.PHONY: check format lint contracts types test soak

check: lint contracts types test

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

contracts:
	lint-imports

types:
	$(PYTHON) -m pyright --pythonpath "$$($(PYTHON) -c 'import sys; print(sys.executable)')"

test:
	$(PYTHON) -m pytest -m "not slow and not soak"
	$(PYTHON) -m pytest -m slow

soak:
	$(PYTHON) -m pytest -m soak

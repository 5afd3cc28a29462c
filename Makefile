# The same checks as CI, in the environment that is active.
PYTHON ?= python
# Test files that run at a time. Those of tests/faults, which kill processes, stay whole: their tests share clusters.
WORKERS ?= 2

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
	$(PYTHON) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not soak"
	$(PYTHON) -m pytest -n $(WORKERS) --dist worksteal -m slow tests --ignore=tests/faults
	$(PYTHON) -m pytest -n $(WORKERS) --dist loadfile -m slow tests/faults

soak:
	$(PYTHON) -m pytest -m soak

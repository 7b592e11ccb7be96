# make demo   the whole line: real reports, two training runs, analysis, out/demo/report.html
# make test   the tests
# make bench  speed beside every peer, ten minutes alone on the machine: benchmarks/results/speed-DEVICE.md
# Each sets up .venv on first use.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on --constraint constraints.txt

.PHONY: demo test slow lint bench clean

demo: $(READY)
	$(BIN)/python -m rrg.demo

test: $(READY)
	$(BIN)/python -m pytest -q

slow: $(READY)
	$(BIN)/python -m pytest -q -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(PEERS)
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf $(VENV) out dist .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python >= 3.10 is needed; set PYTHON=/path/to/python3.1x"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[test,lint]'
	@touch $@

$(PEERS): $(READY)
	$(INSTALL) --editable '.[peers]'
	@touch $@

# make demo   the whole line: real reports, two training runs, analysis, out/demo/report.html
# make test   the tests
# make book   executes and builds the book, strictly, and checks it: out/book/html/index.html
# make bench  speed beside every peer, eleven minutes alone on the machine: benchmarks/results/speed-DEVICE.md
# Each sets up .venv on first use.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BOOK_READY := $(VENV)/.ready-book
BOOK := out/book
PEERS := $(VENV)/.peers
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on --constraint constraints.txt

.PHONY: demo test slow book bench lint clean

demo: $(READY)
	$(BIN)/python -m rrg.demo

test: $(READY)
	$(BIN)/python -m pytest -q

slow: $(READY)
	$(BIN)/python -m pytest -q -m slow

# _build is Jupyter Book's; executed cells are kept there, so that a second build takes seconds.
book: $(BOOK_READY)
	$(BIN)/jupyter-book build -W -n --keep-going --path-output $(BOOK) book
	@ln -sfn _build/html $(BOOK)/html
	$(BIN)/python tests/book/checker.py book $(BOOK)/html
	@echo "Read it: open $(BOOK)/html/index.html in a browser; no network is needed."

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

$(BOOK_READY): $(READY)
	$(INSTALL) --editable '.[book]'
	@touch $@

# make demo   the whole line: real reports, two training runs, analysis, out/demo/report.html
# make test   the tests, on all cores (PYTEST_WORKERS=0: in one process)
# make slow   the slow ones
# make lint   ruff, mypy and the small checks of .pre-commit-config.yaml
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
PYTEST_WORKERS ?= auto
# Each worker imports everything, 0.9 GB; more than eight spend longer on that than they save.
PYTEST := $(BIN)/python -m pytest -q --numprocesses $(PYTEST_WORKERS) --maxprocesses 8 --dist worksteal
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on --constraint constraints.txt

.PHONY: demo test slow book bench lint clean

demo: $(READY)
	$(BIN)/python -m rrg.demo

test: $(READY)
	$(PYTEST)

slow: $(READY)
	$(PYTEST) -m slow

# _build is Jupyter Book's; executed cells are kept there, so that a second build takes seconds.
book: $(BOOK_READY)
	$(BIN)/jupyter-book build -W -n --keep-going --path-output $(BOOK) book
	@ln -sfn _build/html $(BOOK)/html
	$(BIN)/python tests/book/checker.py book $(BOOK)/html
	@echo "Read it: open $(BOOK)/html/index.html in a browser; no network is needed."

lint: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" PRE_COMMIT_HOME="$(abspath $(VENV))/pre-commit" \
		pre-commit run --all-files --show-diff-on-failure

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

# Every target makes what it needs in .venv; nothing has to be installed first but Python 3.11 to 3.13.
PYTHON ?= python3
BIN := .venv/bin
# Where other runtimes are installed for their tests, some 2 GB, outside the checkout.
ELSEWHERE ?= $(HOME)/.cache/edge-distil/elsewhere

.PHONY: install quickstart test test-elsewhere test-swift lint bench tables docs-figures clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

quickstart: install
	$(BIN)/edge-distil quickstart --overwrite

test: install
	$(BIN)/python -m pytest

test-elsewhere: install
	EDGE_DISTIL_ELSEWHERE=$(ELSEWHERE) $(BIN)/python -m pytest -rs tests/test_elsewhere.py

# 69 says that there is no Swift and that none can be had: a fault in CI alone.
test-swift:
	@status=0; apps/ios-demo/swift.sh test || status=$$?; \
	if [ $$status = 69 ] && [ -z "$$CI" ]; then echo "the Swift kit was not tested"; else exit $$status; fi

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: install
	$(BIN)/edge-distil bench

# Takes hours, and real models and data: benchmarks/tables.sh says which.
tables: install
	PATH="$(CURDIR)/$(BIN):$$PATH" bash benchmarks/tables.sh $(TABLES)

docs-figures: install
	$(BIN)/python benchmarks/docs_figures.py

clean:
	rm -rf .venv build dist *.egg-info

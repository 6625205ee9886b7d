# Everything sets itself up: `make demo` and `make test` need root, apt and PyPI, and nothing else.

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
HOST := tools/with-host

.PHONY: demo test check format mutants requirements clean

demo: $(READY)  ## the whole loop on this machine
	$(HOST) $(BIN)/almagent demo

test: $(READY)  ## all tests; TESTS="tests/pure -k planner" for some
	$(HOST) $(BIN)/pytest $(TESTS)

check: $(READY)  ## style, types, direction of imports
	$(BIN)/ruff check . $(HOST)
	$(BIN)/ruff format --check . $(HOST)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format . $(HOST)
	$(BIN)/ruff check --fix . $(HOST)

mutants: $(READY)  ## the planner broken on purpose: each time a test must turn red
	$(BIN)/python tests/mutants.py

$(READY): requirements-dev.txt pyproject.toml
	tools/make-venv
	touch $@

PIN := uv pip compile pyproject.toml --quiet --universal --generate-hashes --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make requirements"

requirements:  ## pin what pyproject.toml asks for; needs uv; add UPGRADE=--upgrade for newer releases
	$(PIN) $(UPGRADE) --output-file requirements.txt
	$(PIN) $(UPGRADE) --output-file requirements-dev.txt --group dev

clean:
	rm -rf $(VENV) /var/cache/almagent-tests build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

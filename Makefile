# Every target sets up what it needs in .venv: a machine with make, Python 3.11+ and a package
# index is enough. ARGS is handed on, as in `make test ARGS="-k snapshot -x"`.

PYTHON ?=
ARGS ?=
# So many files of tests run at once; many wait for servers, disks and processes. 0 for a debugger.
WORKERS ?= 5
BASE ?= main
export PYTHON
BIN := .venv/bin

.PHONY: help demo compile test check lint format bench days reference docs dist changes coverage matrix workflows test-lowest test-portable test-hosts torture test-gpu clean
.DEFAULT_GOAL := help

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

# Tests of what is compiled, and of what everything else relies on: they run a second time, interpreted.
CORE_TESTS := tests/unit/model tests/unit/engine tests/unit/core/test_short_ways.py \
	tests/promises/test_02_aliasing.py tests/promises/test_05_budgets.py
# They count lines, and compiled code has none: where the core is compiled they run interpreted only.
LINE_TESTS := tests/faults/test_interrupts.py tests/faults/test_interrupts_short.py \
	tests/faults/test_handlers.py

demo: ## Run the main job on a real raster, with a live table of the tiers (a minute).
	@.ci/venv demo compile
	@$(BIN)/python compile_core.py
	@$(BIN)/python -m memories demo $(ARGS)

compile: ## Compile the core, if a C compiler is here and the sources have changed.
	@.ci/venv compile
	@$(BIN)/python compile_core.py

test: ## Run the tests; without ARGS those of the core a second time, interpreted.
	@.ci/venv test compile
	@$(BIN)/python compile_core.py
	@set -e; lines=; \
	if [ -z "$(ARGS)" ] && $(BIN)/python -c 'import memories.compiled as c; exit(not c.core().compiled)'; then \
		MEMORIES_INTERPRETED=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(CORE_TESTS) $(LINE_TESTS); \
		lines="$(addprefix --ignore=,$(LINE_TESTS))"; \
	fi; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $$lines $(ARGS)

check: lint ## Run lint, and the tests of layers, names and docs that need no running store.
	@.ci/venv test
	@$(BIN)/python -m pytest -q tests/test_tidy.py tests/test_imports.py tests/test_public_api.py

lint: ## Check format, lint and types.
	@.ci/venv lint
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy

format: ## Rewrite the sources in the one format.
	@.ci/venv lint
	@$(BIN)/python -m ruff format .
	@$(BIN)/python -m ruff check --fix .

bench: ## Run the benchmarks side by side with their peers.
	@.ci/venv bench compile
	@$(BIN)/python compile_core.py
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

days: ## Run whole programs beside what users have today (15 minutes).
	@.ci/venv bench days compile
	@$(BIN)/python compile_core.py
	@$(BIN)/python -m days $(ARGS)

reference: ## Write docs/reference anew from the docstrings, and the diagrams from the sources.
	@.ci/venv test
	@$(BIN)/python docs/reference/generate.py
	@$(BIN)/python docs/diagrams/draw.py

docs: ## Build the site of the documents into .docs/site, and run its notebooks (a minute).
	@.ci/venv docs
	@$(BIN)/python -m sphinx -q -W --keep-going -c docs/site . .docs/site
	@echo "open .docs/site/index.html"

dist: ## Build sdist, pure wheel and bill of materials into dist/, and show size and import time.
	@.ci/dist

changes: ## Check that this branch says what it changes (BASE=main), and show the next section.
	@.ci/changes $(BASE)
	@.ci/venv dist
	@$(BIN)/towncrier build --draft --version next

workflows: ## Check the workflows: their schema, and what could be abused.
	@.ci/venv dist
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/zizmor --offline --quiet .github
	@if command -v actionlint >/dev/null; then actionlint; else echo "actionlint is not on the path: its checks are left out"; fi

coverage: ## Measure what the tests reach of engine, disk and codecs, by branches; fail below the floor.
	@.ci/venv test coverage
	@rm -rf build/coverage
	@MEMORIES_INTERPRETED=1 $(BIN)/python -m coverage run -m pytest -q -n $(WORKERS) --dist loadfile $(addprefix --ignore=,$(LINE_TESTS)) $(ARGS)
	@$(BIN)/python -m coverage combine -q
	@$(BIN)/python -m coverage report $(if $(ARGS),--fail-under 0)

matrix: ## Run the tests with every Python on this machine (PYTHONS="..." chooses).
	@.ci/matrix

test-lowest: ## Run the tests with the lowest versions of all dependencies.
	@.ci/venv test torture
	@$(BIN)/python -m pytest -m torture --timeout 3600 tests/torture/test_lower_bounds.py $(ARGS)

test-portable: ## Run the tests without what only Linux has, as on another system.
	@.ci/venv test
	@MEMORIES_INTERPRETED=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -p tests.support.portable $(ARGS)

test-hosts: ## Run the tests of caches for frameworks, which `make test` skips without the framework.
	@.ci/venv test hosts
	@$(BIN)/python -m pytest -q tests/integrations/test_django.py tests/integrations/test_dogpile.py \
		tests/integrations/test_key_value.py tests/integrations/test_langchain.py $(ARGS)

torture: ## Run the long campaigns: kills, faults and races, many times over.
	@.ci/venv test torture compile
	@$(BIN)/python compile_core.py
	@$(BIN)/python -m pytest -m torture --timeout 3600 $(ARGS)

test-gpu: ## Run the tests that need a CUDA device.
	@.ci/venv test
	@$(BIN)/python -m pytest -m gpu $(ARGS)

clean: ## Remove the environment, caches and build outputs.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist src/memories/__compiled__
	find src tests examples benchmarks days -name __pycache__ -type d -prune -exec rm -rf {} +

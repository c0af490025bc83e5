# The two commands of the README: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard sql/*.sql src/kalshi_fast/*.py src/kalshi_fast/*/*.py src/kalshi_fast/*/*.html) \
	$(wildcard src/kalshi_fast/*.pyx src/kalshi_fast/*.pxd src/kalshi_fast/*.h src/kalshi_fast/*.pyi)
DEMO_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
AUDIT_ARGS ?=
FUZZ_EXAMPLES ?= 200000
CRASH_FAULTS ?= 2000
CRASH_CUTS ?= 50

.PHONY: install demo test sanitize fuzz crash lint docs bench dist audit clean

install: $(VENV)/.installed

$(VENV)/.installed: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
		|| { echo "kalshi-fast needs Python 3.11, 3.12 or 3.13; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing kalshi-fast and what it needs into $(VENV) …"
	@$(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check '.[embedded,backtest,plot,dev]'
	@touch $@

demo: install
	@$(BIN)/kalshi-fast demo $(DEMO_ARGS)

test: install
	@$(BIN)/python tests/run.py $(TEST_ARGS)

# The compiled modules once more, with bounds checks and gcc's sanitizers, and their tests on them.
sanitize: install
	@$(BIN)/python -m pytest tests/test_sanitizers.py -rP $(TEST_ARGS)

# What is found is written to tests/corpus/ and is a test from then on.
fuzz: install
	@KALSHI_FAST_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest tests/test_fuzz.py $(TEST_ARGS)

# Calls that fail and processes that are killed at them, and power cuts (as root): hours. CRASH_FAULTS, CRASH_CUTS.
crash: install
	@$(BIN)/python tests/sweep.py $(CRASH_FAULTS)
	@$(BIN)/python tests/powercut.py $(CRASH_CUTS)

lint: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/bandit -q -c pyproject.toml -r src

# The references from the code, then the site into build/site; a warning is an error.
docs: install
	@$(BIN)/python -m tools.reference
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Everything side by side, some minutes; BENCH_ARGS=--quick: within 45 seconds.
bench: install
	@$(BIN)/kalshi-fast bench --json $(BENCH_ARGS)

# sdist and wheel in dist/, checked, installed by pipx without a source tree or a compiler, and tried.
dist:
	@PYTHON=$(PYTHON) .ci/dist

# What is known against the code (bandit) and against what it needs (pip-audit, which asks the package index;
# AUDIT_ARGS=--strict fails where it cannot be asked).
audit: install
	@$(BIN)/bandit -q -c pyproject.toml -r src
	@$(BIN)/python .ci/audit.py $(AUDIT_ARGS)

clean:
	rm -rf $(VENV) .venv-dist build dist demo-data simulated-data src/*.egg-info src/kalshi_fast/*.c src/kalshi_fast/*.so

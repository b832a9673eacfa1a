# Each target does its own set-up in .venv; nothing else on the machine is changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DATA ?=
MODEL ?= mlp

FUZZ_SECONDS ?= 10

.PHONY: setup demo test check coverage bench fuzz conformance clean

setup: $(READY)

# torch first and by itself: its pinned release is the CPU build where one is offered.
$(READY): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/python -m tests.demo --out demo --model $(MODEL) $(if $(DATA),--data $(DATA))

# One thread for each of two workers; coverage is recorded here and judged in `check`.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow" --cov --cov-report=

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# After `make test`: what the tests reached. The goal is 100 % of protocol/ and 95 % of the rest, branches counted.
coverage: $(READY)
	test -f .coverage || $(MAKE) test
	$(BIN)/coverage report --include='protocol/*' --fail-under=100 --skip-covered
	$(BIN)/coverage report --include='owner/*,auditor/*' --fail-under=95 --skip-covered

# Figures for people, not for CI: ratios and tables, written to standard output.
bench: $(READY)
	$(BIN)/python -m tests.benchmarks.match_study
	$(if $(DATA),$(BIN)/python -m tests.benchmarks.match_study --data $(DATA))

# Every parser against mutated bytes, FUZZ_SECONDS each, in a process of its own (Linux: atheris has wheels there).
fuzz: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# The whole conformance kit, slow cases too. For another program: make conformance KIT='--auditor-command "..." --only receipt,log'
conformance: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/conformance $(KIT)

clean:
	rm -rf demo .coverage .hypothesis .pytest_cache .mypy_cache .ruff_cache

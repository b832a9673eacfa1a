# Each target does its own set-up in .venv; nothing else on the machine is changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DATA ?=
MODEL ?= mlp
KILLS ?= 1000
SEED ?= 2

FUZZ_SECONDS ?= 10
SMALL ?=

.PHONY: setup demo peers test properties check coverage bench calibration attacks table matrix power sacroml soundness marabou \
  mlserver crash fuzz conformance formal clean

setup: $(READY)

# torch first and by itself: its pinned release is the CPU build where one is offered.
$(READY): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[dev,scale]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/python -m tests.demo --out demo --model $(MODEL) $(if $(DATA),--data $(DATA))

# npm's packages for tests, and with them a node that is new enough: for the second auditor and the receipt page.
peers: tests/peers/node_modules/.ready

tests/peers/node_modules/.ready: tests/peers/package.json tests/peers/package-lock.json
	cd tests/peers && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# One thread for each of two workers; the same examples in every run (`make properties` looks for new ones).
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow" --hypothesis-profile=ci --cov --cov-report=

# Every property with examples that nobody has seen yet; what is found here is kept as an example in its test.
properties: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "hypothesis and not slow" \
	  --hypothesis-seed=$$($(BIN)/python -c "import secrets; print(secrets.randbits(32))")

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) marabou || echo "Marabou could not be installed (it needs Python 3.8 to 3.12); its cross-check skips"
	$(MAKE) mlserver || echo "MLServer could not be installed; the deployment check meets no real server"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --hypothesis-profile=ci tests/cross/test_marabou.py \
	  tests/auditor/deployment/test_mlserver.py

# Somebody else's verifier, in an environment of its own: it wants its own versions, and nothing here imports it.
marabou: .venv-marabou/.ready

.venv-marabou/.ready: .ci/marabou.txt
	rm -rf .venv-marabou
	$(PYTHON) -m venv .venv-marabou
	.venv-marabou/bin/pip install --quiet --disable-pip-version-check --requirement .ci/marabou.txt
	.venv-marabou/bin/python -W ignore -c "from maraboupy import Marabou; Marabou.read_onnx"
	@touch $@

# A real inference server, in an environment of its own: the deployment check asks it over loopback.
mlserver: .venv-mlserver/.ready

.venv-mlserver/.ready: .ci/mlserver.txt
	rm -rf .venv-mlserver
	$(PYTHON) -m venv .venv-mlserver
	.venv-mlserver/bin/pip install --quiet --disable-pip-version-check --requirement .ci/mlserver.txt
	.venv-mlserver/bin/python -c "import mlserver, onnxruntime"
	@touch $@

# After `make test`: what the tests reached. The goal is 100 % of protocol/ and 95 % of the rest, branches counted.
coverage: $(READY)
	test -f .coverage || $(MAKE) test
	$(BIN)/coverage report --include='protocol/*' --fail-under=100 --skip-covered
	$(BIN)/coverage report --include='owner/*,auditor/*' --fail-under=95 --skip-covered

# SACRO-ML, in an environment of its own: it wants its own versions, and nothing here imports it.
sacroml: .venv-sacroml/.ready

.venv-sacroml/.ready: .ci/sacroml.txt
	rm -rf .venv-sacroml
	$(PYTHON) -m venv .venv-sacroml
	.venv-sacroml/bin/pip install --quiet --disable-pip-version-check --constraint .ci/sacroml.txt torch==2.13.0
	.venv-sacroml/bin/pip install --quiet --disable-pip-version-check --requirement .ci/sacroml.txt
	.venv-sacroml/bin/python -c "from sacroml.attacks.likelihood_attack import LIRAAttack"
	@touch $@

# False accusations among honest models, and what is seen of others: some ten minutes on one core. Stopped, it goes on.
calibration: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.calibration --runs 200 --out tests/benchmarks/CALIBRATION.md

# Every dishonest owner at every strength; SMALL=1 takes half a minute. DATA=../shared/data/mnist.npz adds two data sets
# to the digits and takes an hour on one core. Stopped, it goes on with the next row.
matrix: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.matrix \
	  $(if $(SMALL),--small,$(if $(DATA),--data $(dir $(DATA))) --out threat_models/MATRIX.md)

# What the statistical checks see, and what an owner gains who tunes the cheat: some forty minutes on one core.
power: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.power --out threat_models/POWER.md
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.adaptive --out threat_models/ADAPTIVE.md

# The table of attacks on five data sets: some ten minutes on one core. Stopped, it goes on with the next data set.
attacks: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.attacks_study $(if $(DATA),--data $(dir $(DATA)))

# Every method, scenario and data set: hours with DATA; SMALL=1 takes minutes. Stopped, it goes on with the next cell. JOBS worlds
# at once; none is begun after LIMIT seconds; models are trained on DEVICE.
table: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.table $(if $(SMALL),--small) $(if $(DATA),--data $(dir $(DATA))) \
	  $(if $(JOBS),--jobs $(JOBS)) $(if $(LIMIT),--limit $(LIMIT)) $(if $(DEVICE),--device $(DEVICE)) --first \
	  --out tests/benchmarks/TABLE.md

# Figures for people, not for CI: ratios and tables, written to standard output.
bench: $(READY)
	$(MAKE) sacroml || echo "SACRO-ML could not be installed; it is not compared"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.shadow_bench
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.speed --out tests/benchmarks/RESULTS.md $(if $(DATA),--data $(DATA))
	$(BIN)/python -m tests.benchmarks.log_bench
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.deployment_power
	$(BIN)/python -m tests.benchmarks.match_study
	$(if $(DATA),$(BIN)/python -m tests.benchmarks.match_study --data $(DATA))
	$(BIN)/python -m tests.benchmarks.redirection_study $(if $(DATA),--data $(dir $(DATA)) --many --retrain)
	$(BIN)/python -m tests.benchmarks.gates_study $(if $(DATA),--data $(dir $(DATA)))

# A search for unsound certificates: over a million points; some ten minutes. With DATA the real MNIST as well.
soundness: $(READY)
	$(BIN)/python -m tests.benchmarks.soundness $(if $(DATA),--data $(DATA))

# KILLS rounds of killing writers, witnesses and a witness's service at random instants, then the state machine.
crash: $(READY)
	$(BIN)/python -m tests.protocol.log.crash_loop $$(mktemp -d) $(KILLS) $(SEED)
	$(BIN)/python -m pytest -q -s -m slow tests/protocol/log/test_machine.py

# Every parser against mutated bytes, FUZZ_SECONDS each, in a process of its own (Linux: atheris has wheels there).
fuzz: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# The whole conformance kit, slow cases too. For another program: make conformance KIT='--auditor-command "..." --only receipt,log'
conformance: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/conformance $(KIT)

# The symbolic models, by Spin (Debian: spin, gcc); SMALL=1 has smaller bounds. Traces and figures are compared with the kept ones.
formal: $(READY)
	$(BIN)/python -m tests.formal $(if $(SMALL),--small)

clean:
	rm -rf demo .venv-marabou .venv-mlserver .venv-sacroml .coverage .hypothesis .pytest_cache .mypy_cache .ruff_cache

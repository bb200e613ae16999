# One command each; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
.DEFAULT_GOAL := help

.PHONY: help setup demo test serve perf ui lint format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ready  ## create .venv and install the pinned requirements

$(VENV)/.ready: requirements.txt requirements-dev.txt requirements-ui.txt constraints.txt tools/setup.sh
	PYTHON=$(PYTHON) tools/setup.sh $(VENV)
	@touch $@

demo: setup  ## start the server, send the bundled 720p picture, show the result
	$(PY) tools/demo.py

test: setup  ## all tests, against the real server
	@tools/setup.sh --test-tools
	$(PY) -m pytest $(ARGS)

serve: setup  ## run the server until Ctrl-C (HTTP_PORT, GRPC_PORT, METRICS_PORT)
	$(PY) tools/serve.py $(ARGS)

perf: setup  ## measure with perf_analyzer (ARGS go to it: --url, --concurrency-range ...)
	$(PY) tools/perf.py $(ARGS)

ui: setup  ## a page to drop pictures and clips on, at http://127.0.0.1:7860
	$(PY) tools/ui.py $(ARGS)

lint: setup  ## ruff, format check, type check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: setup  ## apply ruff's fixes and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## remove what was built here
	rm -rf $(VENV) .cache out

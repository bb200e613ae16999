# One command each; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
.DEFAULT_GOAL := help

.PHONY: help setup demo test serve rehearse status accuracy perf bench tune ui gateway chaos audit lint format clean image plan serve-docker sbom tensorrt-api mutants

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ready  ## create .venv and install the pinned requirements

$(VENV)/.ready: requirements.txt requirements/dev.txt requirements/bulk.txt requirements/ui.txt requirements/bench.txt requirements/gateway.txt requirements/rtx.txt requirements/constraints.txt clients/python/pyproject.toml tools/setup.sh
	PYTHON=$(PYTHON) tools/setup.sh $(VENV)
	@touch $@

demo: setup  ## start the server, send the bundled 720p picture, show the result
	$(PY) tools/demo.py

test: setup  ## all tests, against the real server
	@PYTHON=$(PY) tools/setup.sh --test-tools
	$(PY) -m pytest $(ARGS)

serve: setup  ## run the server until Ctrl-C (HTTP_PORT, GRPC_PORT, METRICS_PORT)
	$(PY) tools/serve.py $(ARGS)

rehearse: setup  ## the production configuration on this machine, a stand-in engine for the plan (ARGS="--stand-in slow")
	$(PY) tools/serve.py --rehearse $(ARGS)

accuracy: setup  ## what each precision costs in detections (ARGS="--images FOLDER": on your own pictures)
	@test -f model_repository/nudenet_trt/1/model.dynamic.onnx || $(PY) build/export_onnx.py
	$(PY) build/accuracy.py $(ARGS)

status: setup  ## what a running server is doing, on one screen (ARGS="--watch", "--canary", "--json")
	$(PY) tools/status.py $(ARGS)

perf: setup  ## measure with perf_analyzer (ARGS go to it: --url, --concurrency-range ...)
	$(PY) tools/perf.py $(ARGS)

bench: setup  ## measure this machine against its ceiling and the alternatives; 11 minutes, wants a quiet machine
	$(PY) tools/bench.py run $(ARGS)

tune: setup  ## find the best configuration for this machine and a latency budget (ARGS="--budget-ms 67 --name mine")
	$(PY) tools/tune.py $(ARGS)

ui: setup  ## a page to drop pictures and clips on, at http://127.0.0.1:7860
	$(PY) tools/ui.py $(ARGS)

gateway: setup  ## plain HTTP and JSON in front of a running server, at http://127.0.0.1:8080 (ARGS=--docs: /docs)
	$(PY) tools/gateway.py $(ARGS)

chaos: setup $(VENV)/.chaos  ## bad input, kills, overload and a soak against real servers; an hour, prints a table
	PYTHONPATH=tools:tests:model_repository/nudenet/1 $(PY) -m chaos $(ARGS)

mutants: setup $(VENV)/.chaos  ## change code a little, one change at a time: do its tests notice? (ARGS="jpeg nms"); about an hour
	PYTHONPATH=tests $(PY) -m mutants $(ARGS)

audit: setup $(VENV)/.chaos  ## known vulnerabilities of everything pinned (needs the advisory database on the network)
	$(VENV)/bin/pip-audit --disable-pip --no-deps -r requirements/constraints.txt $(ARGS)

$(VENV)/.chaos: requirements/chaos.txt $(VENV)/.ready
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements/chaos.txt -c requirements/constraints.txt
	@touch $@

lint: setup  ## ruff, format check, type check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	for model in model_repository/*/1/model.py tools/nudenet_tools/bench/textbook/*/1/model.py; do $(VENV)/bin/mypy $$model || exit 1; done

format: setup  ## apply ruff's fixes and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The next three need docker with the NVIDIA container toolkit; the plan also needs the GPU that will serve it.
DOCKER ?= docker
TRITON_TAG ?= $(shell sed -n 's/^ARG TRITON_TAG=//p' deploy/Dockerfile)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
PLAN_ARGS ?= --precision FP16 --test
GPU ?= 0
HTTP_PORT ?= 8000
GRPC_PORT ?= 8001
METRICS_PORT ?= 8002
docker_build = $(DOCKER) build --build-arg TRITON_TAG=$(TRITON_TAG) -f deploy/Dockerfile

image:  ## build the images of server, plan builder (TRITON_TAG) and gateway
	$(docker_build) --target server -t nudenet-triton:$(VERSION) .
	$(docker_build) --target builder -t nudenet-triton-builder:$(VERSION) .
	$(DOCKER) build -f deploy/Dockerfile.gateway -t nudenet-gateway:$(VERSION) .

plan:  ## build model.plan inside Triton's image on this GPU, PLAN=live model.live.plan (PLAN_ARGS; this folder is /data there)
	$(docker_build) --target builder -t nudenet-triton-builder:$(VERSION) .
	$(DOCKER) run --rm --gpus "device=$(GPU)" --user "$$(id -u):$$(id -g)" -e HOME=/tmp \
	  -v "$(CURDIR)/model_repository:/models" -v "$(CURDIR):/data:ro" \
	  nudenet-triton-builder:$(VERSION) --runtime tensorrt $(PLAN_ARGS) \
	  $(if $(filter live,$(PLAN)),--live,) \
	  --output /models/nudenet_trt/1/model$(if $(PLAN),.$(PLAN)).plan

serve-docker:  ## serve model_repository with its plan in the production image (PLAN=live, GPU, HTTP_PORT, GRPC_PORT, METRICS_PORT)
	$(docker_build) --target server -t nudenet-triton:$(VERSION) .
	$(DOCKER) run --rm --gpus "device=$(GPU)" --shm-size=2304m -e ADMIN_KEY -e MODEL_CONFIG_NAME=$(PLAN) --read-only --tmpfs /tmp --cap-drop=ALL \
	  --security-opt=no-new-privileges -p 127.0.0.1:$(HTTP_PORT):8000 -p 127.0.0.1:$(GRPC_PORT):8001 \
	  -p 127.0.0.1:$(METRICS_PORT):8002 -v "$(CURDIR)/model_repository:/models:ro" \
	  nudenet-triton:$(VERSION) $(ARGS)

sbom: image  ## list the packages in the images, CycloneDX, into out/
	@mkdir -p out
	set -e; for image in nudenet-triton nudenet-triton-builder; do \
	  $(DOCKER) run --rm --entrypoint python3 $$image:$(VERSION) -m container.sbom >out/$$image.cdx.json; done
	$(DOCKER) run --rm --entrypoint python3 nudenet-gateway:$(VERSION) tools/container/sbom.py >out/nudenet-gateway.cdx.json

tensorrt-api: setup  ## record anew the TensorRT API that the tests build plans against
	cd tests && ../$(PY) -m tensorrt_api.record

clean:  ## remove what was built here
	rm -rf $(VENV) .cache out

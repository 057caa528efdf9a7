# `make help` lists what there is; every target that needs tools sets them up first.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
VERIFY := .cache/verify/.done

WORKERS ?= 3
URL ?= http://127.0.0.1:8080
PYTEST_ARGS ?=
CASES ?= 5000
SOAK_MINUTES ?= 30
REQUESTS ?= 2000
BENCH_ARGS ?=
JOBS ?= 2
# One file's tests stay together: they share processes. Files come in the order that tests/conftest.py gives them.
PYTEST = pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
SOURCES := $(wildcard pkg cmd bench tests tools)

##@ Start

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(RUNTIME) ## Make .venv with what running needs

demo: $(RUNTIME) ## Show it all with a real model: answers, a killed worker, failover
	@$(BIN)/neurogate demo --workers $(WORKERS)

up: $(RUNTIME) ## Run a gateway and WORKERS=3 workers until Ctrl-C
	@$(BIN)/neurogate up --workers $(WORKERS)

run-gateway: $(RUNTIME) ## Run a gateway alone
	@exec $(BIN)/neurogate gateway

run-worker: $(RUNTIME) ## Run a worker alone
	@exec $(BIN)/neurogate worker

health: $(RUNTIME) ## Ask the gateway at URL how it is
	@$(BIN)/neurogate health --url $(URL)

workers: $(RUNTIME) ## Show the workers of the gateway at URL
	@$(BIN)/neurogate workers --url $(URL)

models: $(RUNTIME) ## Fetch the default model, and list what is here
	@$(BIN)/neurogate models fetch
	@$(BIN)/neurogate models list

##@ Develop

dev: $(DEV) ## Add to .venv what testing and checking need

test: $(DEV) compiled ## Run every test, JOBS=2 at once (PYTEST_ARGS= adds arguments)
	@$(BIN)/python -m $(PYTEST) $(PYTEST_ARGS)

test-fast: $(DEV) compiled ## Run the tests that need no language model
	@$(BIN)/python -m $(PYTEST) -m "not model" $(PYTEST_ARGS)

# Tests start hundreds of processes: where PYTHONDONTWRITEBYTECODE is set, each would compile all it imports.
compiled: $(RUNTIME) ## Write the bytecode of pkg, which tests start hundreds of processes with
	@$(BIN)/python -m compileall -q pkg

native: $(DEV) ## Compile the hot path (ADR 0030) into .cache/native, where the checkout stays as it is
	@command -v cc >/dev/null || { echo "make: a compiler for C is needed. On Debian and Ubuntu: apt-get install gcc" >&2; exit 1; }
	@rm -rf .cache/native
	@HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 $(BIN)/python -m pip --disable-pip-version-check -q wheel --no-deps --no-build-isolation --wheel-dir .cache/native .
	@$(PIP) install --no-deps --no-index --target .cache/native/pkg .cache/native/*.whl

test-native: native ## Run the tests that need no language model on what is compiled
	@PYTHONPATH=$(CURDIR)/.cache/native/pkg $(BIN)/python -m $(PYTEST) -m "not model" $(PYTEST_ARGS)

fmt: $(DEV) ## Format the code, and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

lint: $(DEV) ## Check style, layers and types
	@$(BIN)/ruff format --check --quiet $(SOURCES)
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache
	@$(BIN)/mypy

cov: $(DEV) compiled ## Run every test with branch coverage, in processes too
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m $(PYTEST) $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

check: lint proto-check cov verify-quick ## Everything that must be right before a change is merged

fuzz: $(DEV) ## Send CASES=5000 generated requests by the gateway's own OpenAPI document
	@$(BIN)/python tests/fuzz_openapi.py --cases $(CASES)

rolling: $(RUNTIME) ## Restart a local fleet under 50 requests/s until REQUESTS=2000 were asked; none may fail
	@$(BIN)/python tests/rolling.py --requests $(REQUESTS)

chaos: $(DEV) ## Break a fleet in every way there is, and count (CHAOS_SEED=N replays, CHAOS_REPORT=FILE.md or .json keeps it)
	@CHAOS=1 $(BIN)/python -m pytest tests/chaos $(PYTEST_ARGS)

soak: $(DEV) ## Mixed traffic for SOAK_MINUTES=30 with a fault every 20 s; nothing may grow
	@SOAK_MINUTES=$(SOAK_MINUTES) $(BIN)/python -m pytest tests/chaos/test_soak.py $(PYTEST_ARGS)

bench: $(RUNTIME) ## Measure NeuroGate beside its peers, at most 15 minutes (BENCH_ARGS=... is said by bench/run.py -h)
	@$(BIN)/python bench/run.py $(BENCH_ARGS)

bench-quick: $(RUNTIME) ## Measure NeuroGate, nginx and vllm-router, at most 90 s
	@$(BIN)/python bench/run.py --quick $(BENCH_ARGS)

dashboards: $(DEV) ## Write deploy/grafana/dashboards anew from tools/dashboards
	@$(BIN)/python tools/dashboards/generate.py

docs: $(RUNTIME) ## Write docs/configuration.md, its schema and docs/metrics.md anew
	@$(BIN)/neurogate settings --markdown > docs/configuration.md
	@$(BIN)/neurogate settings --json-schema > docs/neurogate.schema.json
	@$(BIN)/neurogate metrics --markdown > docs/metrics.md

##@ Verify the deployment

verify-deploy: $(DEV) $(VERIFY) ## Climb the whole ladder: linters, Terraform, Prometheus, Docker, Kubernetes (RUNG=name for one)
	@$(BIN)/python tools/verify/ladder.py $(if $(RUNG),--only $(RUNG))

verify-quick: $(DEV) $(VERIFY) ## Its first three rungs, which make check runs too
	@$(BIN)/python tools/verify/ladder.py --to prometheus

verify-prometheus: $(DEV) ## A real Prometheus and Alertmanager over a live fleet; every rule and panel must have an answer
	@$(BIN)/python tools/verify/prometheus.py

verify-tools: $(VERIFY) ## Install the linters of the deployment, in an environment of their own

$(VERIFY): tools/verify/requirements.lock
	@echo "installing the linters of the deployment into .cache/verify"
	@tools/make-venv "$(PYTHON)" .cache/verify
	@.cache/verify/bin/python -m pip --disable-pip-version-check -qq install --require-hashes -r $<
	@touch $@

##@ Images

REGISTRY ?=
DOCKER_TAG ?= latest
PYTHON_IMAGE ?= python:3.12-slim
docker-build = docker build --file cmd/$(1)/Dockerfile --tag $(REGISTRY)neurogate-$(1):$(DOCKER_TAG) \
	--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) .
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' pkg/neurogate/__init__.py)
REVISION = $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
needs-docker = docker version >/dev/null 2>&1 || \
	{ echo "$@ needs docker and its daemon, which this user may ask: see docs/deploy.md" >&2; exit 1; }
needs-compose = $(needs-docker); docker compose version >/dev/null 2>&1 || \
	{ echo "$@ needs Docker Compose, the plugin docker-compose-plugin: see docs/deploy.md" >&2; exit 1; }

docker: ## Build the images of gateway and worker (REGISTRY=host/path/ DOCKER_TAG=latest)
	@$(needs-docker)
	$(call docker-build,gateway)
	$(call docker-build,worker)

docker-cuda: ## Build the worker's image for NVIDIA GPUs (LLAMA_IMAGE= takes another llama-server)
	@$(needs-docker)
	docker build --file cmd/worker/Dockerfile.cuda --tag $(REGISTRY)neurogate-worker-cuda:$(DOCKER_TAG) \
		$(if $(LLAMA_IMAGE),--build-arg LLAMA_IMAGE=$(LLAMA_IMAGE)) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) .

docker-push: ## Push them to REGISTRY
	@$(needs-docker)
	@test -n "$(REGISTRY)" || { echo "docker-push needs REGISTRY=host/path/, where you may push to" >&2; exit 1; }
	docker push $(REGISTRY)neurogate-gateway:$(DOCKER_TAG)
	docker push $(REGISTRY)neurogate-worker:$(DOCKER_TAG)

compose-up: ## Run the fleet of compose.yaml from the images that `make docker` built
	@$(needs-compose)
	@test -e .env || { cp .env.example .env; echo "made .env of .env.example: change its keys before others can reach them"; }
	@docker compose up --detach --wait

compose-down: ## Stop and remove it; its volumes stay
	@$(needs-compose)
	@docker compose --profile '*' down

##@ Kubernetes

CONTEXT ?= kind-neurogate
KUBECTL = kubectl --context $(CONTEXT) --namespace neurogate

kind-create: ## Make a cluster of three nodes in containers: ports 30080 gateway, 30090 Prometheus, 30030 Grafana
	@tools/needs docker kind kubectl
	@kind get clusters 2>/dev/null | grep -qx neurogate || kind create cluster --config deploy/k8s/kind.yaml --wait 120s

kind-load: ## Give it the images that `make docker` built
	@tools/needs docker kind
	@kind load docker-image --name neurogate neurogate-gateway:latest neurogate-worker:latest

deploy: ## Put everything into it, and wait until it is ready
	@tools/needs docker kind kubectl
	@tools/has-cluster $(CONTEXT)
	@kubectl --context $(CONTEXT) apply -k deploy/k8s/overlays/kind
	@$(KUBECTL) rollout status --timeout=300s deployment/neurogate-gateway
	@$(KUBECTL) rollout status --timeout=900s statefulset/neurogate-worker
	@echo "gateway http://localhost:30080 (key neurogate-secret-key-1), Prometheus :30090, Grafana :30030 (admin, neurogate)"

undeploy: ## Take it out again, with the workers' models
	@tools/needs kubectl
	@kubectl --context $(CONTEXT) delete --ignore-not-found -k deploy/k8s/overlays/kind

status: ## Show what runs in it
	@tools/needs kubectl
	@$(KUBECTL) get pods,services,persistentvolumeclaims -o wide

demo-k8s: ## Ask it something, and again while a worker is taken away
	@tools/needs kubectl curl
	@tools/demo-k8s "$(KUBECTL)"

logs-gateway: ## Follow the gateways' logs
	@$(KUBECTL) logs --follow --prefix --max-log-requests 20 -l app.kubernetes.io/component=gateway

logs-worker: ## Follow the workers' logs
	@$(KUBECTL) logs --follow --prefix --max-log-requests 20 -l app.kubernetes.io/component=worker

kind-delete: ## Remove the cluster
	@tools/needs kind
	@kind delete cluster --name neurogate

k8s-render: $(RUNTIME) ## Write deploy/k8s/base and overlays anew from the chart
	@$(BIN)/python tools/k8s_render.py "$$(tools/verify/get-kubectl-helm)/helm"

##@ Terraform

TF_ENV ?= dev
TF = terraform -chdir=deploy/terraform
TF_VARS = -input=false -var-file=environments/$(TF_ENV).tfvars

tf-init: ## Fetch Terraform's providers, as versions.tf pins them
	@tools/needs terraform
	@$(TF) init -input=false

tf-plan: ## Show what Terraform would change for TF_ENV=dev (secrets come as TF_VAR_api_keys, TF_VAR_grafana_admin_password)
	@tools/needs terraform
	@$(TF) plan $(TF_VARS)

tf-apply: ## Change it, after asking
	@tools/needs terraform $(if $(filter dev,$(TF_ENV)),docker kind)
	@$(TF) apply -var-file=environments/$(TF_ENV).tfvars

tf-destroy: ## Remove it all, the kind cluster too, after asking
	@tools/needs terraform
	@$(TF) destroy -var-file=environments/$(TF_ENV).tfvars

tf-fmt: ## Format Terraform's files
	@tools/needs terraform
	@terraform fmt -recursive deploy/terraform

tf-test: ## Test what Terraform decides, without providers
	@tools/needs terraform
	@$(TF)/modules/plan init -backend=false -input=false >/dev/null
	@$(TF)/modules/plan test

##@ Wire definitions

# A virtual path mapping (-Ineurogate/api/v1=...) puts the code of the packages neurogate.v1 and llm.v1 into neurogate.api.
protoc = $(BIN)/python -m grpc_tools.protoc \
	-Ineurogate/api/v1=api/proto/neurogate/v1 -Ineurogate/api/llm/v1=api/proto/llm/v1 \
	--python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) \
	neurogate/api/v1/worker.proto neurogate/api/llm/v1/llm.proto

proto: $(DEV) ## Generate pkg/neurogate/api from api/proto
	@$(call protoc,pkg)

proto-check: $(DEV) ## Check that the generated code is fresh, and the definitions are sound and compatible
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(call protoc,$$fresh); \
	diff -r -u -x __init__.py -x __pycache__ pkg/neurogate/api "$$fresh/neurogate/api" || \
		{ echo "pkg/neurogate/api is not what api/proto says: run make proto" >&2; exit 1; }
	@$(BIN)/buf lint
	@$(BIN)/buf breaking --against api/proto/baseline.binpb

proto-baseline: $(DEV) ## At a release: later definitions must be compatible with these
	@$(BIN)/buf build --exclude-source-info -o api/proto/baseline.binpb

##@ Housekeeping

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header pyproject.toml

# What a gateway's image does without: engines, and rich's colours for source code. Its build imports the gateway, and so
# finds a mistake here.
NOT_IN_GATEWAY := xllamacpp nvidia-ml-py aiohttp aiohappyeyeballs aiosignal async-timeout attrs frozenlist multidict propcache yarl \
	ollama pygments

lock: $(DEV) ## Resolve the dependencies anew into the lock files (UPGRADE=--upgrade for the newest)
	@$(PIP) install uv
	@$(BIN)/$(LOCK) $(UPGRADE) --group build -o requirements.lock
	@$(BIN)/$(LOCK) $(UPGRADE) --group dev -o requirements-dev.lock
	@$(BIN)/$(LOCK) --constraints requirements.lock $(addprefix --no-emit-package ,$(NOT_IN_GATEWAY)) -o requirements-gateway.lock
	@$(BIN)/$(subst pyproject.toml,--group pyproject.toml:build,$(LOCK)) --constraints requirements.lock -o requirements-build.lock
	@$(BIN)/$(subst pyproject.toml,tools/verify/requirements.in,$(LOCK)) $(UPGRADE) -o tools/verify/requirements.lock

clean: ## Remove what can be made again, except .venv
	@rm -rf dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@tools/make-venv "$(PYTHON)" $(VENV)

$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV)"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	@echo "installing the tools into $(VENV)"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: compiled tf-init tf-plan tf-apply tf-destroy tf-fmt tf-test help setup demo up run-gateway run-worker health workers models dev test test-fast native test-native fmt lint cov check fuzz rolling \
	kind-create kind-load deploy undeploy status demo-k8s logs-gateway logs-worker kind-delete k8s-render \
	docker docker-cuda docker-push compose-up compose-down verify-deploy verify-quick verify-prometheus verify-tools chaos soak bench bench-quick dashboards docs proto proto-check proto-baseline lock clean

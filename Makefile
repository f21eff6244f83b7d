# `make` alone lists what there is. PYTHON chooses the interpreter, otherwise scripts/install.sh does. ARGS is handed on to
# the program or to pytest.
PYTHON ?=
ARGS ?=
SOAK_SECONDS ?= 3600
TEST_PROCESSES ?= 4

BIN := .venv/bin
COVERAGE := --cov --cov-report=term --cov-report=xml --cov-fail-under=0

.DEFAULT_GOAL := help
.PHONY: help run install install-otel install-dev test-dependencies test test-fast test-unit test-integration test-e2e test-e2e-nobody test-browser image-check chaos ha bench \
	bench-quick bench-peers soak coverage-check lint format types package check screenshots lock outdated audit release clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'

run: install ## Install what is missing, and run the program (ARGS="--role api")
	@exec $(BIN)/birthday $(ARGS)

install: ## Create .venv with what the program needs
	@PYTHON=$(PYTHON) scripts/install.sh runtime

install-otel: ## Create .venv with what the program and its tracing need
	@PYTHON=$(PYTHON) scripts/install.sh otel

install-dev: ## Create .venv with what development needs
	@PYTHON=$(PYTHON) scripts/install.sh dev

test-dependencies: ## Install RabbitMQ, Prometheus, Chromium and small tools for the tests, where they are missing
	@scripts/install-test-dependencies.sh

test: install-dev test-dependencies ## Run all tests with coverage (ARGS="-k planner")
	$(BIN)/pytest $(COVERAGE) -m "not long" --numprocesses $(TEST_PROCESSES) --dist worksteal --durations=15 \
		--reruns 1 --rerun-show-tracebacks -rR $(ARGS)

test-fast: install-dev ## Run the tests that need no server but PostgreSQL: under two minutes
	$(BIN)/pytest -m "fast" --numprocesses $(TEST_PROCESSES) --dist worksteal $(ARGS)

test-unit: install-dev ## Run the tests that need no server (ARGS=--cov measures coverage)
	$(BIN)/pytest tests/unit $(ARGS)

test-integration: install-dev test-dependencies ## Run the tests against real servers
	$(BIN)/pytest tests/integration $(ARGS)

test-e2e: install-dev test-dependencies ## Run the tests of the program as a whole
	$(BIN)/pytest tests/e2e $(ARGS)

test-e2e-nobody: install-dev test-dependencies ## Run the tests of the program as a whole, as an unprivileged user
	TEST_ACCOUNT=nobody $(BIN)/pytest tests/e2e $(ARGS)

test-browser: install-dev test-dependencies ## Run the tests of the console in a browser
	$(BIN)/pytest tests/browser $(ARGS)

image-check: install-dev test-dependencies ## Build the image in a bare Debian without an engine, and run it (as root)
	@command -v debootstrap > /dev/null || scripts/apt-install.sh debootstrap "the image is built on a bare Debian"
	$(BIN)/pytest tests/e2e/test_image.py $(ARGS)

chaos: install-dev test-dependencies ## Kill, cut and flood everything, then audit the result (15 minutes)
	CHAOS=full $(BIN)/pytest tests/chaos tests/integration/test_virtual_year.py --timeout 900 $(ARGS)
	$(BIN)/pytest tests/integration/test_broker_contract.py -k postgres-pooler $(ARGS)
	TEST_POOLER=1 $(BIN)/pytest -k "not rabbitmq" $(addprefix tests/integration/test_,worker.py dispatcher.py planner.py \
		janitor.py audit.py transfer.py dlq.py api_users.py api_messages.py api_transfer.py) $(ARGS)

ha: install-dev test-dependencies ## Lose hosts of PostgreSQL and RabbitMQ clusters, then audit the result (10 minutes)
	$(BIN)/pytest tests/ha $(ARGS)

bench: install-dev test-dependencies ## Measure everything and write docs/performance.md (ARGS="--users 1000000")
	@status=0; $(BIN)/python -m benchmarks --full --json docs/performance/results.json $(ARGS) || status=$$?; \
		$(BIN)/python -m benchmarks.history docs/performance/results.json && $(BIN)/python -m benchmarks.report && \
		exit $$status

bench-quick: install-dev test-dependencies ## Compare with the limits, a few minutes; fails below a floor (ARGS="-k worker")
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: install-dev test-dependencies ## Compare with other job queues and web frameworks (.venv/peers), write the page
	@test -x .venv/peers/bin/python || $(BIN)/python -m venv .venv/peers
	.venv/peers/bin/python -m pip install --quiet --requirement benchmarks/peers/requirements.txt
	if command -v npm > /dev/null; then cp benchmarks/peers/package.json .venv/peers && npm install --silent --prefix .venv/peers; fi
	@status=0; $(BIN)/python -m benchmarks --peers .venv/peers/bin/python --json docs/performance/peers.json $(ARGS) || \
		status=$$?; $(BIN)/python -m benchmarks.report && exit $$status

soak: install-dev test-dependencies ## Mixed load for an hour, or SOAK_SECONDS; fails if something grows
	@status=0; $(BIN)/python -m benchmarks --soak $(SOAK_SECONDS) --json docs/performance/soak.json $(ARGS) || \
		status=$$?; $(BIN)/python -m benchmarks.report && exit $$status

coverage-check: install-dev ## Compare the last run's coverage with the threshold in pyproject.toml
	@scripts/coverage/check-thresholds.sh

lint: install-dev ## Check style, format, the direction of imports, and migrations
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/squawk schema/*.up.sql

format: install-dev ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: install-dev ## Check types
	$(BIN)/mypy

package: install-dev ## Build the wheel into dist/ and run the program from it
	@scripts/check-package.sh

check: lint types package test ## Run everything that must pass before a change lands
	@scripts/coverage/check-thresholds.sh

screenshots: install-dev test-dependencies ## Take the pictures in docs/images/ anew, of real pages with invented data
	@$(BIN)/python -m tests.browser.screenshots

lock: install-dev ## Pin dependencies anew (ARGS=--upgrade takes the newest versions)
	@scripts/lock.sh $(ARGS)

release: ## Make a release: version, changelog, commit and tag (VERSION=1.4.0)
	@scripts/release.sh "$(VERSION)"

outdated: install-dev ## List dependencies that have newer versions
	$(BIN)/pip list --outdated

audit: install-dev ## Compare the pinned dependencies with known vulnerabilities; needs the internet
	$(BIN)/python -m pip install --quiet uv
	for lock in requirements-otel.lock requirements-dev.lock; do \
		$(BIN)/uv tool run pip-audit --strict --disable-pip --require-hashes --requirement $$lock || exit 1; \
	done

clean: ## Remove everything that was built or installed, except the data in .birthday
	rm -rf .venv build dist *.egg-info .coverage .coverage.* coverage.xml htmlcov .hypothesis
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

#!/usr/bin/env bash
# Write the locks from pyproject.toml: requirements.lock, with tracing requirements-otel.lock, the container image's without
# PostgreSQL's binaries, and requirements-dev.lock. Options are handed on to `uv pip compile`.
set -euo pipefail
cd -P "$(dirname "$0")/.."

.venv/bin/python -m pip install --quiet uv

compile() {
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-header --group build "$@" pyproject.toml
}

compile "$@" --output-file requirements.lock --extra embedded
compile "$@" --output-file requirements-otel.lock --extra embedded --extra otel --constraint requirements.lock
compile "$@" --output-file requirements-container.lock --extra otel --constraint requirements-otel.lock
compile "$@" --output-file requirements-dev.lock --extra embedded --extra otel --extra dev --constraint requirements-otel.lock

if grep -nE '://|index-url|find-links' requirements*.lock; then
    echo "error: a lock names the place that its packages come from; every machine chooses its own" >&2
    exit 1
fi

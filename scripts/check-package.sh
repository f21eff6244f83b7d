#!/usr/bin/env bash
# Build the wheel and run the program from it, away from the checkout: what is not in the wheel is missing there.
set -euo pipefail
cd -P "$(dirname "$0")/.."

python=$PWD/.venv/bin/python
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT

rm -rf build dist
"$python" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
"$python" -m pip install --quiet --no-deps --target "$unpacked" dist/*.whl
cd "$unpacked"
find . -name '*.up.sql' | grep -q . || { echo "error: the wheel lacks the migrations of schema/" >&2; exit 1; }
find . -path '*/birthday/docs/runbook.md' | grep -q . || { echo "error: the wheel lacks the runbook" >&2; exit 1; }
PYTHONPATH=$unpacked "$python" -m birthday --version

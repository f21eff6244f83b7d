#!/usr/bin/env bash
# Print how much the last test run covered, in per cent of lines and branches, and fail when that is less than
# [tool.coverage.report] fail_under in pyproject.toml asks for.
set -euo pipefail
cd -P "$(dirname "$0")/../.."

[ -f .coverage ] || { echo "error: there is no coverage to check; run 'make test' first" >&2; exit 1; }
echo "Coverage, in per cent:"
.venv/bin/coverage report --format=total --precision=1

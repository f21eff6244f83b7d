#!/usr/bin/env bash
# Append the coverage of this commit of main to coverage-history.csv (or to FILE): time, commit, per cent.
# Usage: update-history.sh [FILE]. Does nothing on another branch, or when this commit is there already.
set -euo pipefail
cd -P "$(dirname "$0")/../.."

history=${1:-coverage-history.csv}
branch=$(git branch --show-current || true)
if [ "$branch" != main ]; then
    echo "Not on main (${branch:-no branch}): the coverage history stays as it is."
    exit 0
fi

commit=$(git rev-parse HEAD)
if ! grep -qs "$commit" "$history"; then
    [ -f "$history" ] || echo "time,commit,coverage" >"$history"
    covered=$(.venv/bin/coverage report --format=total --precision=1 --fail-under=0)
    echo "$(date -u +%Y-%m-%dT%H:%M:%SZ),$commit,$covered" >>"$history"
fi
tail -n 1 "$history"

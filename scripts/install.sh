#!/usr/bin/env bash
# Create .venv and install the project with everything its lock pins, checked by hash.
# Usage: install.sh runtime|otel|dev. Does nothing when that is what .venv holds already. PYTHON chooses the interpreter.
set -euo pipefail
cd -P "$(dirname "$0")/.."

kind=${1:?usage: install.sh runtime|otel|dev}
venv=$PWD/.venv
case $kind in
    runtime) lock=requirements.lock ;;
    otel) lock=requirements-otel.lock ;;
    dev) lock=requirements-dev.lock ;;
    *) echo "install.sh: '$kind' is unknown; runtime, otel and dev are accepted" >&2; exit 2 ;;
esac

fail() {
    echo "error: $*" >&2
    exit 1
}

fingerprint() {
    cat "$1" pyproject.toml | cksum
}

# A virtual environment that was moved, or whose interpreter was removed, does not work any more.
usable() {
    grep -qsF "$venv" "$venv/pyvenv.cfg" && "$venv/bin/python" -c 'import pip' 2>/dev/null
}

if usable && [ "$(cat "$venv/.$kind" 2>/dev/null)" = "$(fingerprint "$lock")" ]; then
    exit 0
fi

# One that pyenv builds by default is not optimised: a new user takes 16 % more processor time than with Debian's.
choose_python() {
    local system=/usr/bin/python3
    local optimised='import sys, sysconfig; sys.exit("--enable-optimizations" not in sysconfig.get_config_var("CONFIG_ARGS"))'
    if ! python3 -c "$optimised" 2>/dev/null &&
        $system -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo $system
    else
        echo python3
    fi
}

if ! usable; then
    python=${PYTHON:-$(choose_python)}
    command -v "$python" >/dev/null || fail "'$python' was not found; Python 3.11 or newer is needed (PYTHON=… chooses one)"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" --version) is too old; Python 3.11 or newer is needed (make PYTHON=python3.12 … chooses one)"
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        scripts/apt-install.sh python3-venv "Python's venv module is missing"
    fi
    echo "Creating .venv with $("$python" --version) ..."
    "$python" -m venv --clear "$venv"
fi

# The user's own pip settings (a mirror, a proxy) stay in force, except those that would install somewhere else.
unset PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIREMENT PIP_CONSTRAINT PYTHONPATH PYTHONHOME
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

echo "Installing $lock ..."
rm -f "$venv/.runtime" "$venv/.otel" "$venv/.dev"
# The lock is complete, so pip resolves nothing: as a resolver it may look at newer releases than the pinned ones, and then
# refuses them for want of a hash.
"$venv/bin/python" -m pip install --quiet --no-deps --require-hashes --requirement "$lock"
# setuptools explains at length what an editable installation is.
PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
"$venv/bin/python" -m pip check

# What development needs includes what tracing needs, and that what the program needs.
fingerprint requirements.lock >"$venv/.runtime"
if [ "$kind" != runtime ]; then
    fingerprint requirements-otel.lock >"$venv/.otel"
fi
if [ "$kind" = dev ]; then
    fingerprint requirements-dev.lock >"$venv/.dev"
fi

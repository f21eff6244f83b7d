#!/usr/bin/env bash
# Install Debian packages, as root or through sudo, without starting the services they may bring.
# Usage: apt-install.sh PACKAGES REASON
set -euo pipefail

read -ra packages <<<"${1:?usage: apt-install.sh PACKAGES REASON}"
reason=${2:?usage: apt-install.sh PACKAGES REASON}

fail() {
    echo "error: $reason, and $1; install ${packages[*]} and try again" >&2
    exit 1
}

command -v apt-get >/dev/null || fail "this is not Debian or Ubuntu"
if [ "$(id -u)" = 0 ]; then
    as_root=()
elif command -v sudo >/dev/null; then
    # Only a person at a terminal can be asked for a password.
    as_root=(sudo)
    [ -t 0 ] || as_root=(sudo --non-interactive)
    "${as_root[@]}" true || fail "sudo does not let this user install it"
else
    fail "this user is not root and there is no sudo"
fi

# Debian asks this file whether a package may start its service; 101 means no. An existing policy is respected.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
fi

echo "Installing ${packages[*]}: $reason ..."
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null

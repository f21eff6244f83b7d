#!/usr/bin/env bash
# Install what the tests need and pip cannot bring: RabbitMQ's programs, of which the tests start private servers, and
# the library that shifts the clock of a program.
set -euo pipefail
cd -P "$(dirname "$0")/.."

# Debian keeps servers in /usr/sbin, which the PATH of an ordinary user may lack.
PATH=$PATH:/usr/sbin:/usr/lib/rabbitmq/bin
command -v rabbitmq-server >/dev/null || scripts/apt-install.sh rabbitmq-server "the tests need RabbitMQ"
compgen -G "/usr/lib/*/faketime/libfaketime.so.1" >/dev/null \
    || scripts/apt-install.sh libfaketime "the tests need hosts whose clocks disagree"

#!/usr/bin/env bash
# Install what the tests need and pip cannot bring: RabbitMQ's programs. The tests start private servers of their own.
set -euo pipefail
cd -P "$(dirname "$0")/.."

# Debian keeps servers in /usr/sbin, which the PATH of an ordinary user may lack.
PATH=$PATH:/usr/sbin:/usr/lib/rabbitmq/bin
command -v rabbitmq-server >/dev/null || scripts/apt-install.sh rabbitmq-server "the tests need RabbitMQ"

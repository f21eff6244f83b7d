#!/usr/bin/env bash
# Install what the tests need and pip cannot bring: the programs of RabbitMQ and Prometheus, of which the tests start
# private servers, Alertmanager's tool, a pooler, what makes PostgreSQL highly available, the library that shifts the
# clock of a program, a browser, and what the runbook types.
set -euo pipefail
cd -P "$(dirname "$0")/.."

# Debian keeps servers in /usr/sbin, which the PATH of an ordinary user may lack.
PATH=$PATH:/usr/sbin:/usr/lib/rabbitmq/bin
command -v rabbitmq-server >/dev/null || scripts/apt-install.sh rabbitmq-server "the tests need RabbitMQ"
compgen -G "/usr/lib/*/faketime/libfaketime.so.1" >/dev/null \
    || scripts/apt-install.sh libfaketime "the tests need hosts whose clocks disagree"
command -v promtool >/dev/null || scripts/apt-install.sh prometheus "the tests let Prometheus judge its configuration"
command -v amtool >/dev/null || scripts/apt-install.sh prometheus-alertmanager "the tests let Alertmanager judge its own"
command -v pgbouncer >/dev/null || scripts/apt-install.sh pgbouncer "the tests connect through a pooler"
for program in patroni etcd haproxy nft ip; do
    command -v "$program" >/dev/null && continue
    scripts/apt-install.sh "patroni python3-etcd etcd-server haproxy nftables iproute2" "the tests lose hosts of clusters"
    break
done
command -v nginx >/dev/null || scripts/apt-install.sh nginx-light "the tests put TLS in front of the API"
test -e /usr/lib/nginx/modules/ngx_http_echo_module.so \
    || scripts/apt-install.sh libnginx-mod-http-echo "the benchmarks have a message service that takes its time"
command -v chromium >/dev/null || scripts/apt-install.sh chromium "the tests look at the console with a browser"
command -v curl >/dev/null || scripts/apt-install.sh curl "the tests run the commands of the runbook"
command -v jq >/dev/null || scripts/apt-install.sh jq "the tests run the commands of the runbook"

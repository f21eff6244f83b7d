#!/bin/sh
# Prints config/prometheus/rules as objects for the Prometheus operator: rules.sh | kubectl apply --filename -
# The links of alerts begin with the externalLabels documentation and grafana of your Prometheus, see config/prometheus/prometheus.yml.
set -eu
cd "$(dirname "$0")/../../../prometheus/rules"
for file in *.yml; do
    cat <<HEAD
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: birthday-scheduler-${file%.yml}
spec:
HEAD
    sed 's/^/  /' "$file"
done

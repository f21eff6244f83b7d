"""What orchestrators, load balancers and Prometheus ask every process: health, readiness, metrics."""

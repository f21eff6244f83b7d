"""What operators see: metrics, logs and traces. It imports nothing of the roles that report to it."""

"""What operators see: metrics and logs. A leaf: it knows nothing of the roles that report to it."""

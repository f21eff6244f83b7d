"""The role worker: the delivery pipeline."""

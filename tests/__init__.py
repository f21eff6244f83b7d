"""Tests of the product: unit, integration, end-to-end and chaos. What they share is in ``tests.support``."""

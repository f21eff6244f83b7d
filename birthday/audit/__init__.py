"""The audit: who should have been greeted, recomputed from the users, against what the messages say.

``auditor`` computes; the janitor keeps its figures as gauges, and ``console`` prints them for ``birthday audit``.
"""

"""The forecast: when how many messages will fall due, and whether what was measured so far can deliver them on time.

``forecaster`` computes; the janitor keeps the next day's figures as gauges, and ``console`` prints them for
``birthday forecast``.
"""

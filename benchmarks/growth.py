"""What a soak concludes from its samples."""

from statistics import median

Sample = dict[str, float]
"""What was seen at one time, by name: ``memory of worker``, for example."""

GROWTH_LIMIT = {"memory": 1.1, "files": 1.1, "connections": 1.1, "lag": 3.0, "slowness": 2.0}
"""How many times as much of each there may be at the end. Lag and speed of a shared machine are a lottery."""
HARMLESS = {"files": 5.0, "connections": 5.0, "lag": 50.0}
"""Less than this more is nothing: a pool that had not been full before, and milliseconds of lag."""


def grown(samples: list[Sample]) -> list[str]:
    """Name what there is more of in the last third than in the second."""
    third = len(samples) // 3
    complaints = []
    for name in samples[0]:
        kind = name.partition(" of ")[0]
        if kind not in GROWTH_LIMIT:
            continue
        then = median(sample[name] for sample in samples[third : 2 * third])
        now = median(sample[name] for sample in samples[2 * third :])
        if now > GROWTH_LIMIT[kind] * then and now - then > HARMLESS.get(kind, 0):
            complaints.append(f"{name}: from {then:.4g} to {now:.4g}")
    return complaints

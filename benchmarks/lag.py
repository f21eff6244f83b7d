"""The lag of a running program's event loop, from the histogram that it shows itself."""

from itertools import pairwise

from benchmarks.processes import Program

BUCKETS = 'birthday_scheduler_event_loop_delay_seconds_bucket{le="'


def lag_counts(program: Program) -> dict[float, float]:
    """Return how many delays of the loop were at most so many seconds, from its histogram."""
    samples = program.metrics().items()
    return {float(name.removeprefix(BUCKETS)[:-2]): count for name, count in samples if name.startswith(BUCKETS)}


def percentile_ms(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """Return, in milliseconds, the delay that so large a share of those in between did not exceed.

    Within a bucket it is interpolated, as Prometheus does.
    """
    counts = sorted((bound, after[bound] - before.get(bound, 0)) for bound in after)
    wanted = share * counts[-1][1]
    for (low, below), (high, upto) in pairwise([(0.0, 0.0), *counts]):
        if upto >= wanted and upto > below:
            reached = low + (high - low) * (wanted - below) / (upto - below)
            return 1000 * (low if high == float("inf") else reached)
    return 0.0

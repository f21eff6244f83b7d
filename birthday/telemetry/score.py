"""The health score of the API: one number from 0 to 100 out of errors, latency, and what it depends on.

    50 x (1 - min(1, e / 0.1)) + 20 x f + 20 x d + 10 x q

In the last minute, ``e`` is the share of answers that were 5xx, and ``f`` the share that took at most a second. Without
requests, ``e`` is 0 and ``f`` is 1. ``d`` and ``q`` are 1 if the figures of database and queue are known, otherwise 0.
Probes do not count as requests.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from birthday.clock import Clock
from birthday.telemetry.metrics import Metrics

EVERY_SECONDS: Final = 5.0
WINDOW_SECONDS: Final = 60.0
FAST_SECONDS: Final = 1.0
HOPELESS_SHARE: Final = 0.1
"""The runbook's critical threshold of the error rate."""


@dataclass(slots=True)
class Answers:
    """How many answers there were, how many of them 5xx, and how many slow."""

    total: int = 0
    failed: int = 0
    slow: int = 0


class HealthScore:
    """Counts the answers of the last minute."""

    def __init__(self) -> None:
        self._recent: deque[Answers] = deque([Answers()], maxlen=round(WINDOW_SECONDS / EVERY_SECONDS))

    def count(self, status: int, seconds: float) -> None:
        """Count an answer with its HTTP status and the time that it took."""
        now = self._recent[-1]
        now.total += 1
        now.failed += status >= 500
        now.slow += seconds > FAST_SECONDS

    def advance(self) -> None:
        """Begin the next part of the minute, and forget the oldest."""
        self._recent.append(Answers())

    def value(self, *, database: bool, queue: bool) -> float:
        """Return the score; ``database`` and ``queue`` say whether their figures are known."""
        total = sum(part.total for part in self._recent) or 1
        failed = sum(part.failed for part in self._recent) / total
        slow = sum(part.slow for part in self._recent) / total
        return 50 * (1 - min(1, failed / HOPELESS_SHARE)) + 20 * (1 - slow) + 20 * database + 10 * queue


async def watch_score(score: HealthScore, metrics: Metrics, clock: Clock) -> None:
    """Show the score until cancelled. The first one follows after an interval, when dependencies have been asked."""
    while True:
        await clock.sleep(EVERY_SECONDS)
        database = metrics.database_commits.value is not None
        queue = metrics.queue_depth.value is not None
        metrics.api_health_score.set(score.value(database=database, queue=queue))
        score.advance()

"""How many messages are due and not delivered, and for how long: the figure that shows any failure to send."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from birthday.clock import CheckedClock
from birthday.errors import UnavailableError
from birthday.telemetry.freshness import keep_fresh
from birthday.telemetry.metrics import Metrics

EVERY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Overdue:
    """How many messages are due and not delivered, and since when the oldest of them is due; None without any."""

    messages: int
    oldest_due_at: datetime | None

    def oldest_seconds(self, now: datetime) -> float:
        """Return how many seconds the oldest has been due; 0 if there is none."""
        return 0.0 if self.oldest_due_at is None else (now - self.oldest_due_at).total_seconds()


async def watch_overdue(count: Callable[[datetime], Awaitable[Overdue]], metrics: Metrics, clock: CheckedClock) -> None:
    """Refresh the figures until cancelled. If the database cannot be read or the clock is wrong, they are unknown."""
    figures = (metrics.messages_overdue, metrics.messages_overdue_oldest_age_seconds)

    async def refresh() -> None:
        if clock.fault is not None:
            raise UnavailableError("clock", clock.fault)
        now = clock.now()
        overdue = await count(now)
        metrics.messages_overdue.set(overdue.messages)
        metrics.messages_overdue_oldest_age_seconds.set(overdue.oldest_seconds(now))

    await keep_fresh("database", refresh, figures, EVERY_SECONDS, metrics, clock)

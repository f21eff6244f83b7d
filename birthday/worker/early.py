"""Deliveries that came before they are due: the dispatcher publishes some seconds ahead, and the worker holds them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Final

from birthday.broker import Delivery

_LONGEST: Final = timedelta(minutes=1)
"""Longer than anything is published ahead, unless a clock was wrong."""


class Early:
    """Deliveries of one subscription that wait for their instants. The next one to fall due comes first."""

    def __init__(self) -> None:
        """Start empty."""
        self._waiting: list[tuple[datetime, int, Delivery]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def hold(self, deliveries: Sequence[Delivery], now: datetime) -> list[Delivery]:
        """Hold those that are due soon after ``now``, and return the others: a claim delays what is due much later."""
        others = []
        for delivery in deliveries:
            if delivery.due_at is not None and now < delivery.due_at <= now + _LONGEST:
                heappush(self._waiting, (delivery.due_at, delivery.tag, delivery))
            else:
                others.append(delivery)
        return others

    def take(self, most: int, now: datetime) -> list[Delivery]:
        """Return up to ``most`` held deliveries that are due at ``now``."""
        due: list[Delivery] = []
        while self._waiting and len(due) < most and self._waiting[0][0] <= now:
            due.append(heappop(self._waiting)[2])
        return due

    def seconds_left(self, now: datetime) -> float | None:
        """Return how long it takes until the next one is due; None if none is held."""
        return (self._waiting[0][0] - now).total_seconds() if self._waiting else None

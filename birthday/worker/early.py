"""Deliveries that came before they are due: the dispatcher publishes some seconds ahead, and the worker holds them."""

from collections.abc import Sequence
from datetime import datetime
from heapq import heappop, heappush

from birthday.broker import Delivery


class Early:
    """Deliveries of one subscription that wait for their instants. The next one to fall due comes first."""

    def __init__(self) -> None:
        """Start empty."""
        self._waiting: list[tuple[datetime, int, Delivery]] = []

    def hold(self, deliveries: Sequence[Delivery], now: datetime) -> list[Delivery]:
        """Hold those that are not due at ``now``, and return the others."""
        due = []
        for delivery in deliveries:
            if delivery.due_at is None or delivery.due_at <= now:
                due.append(delivery)
            else:
                heappush(self._waiting, (delivery.due_at, delivery.tag, delivery))
        return due

    def take(self, most: int, now: datetime) -> list[Delivery]:
        """Return up to ``most`` held deliveries that are due at ``now``."""
        due: list[Delivery] = []
        while self._waiting and len(due) < most and self._waiting[0][0] <= now:
            due.append(heappop(self._waiting)[2])
        return due

    def seconds_left(self, now: datetime) -> float | None:
        """Return how long it takes until the next one is due; None if none is held."""
        return (self._waiting[0][0] - now).total_seconds() if self._waiting else None

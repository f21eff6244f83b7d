"""Delivery events: what a receiver is told, and what its answer means. No personal data is in them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, TypeAlias
from uuid import UUID

from birthday.core.retry import RetryPolicy

EVENT_TYPES: Final = ("message.delivered", "message.failed", "message.expired", "user.suppressed")

PATIENCE: Final = timedelta(days=3)
"""How long an event is tried again."""
_BACKOFF: Final = RetryPolicy(100, timedelta(seconds=5), timedelta(hours=6))


@dataclass(frozen=True, slots=True)
class Event:
    """An event that is still to be sent. ``data`` is a JSON object, as text; ``attempts`` have failed."""

    id: UUID
    type: str
    occurred_at: datetime
    data: str
    attempts: int
    failing_since: datetime | None

    @property
    def body(self) -> bytes:
        """What is posted: the same for each attempt."""
        at = self.occurred_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return f'{{"type":"{self.type}","timestamp":"{at}","data":{self.data}}}'.encode()

    def next_attempt(self, now: datetime, retry_after: timedelta | None, random: Random) -> datetime | None:
        """Return when to try again after an attempt that has failed; None if it has been tried for three days."""
        if now - (self.failing_since or now) >= PATIENCE:
            return None
        return now + _BACKOFF.delay(self.attempts + 1, retry_after, random)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The receiver has the event."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The receiver wants no events any more: it has answered 410."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The receiver does not have the event, or nobody knows. ``retry_after`` is the wait that it asks for."""

    reason: str
    retry_after: timedelta | None = None


Answer: TypeAlias = Accepted | Gone | Refused

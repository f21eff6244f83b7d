"""What a channel does: it takes one letter, tries once, and returns what came of it as a value."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from birthday.core.message import ErrorType


@dataclass(frozen=True, slots=True)
class Letter:
    """What is to be sent. ``message_id`` is the idempotency key, the same on every attempt."""

    message_id: UUID
    email: str
    text: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The message service has accepted the letter."""


@dataclass(frozen=True, slots=True)
class Temporary:
    """It may work later. ``outage`` says that the service itself seems down: that opens the circuit breaker."""

    error_type: ErrorType
    reason: str
    retry_after: timedelta | None = None
    outage: bool = True


@dataclass(frozen=True, slots=True)
class Permanent:
    """The service will never take this letter as it is."""

    error_type: ErrorType
    reason: str


Outcome = Delivered | Temporary | Permanent


class Channel(Protocol):
    """A way to send letters. Safe for concurrent use within one event loop."""

    async def send(self, letter: Letter) -> Outcome:
        """Try once, within the channel's own time limit. Never raises for what the other side does."""
        ...

    async def check(self) -> None:
        """Make sure that the other side can be reached.

        Raises:
            UnavailableError: if it cannot; the text says where and why.
        """
        ...

    async def close(self) -> None:
        """Release what the channel holds. Idempotent."""
        ...

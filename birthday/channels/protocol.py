"""What a channel does: it takes one letter, tries once, and returns what came of it as a value."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from birthday.core.message import ErrorType


@dataclass(frozen=True, slots=True)
class Letter:
    """What is to be sent. ``message_id`` is the idempotency key, the same on every attempt.

    ``traceparent`` makes the request part of a trace.
    """

    message_id: UUID
    email: str
    text: str
    attempt: int = 1
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The message service has accepted the letter. ``status`` is the HTTP status here and below, if there was one."""

    status: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Temporary:
    """It may work later. ``outage`` says that the service itself seems down: that opens the circuit breaker.

    ``answer_lost`` says that the letter may have been handed over, and its receiver has not said what came of it.
    """

    error_type: ErrorType
    reason: str
    retry_after: timedelta | None = None
    outage: bool = True
    status: int | None = field(default=None, compare=False)
    answer_lost: bool = False

    @property
    def may_have_arrived(self) -> bool:
        """Say whether the letter may have been accepted all the same."""
        return self.answer_lost or self.error_type is ErrorType.TIMEOUT


@dataclass(frozen=True, slots=True)
class Permanent:
    """The service will never take this letter as it is."""

    error_type: ErrorType
    reason: str
    status: int | None = field(default=None, compare=False)


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

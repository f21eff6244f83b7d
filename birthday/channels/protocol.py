"""What a channel does: it takes one greeting, tries once, and returns what came of it as a value."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from birthday.core.message import ErrorType

if TYPE_CHECKING:
    from birthday.channels.breaker import CircuitBreaker

_OF_THE_SERVICE: Final = frozenset({502, 503, 504})
_OF_THE_LETTER: Final = frozenset({403, 404, 410})


@dataclass(frozen=True, slots=True)
class Greeting:
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
    """The message service has accepted the greeting. ``status`` is the HTTP status here and below, if there was one."""

    status: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Temporary:
    """It may work later. ``outage`` says that the service itself seems down: that opens the circuit breaker.

    ``answer_lost`` says that the greeting may have been handed over, and its receiver has not said what came of it.
    """

    error_type: ErrorType
    reason: str
    retry_after: timedelta | None = None
    outage: bool = True
    status: int | None = field(default=None, compare=False)
    answer_lost: bool = False
    refused: bool = field(default=False, compare=False)
    """Somebody on the way, such as a proxy, lets nothing through: no greeting is at fault."""
    handed_over: bool = field(default=True, compare=False)
    """Whether the greeting, or a part of it, left this host: if not, it cannot be at fault."""

    @property
    def may_have_arrived(self) -> bool:
        """Say whether the greeting may have been accepted all the same."""
        return self.answer_lost or self.error_type is ErrorType.TIMEOUT

    @property
    def answers_for_the_letter(self) -> bool:
        """Say whether the service works and may have failed over this greeting.

        502 to 504 and a request to wait tell of the service, and what may have arrived should not be repeated soon.
        """
        asks_to_wait = self.status in _OF_THE_SERVICE or self.retry_after is not None
        return self.status is not None and self.handed_over and not (asks_to_wait or self.may_have_arrived)


@dataclass(frozen=True, slots=True)
class Permanent:
    """The service will never take this greeting as it is.

    ``refused`` says that the status is one by which a service refuses everybody, such as 401: it is about this greeting
    only if others are accepted.
    """

    error_type: ErrorType
    reason: str
    status: int | None = field(default=None, compare=False)
    refused: bool = field(default=False, compare=False)

    @property
    def answers_for_the_letter(self) -> bool:
        """Say whether the refusal may be about this greeting: nobody refuses one greeting for the method or the key."""
        return self.status in _OF_THE_LETTER


@dataclass(frozen=True, slots=True)
class Unable:
    """The attempt says nothing of greeting or service: our own host was at fault, and it costs no attempt.

    ``lacks`` names the resource if there was none left, such as ``files``; nothing has been sent then.
    """

    reason: str
    lacks: str | None = None
    answer_lost: bool = False
    status: int | None = field(default=None, compare=False)
    error_type: ErrorType = ErrorType.EXTERNAL_API_ERROR


Outcome = Delivered | Temporary | Permanent | Unable


class Channel(Protocol):
    """A way to send greetings. Safe for concurrent use within one event loop."""

    breaker: "CircuitBreaker | None"
    """What stops sending while the other side seems down; None if the channel needs none."""

    async def send(self, greeting: Greeting) -> Outcome:
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

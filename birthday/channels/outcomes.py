"""What is sent, and what came of one try, as values."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from birthday.core.message import ErrorType

_OF_THE_SERVICE: Final = frozenset({502, 503, 504})
_OF_THE_GREETING: Final = frozenset({403, 404, 410, 550, 554})


class Greeting(NamedTuple):
    """A greeting to send. ``message_id`` is the idempotency key, the same on every attempt.

    ``traceparent`` makes the request part of a trace. What a channel has no use for, it ignores: ``subject``, ``html``
    and ``unsubscribe_url`` are for e-mail; ``payload`` is a JSON document that replaces the body of a request.
    """

    message_id: UUID
    email: str
    text: str
    attempt: int = 1
    traceparent: str | None = None
    subject: str | None = None
    html: str | None = None
    payload: bytes | None = None
    unsubscribe_url: str | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The service has accepted the greeting. ``status``, here and below, is that of HTTP or SMTP, if any."""

    status: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Temporary:
    """A later attempt may work. ``outage`` says that the service itself seems down; this can open the circuit.

    ``answer_lost`` says that the greeting may have been handed over, but the receiver's answer is missing.
    """

    error_type: ErrorType
    reason: str
    retry_after: timedelta | None = None
    outage: bool = True
    status: int | None = field(default=None, compare=False)
    answer_lost: bool = False
    refused: bool = field(default=False, compare=False)
    """Something on the way, such as a proxy, refuses every greeting. No greeting is at fault."""
    handed_over: bool = field(default=True, compare=False)
    """Whether at least a part of the greeting left this host. If not, the greeting cannot be at fault."""
    personal: bool = field(default=False, compare=False)
    """Whether ``retry_after`` is about this greeting alone."""

    @property
    def may_have_arrived(self) -> bool:
        """Say whether the service may have accepted the greeting despite this failure."""
        return self.answer_lost or self.error_type is ErrorType.TIMEOUT

    @property
    def answers_for_the_letter(self) -> bool:
        """Say whether the service works, and may have failed because of this greeting.

        502 to 504 and a request to wait are about the service. A greeting that may have arrived is excluded too,
        because it should not be repeated soon.
        """
        asks_to_wait = self.status in _OF_THE_SERVICE or (self.retry_after is not None and not self.personal)
        return self.status is not None and self.handed_over and not (asks_to_wait or self.may_have_arrived)


@dataclass(frozen=True, slots=True)
class Permanent:
    """The service will never accept this greeting as it is.

    ``refused`` says that a service uses this status, such as 401, to refuse every greeting. It is about this greeting
    only if others are accepted.
    """

    error_type: ErrorType
    reason: str
    status: int | None = field(default=None, compare=False)
    refused: bool = field(default=False, compare=False)
    handed_over: bool = field(default=True, compare=False)
    """Whether it was offered to the service at all. If not, there was nothing to send."""

    @property
    def answers_for_the_letter(self) -> bool:
        """Say whether the refusal may be about this greeting. A wrong method or key concerns every greeting."""
        return self.status in _OF_THE_GREETING


@dataclass(frozen=True, slots=True)
class Unable:
    """The attempt says nothing about greeting or service: this host was at fault. It is not counted.

    ``lacks`` names a resource that this host lacks, such as ``files``. ``answer_lost`` is as in ``Temporary``.
    """

    reason: str
    lacks: str | None = None
    answer_lost: bool = False
    status: int | None = field(default=None, compare=False)
    error_type: ErrorType = ErrorType.EXTERNAL_API_ERROR


Outcome = Delivered | Temporary | Permanent | Unable

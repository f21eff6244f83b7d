"""The interface for tracing. The classes here do nothing; ``otel.py`` traces with OpenTelemetry.

One trace leads from the request or planner's tick that made a message to the request that delivers it. They are linked
by ``traceparent`` of W3C Trace Context, which is stored with each message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, Self
from uuid import UUID

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Traced(Protocol):
    """A message with the trace context in which it was made, None without tracing."""

    @property
    def id(self) -> UUID:
        """Which message it is."""

    @property
    def traceparent(self) -> str | None:
        """The context that it was made in."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The stored context of a message."""

    id: UUID
    traceparent: str | None


class Span:
    """A piece of work that is traced; this class does nothing.

    Within its context it is the parent of the spans that begin there. It ends with its context. Only the span of
    ``Tracing.process`` ends later, when the message is settled.
    """

    __slots__ = ()

    @property
    def traceparent(self) -> str | None:
        """The header that makes a request to another program part of the trace."""
        return None

    @property
    def log_fields(self) -> Mapping[str, str]:
        """The fields to add to a log line outside the span's context, so that its trace can be found."""
        return _NOTHING

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, *_: object) -> None:
        pass

    def hold(self, messages: Sequence[Traced]) -> None:
        """Note the messages of this work."""

    def answer(self, status: int | None, error_type: str | None = None, **ids: str | None) -> None:
        """Note how an HTTP request ended, and the ids that identify it."""

    def settle(self, outcome: str, error_type: str | None = None) -> None:
        """Note the outcome of a message, and end the span."""


NO_SPAN: Final = Span()


class Tracing:
    """Begins spans. This class begins none: it returns the one shared ``NO_SPAN``."""

    enabled = False
    """Whether spans are recorded. If not, work that is only for traces can be skipped."""

    def traceparent(self) -> str | None:
        """Return the context of the current span, to be stored with the messages that are made in it."""
        return None

    def tick(self, _job: str, /) -> Span:
        """Begin a tick of the scheduler."""
        return NO_SPAN

    def send(self, _messages: Sequence[Traced], /) -> Span:
        """Begin to publish messages."""
        return NO_SPAN

    def receive(self) -> Span:
        """Begin to claim the messages of some deliveries."""
        return NO_SPAN

    def process(self, _message: Traced, _attempt: int, /) -> Span:
        """Begin an attempt to deliver one message."""
        return NO_SPAN

    def call(self, _url: str, _attempt: int, /) -> Span:
        """Begin a POST to the message service."""
        return NO_SPAN

    def serve(self, _method: str | None, _route: str | None, _scheme: str, _headers: Mapping[str, str], /) -> Span:
        """Begin to answer a request to our API."""
        return NO_SPAN


NO_TRACING: Final = Tracing()

"""What the steps tell of themselves to whoever traces. Here nobody does, and nothing is done; ``otel.py`` traces.

One trace leads from the request or the planner's tick that made a message to the request that delivers it. What ties
them together is ``traceparent``, the context of W3C Trace Context, which is stored with each message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, Self
from uuid import UUID

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Traced(Protocol):
    """A message with the context that made it, None if nobody traced that."""

    @property
    def id(self) -> UUID:
        """Which message it is."""
        ...

    @property
    def traceparent(self) -> str | None:
        """The context that it was made in."""
        ...


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The stored context of a message."""

    id: UUID
    traceparent: str | None


class Span:
    """Some work. Within its context it is the parent of what begins there, and it ends with that. This one is nobody's.

    A message that is being processed is the exception: it ends when it is settled.
    """

    __slots__ = ()

    @property
    def traceparent(self) -> str | None:
        """What makes a request to another program part of the trace."""
        return None

    @property
    def log_fields(self) -> Mapping[str, str]:
        """What finds the trace of a log line that is written outside of the span's context."""
        return _NOTHING

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, *_: object) -> None:
        pass

    def hold(self, messages: Sequence[Traced]) -> None:
        """Say which messages the work is about."""

    def answer(self, status: int | None, error_type: str | None = None, **ids: str | None) -> None:
        """Say how an HTTP request ended, and what identifies it."""

    def settle(self, outcome: str, error_type: str | None = None) -> None:
        """Say what came of a message, and end."""


NO_SPAN: Final = Span()


class Tracing:
    """Begins spans. This one begins none: what it returns is there already, and belongs to everybody."""

    enabled = False
    """Whether it is worth finding out what only a trace would tell."""

    def traceparent(self) -> str | None:
        """Return the context of the work under way here, to be stored with the messages that it makes."""
        return None

    def tick(self, _job: str, /) -> Span:
        """Begin a tick of the scheduler."""
        return NO_SPAN

    def send(self, _messages: Sequence[Traced], /) -> Span:
        """Begin to publish messages."""
        return NO_SPAN

    def receive(self) -> Span:
        """Begin to claim what the queue has brought."""
        return NO_SPAN

    def process(self, _message: Traced, _attempt: int, /) -> Span:
        """Begin an attempt to deliver one message."""
        return NO_SPAN

    def call(self, _url: str, _attempt: int, /) -> Span:
        """Begin a POST to the message service."""
        return NO_SPAN

    def serve(self, _method: str | None, _route: str | None, _scheme: str, _headers: Mapping[str, str], /) -> Span:
        """Begin to answer a request of our API: its method, if known, its route, and what came with it."""
        return NO_SPAN


NO_TRACING: Final = Tracing()

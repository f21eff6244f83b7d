"""Tracing with OpenTelemetry, an extra: spans follow its semantic conventions for messaging and HTTP.

Attributes identify people by id only. They never hold the text of an exception, because it may quote data.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextvars import Token
from itertools import islice
from typing import Any, Final, Self, TypeAlias
from urllib.parse import urlsplit

import structlog
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from birthday.telemetry.tracing import Span, Traced, Tracing

_Attributes: TypeAlias = dict[str, str | int]

DESTINATION: Final = "birthday_messages"
LINKS_LIMIT: Final = 128
"""The SDK's own limit. Of more links, the SDK would keep the last ones; we keep the first."""

_PROPAGATOR: Final = TraceContextTextMapPropagator()


class OpenTelemetryTracing(Tracing):
    """Begins spans of OpenTelemetry. ``system`` is what the queue is kept in: rabbitmq or postgresql."""

    enabled = True

    def __init__(self, tracer: Tracer, system: str) -> None:
        self._tracer = tracer
        self._messaging: _Attributes = {"messaging.system": system, "messaging.destination.name": DESTINATION}

    def traceparent(self) -> str | None:
        """Return the context of the current span."""
        return _traceparent(get_current_span().get_span_context())

    def tick(self, job: str, /) -> Span:
        """Begin the root of a trace."""
        return _Span(self._tracer.start_span(f"tick {job}", Context(), attributes={"birthday.job": job}))

    def send(self, messages: Sequence[Traced], /) -> Span:
        """Begin the span of a batch, and one in the trace of each message once the batch has been confirmed."""
        attributes = self._operation("send", "send") | {"messaging.batch.message_count": len(messages)}
        contexts = _contexts(messages)
        span = self._tracer.start_span(
            f"send {DESTINATION}", kind=SpanKind.PRODUCER, attributes=attributes, links=_links(contexts)
        )
        return _Sending(span, self, messages, contexts)

    def create(self, message: Traced, context: SpanContext, began: int) -> None:
        """Add a span to the trace of a message: it was published, from ``began`` (Unix nanoseconds) until now."""
        attributes = self._operation("create", "create") | {"messaging.message.id": str(message.id)}
        parent = set_span_in_context(NonRecordingSpan(context), Context())
        self._tracer.start_span(f"create {DESTINATION}", parent, SpanKind.PRODUCER, attributes, start_time=began).end()

    def receive(self) -> Span:
        """Begin the root of a trace; messages are linked to it when they are known (``hold``)."""
        attributes = self._operation("receive", "receive")
        return _Span(self._tracer.start_span(f"receive {DESTINATION}", Context(), SpanKind.CONSUMER, attributes))

    def process(self, message: Traced, attempt: int, /) -> Span:
        """Begin a span in the trace of the message."""
        attributes = self._operation("process", "process") | {
            "messaging.message.id": str(message.id),
            "birthday.message.attempt": attempt,
        }
        parent = _extract({"traceparent": message.traceparent} if message.traceparent else {})
        return _Processing(self._tracer.start_span(f"process {DESTINATION}", parent, SpanKind.CONSUMER, attributes))

    def call(self, url: str, attempt: int, /) -> Span:
        """Begin a span under that of its message."""
        parts = urlsplit(url)
        attributes: _Attributes = {
            "http.request.method": "POST",
            "url.full": url,
            "server.address": parts.hostname or "",
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        }
        if attempt > 1:
            attributes["http.request.resend_count"] = attempt - 1
        return _Span(self._tracer.start_span("POST", kind=SpanKind.CLIENT, attributes=attributes))

    def serve(self, method: str | None, route: str | None, scheme: str, headers: Mapping[str, str], /) -> Span:
        """Begin a span under the client's, if it sent one. The path is left out, because it may hold any data."""
        attributes: _Attributes = {"http.request.method": method or "_OTHER", "url.scheme": scheme}
        if route is not None:
            attributes["http.route"] = route
        name = " ".join(filter(None, (method or "HTTP", route)))
        return _Span(self._tracer.start_span(name, _extract(headers), SpanKind.SERVER, attributes))

    def _operation(self, name: str, kind: str) -> _Attributes:
        return self._messaging | {"messaging.operation.name": name, "messaging.operation.type": kind}


class _Span(Span):
    """A span of OpenTelemetry. Log lines within its context have its ``trace_id``."""

    __slots__ = ("_log_tokens", "_span", "_token")

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        self._token: Token[Context] | None = None
        self._log_tokens: Mapping[str, Token[Any]] = {}

    @property
    def traceparent(self) -> str | None:
        return _traceparent(self._span.get_span_context())

    @property
    def log_fields(self) -> Mapping[str, str]:
        context = self._span.get_span_context()
        return {"trace_id": format_trace_id(context.trace_id)} if context.is_valid else {}

    def __enter__(self) -> Self:
        self._token = attach(set_span_in_context(self._span))
        self._log_tokens = structlog.contextvars.bind_contextvars(**self.log_fields)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leave()
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            # The process is stopping, or the caller's time limit is over: that alone is not an error.
            self._span.set_attribute("birthday.cut_off", True)  # noqa: FBT003 - the SDK's interface
        elif kind is not None:
            self._fail(kind.__qualname__)
        self._span.end()

    def hold(self, messages: Sequence[Traced]) -> None:
        self._span.set_attribute("messaging.batch.message_count", len(messages))
        for link in _links(_contexts(messages)):
            self._span.add_link(link.context)

    def answer(self, status: int | None, error_type: str | None = None, **ids: str | None) -> None:
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if error_type is not None:
            self._fail(error_type)
        for name, value in ids.items():
            if value is not None:
                self._span.set_attribute(f"birthday.{name}", value)

    def settle(self, outcome: str, error_type: str | None = None) -> None:
        self._span.set_attribute("birthday.message.outcome", outcome)
        if error_type is not None:
            self._fail(error_type)
        self._span.end()

    def _leave(self) -> None:
        if self._token is not None:
            detach(self._token)
        structlog.contextvars.reset_contextvars(**self._log_tokens)

    def _fail(self, error_type: str) -> None:
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)


class _Processing(_Span):
    """The span of an attempt: it ends when its outcome is stored, or with an exception that leaves its context."""

    __slots__ = ()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            super().__exit__(kind)
        else:
            self._leave()


class _Sending(_Span):
    """The span of a batch. Once the batch is confirmed, each sampled message gets a span in its own trace."""

    __slots__ = ("_began", "_contexts", "_messages", "_tracing")

    def __init__(
        self,
        span: OtelSpan,
        tracing: OpenTelemetryTracing,
        messages: Sequence[Traced],
        contexts: Mapping[str | None, SpanContext],
    ) -> None:
        super().__init__(span)
        self._began = time.time_ns()
        self._tracing = tracing
        self._messages = messages
        self._contexts = contexts

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        super().__exit__(kind)
        if kind is None:
            for message in self._messages:
                context = self._contexts.get(message.traceparent)
                if context is not None and context.trace_flags.sampled:
                    self._tracing.create(message, context, self._began)


def _traceparent(context: SpanContext) -> str | None:
    if not context.is_valid:
        return None
    return f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"


def _extract(headers: Mapping[str, str]) -> Context:
    """Return the context in ``headers``; a context without a span if they have none."""
    return _PROPAGATOR.extract(headers, Context())


def _contexts(messages: Sequence[Traced]) -> dict[str | None, SpanContext]:
    """Return each different context of ``messages`` once: messages planned by one tick have the same."""
    texts = dict.fromkeys(message.traceparent for message in messages)
    found = {text: get_current_span(_extract({"traceparent": text})).get_span_context() for text in texts if text}
    return {text: context for text, context in found.items() if context.is_valid}


def _links(contexts: Mapping[str | None, SpanContext]) -> list[Link]:
    return [Link(context) for context in islice(contexts.values(), LINKS_LIMIT)]

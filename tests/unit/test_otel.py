"""The spans of OpenTelemetry where the whole program would have to be brought into trouble to show them."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from birthday.errors import UnavailableError
from birthday.telemetry.otel import LINKS_LIMIT, OpenTelemetryTracing
from birthday.telemetry.tracing import NO_TRACING, TraceContext

SPAN = "00f067aa0ba902b7"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Return where spans end up."""
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> OpenTelemetryTracing:
    """Return what traces."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OpenTelemetryTracing(provider.get_tracer("test"), "rabbitmq")


def made_in(*traces: int, flags: str = "01") -> list[TraceContext]:
    """Return messages that were made in these traces."""
    return [TraceContext(uuid4(), f"00-{trace:032x}-{SPAN}-{flags}") for trace in traces]


def named(spans: Sequence[ReadableSpan], name: str) -> list[ReadableSpan]:
    """Return the spans of a name."""
    return [span for span in spans if span.name == f"{name} birthday_messages"]


def test_a_batch_has_each_context_as_a_link_once_and_not_too_many(
    tracing: OpenTelemetryTracing, exporter: InMemorySpanExporter
) -> None:
    """Ten thousand messages of one tick are one link; of hundreds of requests the first ones are."""
    with tracing.send(made_in(*[7] * 500)):
        pass
    with tracing.receive() as claimed:
        claimed.hold(made_in(*range(1, 501)))
    [sent] = named(exporter.get_finished_spans(), "send")
    [received] = named(exporter.get_finished_spans(), "receive")
    assert [link.context.trace_id for link in sent.links] == [7]
    assert [link.context.trace_id for link in received.links] == list(range(1, LINKS_LIMIT + 1))
    assert {span.attributes["messaging.batch.message_count"] for span in (sent, received) if span.attributes} == {500}


def test_only_what_was_published_and_is_sampled_has_a_span_in_its_own_trace(
    tracing: OpenTelemetryTracing, exporter: InMemorySpanExporter
) -> None:
    """The queue is gone: no message was published. Then it is back: of three messages one is sampled."""
    messages = [*made_in(1), *made_in(2, flags="00"), TraceContext(UUID(int=3), None)]
    with pytest.raises(UnavailableError), tracing.send(messages):
        raise UnavailableError("queue", "ada@example.com has hung up")
    assert named(exporter.get_finished_spans(), "create") == []
    with tracing.send(messages):
        pass
    refused, confirmed = named(exporter.get_finished_spans(), "send")
    [created] = named(exporter.get_finished_spans(), "create")
    assert refused.attributes is not None
    assert (refused.attributes["error.type"], refused.status.is_ok) == ("UnavailableError", False)
    assert refused.events == ()
    assert confirmed.status.is_ok
    assert created.context is not None
    assert created.context.trace_id == 1


async def test_what_is_cut_off_is_no_error(tracing: OpenTelemetryTracing, exporter: InMemorySpanExporter) -> None:
    """A process that is stopped cancels what it does; a message that is being sent ends as well."""

    async def deliver() -> None:
        with tracing.process(made_in(1)[0], 1):
            await asyncio.Event().wait()

    task = asyncio.create_task(deliver())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    [span] = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["birthday.cut_off"] is True
    assert span.status.is_ok


@pytest.mark.parametrize("traceparent", ["", "ada", f"00-{0:032x}-{SPAN}-01", f"ff-{1:032x}-{SPAN}-01"])
def test_a_context_that_is_none_begins_a_trace(
    tracing: OpenTelemetryTracing, exporter: InMemorySpanExporter, traceparent: str
) -> None:
    """A client, or whoever writes to the database, may send anything."""
    with tracing.serve("GET", "/users", "http", {"traceparent": traceparent}) as span:
        assert tracing.traceparent() == span.traceparent
    tracing.process(TraceContext(UUID(int=1), traceparent), 1).settle("delivered")
    assert [span.parent for span in exporter.get_finished_spans()] == [None, None]
    assert tracing.traceparent() is None


def test_off_every_span_is_the_same_one_that_does_nothing() -> None:
    """Nothing is made for a message: no object, no id, no context."""
    [message] = made_in(1)
    spans = [
        NO_TRACING.tick("plan"),
        NO_TRACING.send([message]),
        NO_TRACING.receive(),
        NO_TRACING.process(message, 1),
        NO_TRACING.call("http://example.com", 1),
        NO_TRACING.serve("GET", "/users", "http", {}),
    ]
    assert len({id(span) for span in spans}) == 1
    with spans[0] as span:
        assert NO_TRACING.traceparent() is span.traceparent is None
    assert span.log_fields == {}

"""A collector of traces to test against: a real HTTP server that takes OTLP as protobuf, and shows what has come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Self

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

Value = str | int | bool | float


@dataclass(frozen=True, slots=True)
class Collected:
    """One span. Ids are in hex; ``links`` are the traces that it is linked to, ``resource`` is whose span it is."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Value]
    links: list[str]
    is_error: bool
    resource: dict[str, Value]


class Collector:
    """The server, on a port of the loopback interface. It answers with ``status``."""

    def __init__(self) -> None:
        """Listen on a free port once started."""
        self.spans: list[Collected] = []
        self.bodies: list[bytes] = []
        self.status = 200
        self._port = 0
        self._arrived = asyncio.Condition()
        self._runner: web.ServerRunner | None = None

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a program that sends its spans here, without delay."""
        return {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        }

    async def __aenter__(self) -> Self:
        """Start to listen."""
        self._runner = web.ServerRunner(web.Server(self._take), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    def named(self, name: str) -> list[Collected]:
        """Return the spans of a name, in the order in which they came."""
        return [span for span in self.spans if span.name == name]

    async def wait_for(self, enough: Callable[[], bool], seconds: float = 60) -> None:
        """Return as soon as what has come is enough.

        Raises:
            TimeoutError: if it is not after ``seconds``; the text names the spans that have come.
        """
        try:
            async with asyncio.timeout(seconds), self._arrived:
                await self._arrived.wait_for(enough)
        except TimeoutError:
            raise TimeoutError(f"within {seconds:g} s came {[span.name for span in self.spans]}") from None

    async def _take(self, request: web.BaseRequest) -> web.Response:
        assert (request.path, request.content_type) == ("/v1/traces", "application/x-protobuf")
        body = await request.read()
        if self.status == 200:
            self.bodies.append(body)
            self.spans += _decode(body)
        async with self._arrived:
            self._arrived.notify_all()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(status=self.status, body=answer, content_type="application/x-protobuf")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """A collector that takes everything until it is told otherwise."""
    async with Collector() as collector:
        yield collector


def _decode(body: bytes) -> list[Collected]:
    return [
        Collected(
            span.name,
            Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            _values(span.attributes),
            [link.trace_id.hex() for link in span.links],
            span.status.code == Status.STATUS_CODE_ERROR,
            _values(of_resource.resource.attributes),
        )
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _values(attributes: Iterable[KeyValue]) -> dict[str, Value]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in attributes}

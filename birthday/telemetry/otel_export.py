"""The export of spans, to a collector or the console, in batches and in a thread of the SDK.

The SDK itself reads all other OTEL_ variables from the environment: endpoint, sampler and resource, for example.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, TextIO

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult

from birthday.errors import ConfigurationError
from birthday.telemetry.otel import OpenTelemetryTracing
from birthday.telemetry.tracing import Tracing

log = structlog.get_logger()

SERVICE: Final = "birthday-scheduler"
FLUSH_SECONDS: Final = 3.0


@asynccontextmanager
async def open_tracing(exporter: str, queue_system: str, version: str, console: TextIO) -> AsyncIterator[Tracing]:
    """Yield tracing whose ``exporter`` is otlp or console; on leaving, send the remaining spans within FLUSH_SECONDS.

    Raises:
        ConfigurationError: if the SDK refuses one of its own variables.
    """
    try:
        to_console = ConsoleSpanExporter(out=console, formatter=lambda span: span.to_json(indent=None) + "\n")
        reporter = ReportingExporter(OTLPSpanExporter() if exporter == "otlp" else to_console)
        named = {SERVICE_NAME: SERVICE, SERVICE_VERSION: version} | dict(OTELResourceDetector().detect().attributes)
        provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(reporter))
    except (ValueError, OSError) as error:
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER={exporter}: OpenTelemetry refuses its settings: {error}"
        ) from None
    with reporter.listening():
        try:
            yield OpenTelemetryTracing(provider.get_tracer("birthday", version), queue_system)
        finally:
            await _shut_down(provider, reporter)


async def _shut_down(provider: TracerProvider, reporter: "ReportingExporter") -> None:
    """Send the remaining spans. Those that the collector has not taken within FLUSH_SECONDS are dropped."""
    loop = asyncio.get_running_loop()
    finished = asyncio.Event()

    def flush() -> None:
        provider.shutdown()
        # The event loop may have been closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(finished.set)

    # A daemon thread, so that the end of the process does not wait for it.
    threading.Thread(target=flush, name="tracing-flush", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await finished.wait()
    except TimeoutError:
        reporter.give_up()
        log.warning("tracing.cut_off", after_seconds=FLUSH_SECONDS, action="dropped what the collector has not taken")


class ReportingExporter(SpanExporter):
    """An exporter that logs when and why it begins to fail, when it works again, and how many spans were lost."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        self._given_up = False
        self._reason: str | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep the SDK's log lines about its tries out of the log, but take the reason of a failure from them."""
        logger = logging.getLogger(OTLPSpanExporter.__module__)
        logger.addFilter(self._hear)
        try:
            yield
        finally:
            # If the export was given up, its thread still runs for a moment and logs: the filter must stay.
            if not self._given_up:
                logger.removeFilter(self._hear)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; called by the SDK, in a thread of its own."""
        self._reason = None
        result = SpanExportResult.FAILURE if self._given_up else self._exporter.export(spans)
        if result is SpanExportResult.FAILURE:
            if not self._lost:
                action = "dropped; what follows is tried"
                log.warning("tracing.export_failed", spans=len(spans), reason=self._reason, action=action)
            self._lost += len(spans)
        elif self._lost:
            log.info("tracing.export_recovered", dropped_spans=self._lost)
            self._lost = 0
        return result

    def give_up(self) -> None:
        """Stop sending, and end the waits between tries."""
        self._given_up = True
        self._exporter.shutdown()

    def shutdown(self) -> None:
        """Close the connection."""
        if self._lost:
            log.warning("tracing.spans_dropped", dropped_spans=self._lost)
        self._exporter.shutdown()

    def _hear(self, record: logging.LogRecord) -> bool:
        """Keep the first line about a batch: later ones only say that it was repeated. Suppress them all."""
        self._reason = self._reason or record.getMessage()
        return False

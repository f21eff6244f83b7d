"""The channel of the settings: the message service, or the console."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TextIO

from birthday.channels import Channel
from birthday.channels.breaker import Cause, CircuitBreaker
from birthday.channels.message_service.channel import HttpChannel, Service
from birthday.channels.message_service.route import Network
from birthday.channels.message_service.traced import TracedChannel
from birthday.channels.terminal import ConsoleChannel
from birthday.clock import Clock
from birthday.config import Settings
from birthday.core.signing import parse_signing_secrets
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.tracing import NO_TRACING, Tracing


@asynccontextmanager
async def open_channel(
    settings: Settings,
    clock: Clock,
    console: TextIO,
    tracing: Tracing = NO_TRACING,
    metrics: Metrics | None = None,
) -> AsyncIterator[Channel]:
    """Yield the channel: the message service if MESSAGE_SERVICE_URL is set, otherwise the console.

    The message service may be down at the start: messages wait for it. With ``metrics`` the channel has a circuit
    breaker.
    """
    breaker = None if metrics is None else make_breaker(settings, clock, metrics)
    if settings.message_service_url is None:
        yield ConsoleChannel(console, clock, breaker)
        return
    key, secret = settings.message_service_api_key, settings.message_service_signing_secret
    service = Service(
        settings.message_service_url,
        key.get_secret_value() if key else None,
        settings.message_service_path,
        parse_signing_secrets(secret.get_secret_value()) if secret else (),
    )
    channel = HttpChannel(
        service,
        Network(settings.proxies, settings.no_proxy or "", settings.ssl_cert_file),
        settings.worker_concurrency,
        settings.message_service_timeout,
        clock,
        breaker=breaker,
    )
    try:
        yield TracedChannel(channel, tracing) if tracing.enabled else channel
    finally:
        await channel.close()


def make_breaker(settings: Settings, clock: Clock, metrics: Metrics) -> CircuitBreaker:
    """Return a closed circuit breaker that sets the metrics of its state and cause."""

    def show_cause(cause: Cause | None) -> None:
        for each in Cause:
            metrics.circuit_breaker_open.labels(each.value).set(each is cause)

    show_cause(None)
    return CircuitBreaker(
        settings.circuit_breaker_failure_threshold,
        settings.circuit_breaker_reset_timeout,
        clock,
        lambda state: metrics.circuit_breaker_state.set(state.value),
        show_cause,
    )

"""The channel of the settings: the message service, e-mail, or the console."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TextIO

from birthday.channels import Channel
from birthday.channels.breaker import Cause, CircuitBreaker
from birthday.channels.message_service.channel import HttpChannel, Service
from birthday.channels.message_service.route import Network
from birthday.channels.message_service.traced import TracedChannel
from birthday.channels.smtp.channel import SmtpChannel
from birthday.channels.terminal import ConsoleChannel
from birthday.clock import Clock
from birthday.config import Settings, read_sender, read_smtp_url
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
    """Yield the channel: the message service, e-mail, or the console if the URL of neither is set.

    The other side may be down at the start: messages wait for it. With ``metrics`` the channel has a circuit
    breaker.
    """
    breaker = None if metrics is None else make_breaker(settings, clock, metrics)
    if settings.message_service_url is not None:
        http = _message_service(settings, settings.message_service_url, clock, breaker)
        channel: Channel = TracedChannel(http, tracing) if tracing.enabled else http
    elif settings.smtp_url is not None:
        channel = _mail_server(settings, settings.smtp_url.get_secret_value(), clock, breaker)
    else:
        channel = ConsoleChannel(console, clock, breaker)
    try:
        yield channel
    finally:
        await channel.close()


def _message_service(settings: Settings, url: str, clock: Clock, breaker: CircuitBreaker | None) -> HttpChannel:
    key, secret = settings.message_service_api_key, settings.message_service_signing_secret
    service = Service(
        url,
        key.get_secret_value() if key else None,
        settings.message_service_path,
        parse_signing_secrets(secret.get_secret_value()) if secret else (),
    )
    return HttpChannel(
        service,
        network(settings),
        settings.worker_concurrency,
        settings.message_service_timeout,
        clock,
        breaker=breaker,
    )


def network(settings: Settings) -> Network:
    """Return the proxies and certificate authorities of the settings."""
    return Network(settings.proxies, settings.no_proxy or "", settings.ssl_cert_file)


def _mail_server(settings: Settings, url: str, clock: Clock, breaker: CircuitBreaker | None) -> SmtpChannel:
    return SmtpChannel(
        read_smtp_url(url),
        read_sender(settings.smtp_from or ""),
        settings.ssl_cert_file,
        settings.worker_concurrency,
        settings.message_service_timeout,
        clock,
        breaker,
    )


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

"""The one AMQP connection of a broker. The first use opens it, and so does the first use after it broke."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import cast
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiormq
import structlog
from aiormq.abc import AbstractConnection

from birthday.broker.rabbitmq.channel import AmqpChannel, DivertingTransport, answer, close_politely
from birthday.broker.rabbitmq.topology import declare
from birthday.config import mask_url
from birthday.config.urls import amqp_parameters
from birthday.errors import UnavailableError

log = structlog.get_logger()


class AmqpConnection:
    """Opens channels. Nothing connects before the first one, and nothing waits longer than ``timeout``."""

    def __init__(
        self, url: str, timeout: timedelta, heartbeat: timedelta, on_drop: Callable[[AbstractConnection, str], None]
    ) -> None:
        """Keep the address of the server. ``on_drop`` is called with a connection that is given up, and the reason."""
        self.where = f"RabbitMQ at {mask_url(url)}"
        parts = urlsplit(url)
        parameters = {"heartbeat": str(round(heartbeat.total_seconds()))} | amqp_parameters(parts)
        self._url = urlunsplit(parts._replace(query=urlencode(parameters)))
        self._seconds = timeout.total_seconds()
        self._on_drop = on_drop
        self._opening = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._transport = DivertingTransport()
        self._declared = False
        self._closed = False
        self._unreachable = False

    def forget_topology(self) -> None:
        """Have the next channel declare all exchanges and queues, because one is missing."""
        self._declared = False

    @property
    def server(self) -> str:
        """Product and version, as the server names itself; empty while there is no connection."""
        told = getattr(self._connection, "server_properties", {})
        return " ".join(str(told[name]) for name in ("product", "version") if name in told)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Let one caller at a time open a channel. The time limit includes the wait, because waits would add up.

        Raises:
            UnavailableError: if the time runs out. The connection is dropped then.
        """
        try:
            async with asyncio.timeout(self._seconds), self._opening:
                yield
        except TimeoutError:
            await self._drop()
            raise UnavailableError("queue", f"{self.where} did not answer within {self._seconds:g} s") from None

    async def open_channel(self) -> AmqpChannel:
        """Open a channel, on a new connection if there is none. Call it only within ``turn``.

        The first channel declares the topology. Declaring it each time would cost ten exchanges for each health check.
        It would also hang for a minute whenever a node of the cluster is silent.
        """
        connection = await self._connect()
        raw = await answer(connection.channel(), self.where, self._seconds)
        channel = AmqpChannel(cast("aiormq.Channel", raw), self._transport.sinks, self.where, self._seconds)
        if not self._declared:
            await declare(channel)
            self._declared = True
        return channel

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[AmqpChannel]:
        """Open a channel for the length of the context."""
        async with self.turn():
            channel = await self.open_channel()
        try:
            yield channel
        finally:
            await self.discard(channel)

    async def discard(self, channel: AmqpChannel) -> None:
        """Close a channel. If the server does not answer that, give up the connection."""
        try:
            if not await close_politely(channel.raw.close()) and channel.raw.connection is self._connection:
                await self._drop()
        finally:
            channel.restore()

    async def close(self) -> None:
        """Close the connection for good; idempotent."""
        self._closed = True
        await self._drop()

    async def _connect(self) -> AbstractConnection:
        if self._closed:
            raise UnavailableError("queue", f"the connection to {self.where} has been closed")
        if self._connection is None or not self._connection.is_opened:
            self._transport = DivertingTransport()
            connecting = aiormq.connect(
                self._url, client_properties={"connection_name": "birthday"}, transport_factory=self._transport
            )
            try:
                self._connection = await answer(connecting, self.where, self._seconds)
            except UnavailableError as error:
                if not self._unreachable:
                    # Logged once for each outage, because the callers log what they cannot do meanwhile.
                    log.warning("broker.unreachable", error=error)
                    self._unreachable = True
                if not isinstance(error.__cause__, aiormq.InvalidFrameError):
                    raise
                # aiormq says only that the last answer was not the one it expected.
                what = "there is no such virtual host, or the user may not use it"
                raise UnavailableError("queue", f"{self.where} closed the connection: {what}") from error.__cause__
            self._unreachable = False
            log.info("broker.connected", where=self.where)
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Called here, because aiormq reports a silent connection only after its heartbeats have run out.
            self._on_drop(connection, f"{self.where}: the connection was given up")
            await close_politely(connection.close())

"""The one AMQP connection of a broker. The first use opens it, and so does the first use after it broke."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from random import sample
from typing import Final, cast
from urllib.parse import urlencode, urlunsplit

import aiormq
import structlog
from aiormq.abc import AbstractConnection

from birthday.broker.rabbitmq.channel import AmqpChannel, DivertingTransport, answer, close_politely
from birthday.broker.rabbitmq.errors import MissingError, NoAnswerError, is_refusal
from birthday.broker.rabbitmq.topology import declare, look
from birthday.config import mask_url
from birthday.config.splitting import split_url
from birthday.config.urls import amqp_parameters, amqp_urls
from birthday.errors import UnavailableError

log = structlog.get_logger()

_NODE_SECONDS: Final = 3.0
"""How long one of several nodes may take to connect, before the next one is tried."""


class AmqpConnection:
    """Opens channels. Nothing connects before the first one, and nothing waits longer than ``timeout``."""

    def __init__(
        self, url: str, timeout: timedelta, heartbeat: timedelta, on_drop: Callable[[AbstractConnection, str], None]
    ) -> None:
        """Keep the addresses of the nodes. ``on_drop`` is called with a connection that is given up, and the reason."""
        self.where = f"RabbitMQ at {mask_url(url)}"
        parameters = {"heartbeat": str(round(heartbeat.total_seconds()))} | amqp_parameters(split_url(url))
        parts = [split_url(each)._replace(query=urlencode(parameters)) for each in amqp_urls(url)]
        # The order is random, so that processes spread over the nodes. The next one to try is at the front.
        self._nodes = deque(urlunsplit(each) for each in sample(parts, len(parts)))
        self._seconds = timeout.total_seconds()
        # Without heartbeats, the silence of an idle server means nothing.
        self._longest_silence = float(parameters["heartbeat"]) or self._seconds
        self._on_drop = on_drop
        self._opening = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._transport = DivertingTransport()
        self._declared = False
        self._missing = False
        self._closed = False
        self._unreachable = False

    def forget_topology(self) -> None:
        """Have the next channel declare and bind all exchanges and queues, because one is missing."""
        self._declared = False
        self._missing = True

    @property
    def server(self) -> str:
        """Product and version, as the server names itself; empty while there is no connection."""
        told = getattr(self._connection, "server_properties", {})
        return " ".join(str(told[name]) for name in ("product", "version") if name in told)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Let one caller at a time open a channel. The time limit includes the wait, because waits would add up.

        Raises:
            UnavailableError: if the time runs out.
        """
        try:
            async with asyncio.timeout(self._seconds), self._opening:
                yield
        except TimeoutError:
            await self.drop_if_silent()
            raise self.no_answer() from None

    def no_answer(self) -> NoAnswerError:
        """Return the error that the time has run out."""
        return NoAnswerError(self.where, self._seconds)

    async def open_channel(self, *, declaring: bool = True) -> AmqpChannel:
        """Open a channel, on a new connection if there is none. Call it only within ``turn``.

        The first channel with ``declaring`` declares the topology, later ones only after ``forget_topology``.
        """
        channel = await self._open_channel()
        if not declaring or self._declared:
            return channel
        try:
            if not self._missing:
                try:
                    await look(channel)
                except MissingError:
                    self._missing = True
                    channel = await self._open_channel()
            await declare(channel, bind=self._missing)
        except BaseException:
            await self.discard(channel)
            raise
        self._declared, self._missing = True, False
        return channel

    async def _open_channel(self) -> AmqpChannel:
        connection = await self._connect()
        raw = await answer(connection.channel(), self.where, self._seconds)
        return AmqpChannel(cast("aiormq.Channel", raw), self._transport.sinks, self.where, self._seconds)

    @asynccontextmanager
    async def channel(self, *, declaring: bool = True) -> AsyncIterator[AmqpChannel]:
        """Open a channel for the length of the context."""
        async with self.turn():
            channel = await self.open_channel(declaring=declaring)
        try:
            yield channel
        finally:
            await self.discard(channel)

    async def discard(self, channel: AmqpChannel) -> None:
        """Close a channel. If the server does not answer that and has fallen silent, give up the connection.

        A server that is only slow keeps it: other channels may work. It closes the channel when it comes to it.
        """
        try:
            if not await close_politely(channel.raw.close()) and channel.raw.connection is self._connection:
                await self.drop_if_silent()
        finally:
            channel.restore()

    async def close(self) -> None:
        """Close the connection for good; idempotent."""
        self._closed = True
        await self.drop()

    async def _connect(self) -> AbstractConnection:
        if self._closed:
            raise UnavailableError("queue", f"the connection to {self.where} has been closed")
        if self._connection is None or not self._connection.is_opened:
            try:
                self._connection = await self._connect_to_any()
            except UnavailableError as error:
                if not self._unreachable:
                    # Logged once for each outage, because the callers log what they cannot do meanwhile.
                    log.warning("broker.unreachable", error=error)
                    self._unreachable = True
                raise
            self._unreachable = False
        return self._connection

    async def _connect_to_any(self) -> AbstractConnection:
        """Connect to the first node that answers. The next call begins with another node, as this one may be lost."""
        failures: list[UnavailableError] = []
        for _ in range(len(self._nodes)):
            url = self._nodes[0]
            self._nodes.rotate(-1)
            try:
                connection = await self._connect_to(url)
            except UnavailableError as error:
                failures.append(error)
                continue
            for failure in failures:
                log.warning("broker.node_away", error=failure)
            log.info("broker.connected", where=f"RabbitMQ at {mask_url(url)}")
            return connection
        if len(failures) == 1:
            raise failures[0]
        # If one refuses us and the others are away, it is a refusal: waiting does not help.
        refusal = next(filter(is_refusal, failures), None)
        raise UnavailableError("queue", "; ".join(map(str, failures))) from refusal

    async def _connect_to(self, url: str) -> AbstractConnection:
        where = f"RabbitMQ at {mask_url(url)}"
        count = len(self._nodes)
        seconds = self._seconds if count == 1 else min(_NODE_SECONDS, self._seconds / count)
        self._transport = DivertingTransport()
        try:
            return await answer(_open(url, self._transport), where, seconds)
        except UnavailableError as error:
            if not isinstance(error.__cause__, aiormq.InvalidFrameError):
                raise
            # aiormq says only that the last answer was not the one it expected.
            what = "there is no such virtual host, or the user may not use it"
            raise UnavailableError("queue", f"{where} closed the connection: {what}") from error.__cause__

    async def drop_if_silent(self) -> None:
        """Give up the connection, unless the server has sent something lately, if only a heartbeat."""
        if self._transport.silent_seconds > self._longest_silence:
            await self.drop()

    async def drop(self) -> None:
        """Give up the connection. The next use opens one to the next node."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Called here, because aiormq reports a silent connection only after its heartbeats have run out.
            self._on_drop(connection, f"{self.where}: the connection was given up")
            await close_politely(connection.close())


class _Connection(aiormq.Connection):
    """Notices a silent server after two heartbeats, instead of three."""

    HEARTBEAT_GRACE_MULTIPLIER = 2


async def _open(url: str, transport: DivertingTransport) -> AbstractConnection:
    connection = _Connection(url, transport_factory=transport)
    await connection.connect(client_properties={"connection_name": "birthday"})
    return connection

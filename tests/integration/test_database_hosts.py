"""Several hosts in DATABASE_URL: one that is silent, away or read-only delays nobody, and connections are replaced."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.broker.postgres.links import CONSUMER_LOCK
from birthday.config import load_settings
from birthday.errors import UnavailableError
from birthday.store.hosts import Hosts
from birthday.store.replacing import ReplacingPool
from birthday.store.tcp import limit_silence
from birthday.telemetry.metrics import Metrics
from birthday.wiring.database import connect_database
from tests.support.postgres import PostgresServer, running_server
from tests.support.product import eventually
from tests.support.program import run
from tests.support.proxy import Proxy

BORROWER_SECONDS = 5
WRITE = "CREATE TEMP TABLE IF NOT EXISTS written ()"
ESTABLISHED, KEEPALIVE = "01", "02"
"""State and timer of a connection in /proc/net/tcp. The timer says that the kernel will probe the peer."""


def behind(database_url: str) -> Proxy:
    """Return a proxy for the server of a URL."""
    directory, _, port = urlsplit(database_url).netloc.rpartition("@")[2].rpartition(":")
    return Proxy(unquote(directory), int(port))


def at(database_url: str, *ports: int) -> str:
    """Return the URL of the same database on several ports of this machine."""
    parts = urlsplit(database_url)
    return parts._replace(netloc=f"{parts.username}@" + ",".join(f"127.0.0.1:{port}" for port in ports)).geturl()


def timers_of_connections(port: int) -> list[str]:
    """Return the kernel's timer of each connection of this machine to a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[5] for row in rows if row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED]


class SilentHost:
    """A host that accepts connections and never says a word. It counts them."""

    def __init__(self) -> None:
        """Listen only when the context is entered."""
        self.port = 0
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and close every connection."""
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Proxy]:
    """Return a proxy that leads to the database."""
    async with behind(database_url) as proxy:
        yield proxy


@pytest.fixture
async def silent() -> AsyncIterator[SilentHost]:
    """Return a host that accepts connections and says nothing."""
    async with SilentHost() as host:
        yield host


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """Return a port whose queue of connections is full: as a host that drops packets, it does not even refuse."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.settimeout(0)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()


@pytest.fixture(scope="module")
def other_server() -> Iterator[PostgresServer]:
    """Run a second server."""
    with running_server() as server:
        yield server


@pytest.mark.parametrize("first", ["silent", "full", "refused"])
async def test_a_first_host_that_does_not_answer_is_passed_over(
    database_url: str, server: Proxy, silent: SilentHost, full_backlog: int, first: str
) -> None:
    """Within the time that a borrower waits."""
    port = {"silent": silent.port, "full": full_backlog, "refused": 1}[first]
    async with (
        asyncio.timeout(BORROWER_SECONDS),
        connect_database(load_settings(database_url=at(database_url, port, server.port))) as pool,
    ):
        assert await pool.fetchval("SELECT 1") == 1


async def test_the_host_that_worked_last_is_tried_first(database_url: str, server: Proxy, silent: SilentHost) -> None:
    """So a silent host delays the first connection, and no other one."""
    hosts = Hosts([("127.0.0.1", silent.port), ("127.0.0.1", server.port)])
    for _ in range(3):
        connection = await hosts.connect(database_url)
        await connection.close()
    assert silent.connections == 1


async def test_if_no_host_answers_the_error_names_each_with_its_reason(database_url: str, silent: SilentHost) -> None:
    """Each has a time limit of its own."""
    hosts = Hosts([("127.0.0.1", silent.port), ("127.0.0.1", 1)])
    with pytest.raises(ConnectionError) as caught:
        await hosts.connect(database_url, timeout=0.1)
    assert f"127.0.0.1:{silent.port}: no answer in time" in str(caught.value)
    assert "127.0.0.1:1: " in str(caught.value)


async def test_if_every_host_refuses_us_nobody_waits_for_them(database_url: str, server: Proxy) -> None:
    """The error is the server's own, so that a start with a wrong name ends at once."""
    hosts = Hosts([("127.0.0.1", server.port), ("localhost", server.port)])
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await hosts.connect(f"{database_url}_unknown")


async def test_commands_pass_over_a_silent_first_host(database_url: str, server: Proxy, silent: SilentHost) -> None:
    """`migrate` and `check` are what an operator runs while a host is away."""
    url = at(database_url, silent.port, server.port)
    commands = [run("migrate", DATABASE_URL=url), run("check", DATABASE_URL=url, CHANNEL="console")]
    for finished in await asyncio.gather(*commands):
        assert finished.status == 0, finished.err


async def test_a_connected_host_that_falls_silent_is_left(database_url: str, server: Proxy) -> None:
    """Nobody ends the connections on it. Once one has failed and all were replaced, the next borrower is served."""
    async with behind(database_url) as second:
        hosts = Hosts([("127.0.0.1", server.port), ("127.0.0.1", second.port)])
        # On a busy machine, the first host may take longer than its head start.
        second.silence()
        async with ReplacingPool(at(database_url, 1), hosts=hosts, min_size=2, max_size=2) as pool:
            server.silence()
            await second.heal()
            connection = await pool.acquire(timeout=0.5)
            with pytest.raises(TimeoutError):
                await connection.fetchval("SELECT 1", timeout=0.1)
            with suppress(TimeoutError):
                await pool.release(connection)
            await pool.expire_connections()
            async with asyncio.timeout(BORROWER_SECONDS):
                assert await pool.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("serving", [False, True], ids=["command", "service"])
async def test_after_a_switchover_every_session_on_the_demoted_primary_is_replaced(
    postgres_server: PostgresServer, other_server: PostgresServer, *, serving: bool
) -> None:
    """The idle ones are closed at once, and new ones are on the new primary, although it is not the first host."""
    await postgres_server.start()
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(behind(other_server.url()))
        new = await stack.enter_async_context(behind(postgres_server.url()))
        administrator = await asyncpg.connect(other_server.url("postgres"))
        stack.push_async_callback(administrator.close)
        url = at(postgres_server.url("postgres"), old.port, new.port)
        settings = load_settings(database_url=url, database_pool_min=3)
        pool = await stack.enter_async_context(connect_database(settings, Metrics() if serving else None))
        stack.push_async_callback(administrator.execute, "SELECT pg_reload_conf()")
        stack.push_async_callback(administrator.execute, "ALTER SYSTEM RESET default_transaction_read_only")

        async def sessions() -> int:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'birthday'"
            return int(await administrator.fetchval(query))

        async def is_left() -> bool:
            return await sessions() == 0

        assert await sessions() == 3
        await administrator.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await administrator.execute("SELECT pg_reload_conf()")

        async def is_refused() -> bool:
            try:
                await pool.execute(WRITE)
            except asyncpg.ReadOnlySQLTransactionError:
                return True
            return False

        await eventually(is_refused, "the old primary is read-only", BORROWER_SECONDS)
        await pool.execute(WRITE)
        await eventually(is_left, "no session is left on the demoted primary", BORROWER_SECONDS)
        with pytest.raises(UnavailableError, match="read-only"):
            async with connect_database(load_settings(database_url=at(url, old.port, 1)), None):
                pass


async def test_a_connection_is_replaced_when_it_is_old(database_url: str, pool: asyncpg.Pool) -> None:
    """At once if it is idle; one that is lent works until it is given back."""
    async with ReplacingPool(database_url, min_size=2, max_size=2, max_age=0.2) as replacing:
        lent = await replacing.acquire()
        async with replacing.acquire() as other:
            idle = other.get_server_pid()

        async def is_gone(pid: int) -> bool:
            return not await pool.fetchval("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid)

        await eventually(lambda: is_gone(idle), "the idle connection is closed", BORROWER_SECONDS)
        pid = lent.get_server_pid()
        assert await lent.fetchval("SELECT pg_backend_pid()") == pid
        await replacing.release(lent)
        await eventually(lambda: is_gone(pid), "the lent connection is closed", BORROWER_SECONDS)
        assert await replacing.fetchval("SELECT 1") == 1


async def test_a_consumer_moves_to_a_new_connection_and_keeps_what_it_holds(
    database_url: str, pool: asyncpg.Pool
) -> None:
    """Its connection is retired like any other, and its deliveries are acknowledged on the next one."""
    holder = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid::bigint = $1"
    async with ReplacingPool(database_url, min_size=1, max_size=3, max_age=0.3) as replacing:
        broker = PostgresBroker(replacing)
        async with broker.consume(10) as consumer:
            listening = await pool.fetch(holder, CONSUMER_LOCK)
            await broker.publish([uuid4()])
            held = await consumer.receive(1, 0)

            async def has_moved() -> bool:
                return await pool.fetch(holder, CONSUMER_LOCK) not in ([], listening)

            await eventually(has_moved, "another session listens", BORROWER_SECONDS)
            await broker.publish([uuid4()])
            held += await consumer.receive(1, 0)
            await consumer.ack(held)
            assert len({delivery.message_id for delivery in held}) == 2
            assert not any(delivery.redelivered for delivery in held)
    assert await pool.fetchval("SELECT count(*) FROM queue_messages") == 0


async def test_the_kernel_watches_every_connection(database_url: str, server: Proxy) -> None:
    """Those of the pool, and the one that listens for messages."""
    settings = load_settings(database_url=at(database_url, server.port), database_pool_min=2)
    async with connect_database(settings) as pool, PostgresBroker(pool).consume(10):

        async def are_watched() -> bool:
            timers = timers_of_connections(server.port)
            return len(timers) >= 2 and all(timer.startswith(f"{KEEPALIVE}:") for timer in timers)

        await eventually(are_watched, "each connection has a keepalive timer", BORROWER_SECONDS)


async def test_data_that_is_not_acknowledged_ends_a_connection(server: Proxy) -> None:
    """The kernel's own limit would be a quarter of an hour."""
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", server.port)
    limit_silence(transport)
    connected = transport.get_extra_info("socket")
    assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
    transport.close()

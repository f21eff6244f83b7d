"""A database that cannot be written to any more: sessions on it are replaced, probes say so, and clients are told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.broker.postgres.consumer import PostgresConsumer
from birthday.config import load_settings
from birthday.errors import UnavailableError
from birthday.operations.pauses import Pauses
from birthday.store.pool import MeasuredPool
from birthday.store.probe import DatabaseCheck
from birthday.telemetry.metrics import Metrics
from birthday.wiring.queue import open_broker
from birthday.wiring.readiness import make_readiness
from birthday.wiring.shared import Shared
from tests.support.api import RUNBOOK_USER, running_api
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, eventually, parse

SIZE = 4


@pytest.fixture
async def measured(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """Return a pool as the service has it."""
    async with MeasuredPool(database_url, Metrics(), min_size=SIZE, max_size=SIZE, command_timeout=10) as pool:
        yield pool


async def demote_sessions(pool: asyncpg.Pool) -> None:
    """Make every session of the pool one of a server that may only be read from; new ones are on the new primary."""
    connections = [await pool.acquire() for _ in range(SIZE)]
    for connection in connections:
        await connection.execute("SET default_transaction_read_only = on")
    for connection in connections:
        await pool.release(connection)


async def test_after_a_switchover_one_request_fails_and_the_next_is_served(measured: asyncpg.Pool) -> None:
    """The first session that meets the old primary has all of them replaced."""
    async with running_api(measured) as api:
        await demote_sessions(measured)
        refused = await api.post("/users", RUNBOOK_USER)
        assert (refused.status, refused.json["detail"]) == (503, "the database cannot be used now")
        answers = await asyncio.gather(
            *(api.post("/users", RUNBOOK_USER | {"email": f"{number}@example.com"}) for number in range(3 * SIZE))
        )
        assert {answer.status for answer in answers} == {201}


async def test_a_probe_that_finds_a_read_only_server_has_the_sessions_replaced(measured: asyncpg.Pool) -> None:
    """Also where nothing is written: the process is not ready once, and ready at the next look."""
    check = DatabaseCheck(measured)
    await check()
    await demote_sessions(measured)
    with pytest.raises(UnavailableError, match="read-only"):
        await check()
    await check()


async def test_a_subscription_on_a_demoted_primary_is_replaced(measured: asyncpg.Pool) -> None:
    """The consumer ends, gives up its session, and the next one works."""
    broker = PostgresBroker(measured)
    await demote_sessions(measured)
    with pytest.raises(UnavailableError):
        async with broker.consume(10) as consumer:
            await consumer.receive(1, 0)
    product = Product(measured, broker, ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())
    await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})


class CountingBroker(PostgresBroker):
    """The queue in PostgreSQL, which counts subscriptions."""

    subscriptions = 0

    @asynccontextmanager
    async def consume(self, prefetch: int) -> AsyncIterator[PostgresConsumer]:
        """Subscribe."""
        self.subscriptions += 1
        async with super().consume(prefetch) as consumer:
            yield consumer


async def test_a_subscription_that_fails_soon_after_it_succeeded_backs_off(database_url: str) -> None:
    """Where every server is read-only, the worker waits for seconds between two tries: the log is not flooded."""
    read_only = {"default_transaction_read_only": "on"}
    async with asyncpg.create_pool(database_url, min_size=1, max_size=SIZE, server_settings=read_only) as pool:
        broker = CountingBroker(pool)
        product = Product(pool, broker, ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())
        async with product.working(RecordingChannel(product.clock)):
            for _ in range(150):
                await product.clock.wait_for_sleepers()
                product.clock.advance(timedelta(seconds=0.2))
    assert 5 < broker.subscriptions < 50


@asynccontextmanager
async def lost_standby(database_url: str) -> AsyncIterator[None]:
    """Let every commit wait for a synchronous standby that is not there, for the length of the context."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        await connection.execute("SELECT pg_reload_conf()")
        await wait_for_standbys(connection, "nobody")
        yield
    finally:
        await connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await connection.execute("SELECT pg_reload_conf()")
        await wait_for_standbys(connection, "")
        await connection.close()


async def wait_for_standbys(connection: asyncpg.Connection, names: str) -> None:
    """Wait until the server has read its settings again."""

    async def are_known() -> bool:
        return bool(await connection.fetchval("SHOW synchronous_standby_names") == names)

    await eventually(are_known, "the settings are read again")


async def test_a_database_that_confirms_no_write_is_not_ready(measured: asyncpg.Pool, database_url: str) -> None:
    """Its synchronous standby is away: it answers every question, and stores nothing. Ready again once it is back."""
    check = DatabaseCheck(measured)
    async with lost_standby(database_url):
        with pytest.raises(UnavailableError, match="has not confirmed a write within"):
            await check()
    await check()


@pytest.mark.slow
async def test_a_request_whose_outcome_is_unknown_can_be_repeated(measured: asyncpg.Pool, database_url: str) -> None:
    """The 503 says that it may have been carried out; the same request then succeeds, and another one is a conflict."""
    async with running_api(measured) as api:
        async with lost_standby(database_url):
            unknown = await api.post("/users", RUNBOOK_USER)
        assert unknown.status == 503
        assert "whether the request was carried out is not known" in unknown.json["detail"]
        assert (await api.post("/users", RUNBOOK_USER | {"firstName": "Other"})).status == 409
        repeated = await api.post("/users", RUNBOOK_USER)
        assert repeated.status == 201
        listed = (await api.get("/users")).json["users"]
        assert [user["id"] for user in listed] == [repeated.json["id"]]
        assert repeated.headers["Location"] == f"/users/{repeated.json['id']}"


async def test_a_refused_request_is_not_in_doubt(measured: asyncpg.Pool) -> None:
    """What the server has refused was not carried out, and the answer does not say otherwise."""
    async with running_api(measured) as api:
        user = await api.create()
        await demote_sessions(measured)
        answer = await api.patch(f"/users/{user['id']}", {"firstName": "Ada"})
        assert (answer.status, answer.json["detail"]) == (503, "the database cannot be used now")


@pytest.mark.parametrize(("role", "status"), [("api", 200), ("api,worker", 503), ("scheduler", 503)])
async def test_a_process_that_serves_only_the_api_is_ready_without_the_queue(
    database_url: str, role: str, status: int
) -> None:
    """RabbitMQ is away: users are created all the same, so an API process starts and stays in service."""
    settings = load_settings(
        database_url=database_url,
        rabbitmq_url="amqp://127.0.0.1:1",
        message_service_url="http://127.0.0.1:1",
        role=role,
    )
    async with (
        MeasuredPool(database_url, Metrics(), min_size=1, max_size=SIZE) as pool,
        open_broker(settings, pool, must_answer=False) as broker,
    ):
        clock, metrics = ManualClock(), Metrics()
        shared = Shared(settings, pool, broker, Pauses(pool, clock, metrics), clock, metrics)
        readiness = make_readiness(shared, RecordingChannel(clock), {})
        needed = await readiness.check_needed()
        shown = await readiness.check_all()
    assert (200 if all(result.ok for result in needed.values()) else 503) == status
    assert not shown["queue"].ok

"""The worker against a bare HTTP client: the same message service, the same requests, none of the guarantees.

The queue is full before the worker starts. Both are timed where their requests arrive, from the end of the first tenth
to the last one: connecting is nobody's merit. What it takes is read when a tenth and nine tenths have come.
"""

from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import seeds
from benchmarks.busy import Measured
from benchmarks.measure import Comparison, compare, judge, one, tell
from benchmarks.message_service import MessageService
from benchmarks.processes import birthday, module
from benchmarks.scale import Run, Scale
from benchmarks.targets import DATABASE_TIME, WORKER_POSTGRES, WORKER_RABBITMQ, WORKER_SLOW_SERVICE, WORKER_TEMPLATE
from birthday.broker.postgres import PostgresBroker
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.core.template import BUILT_IN, Source
from birthday.store.templates import activate, publish

SLOW_SECONDS = 0.05
TEMPLATE = Source("Hey, {{ first_name }} {{ last_name }}, happy {{ years | ordinal }} birthday")


class Race:
    """A worker and a bare client, each of which sends the same number of messages."""

    def __init__(self, run: Run, service: MessageService, database: str, queue: str | None, messages: int) -> None:
        """Know the servers; a ``queue`` of None is the one in PostgreSQL."""
        self._run = run
        self._service = service
        self._database = database
        self._queue = queue
        self._messages = messages

    def worker(self, concurrency: int = 100, delay_seconds: float = 0, flush_seconds: float = 0) -> Measured:
        """Return how many messages a second the program delivers, as one process with its default settings."""
        self._service.reset(delay_seconds)
        self._run(fill(self._database, self._queue, self._messages))
        before = self._run(written(self._database))
        settings = self._settings(concurrency)
        with ExitStack() as stack:
            if flush_seconds:
                link = module("benchmarks.slow_link", self._database, str(flush_seconds))
                settings["DATABASE_URL"] = stack.enter_context(link)[1]
            stack.enter_context(birthday("worker", **settings))
            measured = self._service.measure(self._messages)
        assert self._run(_delivered(self._database)) == self._messages
        wal_bytes = (self._run(written(self._database)) - before) / self._messages
        return replace(measured, wal_bytes=wal_bytes)

    def client(self, concurrency: int = 100, delay_seconds: float = 0) -> Measured:
        """Return how many requests a second the bare client makes."""
        self._service.reset(delay_seconds)
        arguments = (f"{self._service.url}/send", str(self._messages), str(concurrency))
        with module("benchmarks.http_loop", *arguments):
            return self._service.measure(self._messages)

    def _settings(self, concurrency: int) -> dict[str, str]:
        settings = {
            "DATABASE_URL": self._database,
            "MESSAGE_SERVICE_URL": self._service.url,
            "WORKER_CONCURRENCY": str(concurrency),
        }
        return settings | ({"RABBITMQ_URL": self._queue} if self._queue else {})


async def fill(database: str, queue: str | None, messages: int) -> None:
    """Leave the messages as the dispatcher does: due just now, ``queued``, their ids in the queue."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(asyncpg.create_pool(database, min_size=1, max_size=4))
        broker = PostgresBroker(pool) if queue is None else RabbitMQBroker(queue)
        stack.push_async_callback(broker.close)
        async with pool.acquire() as connection:
            due_at = datetime.now(UTC) - timedelta(seconds=1)
            ids = await seeds.make_messages(connection, messages, due_at, "queued")
        await seeds.publish(broker, ids)


async def say(database: str, source: Source | None) -> None:
    """Publish a text for everybody, or take back all texts."""
    connection = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            now, by = datetime.now(UTC), "benchmark"
            if source is None:
                await activate(connection, BUILT_IN, now, by)
            else:
                await publish(connection, *BUILT_IN[:2], source, now, by)
    finally:
        await connection.close()


async def _delivered(database: str) -> int:
    connection = await asyncpg.connect(database)
    try:
        return await seeds.count_in(connection, "delivered")
    finally:
        await connection.close()


async def written(database: str) -> int:
    """Return how many bytes PostgreSQL has written to its log so far."""
    connection = await asyncpg.connect(database)
    try:
        count: int = await connection.fetchval("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
    finally:
        await connection.close()
    return count


def test_worker_on_rabbitmq(
    benchmark: BenchmarkFixture, scale: Scale, run: Run, service: MessageService, database_url: str, queue_url: str
) -> None:
    """One process delivers from a quorum queue at a good share of what its HTTP client alone could send."""
    race = Race(run, service, database_url, queue_url, scale.messages)
    if scale.full:
        series = {}
        for concurrency in (10, 25, 50, 100, 200, 500):
            series[concurrency] = race.worker(concurrency).figure, race.client(concurrency).figure
            tell(f"  {concurrency} in flight: {series[concurrency][0]:,.0f} of {series[concurrency][1]:,.0f} a second")
        benchmark.extra_info["by_concurrency"] = series
    rate, time = Comparison(WORKER_RABBITMQ, "messages/s"), Comparison(DATABASE_TIME, "µs")

    def one_round() -> None:
        worker = race.worker()
        rate.add(worker, race.client())
        time.add(replace(worker, figure=worker.usage.microseconds()["PostgreSQL"]), one())

    judge(benchmark, [rate, time], one_round, scale.rounds)


def test_worker_on_postgres(
    benchmark: BenchmarkFixture, scale: Scale, run: Run, service: MessageService, database_url: str
) -> None:
    """The same with the queue in PostgreSQL."""
    race = Race(run, service, database_url, None, scale.messages)
    compare(benchmark, Comparison(WORKER_POSTGRES, "messages/s"), race.worker, race.client, scale.rounds)


def test_worker_with_slow_service(
    benchmark: BenchmarkFixture, scale: Scale, run: Run, service: MessageService, database_url: str, queue_url: str
) -> None:
    """A message service that takes its time is kept as busy as a bare client keeps it."""
    race = Race(run, service, database_url, queue_url, scale.messages)
    compare(
        benchmark,
        Comparison(WORKER_SLOW_SERVICE, "messages/s"),
        lambda: race.worker(500, SLOW_SECONDS),
        lambda: race.client(500, SLOW_SECONDS),
        scale.rounds,
    )


def test_worker_with_a_template(
    benchmark: BenchmarkFixture, scale: Scale, run: Run, service: MessageService, database_url: str
) -> None:
    """To render what is said costs little of what it takes to deliver it."""
    race = Race(run, service, database_url, None, scale.messages)

    def templated() -> Measured:
        run(say(database_url, TEMPLATE))
        try:
            return race.worker()
        finally:
            run(say(database_url, None))

    compare(benchmark, Comparison(WORKER_TEMPLATE, "messages/s"), templated, race.worker, scale.rounds)

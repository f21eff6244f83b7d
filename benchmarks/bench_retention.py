"""What retention and vacuum cost beside many stored messages: ``python -m benchmarks --rows 50000000``.

Two comparisons tell how much slower a worker delivers while old messages are removed, and while the table is vacuumed.
They depend on the machine, which all processes share. What a message costs the server is steadier: its processor time,
WAL and buffers when it is delivered, and when it is removed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import seeds
from benchmarks.busy import Measured, server_seconds
from benchmarks.measure import Comparison, compare, tell
from benchmarks.message_service import MessageService
from benchmarks.past import add_queued, fill
from benchmarks.processes import birthday, module
from benchmarks.scale import Run
from benchmarks.targets import BESIDE_RETENTION, BESIDE_VACUUM
from birthday.broker.rabbitmq import RabbitMQBroker

MESSAGES = 20_000
ROUNDS = 6
REMOVING_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Spent:
    """What the database server has spent: processor time, WAL, buffers looked at, and messages removed."""

    cpu_seconds: float
    wal_bytes: int
    buffers: int
    removed: int

    def since(self, before: "Spent", messages: int) -> dict[str, float]:
        """Return what it has spent on each of so many messages."""
        return {
            "messages": messages,
            "cpu_us": 1e6 * (self.cpu_seconds - before.cpu_seconds) / messages,
            "wal_bytes": (self.wal_bytes - before.wal_bytes) / messages,
            "buffers": (self.buffers - before.buffers) / messages,
        }


@dataclass(frozen=True, slots=True)
class Installation:
    """A database with a past, a queue and a message service."""

    run: Run
    service: MessageService
    database: str
    queue: str

    def deliver(self, job: str | None) -> Measured:
        """Return how many messages a second a worker delivers, while a job of ``upkeep`` runs or none does."""
        self.service.reset()
        self.run(self._publish())
        with self._upkeep(job), self._worker():
            return self.service.measure(MESSAGES)

    def cost_of_delivery(self) -> dict[str, float]:
        """Return what it costs to make a message and to deliver it; its dispatch is left out."""
        before = self.spent()
        self.deliver(None)
        return self.spent().since(before, MESSAGES)

    def cost_of_removal(self) -> dict[str, float]:
        """Return what it costs to remove a message, and how many are removed in a second."""
        before = self.spent()
        started = time.monotonic()
        with self._upkeep("remove"):
            time.sleep(REMOVING_SECONDS)
        seconds = time.monotonic() - started
        after = self.spent()
        removed = after.removed - before.removed
        return after.since(before, removed) | {"per_second": removed / seconds}

    def cost_of_vacuum(self) -> dict[str, float]:
        """Return what it costs to vacuum the table with its indexes, and how long that takes without any delay."""
        before, started = self.spent(), time.monotonic()
        self.run(self._vacuum())
        return self.spent().since(before, 1) | {"seconds": time.monotonic() - started}

    def spent(self) -> Spent:
        """Return what the server has spent so far."""
        spent: Spent = self.run(read_spent(self.database))
        return spent

    @contextmanager
    def _upkeep(self, job: str | None) -> Iterator[None]:
        if job is None:
            yield
            return
        with module("benchmarks.upkeep", job, self.database):
            yield

    @contextmanager
    def _worker(self) -> Iterator[None]:
        with birthday(
            "worker", DATABASE_URL=self.database, RABBITMQ_URL=self.queue, MESSAGE_SERVICE_URL=self.service.url
        ):
            yield

    async def _publish(self) -> None:
        connection = await asyncpg.connect(self.database)
        broker = RabbitMQBroker(self.queue)
        try:
            ids = await add_queued(connection, MESSAGES, datetime.now(UTC) - timedelta(seconds=1))
            await seeds.publish(broker, ids)
        finally:
            await broker.close()
            await connection.close()

    async def _vacuum(self) -> None:
        connection = await asyncpg.connect(self.database)
        try:
            await connection.execute("VACUUM (INDEX_CLEANUP ON) message_logs", timeout=None)
        finally:
            await connection.close()


async def read_spent(database: str) -> Spent:
    """Return what the server of a database has spent so far."""
    connection = await asyncpg.connect(database)
    try:
        [(pid, *figures)] = await connection.fetch(
            """
            SELECT pg_backend_pid(), pg_current_wal_lsn() - '0/0', sum(blks_hit + blks_read),
                   (SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'message_logs')
            FROM pg_stat_database
            """
        )
        return Spent(server_seconds(pid), *map(int, figures))
    finally:
        await connection.close()


@pytest.fixture
def installation(request: pytest.FixtureRequest, run: Run, service: MessageService, queue_url: str) -> Installation:
    """Return an installation with as many stored messages as --rows says, or with those of --database."""
    given = request.config.getoption("--database")
    if given:
        return Installation(run, service, given, queue_url)
    database = request.getfixturevalue("database_url")
    run(fill(database, request.config.getoption("--rows")))
    return Installation(run, service, database, queue_url)


@pytest.mark.rows
@pytest.mark.timeout(6 * 3600)
def test_retention(benchmark: BenchmarkFixture, installation: Installation) -> None:
    """A worker delivers about as fast while old messages are removed."""
    costs = {
        "delivery": installation.cost_of_delivery(),
        "removal": installation.cost_of_removal(),
        "vacuum": installation.cost_of_vacuum(),
    }
    for name, cost in costs.items():
        tell(f"  {name}: " + ", ".join(f"{what} {value:,.4g}" for what, value in cost.items()))
    benchmark.extra_info["costs"] = costs
    compare(
        benchmark,
        Comparison(BESIDE_RETENTION, "messages/s"),
        lambda: installation.deliver("remove"),
        lambda: installation.deliver(None),
        ROUNDS,
    )


@pytest.mark.rows
@pytest.mark.timeout(6 * 3600)
def test_vacuum(benchmark: BenchmarkFixture, installation: Installation) -> None:
    """A worker delivers about as fast while the table is vacuumed."""
    compare(
        benchmark,
        Comparison(BESIDE_VACUUM, "messages/s"),
        lambda: installation.deliver("vacuum"),
        lambda: installation.deliver(None),
        ROUNDS,
    )

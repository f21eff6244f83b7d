"""One worker under full load: how late its event loop runs, and whether its memory grows with what it has done."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import seeds
from benchmarks.lag import lag_counts, percentile_ms
from benchmarks.measure import Comparison, compare, one
from benchmarks.message_service import MessageService
from benchmarks.processes import Program, birthday
from benchmarks.scale import Run, Scale
from benchmarks.targets import LAG, MEMORY
from birthday.broker.rabbitmq import RabbitMQBroker


async def feed(database: str, queue: str, messages: int) -> None:
    """Publish messages while the worker takes them."""
    connection = await asyncpg.connect(database)
    broker = RabbitMQBroker(queue)
    try:
        due_at = datetime.now(UTC) - timedelta(seconds=1)
        await seeds.publish(broker, await seeds.make_messages(connection, messages, due_at, "queued"))
    finally:
        await broker.close()
        await connection.close()


@dataclass(frozen=True, slots=True)
class Worker:
    """A running worker with its servers, and how many messages it is given at a time."""

    run: Run
    service: MessageService
    settings: dict[str, str]
    batch: int

    def deliver(self) -> None:
        """Publish a batch while the worker takes it, and wait until all of it has arrived."""
        self.service.reset()
        self.run(feed(self.settings["DATABASE_URL"], self.settings["RABBITMQ_URL"], self.batch))
        self.service.wait_for(self.batch)

    def resident_mib(self, batches: int) -> float:
        """Return how much memory a worker holds that has delivered so many batches."""
        with birthday("worker", **self.settings) as program:
            for _ in range(batches):
                self.deliver()
            return program.resident_bytes() / 1024**2

    def lag_ms(self, program: Program) -> float:
        """Return the lag of the event loop during a batch: the 99th percentile."""
        before = lag_counts(program)
        self.deliver()
        return percentile_ms(before, lag_counts(program), 0.99)


@pytest.fixture
def worker(scale: Scale, run: Run, service: MessageService, database_url: str, queue_url: str) -> Worker:
    """Return what runs a worker, ready to be started."""
    settings = {"DATABASE_URL": database_url, "RABBITMQ_URL": queue_url, "MESSAGE_SERVICE_URL": service.url}
    return Worker(run, service, settings, scale.messages // 2)


def test_memory(benchmark: BenchmarkFixture, worker: Worker) -> None:
    """A worker that has sent ten times as much holds about as much."""
    compare(
        benchmark, Comparison(MEMORY, "MiB"), lambda: worker.resident_mib(10), lambda: worker.resident_mib(1), rounds=1
    )


def test_lag(benchmark: BenchmarkFixture, scale: Scale, worker: Worker) -> None:
    """The loop stays responsive under full load. This one is judged in milliseconds: its limit stands for one."""
    with birthday("worker", **worker.settings) as program:
        worker.deliver()
        compare(benchmark, Comparison(LAG, "ms"), lambda: worker.lag_ms(program), one, scale.rounds)

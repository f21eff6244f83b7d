"""Latency under load: at half of the highest rate, nothing should wait for long.

The highest rate is measured first, on the same programs. A message counts from the instant that it is due until nginx
has answered, a request from when it is due, whether a connection is free or not.
"""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import quantiles

import asyncpg
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import seeds
from benchmarks.bench_api import CONNECTIONS, Servers, measured_load, servers
from benchmarks.busy import Measured
from benchmarks.measure import Comparison, judge, one, tell
from benchmarks.message_service import MessageService
from benchmarks.processes import birthday, run_module
from benchmarks.scale import Run, Scale
from benchmarks.targets import CREATE_LATENCY, MESSAGE_LATENCY

__all__ = ["servers"]

AHEAD = timedelta(seconds=4)
"""Time to write down what falls due."""


async def schedule(database: str, messages: int, seconds: float) -> dict[str, datetime]:
    """Leave messages as the planner does, due one after the other for so long; return when each is due, by its id."""
    connection = await asyncpg.connect(database)
    try:
        due_at = datetime.now(UTC) + AHEAD
        async with connection.transaction():
            ids = await seeds.make_messages(connection, messages, due_at, "scheduled")
            due = await seeds.spread(connection, ids, due_at, timedelta(seconds=seconds / messages))
        assert datetime.now(UTC) < due_at, "the machine took too long to write down what falls due"
    finally:
        await connection.close()
    return due


async def settled(database: str, messages: int) -> None:
    """Wait until so many are recorded as delivered."""
    connection = await asyncpg.connect(database)
    try:
        async with asyncio.timeout(30):
            while await seeds.count_in(connection, "delivered") < messages:  # noqa: ASYNC110 - it is another process's work
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


def test_message_latency(
    benchmark: BenchmarkFixture, scale: Scale, run: Run, service: MessageService, database_url: str, queue_url: str
) -> None:
    """At half of the rate that a scheduler and a worker reach, messages arrive when they are due."""
    comparison = Comparison(MESSAGE_LATENCY, "ms")
    settings = {"DATABASE_URL": database_url, "RABBITMQ_URL": queue_url, "MESSAGE_SERVICE_URL": service.url}
    seconds = 2 * scale.load_seconds

    def deliver(messages: int, seconds: float) -> tuple[Measured, list[float]]:
        service.reset()
        due: dict[str, datetime] = run(schedule(database_url, messages, seconds))
        measured = service.measure(messages)
        run(settled(database_url, messages))
        arrivals = service.arrivals_by_key()
        return measured, [1000 * (arrivals[key] - due_at.timestamp()) for key, due_at in due.items()]

    def one_round() -> None:
        highest = deliver(scale.messages, 0)[0].figure
        measured, late_ms = deliver(round(highest / 2 * seconds), seconds)
        hundredths = quantiles(late_ms, n=100)
        tell(f"  at {measured.figure:,.0f} of {highest:,.0f} a second, half are late by {hundredths[49]:.1f} ms")
        comparison.add(replace(measured, figure=hundredths[98]), one())

    with birthday("scheduler", **settings), birthday("worker", **settings):
        judge(benchmark, [comparison], one_round, 1)


def test_create_latency(benchmark: BenchmarkFixture, scale: Scale, servers: Servers) -> None:
    """At half of the rate that one process of the API reaches, a user is created at once."""
    comparison = Comparison(CREATE_LATENCY, "ms")

    def one_round() -> None:
        highest = servers.load("create", CONNECTIONS, scale.load_seconds, servers.ours)[0]["rate"]
        arguments = (str(CONNECTIONS), str(highest / 2), str(scale.load_seconds), str(servers.ours))
        paced = json.loads(run_module("benchmarks.paced_load", *arguments))
        tell(f"  at {paced['rate']:,.0f} of {highest:,.0f} a second, half take {paced['p50_ms']:.1f} ms")
        comparison.add(measured_load(paced, "p99_ms"), one())

    judge(benchmark, [comparison], one_round, scale.rounds)

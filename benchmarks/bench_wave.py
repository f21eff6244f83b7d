"""The wave: everybody's birthday at one instant. How long until the last message is out, and does it scale?"""

import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from statistics import quantiles
from typing import Any

import asyncpg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import seeds
from benchmarks.bench_worker import Race
from benchmarks.busy import Measured, Reading
from benchmarks.lag import lag_counts, percentile_ms
from benchmarks.measure import Comparison, judge, tell
from benchmarks.message_service import MessageService
from benchmarks.processes import birthday
from benchmarks.scale import Run
from benchmarks.targets import WAVE

MESSAGES = 100_000
ROUNDS = 3
AHEAD = timedelta(seconds=15)
"""Time to plan everything before the instant comes."""
ON_TIME_SECONDS = 60
WORKERS = (1, 2, 4, 8)
SERVICE_SECONDS = (0.0, 0.05)


async def schedule(database: str, messages: int, due_at: datetime) -> None:
    """Leave the messages as the planner does."""
    connection = await asyncpg.connect(database)
    try:
        await seeds.make_messages(connection, messages, due_at, "scheduled")
    finally:
        await connection.close()


def ride(
    run: Run, service: MessageService, settings: dict[str, str], workers: int, service_seconds: float
) -> dict[str, Any]:
    """Let one wave come, with a scheduler and so many workers; return what became of it."""
    service.reset(service_seconds)
    settings = settings | {"MESSAGE_SERVICE_URL": service.url}
    concurrency = "500" if service_seconds else "100"
    with ExitStack() as stack:
        programs = [stack.enter_context(birthday("scheduler", **settings))]
        settings = settings | {"WORKER_CONCURRENCY": concurrency}
        programs += [stack.enter_context(birthday("worker", **settings)) for _ in range(workers)]
        due_at = datetime.now(UTC) + AHEAD
        run(schedule(settings["DATABASE_URL"], MESSAGES, due_at))
        before = [lag_counts(program) for program in programs]
        left = (due_at - datetime.now(UTC)).total_seconds()
        assert left > 0, "the machine took too long to plan the wave"
        time.sleep(left)
        arrivals = service.wait_for(MESSAGES, seconds=300)
        lag_ms = [percentile_ms(old, lag_counts(program), 0.99) for old, program in zip(before, programs, strict=True)]
        resident = [program.resident_bytes() / 1024**2 for program in programs]
    lateness = sorted(arrived - due_at.timestamp() for arrived in arrivals)
    hundredths = quantiles(lateness, n=100)
    return {
        "workers": workers,
        "service_ms": 1000 * service_seconds,
        "last_seconds": lateness[-1],
        "p50_seconds": hundredths[49],
        "p99_seconds": hundredths[98],
        "on_time_share": sum(late <= ON_TIME_SECONDS for late in lateness) / len(lateness),
        "rate": len(lateness) / lateness[-1],
        "lag_p99_ms": {"scheduler": lag_ms[0], "worker": max(lag_ms[1:])},
        "resident_mib": {"scheduler": resident[0], "worker": max(resident[1:])},
        "lateness_seconds": [lateness[0], *hundredths, lateness[-1]],
    }


@pytest.mark.full
def test_wave_of_one_worker(
    benchmark: BenchmarkFixture, run: Run, service: MessageService, database_url: str, queue_url: str
) -> None:
    """From the instant to the last message takes little longer than as many requests take a bare client."""
    settings = {"DATABASE_URL": database_url, "RABBITMQ_URL": queue_url}
    race = Race(run, service, database_url, queue_url, MESSAGES)
    comparison = Comparison(WAVE, "s")
    run(schedule(database_url, MESSAGES, datetime.now(UTC) + timedelta(days=1)))

    def one_round() -> None:
        began = Reading.take()
        last = ride(run, service, settings, 1, 0)["last_seconds"]
        took = began.until(Reading.take())
        client = race.client()
        comparison.add(Measured(last, took), replace(client, figure=MESSAGES / client.figure))

    judge(benchmark, [comparison], one_round, ROUNDS)


@pytest.mark.full
def test_wave(
    benchmark: BenchmarkFixture, run: Run, service: MessageService, database_url: str, queue_url: str
) -> None:
    """100,000 users are due at one instant, with one, two, four and eight workers, and a fast and a slow service."""
    settings = {"DATABASE_URL": database_url, "RABBITMQ_URL": queue_url}
    waves = []
    run(schedule(database_url, MESSAGES, datetime.now(UTC) + timedelta(days=1)))

    def all_waves() -> None:
        for seconds, workers in product(SERVICE_SECONDS, WORKERS):
            wave = ride(run, service, settings, workers, seconds)
            waves.append(wave)
            tell(
                f"  {workers} workers, service of {wave['service_ms']:.0f} ms: last after {wave['last_seconds']:.1f} s,"
                f" {wave['rate']:,.0f} a second"
            )

    benchmark.pedantic(all_waves, rounds=1)
    benchmark.extra_info["waves"] = waves

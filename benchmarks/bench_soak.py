"""Mixed load for an hour, or for as long as ``--soak`` says: nothing that a process holds may grow.

Clients create and read users, and some of those whom they create have their birthday today and are greeted at once. The
first third of the time is for warming up; then what is held in the second third is compared with the last.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import asyncpg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.growth import Sample, grown
from benchmarks.lag import lag_counts, percentile_ms
from benchmarks.measure import tell
from benchmarks.message_service import MessageService
from benchmarks.processes import Program, birthday, run_module
from benchmarks.scale import Run

LOADS = (("create", "4", "1"), ("greet", "8", "1"), ("read", "16", "1"))
"""What clients do in turn: kind, connections, seconds."""
ROLES = ("api", "scheduler", "worker")
MOST_KEPT = 150
"""How many samples the results have at most. What is concluded comes from all."""


@dataclass
class Watch:
    """Processes under load, and what was seen of them: one sample for each turn of the load."""

    run: Run
    database: str
    service: MessageService
    programs: Mapping[str, Program]
    samples: list[Sample] = field(default_factory=list)

    def turn(self, started: float) -> None:
        """Put each kind of load on the API, then look at everything."""
        before = {role: lag_counts(program) for role, program in self.programs.items()}
        delivered = self.service.count()
        began = time.monotonic()
        rates = dict(self._load())
        sample = {"seconds": time.monotonic() - started} | {f"{kind}s/s": rate for kind, rate in rates.items()}
        sample["delivered/s"] = (self.service.count() - delivered) / (time.monotonic() - began)
        sample["connections"] = self.run(count_connections(self.database))
        for role, program in self.programs.items():
            sample[f"memory of {role}"] = program.resident_bytes() / 1024**2
            sample[f"files of {role}"] = program.open_files()
            sample[f"lag of {role}"] = percentile_ms(before[role], lag_counts(program), 0.99)
        sample["slowness"] = 1 / rates["read"]
        self.samples.append(sample)

    def _load(self) -> Iterator[tuple[str, float]]:
        port = str(urlsplit(self.programs["api"].url).port)
        for kind, *size in LOADS:
            users = self.run(some_users(self.database)) if kind == "read" else ""
            yield kind, json.loads(run_module("benchmarks.http_load", kind, *size, port, stdin=users))[0]["rate"]


async def count_connections(database: str) -> int:
    """Return how many connections the program has to its database."""
    connection = await asyncpg.connect(database)
    try:
        count: int = await connection.fetchval(
            """
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'birthday%'
            """
        )
    finally:
        await connection.close()
    return count


async def some_users(database: str) -> str:
    """Return the ids of a thousand users, one a line."""
    connection = await asyncpg.connect(database)
    try:
        rows = await connection.fetch("SELECT id FROM users ORDER BY id DESC LIMIT 1000")
    finally:
        await connection.close()
    return "\n".join(str(row["id"]) for row in rows)


@pytest.mark.soak
def test_soak(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    run: Run,
    service: MessageService,
    database_url: str,
    queue_url: str,
) -> None:
    """Under mixed load, no process holds more and more of anything."""
    seconds = request.config.getoption("--soak")
    settings = {"DATABASE_URL": database_url, "RABBITMQ_URL": queue_url, "MESSAGE_SERVICE_URL": service.url}
    settings["SEND_AT"] = "00:00"
    with ExitStack() as stack:
        programs = {role: stack.enter_context(birthday(role, **settings)) for role in ROLES}
        watch = Watch(run, database_url, service, programs)

        def load() -> None:
            started = time.monotonic()
            while time.monotonic() < started + seconds or len(watch.samples) < 6:
                watch.turn(started)
                tell("  " + ", ".join(f"{name} {value:,.4g}" for name, value in watch.samples[-1].items()))

        benchmark.pedantic(load, rounds=1)
    benchmark.extra_info["samples"] = watch.samples[:: 1 + len(watch.samples) // MOST_KEPT]
    complaints = grown(watch.samples)
    assert not complaints, "\n".join(complaints)

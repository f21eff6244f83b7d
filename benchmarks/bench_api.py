"""The API, with everything that it does, against a plain handler: the same database, the same load.

The lone request is one connection that waits for each answer: what makes many requests fast must not make one slow.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import seeds
from benchmarks.busy import Measured, Usage
from benchmarks.measure import Comparison, judge, tell
from benchmarks.processes import birthday, module, run_module
from benchmarks.scale import Run, Scale
from benchmarks.targets import API_CREATE, API_READ, LONE_REQUEST

CONNECTIONS = 64
USERS = 10_000


@dataclass(frozen=True, slots=True)
class Servers:
    """Where our API and the plain one listen, on one database, and the ids of some users."""

    database: str
    ours: int
    plain: int
    ids: str

    def load(self, kind: str, connections: int, seconds: float, *ports: int) -> list[dict[str, Any]]:
        """Put load on servers in turn, and return what ``http_load`` measured of each."""
        arguments = (kind, str(connections), str(seconds), *map(str, ports))
        measured: list[dict[str, Any]] = json.loads(run_module("benchmarks.http_load", *arguments, stdin=self.ids))
        return measured


@pytest.fixture
def servers(run: Run, database_url: str) -> Iterator[Servers]:
    """Run both; ours with metrics and logs on, as by default."""
    ids = run(_make_users(database_url))
    with (
        birthday("api", DATABASE_URL=database_url) as program,
        module("benchmarks.bare_api", database_url) as (_, plain),
    ):
        yield Servers(database_url, urlsplit(program.url).port or 0, int(plain), ids)


async def _make_users(database: str) -> str:
    connection = await asyncpg.connect(database)
    try:
        created_at = datetime.now(UTC) - timedelta(days=1)
        ids = await seeds.make_users(connection, USERS, created_at, "example.org")
        await connection.execute("ANALYZE users")
    finally:
        await connection.close()
    return "\n".join(map(str, ids))


def race(
    benchmark: BenchmarkFixture, scale: Scale, servers: Servers, comparison: Comparison, kind: str, other: int
) -> None:
    """Compare our API with another server by requests a second; both take turns within each round."""

    def one_round() -> None:
        ours, limit = servers.load(kind, CONNECTIONS, scale.load_seconds, servers.ours, other)
        comparison.add(measured_load(ours, "rate"), measured_load(limit, "rate"))

    judge(benchmark, [comparison], one_round, scale.rounds)


def measured_load(load: dict[str, Any], figure: str) -> Measured:
    """Return one figure of what a load has measured, and what it took."""
    seconds, processor = load["took"]
    return Measured(load[figure], Usage(seconds, processor, round(load["rate"] * seconds)))


def test_create(benchmark: BenchmarkFixture, scale: Scale, servers: Servers) -> None:
    """Creating users is faster than one statement a request can be."""
    if scale.full:
        benchmark.extra_info["by_load"] = curve(servers, "create", scale.load_seconds)
    race(benchmark, scale, servers, Comparison(API_CREATE, "requests/s"), "create", servers.plain)


def test_read(benchmark: BenchmarkFixture, scale: Scale, servers: Servers) -> None:
    """Reading users, with what is planned for them, is no slower than reading a bare row."""
    if scale.full:
        benchmark.extra_info["by_load"] = curve(servers, "read", scale.load_seconds)
    race(benchmark, scale, servers, Comparison(API_READ, "requests/s"), "read", servers.plain)


def test_lone_request(benchmark: BenchmarkFixture, scale: Scale, servers: Servers) -> None:
    """A request that is alone waits for nobody."""
    comparison = Comparison(LONE_REQUEST, "ms")

    def one_round() -> None:
        ours, plain = servers.load("create", 1, scale.load_seconds, servers.ours, servers.plain)
        comparison.add(measured_load(ours, "p50_ms"), measured_load(plain, "p50_ms"))

    judge(benchmark, [comparison], one_round, scale.rounds)


def curve(servers: Servers, kind: str, seconds: float) -> dict[int, dict[str, dict[str, Any]]]:
    """Return rate and latency of both at growing load."""
    measured = {}
    for connections in (1, 4, 16, 64, 256):
        ours, plain = servers.load(kind, connections, seconds, servers.ours, servers.plain)
        measured[connections] = {"ours": ours, "plain": plain}
        tell(f"  {connections} connections: p99 {ours['p99_ms']:.1f} ms, plain {plain['p99_ms']:.1f} ms")
    return measured

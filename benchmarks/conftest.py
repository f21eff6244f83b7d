"""What the benchmarks share: private servers as durable as by default, the size of a run, and the table at its end."""

import asyncio
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog
import uvloop

from benchmarks.busy import data_prefix
from benchmarks.facts import machine_facts
from benchmarks.measure import table, tell
from benchmarks.message_service import MessageService, message_service
from benchmarks.past import row_count
from benchmarks.scale import FULL, QUICK, Run, Scale
from birthday.embedded.cluster import Cluster
from birthday.store.migrations import load_migrations, migrate
from tests.support.postgres import PostgresServer, postgres_programs
from tests.support.rabbitmq import RabbitMQServer, rabbitmq_server, rabbitmq_url

__all__ = ["rabbitmq_server", "rabbitmq_url"]

SERVERS = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Choose between a quick run and a full one."""
    parser.addoption("--full", action="store_true", help="more rounds, and the curves as well")
    parser.addoption("--soak", type=float, default=0, help="nothing but mixed load, for so many seconds")
    parser.addoption("--peers", help="nothing but peers, which this interpreter has installed")
    parser.addoption("--rows", type=row_count, help="nothing but retention, beside so many stored messages")
    parser.addoption("--database", help="the database that benchmarks.past has filled, in place of a new one")
    parser.addoption("--users", type=int, default=5_000_000, help="how many users the largest population has")


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGTERM end a run as Ctrl-C does: the servers that it started are stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.addinivalue_line("markers", "soak: takes as long as --soak says, and is left out without it")
    config.addinivalue_line("markers", "peers: needs what --peers names, and is left out without it")
    config.addinivalue_line("markers", "rows: takes as long as --rows asks for, and is left out without it")
    config.addinivalue_line("markers", "full: has no limit to be compared with, and is left out of a quick run")
    config.stash[SERVERS] = {}
    # Parts of the program that run in this process have nothing to say but what is wrong.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose what the kind of run asks for: the soak alone, the peers alone, or all else, without curves if quick."""
    wanted = next((kind for kind in ("soak", "peers", "rows", "full") if config.getoption(f"--{kind}")), "quick")
    items[:] = [item for item in items if wanted in _kinds(item)]


def _kinds(item: pytest.Item) -> set[str]:
    """Return the kinds of run that a benchmark is part of."""
    marks = {mark.name for mark in item.iter_markers()} & {"soak", "peers", "rows", "full"}
    return marks or {"quick", "full"}


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Keep what was measured, and not how long pytest was busy with it."""
    results = {bench["name"].removeprefix("test_"): bench["extra_info"] for bench in output_json["benchmarks"]}
    facts, taken_at = output_json["machine_info"], output_json["datetime"]
    output_json.clear()
    output_json.update({"taken_on": taken_at[:10], "machine": facts, "results": results})


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, str]:
    """Keep with the results what they depend on."""
    return machine_facts() | config.stash[SERVERS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the ratios. What pytest-benchmark would show is how long the rounds took, which says nothing."""
    session: Any = config._benchmarksession  # type: ignore[attr-defined]  # noqa: SLF001 - it has no other name
    figures = [figure for bench in session.benchmarks for figure in bench.extra_info.get("figures", [])]
    if figures:
        terminalreporter.write_sep("-", "ratios: median of the rounds, quartiles, floor, goal")
        terminalreporter.write_line(table(figures))


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    """Return how much is measured."""
    return FULL if request.config.getoption("--full") else QUICK


@pytest.fixture(autouse=True)
def announce(request: pytest.FixtureRequest) -> None:
    """Say which benchmark begins."""
    tell(f"{datetime.now(UTC):%H:%M:%S} {request.node.name.removeprefix('test_')}")


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """Return a function that runs a coroutine to its end, all of them in one event loop of the program's own kind."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.run


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest, run: Run) -> Iterator[PostgresServer]:
    """Run one private server on a disk, as durable as PostgreSQL is by default."""
    with tempfile.TemporaryDirectory(prefix=data_prefix(os.getpid())) as name:
        directory = Path(name)
        # The server may run as another user, who has to pass.
        directory.chmod(0o711)
        cluster = run(Cluster.open(directory, postgres_programs()))
        try:
            run(cluster.start())
            request.config.stash[SERVERS]["PostgreSQL"] = run(_prepare(cluster.dsn()))
            yield PostgresServer(cluster)
        finally:
            run(cluster.stop())


async def _prepare(dsn: str) -> str:
    """Migrate the template of all databases, and return the server's version."""
    connection = await asyncpg.connect(dsn)
    try:
        await migrate(connection, load_migrations(), datetime.now(UTC))
        version: str = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    return version


@pytest.fixture
def database_url(postgres_server: PostgresServer, run: Run) -> Iterator[str]:
    """Return the URL of a database that is migrated and empty, and is removed afterwards."""
    name = run(postgres_server.create_database())
    yield postgres_server.url(name)
    run(postgres_server.drop_database(name))


@pytest.fixture
def queue_url(request: pytest.FixtureRequest, rabbitmq_server: RabbitMQServer, rabbitmq_url: str) -> str:
    """Return the URL of a virtual host that is empty, and is removed afterwards."""
    request.config.stash[SERVERS]["RabbitMQ"] = rabbitmq_server.manage("GET", "overview")["rabbitmq_version"]
    return rabbitmq_url


@pytest.fixture(scope="session")
def only_service(request: pytest.FixtureRequest) -> Iterator[MessageService]:
    """Run one message service for all benchmarks."""
    with message_service() as service:
        request.config.stash[SERVERS]["nginx"] = service.version
        yield service


@pytest.fixture
def service(only_service: MessageService) -> MessageService:
    """Return the message service: it has seen nothing and answers at once."""
    only_service.reset()
    return only_service

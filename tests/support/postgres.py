"""A private PostgreSQL server for the test session, and a fresh, migrated database for each test that asks for one.

``TEST_POSTGRES_BIN`` names the directory of another PostgreSQL's programs than the one that ``birthday`` would choose.
If ``TEST_POOLER`` is set, the pool of each test leads to a pgbouncer that hands connections out by transaction.
"""

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from birthday.embedded.cluster import DATABASE, Cluster
from birthday.embedded.process import exists
from birthday.embedded.programs import find_directory, installed_directories
from birthday.store.migrations import load_migrations, migrate
from birthday.store.pool import make_pool
from tests.support.pgbouncer import pgbouncer

GONE_SECONDS = 30
# Copying the template takes hundreds of milliseconds on a disk, and a tenth of that in memory.
MEMORY = Path("/dev/shm")  # noqa: S108 - what is made there has a name of its own
MEMORY_BYTES = 2 * 1024**3
PREFIX = "birthday-postgres-"


class PostgresServer:
    """One server of our own, whose database ``birthday_scheduler`` is the migrated template of the tests' databases.

    Durable it is not, so that it is quick: it survives a ``kill``, and not a crash of the machine.
    """

    def __init__(self, cluster: Cluster) -> None:
        """Take a cluster that need not run yet."""
        self._cluster = cluster

    async def start(self) -> None:
        """Start the server, unless it runs; after ``kill`` it recovers first."""
        if await self._cluster.is_gone():
            await self._cluster.start()

    async def kill(self) -> None:
        """End the server the hard way, as a crash does: open connections break, what is not committed is gone."""
        pid = await self._cluster.server_pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(GONE_SECONDS):
            while not await self._cluster.is_gone():
                await asyncio.sleep(0.02)

    async def restart(self) -> None:
        """Crash the server and start it again on the same data."""
        await self.kill()
        await self.start()

    def url(self, database: str = DATABASE) -> str:
        """Return the URL of a database."""
        return self._cluster.dsn(database)

    async def create_database(self, *, migrated: bool = True) -> str:
        """Create a database, with the schema or empty, and return its name."""
        name = f"test_{secrets.token_hex(6)}"
        await self._administer(
            "CREATE DATABASE %I TEMPLATE %I STRATEGY FILE_COPY", name, DATABASE if migrated else "template1"
        )
        return name

    async def drop_database(self, name: str) -> None:
        """Remove a database; its connections are closed."""
        await self._administer("DROP DATABASE %I WITH (FORCE)", name)

    async def _administer(self, statement: str, *names: str) -> None:
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            # CREATE DATABASE takes no parameters: the server itself quotes the names.
            await connection.execute(
                await connection.fetchval("SELECT format($1, VARIADIC $2::text[])", statement, names)
            )
        finally:
            await connection.close()


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """Run a private server for the length of the context."""
    with server_directory() as directory:
        yield asyncio.run(_open(directory))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Run one private server for the whole session. A test that kills it need not start it again."""
    with running_server() as server:
        yield server


@pytest.fixture
async def database_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """Return the URL of a database that is migrated and empty, and is removed after the test."""
    await postgres_server.start()
    name = await postgres_server.create_database()
    yield postgres_server.url(name)
    await postgres_server.start()
    await postgres_server.drop_database(name)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """Return a pool of connections to the test's own database, behind a pooler if TEST_POOLER is set."""
    if os.environ.get("TEST_POOLER"):
        async with pgbouncer(database_url, "transaction") as url, pool_by_transaction(url) as pool:
            yield pool
        return
    async with asyncpg.create_pool(database_url, min_size=1, max_size=10) as pool:
        yield pool


@pytest.fixture
async def pooler_url(database_url: str) -> AsyncIterator[str]:
    """Return the URL of the test's own database behind pgbouncer, which hands connections out by transaction."""
    async with pgbouncer(database_url, "transaction") as url:
        yield url


def pool_by_transaction(url: str, most: int = 10) -> asyncpg.Pool:
    """Return what opens a pool of the product's kind, at the URL of such a pooler."""
    return make_pool(url, None, by_transaction=True, min_size=1, max_size=most)


def postgres_programs() -> Path:
    """Return the directory of the PostgreSQL programs that tests use."""
    chosen = os.environ.get("TEST_POSTGRES_BIN")
    return find_directory([Path(chosen)] if chosen else installed_directories())


@contextmanager
def server_directory() -> Iterator[Path]:
    """Make a directory for a server's data, and remove it afterwards; also what a killed test run has left."""
    in_memory = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
    parent = MEMORY if in_memory else Path(tempfile.gettempdir())
    for leftover in parent.glob(f"{PREFIX}*-*"):
        if leftover.stat().st_uid == os.geteuid() and not exists(int(leftover.name.split("-")[2])):
            asyncio.run(_remove(leftover))
    directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
    # The server may run as another user, who has to pass.
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        asyncio.run(_remove(directory))


async def _remove(directory: Path) -> None:
    await (await Cluster.open(directory, postgres_programs())).stop()
    shutil.rmtree(directory, ignore_errors=True)


async def _open(directory: Path) -> PostgresServer:
    server = PostgresServer(await Cluster.open(directory, postgres_programs(), durable=False))
    await server.start()
    connection = await asyncpg.connect(server.url())
    try:
        await migrate(connection, load_migrations(), datetime.now(UTC))
    finally:
        await connection.close()
    return server

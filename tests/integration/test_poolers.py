"""DATABASE_URL that leads to a pooler, is pasted from a provider, or to a database with another encoding."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.clock import SystemClock
from birthday.config import load_settings
from birthday.errors import UnavailableError
from birthday.store.connection import borrow
from birthday.telemetry.metrics import Metrics
from birthday.wiring.database import connect_database, open_database
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres import PostgresServer
from tests.support.program import run, running

POOLED = 20
"""The ``default_pool_size`` of pgbouncer, unless it is set."""
BY_TRANSACTION = "hands connections out by transaction"


async def test_a_pooler_that_keeps_sessions_is_as_good_as_the_server(database_url: str) -> None:
    """The service starts behind it, creates a user, and its queue works; its session has the settings that we want."""
    async with pgbouncer(database_url, "session") as url:
        settings = load_settings(database_url=url)
        async with open_database(settings, SystemClock(), Metrics()) as pool:
            broker = PostgresBroker(pool)
            async with broker.consume(10):
                assert (await broker.stats()).consumers == 1
            shown = await pool.fetchrow(
                "SELECT current_setting('jit') AS jit, current_setting('idle_in_transaction_session_timeout') AS idle"
            )
            assert shown is not None
            assert tuple(shown) == ("off", "30s")
        async with running("--role", "api,scheduler", DATABASE_URL=url) as program:
            assert await program.stop() == 0


async def test_processes_share_a_pooler_of_twenty_connections(database_url: str) -> None:
    """What a burst has opened in one process is given back before another one stops waiting for a connection."""
    async with pgbouncer(database_url, "session") as url, AsyncExitStack() as stack:
        settings = load_settings(database_url=url)
        busy, quiet = [await stack.enter_async_context(connect_database(settings, Metrics())) for _ in range(2)]
        places = POOLED - settings.database_pool_min
        burst = [await busy.acquire() for _ in range(places)]
        for connection in burst:
            await connection.execute("SELECT")
        for connection in burst:
            await busy.release(connection)
        loans = [await stack.enter_async_context(borrow(quiet)) for _ in range(settings.database_pool_min + 1)]
        assert await loans[-1].fetchval("SELECT 1") == 1
        assert busy.get_size() == settings.database_pool_min


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_that_shares_sessions_ends_with_one_line(database_url: str, mode: str) -> None:
    """The start, `check` and `audit` say what is wrong and what to do; `audit` could not look, which is status 3."""
    async with pgbouncer(database_url, mode) as url:
        with pytest.raises(UnavailableError, match=BY_TRANSACTION):
            async with connect_database(load_settings(database_url=url)):
                pass
        check = await run("check", DATABASE_URL=url)
        assert check.status == 1
        assert BY_TRANSACTION in check.out
        audit = await run("audit", "--from", "2026-01-01", "--to", "2026-01-02", DATABASE_URL=url)
        assert audit.status == 3
        assert BY_TRANSACTION in audit.err
        assert "Traceback" not in audit.err
        service = await run(DATABASE_URL=url, PORT="0", LOG_FORMAT="json", CHANNEL="console")
        assert service.status == 1
        assert BY_TRANSACTION in service.err


async def test_settings_of_a_session_survive_a_subscription(database_url: str) -> None:
    """What a consumer undoes when it leaves is its own only."""
    settings = load_settings(database_url=database_url, database_pool_min=1, database_pool_max=4)
    async with open_database(settings, SystemClock(), Metrics()) as pool:
        async with PostgresBroker(pool).consume(10):
            pass
        rows = [await pool.acquire() for _ in range(4)]
        shown = [await row.fetchval("SELECT current_setting('jit')") for row in rows]
        locks = await rows[0].fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        plans = [await row.fetchval("SELECT current_setting('plan_cache_mode')") for row in rows]
        for row in rows:
            await pool.release(row)
    assert shown == ["off"] * 4
    assert plans == ["auto"] * 4
    assert locks == 0


async def test_parameters_of_libpq_are_obeyed_or_named(database_url: str) -> None:
    """A URL as providers show it works; what is not obeyed is named, and nothing of it reaches the server."""
    url = f"{database_url}?sslmode=prefer&channel_binding=require&connect_timeout=7&keepalives=1&gssencmode=disable"
    url += "&application_name=mine&pgbouncer=true&connection_limit=5&statement_timeout=12345"
    async with connect_database(load_settings(database_url=url)) as pool:
        assert await pool.fetchval("SELECT current_setting('application_name')") == "mine"
        assert await pool.fetchval("SELECT current_setting('statement_timeout')") == "12345ms"
    check = await run("check", DATABASE_URL=url, CHANNEL="console")
    assert check.status == 0, check.out
    assert "channel_binding, connection_limit, keepalives, pgbouncer" in check.err


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("connect_timeout=soon", "connect_timeout='soon'"),
        ("sslmode=maybe", "sslmode='maybe'"),
        ("channel_binding=perhaps", "channel_binding='perhaps'"),
        ("keepalives_idle=-x", "keepalives_idle='-x'"),
        ("gssencmode=require", "gssencmode='require'"),
        ("target_session_attrs=primry", "target_session_attrs='primry'"),
        ("client_encoding=LATIN1", "client_encoding='LATIN1'"),
        ("connect_timeout=", "connect_timeout=''"),
        ("sslmode", "name=value"),
    ],
)
async def test_a_bad_value_of_a_known_parameter_ends_with_status_2(query: str, named: str) -> None:
    """The line names the variable, the parameter, its value and what is accepted, and shows no password."""
    result = await run("check", DATABASE_URL=f"postgresql://ada:secret@127.0.0.1:1/birthday?{query}")
    assert result.status == 2
    assert "DATABASE_URL=" in result.err
    assert named in result.err
    assert "accepted" in result.err
    assert "secret" not in result.err


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_hold_every_name_is_refused(
    postgres_server: PostgresServer, encoding: str
) -> None:
    """By `migrate`, `check` and the start, before anything is written."""
    await postgres_server.start()
    name = f"encoded_{encoding.lower()}_{datetime.now(UTC):%H%M%S%f}"
    administrator = await asyncpg.connect(postgres_server.url("postgres"))
    try:
        await administrator.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"  # no parameters there
        )
        url = postgres_server.url(name)
        migrate, check, service = (
            await run("migrate", DATABASE_URL=url),
            await run("check", DATABASE_URL=url),
            await run(DATABASE_URL=url, PORT="0", LOG_FORMAT="json", CHANNEL="console"),
        )
        assert (migrate.status, check.status, service.status) == (1, 1, 1)
        for said in (migrate.err, check.out, service.err):
            assert f"has the encoding {encoding}" in said
            assert "UTF8 is accepted" in said
    finally:
        await administrator.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await administrator.close()

"""DATABASE_URL that leads to a pooler, is pasted from a provider, or to a database with another encoding."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from io import StringIO
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.broker.postgres.links import CONSUMER_LOCK
from birthday.clock import SystemClock
from birthday.config import load_settings
from birthday.core.occasion import Rules
from birthday.errors import AwayError, InvalidInputError, UnavailableError
from birthday.operations.transfer.importing import ImportOptions, Target, import_chunks
from birthday.operations.transfer.records import Format
from birthday.service import Cutoff
from birthday.store.connection import borrow
from birthday.store.pool import make_pool
from birthday.store.refusals import Sifting
from birthday.store.sessions import SHARED_SESSION_ERRORS
from birthday.store.users import Planning
from birthday.telemetry.metrics import Metrics
from birthday.wiring.database import connect_database, connect_directly, open_database
from birthday.wiring.dependencies import try_dependencies
from tests.support.message_service import MessageService
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres import PostgresServer, pool_by_transaction
from tests.support.product import eventually
from tests.support.program import run, running
from tests.support.proxy import Proxy
from tests.support.users import TESTER

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


@pytest.mark.parametrize("past", ["direct", "polling"])
async def test_everything_works_behind_a_pooler_without_sessions(
    postgres_server: PostgresServer, message_service: MessageService, past: str
) -> None:
    """Two `migrate` at once, `check`, an import, and all roles, whose consumer has a session only past the pooler."""
    name = await postgres_server.create_database(migrated=False)
    direct = postgres_server.url(name)
    async with pgbouncer(direct, "transaction") as url:
        how = {"DATABASE_DIRECT_URL": direct} if past == "direct" else {"DATABASE_POOLER": "transaction"}
        settings = {"DATABASE_URL": url, "MESSAGE_SERVICE_URL": message_service.url, "SEND_AT": "00:00"} | how
        migrations = await asyncio.gather(*(run("migrate", **settings) for _ in range(2)))
        assert [each.status for each in migrations] == [0, 0], [each.err for each in migrations]
        assert sorted("nothing to be applied" in each.out for each in migrations) == [False, True]
        check = await run("check", **settings)
        assert check.status == 0, check.out
        asked_by_check = len(message_service.requests)
        assert BY_TRANSACTION in check.out
        assert "ALTER ROLE" in check.out
        assert ("polled, because DATABASE_DIRECT_URL is not set" in check.out) == (past == "polling")
        assert ("direct     past the pooler" in check.out) == (past == "direct")
        lines = (
            f"firstName,lastName,email,dateOfBirth,timezone\nAda,B,ada@example.com,{datetime.now(UTC):1990-%m-%d},UTC\n"
        )
        imported = await run("import", "-", stdin=lines, **settings)
        assert "1 users created" in imported.err, imported.err
        rehearsed = await run("import", "-", "--dry-run", stdin=lines, **settings)
        assert rehearsed.status == 0, rehearsed.err
        async with running(**settings) as program:
            await message_service.wait_for(asked_by_check + 1)
            server = await asyncpg.connect(direct)
            try:
                await _dry_run_with_writers(program.url, server, 0 if past == "direct" else 1)
                held = await server.fetchval("SELECT count(*) FROM pg_locks WHERE objid = $1", CONSUMER_LOCK)
                shown = await server.fetchval("SELECT count(*) FROM queue_consumers")
            finally:
                await server.close()
            assert (held, shown) == ((1, 0) if past == "direct" else (0, 1))
            assert await program.stop() == 0
        complaints = [event for event in program.events if event["level"] not in {"info", "debug"}]
        # On a busy machine, it may take a second to connect, which the start tells.
        assert [event for event in complaints if "has not answered yet" not in event.get("reason", "")] == []
        assert len(message_service.requests) == asked_by_check + 1
    await postgres_server.drop_database(name)


async def test_a_direct_url_to_another_database_is_refused(
    postgres_server: PostgresServer, database_url: str, pooler_url: str
) -> None:
    """A worker that listened there would hear of no message."""
    name = await postgres_server.create_database()
    settings = load_settings(database_url=pooler_url, database_direct_url=postgres_server.url(name))
    async with connect_database(settings) as pool:
        with pytest.raises(UnavailableError, match="leads to another database"):
            async with connect_directly(settings, pool):
                pass
        async with connect_directly(load_settings(database_url=pooler_url, database_direct_url=database_url), pool):
            pass
    await postgres_server.drop_database(name)


async def test_migrate_refuses_a_direct_url_to_another_database(
    postgres_server: PostgresServer, pooler_url: str
) -> None:
    """Nothing is changed there. While the pooler is away, they cannot be compared: that causes a warning only."""
    name = await postgres_server.create_database(migrated=False)
    direct = postgres_server.url(name)
    refused = await run("migrate", DATABASE_URL=pooler_url, DATABASE_DIRECT_URL=direct)
    assert refused.status == 1
    assert "leads to another database than DATABASE_URL" in refused.err
    migrated = await run("migrate", DATABASE_URL="postgresql://ada@127.0.0.1:1/birthday", DATABASE_DIRECT_URL=direct)
    assert migrated.status == 0, migrated.err
    assert "0001_users_and_messages" in migrated.out
    assert "database.not_compared" in migrated.err
    await postgres_server.drop_database(name)


async def test_a_dry_run_refuses_a_direct_url_to_another_database(
    postgres_server: PostgresServer, database_url: str, pooler_url: str
) -> None:
    """Its result would be of other users than those of the import. A pooler that is away causes a warning only."""
    name = await postgres_server.create_database()
    lines = "firstName,lastName,email,dateOfBirth,timezone\nAda,B,ada@example.com,1990-01-01,UTC\n"
    rehearse = partial(run, "import", "-", "--dry-run", stdin=lines)
    refused = await rehearse(DATABASE_URL=pooler_url, DATABASE_DIRECT_URL=postgres_server.url(name))
    assert refused.status == 1
    assert "leads to another database than DATABASE_URL" in refused.err
    away = "postgresql://ada@127.0.0.1:1/birthday"
    rehearsed = await rehearse(DATABASE_URL=away, DATABASE_DIRECT_URL=database_url)
    assert rehearsed.status == 0, rehearsed.err
    assert "1 users would be created" in rehearsed.err
    assert "database.not_compared" in rehearsed.err
    await postgres_server.drop_database(name)


async def test_a_pooler_by_statement_is_refused(database_url: str) -> None:
    """Not even DATABASE_POOLER=transaction makes up for transactions."""
    async with pgbouncer(database_url, "statement") as url:
        with pytest.raises(UnavailableError, match="by statement"):
            async with connect_database(load_settings(database_url=url, database_pooler="transaction")):
                pass


async def test_a_pooler_that_stops_keeping_sessions_is_named(pooler_url: str) -> None:
    """The mode of a pooler may be changed while processes run: they say what is wrong."""

    async def ask_twice(pool: asyncpg.Pool, other: asyncpg.pool.PoolConnectionProxy) -> None:
        async with borrow(pool) as connection:
            await connection.fetchval("SELECT 1")
            async with other.transaction():
                await other.execute("SELECT")
                await connection.fetchval("SELECT 1")

    async with make_pool(pooler_url, None, min_size=2, max_size=2) as pool, pool.acquire() as other:
        with pytest.raises(UnavailableError, match=BY_TRANSACTION):
            await ask_twice(pool, other)


async def test_no_row_is_blamed_for_a_pooler_that_stops_keeping_sessions(pooler_url: str) -> None:
    """A lone row is not refused, although the same statement without rows works: it reaches another connection."""
    async with (
        make_pool(pooler_url, None, min_size=2, max_size=2) as pool,
        pool.acquire() as one,
        pool.acquire() as other,
    ):

        async def store(rows: Sequence[int]) -> list[int]:
            async with AsyncExitStack() as elsewhere:
                if rows:
                    await elsewhere.enter_async_context(other.transaction())
                    await other.execute("SELECT")
                return [row[0] for row in await one.fetch("SELECT unnest($1::int[])", rows)]

        assert await store(()) == []
        sifting = Sifting("store", [1], store)
        with pytest.raises(SHARED_SESSION_ERRORS):
            await sifting.run()
        assert sifting.refused == []


async def test_a_direct_server_that_goes_away_while_it_is_compared_is_waited_for(
    database_url: str, pooler_url: str
) -> None:
    """The start waits for it, as for any server that is away."""
    at = urlsplit(pooler_url)
    async with Proxy(str(at.hostname), at.port or 0) as between:
        url = at._replace(netloc=f"{at.username}@127.0.0.1:{between.port}").geturl()
        settings = load_settings(database_url=url, database_direct_url=database_url)
        async with connect_database(settings) as pool:
            await between.stop()
            with pytest.raises(AwayError, match="cannot compare DATABASE_DIRECT_URL"):
                async with connect_directly(settings, pool):
                    pass


async def test_check_names_a_database_that_goes_away_while_it_looks_at_the_pooler(pooler_url: str) -> None:
    """It is the failure of a dependency, and no error of ours."""
    at = urlsplit(pooler_url)
    async with Proxy(str(at.hostname), at.port or 0) as between:
        url = at._replace(netloc=f"{at.username}@127.0.0.1:{between.port}").geturl()
        settings = load_settings(database_url=url, database_pooler="transaction", channel="console")
        between.hold_at(b"ALTER ROLE")
        checking = asyncio.create_task(try_dependencies(settings, SystemClock(), StringIO()))
        async with asyncio.timeout(30):
            await between.holding.wait()
            await between.stop()
            found = {each.name: each.error for each in await checking}
    assert found["database"]


async def test_a_dry_run_that_is_one_transaction_ends_in_time(pooler_url: str) -> None:
    """A client that sends slowly cannot hold up the feed: the error names the limit and the way out."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"{}\n"
        await asyncio.get_running_loop().create_future()

    async def tell(*_: object) -> None:
        pass

    options = ImportOptions(dry_run=True, dry_run_limit=timedelta(milliseconds=100))
    planning = Planning(Rules(), timedelta(hours=48))
    async with pool_by_transaction(pooler_url) as pool, pool.acquire() as connection:
        target = Target(connection, SystemClock(), planning, TESTER, tell, options)
        async with asyncio.timeout(30):
            with pytest.raises(InvalidInputError, match=r"may take 0\.1 s.*DATABASE_DIRECT_URL"):
                await import_chunks(chunks(), Format.NDJSON, target)
        assert not connection.is_in_transaction()


async def test_a_stop_that_is_cut_off_leaves_no_connection(database_url: str, pooler_url: str) -> None:
    """It terminates what leads through the pooler and what leads past it."""
    async with pool_by_transaction(pooler_url) as pool, make_pool(database_url, None, min_size=1, max_size=1) as direct:
        one, other = await pool.acquire(), await direct.acquire()
        gone = [asyncio.Event(), asyncio.Event()]
        one.add_termination_listener(lambda _: gone[0].set())
        other.add_termination_listener(lambda _: gone[1].set())
        Cutoff(timedelta()).start([pool, direct], [])
        async with asyncio.timeout(30):
            await asyncio.gather(*(each.wait() for each in gone))


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


async def _dry_run_with_writers(url: str, server: asyncpg.Connection, writers: int) -> None:
    """Make sure that the feed waits for so many transactions while a client sends the lines of a dry run."""
    counted = asyncio.Event()
    count = "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = current_database()"

    async def are_so_many() -> bool:
        return bool(await server.fetchval(count) == writers)

    async def lines() -> AsyncIterator[bytes]:
        yield b"{}\n"
        await counted.wait()

    headers = {"Content-Type": "application/x-ndjson"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as client,
        client.post(f"{url}/users/import?dryRun=true", data=lines(), headers=headers) as answer,
    ):
        await answer.content.readline()
        # Other parts of the program write as well, but not for long.
        await eventually(are_so_many, f"{writers} transactions write", 15)
        counted.set()
        assert b'"complete":true' in await answer.content.read()

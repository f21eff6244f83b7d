"""The migration runner on a real server: order, atomicity, checksums, two at once, and taking back."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from birthday.core.address import parse_address
from birthday.errors import MigrationError, UnavailableError
from birthday.store.feed import BEGINNING, FeedFilter, read_feed
from birthday.store.migration_lock import locked
from birthday.store.migrations import (
    Loss,
    Migration,
    MigrationState,
    PendingMigrationError,
    State,
    check_schema,
    foresee_rollback,
    load_migrations,
    migrate,
    rollback,
    status,
)
from tests.support.phases import IN_FLIGHT, INSERTION, PHASES
from tests.support.postgres import PostgresServer, postgres_programs
from tests.support.product import eventually

NOW = datetime(2026, 3, 1, 12, 30, 45, tzinfo=UTC)
CREATE_A = Migration(1, "create_a", "CREATE TABLE a (id int);", "DROP TABLE a;")
CREATE_B = Migration(2, "create_b", "CREATE TABLE b (id int);", "DROP TABLE b;")
CONDITION = "processes of 0.1.0 must have ended."
DROP_A = Migration(
    2,
    "drop_a",
    f"-- Contract: {CONDITION}\nDROP TABLE a;",
    "-- Lost: rows of b | SELECT count(*) FROM b\nCREATE TABLE a (id int);",
)
CREATE_C = Migration(3, "create_c", "CREATE TABLE c (id int);", "DROP TABLE c;")
FAILING = Migration(2, "failing", "CREATE TABLE b (id int);\n\nSELECT nothing;\n", "DROP TABLE b;")


@pytest.fixture
async def empty_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """Return the URL of a database that has no schema, and is removed after the test."""
    await postgres_server.start()
    name = await postgres_server.create_database(migrated=False)
    yield postgres_server.url(name)
    await postgres_server.drop_database(name)


@pytest.fixture
async def connection(empty_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Return a connection to a database that has no schema."""
    connection = await asyncpg.connect(empty_url)
    yield connection
    await connection.close()


def _dump(url: str) -> list[str]:
    """Return the schema as pg_dump writes it, without the key that each dump makes up."""
    command = [str(postgres_programs() / "pg_dump"), "--schema-only", "--no-owner", url]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))]


async def pending(connection: asyncpg.Connection, migrations: list[Migration]) -> list[Migration]:
    """Return what is still to be applied, in order."""
    labels = {one.label for one in await status(connection, migrations) if one.state is State.PENDING}
    return [migration for migration in migrations if migration.label in labels]


async def test_nobody_waits_behind_a_migration_that_waits_for_a_table(
    connection: asyncpg.Connection, empty_url: str
) -> None:
    """A dump reads the table for long: meanwhile it can be written to, and the migration comes after the dump."""
    await connection.execute("CREATE TABLE a (id int)")
    adding = Migration(1, "add", "ALTER TABLE a ADD COLUMN more int;", "ALTER TABLE a DROP COLUMN more;")
    dump, writer = await asyncpg.connect(empty_url), await asyncpg.connect(empty_url)
    try:
        async with dump.transaction():
            await dump.execute("LOCK TABLE a IN ACCESS SHARE MODE")
            migrating = asyncio.create_task(migrate(connection, [adding], NOW))
            waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'a'::regclass)"
            await eventually(lambda: dump.fetchval(waiting), "the migration waits for the table")
            async with asyncio.timeout(60):
                await writer.execute("INSERT INTO a VALUES (1)")
            assert not migrating.done()
        assert await migrating == [adding]
        assert await writer.fetchval("SELECT more FROM a") is None
        async with dump.transaction():
            await dump.execute("LOCK TABLE a IN ACCESS SHARE MODE")
            with pytest.raises(MigrationError, match="lock timeout"):
                await rollback(connection, [adding], patience=0.1)
    finally:
        await dump.close()
        await writer.close()


async def test_a_migration_that_ends_a_deadlock_is_tried_again(connection: asyncpg.Connection, empty_url: str) -> None:
    """Somebody who has locked the same tables in another order goes on, and the migration comes afterwards."""
    await connection.execute("CREATE TABLE a (id int); CREATE TABLE b (id int); SET deadlock_timeout = '300ms'")
    adding = Migration(1, "add", "ALTER TABLE a ADD COLUMN more int; ALTER TABLE b ADD COLUMN more int;", "SELECT 1;")
    writer = await asyncpg.connect(empty_url, server_settings={"deadlock_timeout": "1min"})
    try:
        async with writer.transaction():
            await writer.execute("INSERT INTO b VALUES (1)")
            migrating = asyncio.create_task(migrate(connection, [adding], NOW))
            waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'b'::regclass)"
            await eventually(lambda: writer.fetchval(waiting), "the migration waits for the second table")
            await writer.execute("INSERT INTO a VALUES (1)")
        assert await migrating == [adding]
    finally:
        await writer.close()


async def test_no_migration_locks_users_and_messages_at_once(connection: asyncpg.Connection) -> None:
    """Nor does its rollback: programs lock the two in either order, and one of them would be the victim."""
    await connection.execute("CREATE TABLE held (relation text)")
    note = """;
        INSERT INTO held SELECT DISTINCT relation::regclass FROM pg_locks
        WHERE pid = pg_backend_pid() AND relation IN ('users'::regclass, 'message_logs'::regclass)
          AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    """
    # Those of 0.1.0 are left out: they run before the first program does.
    later = [replace(one, up=one.up + note, down=one.down + note) for one in load_migrations()[12:]]
    both = []
    migrations = load_migrations()[:12]
    await migrate(connection, migrations, NOW)
    for one in later:
        migrations.append(one)
        await migrate(connection, migrations, NOW, contract=True)
        if await connection.fetchval("WITH gone AS (DELETE FROM held RETURNING 1) SELECT count(*) FROM gone") > 1:
            both.append(f"{one.label}.up.sql")
    for one in reversed(later):
        await rollback(connection, migrations)
        if await connection.fetchval("WITH gone AS (DELETE FROM held RETURNING 1) SELECT count(*) FROM gone") > 1:
            both.append(f"{one.label}.down.sql")
    assert both == []


async def _tables(connection: asyncpg.Connection) -> set[str]:
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row["tablename"] for row in rows} - {"schema_migrations"}


async def test_up_down_up_gives_the_same_schema(empty_url: str, connection: asyncpg.Connection) -> None:
    """Taking every migration back leaves nothing, and applying them again gives what there was."""
    migrations = load_migrations()
    assert await migrate(connection, migrations, NOW) == migrations
    first = _dump(empty_url)
    assert any("CREATE TABLE public.message_logs" in line for line in first)

    assert await rollback(connection, migrations, len(migrations)) == migrations[::-1]
    left = [line for line in _dump(empty_url) if line.startswith("CREATE")]
    assert left == ["CREATE TABLE public.schema_migrations ("]

    assert await migrate(connection, migrations, NOW) == migrations
    assert _dump(empty_url) == first


async def test_each_step_back_undoes_exactly_one_migration(empty_url: str, connection: asyncpg.Connection) -> None:
    """After each down file the schema is what it was before its up file."""
    migrations = load_migrations()
    dumps = []
    for count in range(1, len(migrations) + 1):
        dumps.append(_dump(empty_url) if count > 1 else [])
        await migrate(connection, migrations[:count], NOW, contract=True)
    for before in dumps[:0:-1]:
        await rollback(connection, migrations)
        assert _dump(empty_url) == before


async def test_addresses_of_before_get_the_spelling_of_now(connection: asyncpg.Connection) -> None:
    """Domains as DNS has them, as Python's encoder writes them; of two users with one address the second keeps his."""
    migrations = load_migrations()
    addresses = next(number for number, each in enumerate(migrations) if each.name == "addresses")
    await migrate(connection, migrations[:addresses], NOW)
    domains = (
        "münchen.de",
        "FAß.de",
        "пример.рф",
        "例え.テスト",
        "xn--mnchen-3ya.de",
        "Example.com",
        "sub.BÜCHER.example",
        "\N{FULLWIDTH LATIN SMALL LETTER U}ü.de",
        "παράδειγμα.ελ",
        "한국.kr",
        "ليهمابتكلموشعربي.eg",
        "mu\u0308nchen.at",
    )
    before = [f"{number}@{domain}" for number, domain in enumerate(domains)]
    before += ["JOSE\u0301@example.com", "twin@xn--mnchen-3ya.de", "twin@münchen.de", "a\u200bb@münchen.de"]
    await connection.executemany(
        """
        INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from, created_at,
                           updated_at)
        VALUES (gen_random_uuid(), 'Ada', 'Lovelace', $1, '1990-01-01', 'UTC', $2, $2, $2)
        """,
        [(address, NOW) for address in before],
    )
    await migrate(connection, migrations[: addresses + 1], NOW)
    stored = {row["email"] for row in await connection.fetch("SELECT email FROM users")}
    kept = {"twin@münchen.de", "a\u200bb@münchen.de"}
    assert stored == {parse_address(address) for address in set(before) - kept} | kept


async def test_messages_of_before_get_their_phase(empty_url: str, connection: asyncpg.Connection) -> None:
    """All that are there, whatever their status; what is in flight gets the instant by which it is found.

    What others hold is passed over until they let go of it.
    """
    migrations = load_migrations()
    phases = next(number for number, each in enumerate(migrations) if each.name == "phases")
    await migrate(connection, migrations[:phases], NOW)
    await connection.executemany(INSERTION, [(status, NOW) for status in PHASES])
    await migrate(connection, migrations[: phases + 1], NOW)
    holder = await asyncpg.connect(empty_url)
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("SELECT FROM message_logs WHERE status = 'queued' FOR UPDATE")
        migrating = asyncio.create_task(migrate(connection, migrations, NOW))
        one_left = "SELECT count(*) = 1 FROM message_logs WHERE phase <> message_phase(status)"
        await eventually(lambda: holder.fetchval(one_left), "all others have their phase")
        assert not migrating.done()
        await transaction.commit()
        await migrating
    finally:
        await holder.close()
    rows = await connection.fetch("SELECT status, phase FROM message_logs")
    # What is delivered keeps the phase of before, because nothing looks for it.
    assert {row["status"]: row["phase"] for row in rows} == PHASES | {"delivered": "delivered"}
    found = await connection.fetch("SELECT m.status, f.queued_at FROM in_flight f JOIN message_logs m ON m.id = f.id")
    assert {row["status"]: row["queued_at"] for row in found} == dict.fromkeys(IN_FLIGHT, NOW)


async def test_outcomes_of_before_keep_their_places_in_the_feed(empty_url: str, connection: asyncpg.Connection) -> None:
    """Each is there once, also if the first attempt at it was interrupted, and if another outcome came meanwhile.

    And if a transaction that is older than the outcomes runs until after the migration.
    """
    older = await asyncpg.connect(empty_url)
    await older.execute("BEGIN; SELECT pg_current_xact_id()")
    migrations = load_migrations()
    tables = next(number for number, each in enumerate(migrations) if each.name == "settling_on_one_page")
    await migrate(connection, migrations[:tables], NOW)
    await connection.executemany(INSERTION, [("queued", NOW)] * 5)
    one = "(SELECT id FROM message_logs WHERE status = 'queued' LIMIT 1)"
    for outcome in ("delivered", "failed", "expired"):
        await connection.execute(f"UPDATE message_logs SET status = $1 WHERE id = {one}", outcome)  # noqa: S608
    await migrate(connection, migrations[: tables + 1], NOW)
    await connection.execute("UPDATE message_logs SET status = 'failed' WHERE status = 'queued'")
    for _ in range(2):
        await connection.execute("CALL fill_outcomes()")
    await migrate(connection, migrations[: tables + 2], NOW)
    await older.close()
    await migrate(connection, migrations, NOW)
    rows = await connection.fetch("SELECT id FROM message_logs ORDER BY feed_position, id")
    page = await read_feed(connection, BEGINNING, FeedFilter(), 10)
    assert [message.id for message in page.messages] == [row["id"] for row in rows]
    assert await connection.fetchval("SELECT count(*) FROM feed_entries") == len(rows) == 5


async def test_only_what_is_pending_is_applied(connection: asyncpg.Connection) -> None:
    """A migration is applied once; a second run finds nothing to do, and a third one what is new."""
    assert await migrate(connection, [CREATE_A], NOW) == [CREATE_A]
    assert await migrate(connection, [CREATE_A], NOW) == []
    assert await pending(connection, [CREATE_A, CREATE_B]) == [CREATE_B]
    assert await migrate(connection, [CREATE_A, CREATE_B], NOW) == [CREATE_B]
    assert await _tables(connection) == {"a", "b"}


async def test_a_failing_migration_leaves_nothing_of_it(connection: asyncpg.Connection) -> None:
    """What it did before it failed is undone, the one before it stays, and the error names file and line."""
    with pytest.raises(MigrationError, match='0002_failing failed in line 3, and was undone: column "nothing"'):
        await migrate(connection, [CREATE_A, FAILING], NOW)
    assert await _tables(connection) == {"a"}
    assert await pending(connection, [CREATE_A, FAILING]) == [FAILING]
    assert await migrate(connection, [CREATE_A, CREATE_B], NOW) == [CREATE_B]


async def test_a_failing_rollback_leaves_the_migration_applied(connection: asyncpg.Connection) -> None:
    """A down file that fails changes nothing."""
    broken = replace(CREATE_A, down="DROP TABLE a; DROP TABLE nowhere;")
    await migrate(connection, [broken], NOW)
    with pytest.raises(MigrationError, match="migration 0001_create_a failed, and was undone"):
        await rollback(connection, [broken])
    assert await _tables(connection) == {"a"}
    assert await pending(connection, [broken]) == []
    half = replace(broken, down="DROP INDEX CONCURRENTLY IF EXISTS one;\nDROP TABLE nowhere;")
    with pytest.raises(MigrationError, match="failed, and was undone, but for what runs outside of its transaction: "):
        await rollback(connection, [half])


async def test_rollback_takes_back_the_latest_ones(connection: asyncpg.Connection) -> None:
    """One is taken back unless more are asked for; more than there are means all of them."""
    migrations = [CREATE_A, CREATE_B]
    await migrate(connection, migrations, NOW)
    assert await rollback(connection, migrations) == [CREATE_B]
    assert await _tables(connection) == {"a"}
    assert await rollback(connection, migrations, 5) == [CREATE_A]
    assert await rollback(connection, migrations) == []


async def test_nothing_is_taken_back_of_an_empty_database(connection: asyncpg.Connection) -> None:
    """A database that was never migrated has nothing to take back, and everything pending."""
    assert await rollback(connection, [CREATE_A]) == []
    assert await pending(connection, [CREATE_A]) == [CREATE_A]
    assert [each.state for each in await status(connection, [CREATE_A])] == [State.PENDING]


async def test_status_tells_where_every_migration_stands(connection: asyncpg.Connection) -> None:
    """Applied, changed, pending and unknown are told apart, with the instant of the clock that was passed in."""
    of_newer_program = Migration(3, "newer", "SELECT 1;", "SELECT 1;")
    await migrate(connection, [CREATE_A, CREATE_B, of_newer_program], NOW)
    changed = replace(CREATE_B, up="CREATE TABLE b (id bigint);")
    statuses = await status(connection, [CREATE_A, changed])
    assert [(each.version, each.name, each.applied_at, each.state) for each in statuses] == [
        (1, "create_a", NOW, State.APPLIED),
        (2, "create_b", NOW, State.CHANGED),
        (3, "newer", NOW, State.UNKNOWN),
    ]


async def test_a_changed_file_stops_the_runner(connection: asyncpg.Connection) -> None:
    """Nothing is applied on top of a migration that is not what was applied; rolling it back is the way out."""
    await migrate(connection, [CREATE_A], NOW)
    changed = replace(CREATE_A, up="CREATE TABLE a (id bigint);")
    with pytest.raises(
        MigrationError,
        match=r"schema/0001_create_a\.up\.sql has changed since 2026-03-01 12:30:45 UTC, when it was applied",
    ):
        await migrate(connection, [changed, CREATE_B], NOW)
    assert await _tables(connection) == {"a"}

    assert await rollback(connection, [changed]) == [changed]
    assert await migrate(connection, [changed, CREATE_B], NOW) == [changed, CREATE_B]


async def test_a_newer_database_is_not_migrated(connection: asyncpg.Connection) -> None:
    """A program that does not know the latest migration neither adds to it nor takes it back."""
    await migrate(connection, [CREATE_A, CREATE_B], NOW)
    with pytest.raises(MigrationError, match="migration 0002_create_b, which this program does not know: it is newer"):
        await migrate(connection, [CREATE_A], NOW)
    with pytest.raises(
        MigrationError, match="migration 0002_create_b is of a newer program: take it back with that one"
    ):
        await rollback(connection, [CREATE_A])
    assert await _tables(connection) == {"a", "b"}


async def test_a_migration_is_not_slipped_in_before_applied_ones(connection: asyncpg.Connection) -> None:
    """The order in which migrations are applied is the order of their versions, in every database."""
    await migrate(connection, [CREATE_A, CREATE_B], NOW)
    await connection.execute("DELETE FROM schema_migrations WHERE version = 1")
    with pytest.raises(MigrationError, match="0002_create_b has been applied, and 0001_create_a, which comes before"):
        await migrate(connection, [CREATE_A, CREATE_B], NOW)


async def test_a_start_needs_every_migration(connection: asyncpg.Connection) -> None:
    """The program refuses a schema that lacks something, with the command that helps."""
    await migrate(connection, [CREATE_A], NOW)
    with pytest.raises(MigrationError, match="the database lacks 0002_create_b: run `birthday migrate`"):
        await check_schema(connection, [CREATE_A, CREATE_B])
    assert await check_schema(connection, [CREATE_A]) == []


async def test_a_schema_that_belongs_to_another_role_is_told_from_one_that_is_missing(
    connection: asyncpg.Connection,
) -> None:
    """After a restore by an operator the service is told whose the tables are, and what mends it."""
    migrations = load_migrations()
    await migrate(connection, migrations, NOW)
    await connection.execute("CREATE ROLE oncall_migrate; CREATE ROLE service_migrate")
    try:
        for table in ("schema_migrations", "users", "message_logs"):
            await connection.execute(f"ALTER TABLE {table} OWNER TO oncall_migrate")
        await connection.execute("SET ROLE service_migrate")
        with pytest.raises(MigrationError, match="may not read message_logs, schema_migrations, users: they belong to"):
            await check_schema(connection, migrations)
        await connection.execute(
            "RESET ROLE; REASSIGN OWNED BY oncall_migrate TO service_migrate; SET ROLE service_migrate"
        )
        assert await check_schema(connection, migrations) == []
        await connection.execute("RESET ROLE")
    finally:
        await connection.execute("RESET ROLE; DROP OWNED BY service_migrate, oncall_migrate CASCADE")
        await connection.execute("DROP ROLE service_migrate, oncall_migrate")


async def test_a_start_on_a_newer_schema_is_possible(connection: asyncpg.Connection) -> None:
    """A program that was rolled back runs on the schema of its successor, and is told of the difference."""
    await migrate(connection, [CREATE_A, CREATE_B], NOW)
    assert await check_schema(connection, [CREATE_A]) == [MigrationState(2, "create_b", NOW, State.UNKNOWN)]


async def test_a_long_migration_may_take_longer_than_other_statements(empty_url: str) -> None:
    """The limit that a connection has for statements does not end a migration."""
    slow = replace(CREATE_A, up="CREATE TABLE a (id int); SELECT pg_sleep(1.3);")
    connection = await asyncpg.connect(empty_url, command_timeout=1)
    try:
        assert await migrate(connection, [slow], NOW) == [slow]
    finally:
        await connection.close()


async def test_a_runner_that_waits_behind_a_pooler_is_not_waited_for(empty_url: str) -> None:
    """CREATE INDEX CONCURRENTLY of the one before it waits for transactions, so while it waits it stays in none."""

    async def wait_for_lock(keeper: asyncpg.pool.PoolConnectionProxy) -> None:
        async with locked(keeper, keeper, 30):
            pass

    async with (
        asyncpg.create_pool(empty_url, min_size=2, max_size=2) as pool,
        pool.acquire() as first,
        pool.acquire() as second,
        asyncio.TaskGroup() as group,
        locked(first, first, 1),
    ):
        group.create_task(wait_for_lock(second))

        async def has_asked() -> bool:
            # What a transaction has seen of other sessions stays as it is until its end.
            await first.execute("SELECT pg_stat_clear_snapshot()")
            asked = "SELECT state = 'idle' AND query = 'COMMIT;' FROM pg_stat_activity WHERE pid = $1"
            return bool(await first.fetchval(asked, second.get_server_pid()))

        await eventually(has_asked, "the second runner has asked, and is in no transaction", 20)


async def test_two_runners_at_once_apply_each_migration_once(empty_url: str) -> None:
    """Processes that start together take turns: between them each migration is applied once, and none fails."""
    migrations = load_migrations()

    async def run() -> list[Migration]:
        connection = await asyncpg.connect(empty_url)
        try:
            return await migrate(connection, migrations, NOW)
        finally:
            await connection.close()

    done = await asyncio.gather(*(run() for _ in range(4)))
    assert sorted(migration.label for each in done for migration in each) == [each.label for each in migrations]


async def test_a_runner_waits_for_another_one_only_so_long(empty_url: str, connection: asyncpg.Connection) -> None:
    """A runner gives up while another one is at work, with a clear error; the end of that session makes it free."""
    other = await asyncpg.connect(empty_url)
    pid = other.get_server_pid()
    slow = asyncio.create_task(migrate(other, [replace(CREATE_A, up="SELECT pg_sleep(60);")], NOW))

    sleeping = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1"
    await eventually(lambda: connection.fetchval(sleeping, pid), "the other runner is at work")
    with pytest.raises(MigrationError, match=r"another process has been migrating this database for more than 0\.1 s"):
        await migrate(connection, [CREATE_A], NOW, patience=0.1)

    await connection.execute("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises(UnavailableError, match="the connection was lost during migration 0001_create_a"):
        await slow
    assert await migrate(connection, [CREATE_A], NOW) == [CREATE_A]


async def test_an_index_is_built_while_others_write(connection: asyncpg.Connection, empty_url: str) -> None:
    """A statement that says CONCURRENTLY waits for open transactions, and no writer waits; a retry builds anew."""
    await connection.execute("CREATE TABLE a (id int); INSERT INTO a VALUES (1), (1)")
    indexed = Migration(
        1,
        "index",
        "DROP INDEX CONCURRENTLY IF EXISTS one;\nCREATE UNIQUE INDEX CONCURRENTLY one ON a (id);\nCREATE TABLE b ();",
        "DROP INDEX CONCURRENTLY one;\nDROP TABLE b;",
    )
    with pytest.raises(MigrationError, match="duplicated"):
        await migrate(connection, [indexed], NOW)
    assert await _tables(connection) == {"a"}
    await connection.execute("DELETE FROM a")
    older, writer = await asyncpg.connect(empty_url), await asyncpg.connect(empty_url)
    try:
        async with older.transaction():
            await older.execute("INSERT INTO a VALUES (2)")
            migrating = asyncio.create_task(migrate(connection, [indexed], NOW))
            waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
            await eventually(lambda: writer.fetchval(waiting), "the migration waits for the transaction")
            async with asyncio.timeout(60):
                await writer.execute("INSERT INTO a VALUES (3)")
            assert not migrating.done()
        assert await migrating == [indexed]
        assert await writer.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'one'::regclass")
        await rollback(connection, [indexed])
        assert await _tables(connection) == {"a"}
    finally:
        await older.close()
        await writer.close()


async def test_a_migration_may_have_nothing_but_what_runs_concurrently(connection: asyncpg.Connection) -> None:
    """Beside it there is only a comment, as in a contract migration that drops an index; and the same taken back."""
    await connection.execute("CREATE TABLE a (id int); CREATE INDEX one ON a (id)")
    dropping = Migration(
        1,
        "drop_one",
        f"-- Contract: {CONDITION}\nDROP INDEX CONCURRENTLY IF EXISTS one;\n",
        "-- As it was.\nDROP INDEX CONCURRENTLY IF EXISTS one;\nCREATE INDEX CONCURRENTLY one ON a (id);",
    )
    exists = "SELECT to_regclass('one') IS NOT NULL"
    assert await migrate(connection, [dropping], NOW) == [dropping]
    assert not await connection.fetchval(exists)
    assert await rollback(connection, [dropping]) == [dropping]
    assert await connection.fetchval(exists)


async def _states(connection: asyncpg.Connection, migrations: list[Migration]) -> list[State]:
    return [one.state for one in await status(connection, migrations)]


async def test_an_empty_database_gets_contract_migrations_at_once(connection: asyncpg.Connection) -> None:
    """No program runs on it yet. The same holds after everything was taken back."""
    migrations = [CREATE_A, DROP_A, CREATE_C]
    assert await _states(connection, migrations) == [State.PENDING] * 3
    with pytest.raises(PendingMigrationError, match="lacks 0001_create_a, 0002_drop_a, 0003_create_c: run"):
        await check_schema(connection, migrations)
    for _ in range(2):
        assert await migrate(connection, migrations, NOW) == migrations
        assert await migrate(connection, migrations, NOW) == []
        assert await _tables(connection) == {"c"}
        assert await rollback(connection, migrations, 3) == migrations[::-1]


async def test_a_contract_migration_waits_until_it_is_asked_for(connection: asyncpg.Connection) -> None:
    """Those after it are applied meanwhile, the program runs before and after it, and a second request does nothing."""
    migrations = [CREATE_A, DROP_A, CREATE_C]
    await migrate(connection, [CREATE_A], NOW)
    assert await migrate(connection, migrations, NOW) == [CREATE_C]
    assert await migrate(connection, migrations, NOW) == []
    assert await _tables(connection) == {"a", "c"}
    assert await check_schema(connection, migrations) == []
    waiting = (await status(connection, migrations))[1]
    assert waiting == MigrationState(2, "drop_a", None, State.WAITING, CONDITION)
    assert waiting.advice == f"{CONDITION} Then run `birthday migrate --contract`."

    later = NOW + timedelta(days=1)
    assert await migrate(connection, migrations, later, contract=True) == [DROP_A]
    assert await migrate(connection, migrations, later, contract=True) == []
    assert await migrate(connection, migrations, later) == []
    assert await _tables(connection) == {"c"}
    assert await check_schema(connection, migrations) == []
    applied = (await status(connection, migrations))[1]
    assert applied == MigrationState(2, "drop_a", later, State.APPLIED, CONDITION)
    assert applied.advice == ""


async def test_all_at_once_comes_in_order(connection: asyncpg.Connection) -> None:
    """Asked for everything, the runner applies what is pending and what waits by version."""
    migrations = [CREATE_A, DROP_A, CREATE_C]
    await migrate(connection, [CREATE_A], NOW)
    assert await migrate(connection, migrations, NOW, contract=True) == [DROP_A, CREATE_C]


async def test_what_is_pending_beside_what_waits_is_told(connection: asyncpg.Connection) -> None:
    """A start names what is pending only; an ordinary migration before an applied one is still refused."""
    migrations = [CREATE_A, DROP_A, CREATE_C]
    await migrate(connection, [CREATE_A], NOW)
    with pytest.raises(PendingMigrationError) as refused:
        await check_schema(connection, migrations)
    assert refused.value.labels == ["0003_create_c"]
    await migrate(connection, migrations, NOW, contract=True)
    await connection.execute("DELETE FROM schema_migrations WHERE version = 1")
    with pytest.raises(MigrationError, match="0002_drop_a has been applied, and 0001_create_a, which comes before"):
        await migrate(connection, migrations, NOW, contract=True)


async def test_a_rollback_passes_over_what_waits(connection: asyncpg.Connection) -> None:
    """The latest applied one is taken back, and what waits goes on waiting."""
    migrations = [CREATE_A, CREATE_B, replace(DROP_A, version=3)]
    await migrate(connection, [CREATE_A], NOW)
    assert await migrate(connection, migrations, NOW) == [CREATE_B]
    assert await rollback(connection, migrations, contract=True) == []
    assert await rollback(connection, migrations) == [CREATE_B]
    assert await _states(connection, migrations) == [State.APPLIED, State.PENDING, State.WAITING]


async def test_contract_migrations_alone_are_taken_back_on_request(connection: asyncpg.Connection) -> None:
    """Although they were applied together with others that come after them, as on an empty database."""
    migrations = [CREATE_A, DROP_A, CREATE_C]
    await migrate(connection, migrations, NOW)
    await connection.execute("CREATE TABLE b (id int)")
    labels, _ = await foresee_rollback(connection, migrations, 2, contract=True)
    assert labels == ["0002_drop_a"]
    with pytest.raises(MigrationError, match="0002_drop_a is of a newer program"):
        await rollback(connection, [CREATE_A, CREATE_C], contract=True)
    assert await rollback(connection, migrations, 2, contract=True) == [DROP_A]
    assert await _states(connection, migrations) == [State.APPLIED, State.WAITING, State.APPLIED]


@pytest.mark.parametrize("clock", [timedelta(days=1), timedelta(0), timedelta(hours=-1)])
async def test_a_contract_migration_that_came_last_is_taken_back_first(
    connection: asyncpg.Connection, clock: timedelta
) -> None:
    """Then the previous program has what it uses, and the migration waits again. Clocks of hosts may differ."""
    migrations = [CREATE_A, DROP_A, CREATE_C]
    await migrate(connection, [CREATE_A], NOW - timedelta(days=1))
    await migrate(connection, migrations, NOW)
    await migrate(connection, migrations, NOW + clock, contract=True)
    await connection.execute("CREATE TABLE b AS SELECT 1 AS id")
    labels, losses = await foresee_rollback(connection, migrations, 1)
    assert labels == ["0002_drop_a"]
    assert losses == [Loss("0002_drop_a", "rows of b", 1)]
    assert await rollback(connection, migrations) == [DROP_A]
    assert await _tables(connection) == {"a", "b", "c"}
    assert await check_schema(connection, [CREATE_A, CREATE_C]) == []
    assert await _states(connection, migrations) == [State.APPLIED, State.WAITING, State.APPLIED]
    assert await rollback(connection, migrations, 2) == [CREATE_C, CREATE_A]

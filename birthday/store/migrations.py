"""The migration runner: numbered SQL files in ``schema/``, applied in order, each in a transaction of its own.

``NNNN_name.up.sql`` makes a change and ``NNNN_name.down.sql`` takes it back; neither has BEGIN or COMMIT. Statements
that say CONCURRENTLY, and calls of procedures, run first, one by one, outside of the transaction, so that nobody waits
for an index or for many rows; they may run again after a failure. The table ``schema_migrations`` says what has been
applied. Several runners may start at once: they take turns under the lock of ``migration_lock.py``.

The program also runs on a schema that is newer than itself, with a warning. So a deployment can be rolled back without
its schema, because the previous program still works after each migration. The exception is a contract migration, which
takes away what the previous program uses. Its first line says what must have happened before:
``-- Contract: processes of 0.1.0 must have ended.`` It waits until an operator asks for it, except on an empty
database, where no program runs yet. The program works before and after it.
"""

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import asyncpg
import structlog

from birthday.errors import MigrationError, UnavailableError
from birthday.store.connection import Connection
from birthday.store.migration_lock import LOCK_SECONDS, locked

log = structlog.get_logger()

_PAUSE_SECONDS: Final = 2.0
# Replaces the connection's limit for statements, because building an index on millions of rows takes long.
_MIGRATION_SECONDS: Final = 86_400.0
_WAITED_FOR_OTHERS: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
_LATER: Final = timedelta(microseconds=1)
_CONTRACT: Final = re.compile(r"-- Contract: (.+)")
_LOST: Final = re.compile(r"^-- Lost: (.+?) \| (SELECT .+)$", re.MULTILINE)
_OUTSIDE: Final = re.compile(r"^(?:(?:CREATE(?: UNIQUE)?|DROP) INDEX CONCURRENTLY|CALL) [^;]+;", re.MULTILINE)
_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.(up|down)\.sql")


class PendingMigrationError(MigrationError):
    """Migrations are still to be applied, in the ordinary course of a deployment. ``labels`` names them."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(f"the database lacks {', '.join(labels)}: run `birthday migrate`")
        self.labels = labels


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered change of the schema, and how it is taken back."""

    version: int
    name: str
    up: str
    down: str

    @property
    def label(self) -> str:
        """Its name as in the names of its files: ``0001_users_and_messages``."""
        return _label(self.version, self.name)

    @property
    def condition(self) -> str | None:
        """For a contract migration, what must have happened before it is applied; None for any other."""
        match = _CONTRACT.match(self.up)
        return match[1] if match else None

    @property
    def checksum(self) -> str:
        """The SHA-256 of what it does, in hex."""
        return hashlib.sha256(self.up.encode()).hexdigest()


class State(StrEnum):
    """The state of a migration in one database.

    APPLIED   its change has been made
    PENDING   its change is still to be made
    WAITING   a contract migration: its change is made when an operator asks for it
    CHANGED   its change was made, but its file has changed since
    UNKNOWN   its change was made by a newer program, and there is no such file here
    """

    APPLIED = "applied"
    PENDING = "pending"
    WAITING = "waiting"
    CHANGED = "changed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class MigrationState:
    """Where one migration stands in one database. ``applied_at`` is None until it is applied."""

    version: int
    name: str
    applied_at: datetime | None
    state: State
    condition: str | None = None

    @property
    def label(self) -> str:
        """The name of the migration as in the names of its files."""
        return _label(self.version, self.name)

    @property
    def advice(self) -> str:
        """What an operator has to do, in a sentence; empty unless the migration waits."""
        return f"{self.condition} Then run `birthday migrate --contract`." if self.state is State.WAITING else ""


def schema_directory() -> Traversable:
    """Return the directory with the migrations: inside the package when installed, beside it in a checkout."""
    installed = files("birthday") / "schema"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "schema"


def load_migrations(directory: Traversable | None = None) -> list[Migration]:
    """Read the migrations in ``directory``, by default those of this program, in order.

    Raises:
        MigrationError: if a file is missing or misnamed, or the versions are not 1, 2, 3 and so on, each once.
    """
    texts: dict[tuple[int, str], dict[str, str]] = {}
    directory = directory or schema_directory()
    for file in directory.iterdir():
        if not file.name.endswith(".sql"):
            continue
        match = _FILE_NAME.fullmatch(file.name)
        if not match:
            raise MigrationError(f"schema/{file.name}: a name such as 0001_what_it_does.up.sql is accepted")
        texts.setdefault((int(match[1]), match[2]), {})[match[3]] = file.read_text(encoding="utf-8")
    if not texts:
        raise MigrationError(f"there are no migrations in {directory}")
    migrations = []
    for expected, ((version, name), text) in enumerate(sorted(texts.items()), start=1):
        label = _label(version, name)
        if version != expected:
            raise MigrationError(
                f"schema/{label}: {expected:04} is expected here; versions have no gaps and occur once"
            )
        for direction in ("up", "down"):
            if direction not in text:
                raise MigrationError(f"schema/{label}.{direction}.sql is missing")
        migrations.append(Migration(version, name, text["up"], text["down"]))
    return migrations


async def migrate(
    connection: Connection,
    migrations: Sequence[Migration],
    now: datetime,
    *,
    contract: bool = False,
    keeper: Connection | None = None,
    patience: float = LOCK_SECONDS,
) -> list[Migration]:
    """Apply the pending migrations and return them; ``now`` is stored as the time. A failing one is undone as a whole.

    With ``contract``, apply the waiting ones as well. If a stored time is not before ``now``, the next instant after it
    is stored.

    Raises:
        MigrationError: if one fails (those before it stay), if an applied one is unknown here, has changed or comes
            after a pending one, or if another runner holds the lock for more than ``patience`` seconds.
        UnavailableError: if the connection is lost; the migration that was under way may have been applied or not.
    """
    async with locked(connection, keeper, patience):
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version integer PRIMARY KEY, name text NOT NULL, "
            "checksum text NOT NULL, applied_at timestamptz NOT NULL)"
        )
        applied = await _read_applied(connection)
        states = _compare(migrations, applied)
        _check_order(states)
        wanted = {State.PENDING, State.WAITING} if contract else {State.PENDING}
        versions = {each.version for each in states if each.state in wanted}
        done = [migration for migration in migrations if migration.version in versions]
        # A rollback goes by this time, so each run has a later one, whatever the clocks of hosts say.
        now = max([now, *(row["applied_at"] + _LATER for row in applied.values())])
        insertion = "INSERT INTO schema_migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)"
        for migration in done:
            record = (insertion, migration.version, migration.name, migration.checksum, now)
            await _change(connection, migration, migration.up, patience, *record)
            log.info("migration.applied", migration=migration.label)
    return done


async def rollback(
    connection: Connection,
    migrations: Sequence[Migration],
    count: int = 1,
    *,
    contract: bool = False,
    keeper: Connection | None = None,
    patience: float = LOCK_SECONDS,
) -> list[Migration]:
    """Take back the last ``count`` applied migrations, latest first, and return them; with ``contract``, of that kind.

    A contract migration may have been applied later than those that come after it, and is then taken back before them.
    A migration whose file has changed can be rolled back too; this is how to bring in such a change.

    Raises:
        MigrationError: if one fails (those after it stay taken back), if this program does not know it, or if another
            runner holds the lock for more than ``patience`` seconds.
        UnavailableError: if the connection is lost.
    """
    known = {migration.version: migration for migration in migrations}
    async with locked(connection, keeper, patience):
        applied = await _read_applied(connection)
        last = _latest(applied, migrations, count, contract=contract)
        for version in last:
            if version not in known:
                label = _label(version, applied[version]["name"])
                raise MigrationError(f"migration {label} is of a newer program: take it back with that one")
        for version in last:
            deletion = "DELETE FROM schema_migrations WHERE version = $1"
            await _change(connection, known[version], known[version].down, patience, deletion, version)
            log.info("migration.rolled_back", migration=known[version].label)
    return [known[version] for version in last]


@dataclass(frozen=True, slots=True)
class Loss:
    """What a rollback of one migration would destroy: ``count`` of ``what``. A migration may lose nothing."""

    label: str
    what: str
    count: int


async def foresee_rollback(
    connection: Connection, migrations: Sequence[Migration], count: int, *, contract: bool = False
) -> tuple[list[str], list[Loss]]:
    """Return the labels of what ``rollback`` would take back, latest first, and the data that would be lost, counted.

    The ``down.sql`` of a migration says what is lost: ``-- Lost: WHAT | SELECT count(*) ...``.
    """
    applied = await _read_applied(connection)
    by_version = {migration.version: migration for migration in migrations}
    last = _latest(applied, migrations, count, contract=contract)
    losses = [
        Loss(by_version[version].label, what, await connection.fetchval(query))
        for version in last
        if version in by_version
        for what, query in _LOST.findall(by_version[version].down)
    ]
    return [_label(version, applied[version]["name"]) for version in last], losses


async def status(connection: Connection, migrations: Sequence[Migration]) -> list[MigrationState]:
    """Return where every migration stands that is known here or applied there, in order."""
    return _compare(migrations, await _read_applied(connection))


async def check_schema(connection: Connection, migrations: Sequence[Migration]) -> list[MigrationState]:
    """Make sure that the program can run on this schema, and return the differences that deserve a warning.

    Raises:
        MigrationError: if migrations are pending; the text names the command that applies them. Also if the role may
            not read the tables, for example because another role has restored them.
    """
    await _check_privileges(connection)
    statuses = await status(connection, migrations)
    missing = [each.label for each in statuses if each.state is State.PENDING]
    if missing:
        raise PendingMigrationError(missing)
    return [each for each in statuses if each.state not in {State.APPLIED, State.WAITING}]


async def _check_privileges(connection: Connection) -> None:
    row = await connection.fetchrow(
        """
        SELECT current_user AS role, pg_get_userbyid(relowner) AS owner,
               string_agg(relname, ', ' ORDER BY relname) AS tables
        FROM pg_class
        WHERE oid IN (to_regclass('schema_migrations'), to_regclass('users'), to_regclass('message_logs'))
          AND NOT has_table_privilege(oid, 'SELECT')
        GROUP BY relowner LIMIT 1
        """
    )
    if row is not None:
        raise MigrationError(
            f"the role {row['role']} may not read {row['tables']}: they belong to {row['owner']}. If that role has "
            f"restored them, a superuser mends it in this database: "
            f"REASSIGN OWNED BY {row['owner']} TO {row['role']}"
        )


async def _change(
    connection: Connection, migration: Migration, text: str, patience: float, record: str, *values: object
) -> None:
    """Execute ``text`` of a migration and record that, in one transaction, but for what is to run concurrently.

    The migration may have to wait for a long transaction that uses its table, such as a dump. Later statements on that
    table would wait behind the migration. So it waits for a few seconds only, lets those statements pass, and tries
    again, for ``patience`` seconds in all. So it does after a deadlock.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + patience
    while True:
        try:
            for statement in _OUTSIDE.findall(text):
                await connection.execute(statement, timeout=_MIGRATION_SECONDS)
            # A later statement sees what was committed while an earlier one waited for a lock.
            async with connection.transaction(isolation="read_committed"):
                await connection.execute("SET LOCAL lock_timeout = '3s'")
                # asyncpg fails on a text that has only comments; so it ends with a statement.
                rest = _OUTSIDE.sub(_blank, text) + "\n;SELECT 1"
                await connection.execute(rest, timeout=_MIGRATION_SECONDS)
                await connection.execute(record, *values)
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError) as error:
            raise UnavailableError("database", f"the connection was lost during migration {migration.label}") from error
        except asyncpg.PostgresError as error:
            if not isinstance(error, _WAITED_FOR_OTHERS) or loop.time() >= give_up_at:
                where = f" in line {text.count(chr(10), 0, int(error.position)) + 1}" if error.position else ""
                but = ", but for what runs outside of its transaction" if _OUTSIDE.search(text) else ""
                raise MigrationError(
                    f"migration {migration.label} failed{where}, and was undone{but}: {error}"
                ) from error
        else:
            return
        log.info("migration.waiting", migration=migration.label, reason="other transactions use its tables")
        await asyncio.sleep(_PAUSE_SECONDS)


def _blank(match: re.Match[str]) -> str:
    """Return the line feeds of a match, so that an error names the right line."""
    return "\n" * match[0].count("\n")


def _label(version: int, name: str) -> str:
    return f"{version:04}_{name}"


def _compare(migrations: Sequence[Migration], applied: Mapping[int, asyncpg.Record]) -> list[MigrationState]:
    statuses = {
        version: MigrationState(version, row["name"], row["applied_at"], State.UNKNOWN)
        for version, row in applied.items()
    }
    for one in migrations:
        row = applied.get(one.version)
        if row:
            state = State.APPLIED if row["checksum"] == one.checksum else State.CHANGED
        else:
            state = State.WAITING if one.condition and applied else State.PENDING
        applied_at = row["applied_at"] if row else None
        statuses[one.version] = MigrationState(one.version, one.name, applied_at, state, one.condition)
    return [statuses[version] for version in sorted(statuses)]


def _latest(
    applied: Mapping[int, asyncpg.Record], migrations: Sequence[Migration], count: int, *, contract: bool
) -> list[int]:
    """Return the versions that were applied last, latest first; with ``contract``, only of contract migrations.

    Those that are unknown here may be of either kind, so they count.
    """
    others = {each.version for each in migrations if each.condition is None} if contract else set()
    latest = sorted(applied, key=lambda version: (applied[version]["applied_at"], version), reverse=True)
    return [version for version in latest if version not in others][:count]


def _check_order(statuses: Sequence[MigrationState]) -> None:
    missing = ""
    for each in statuses:
        if each.state is State.UNKNOWN:
            raise MigrationError(
                f"the database has migration {each.label}, which this program does not know: it is newer"
            )
        if each.state is State.CHANGED:
            raise MigrationError(
                f"schema/{each.label}.up.sql has changed since {each.applied_at:%Y-%m-%d %H:%M:%S} UTC, when it was "
                "applied: restore it, and add another migration for the change"
            )
        if each.state is State.PENDING:
            missing = missing or each.label
        elif missing and each.state is State.APPLIED:
            raise MigrationError(
                f"migration {each.label} has been applied, and {missing}, which comes before it, has not"
            )


async def _read_applied(connection: Connection) -> dict[int, asyncpg.Record]:
    if not await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL"):
        return {}
    rows = await connection.fetch("SELECT version, name, checksum, applied_at FROM schema_migrations ORDER BY version")
    return {row["version"]: row for row in rows}

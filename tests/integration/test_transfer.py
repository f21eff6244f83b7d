"""Import and export against a real database: what goes in, what is refused, and that nothing is done twice."""

import asyncio
import csv
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from io import FileIO
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from birthday.cli.transfer import import_file as import_to_screen
from birthday.core.ident import uuid7
from birthday.core.occasion import LeapDay, Rules
from birthday.core.plan import planned_messages
from birthday.core.user import NO_EXTRAS, Extras, Profile
from birthday.errors import InvalidInputError, UnavailableError
from birthday.operations.suppressions import suppress_addresses
from birthday.operations.transfer.exporting import EXPORT_COLUMNS, export_users
from birthday.operations.transfer.importing import BATCH_ROWS, ImportOptions, ImportSummary, Mode, import_users
from birthday.operations.transfer.records import Format, Rejected
from birthday.operations.transfer.source import open_source
from birthday.store.changes import Actor
from birthday.store.connection import borrow
from birthday.store.transfer import Clash, StagedUser, find_clashes, stage_users, staging
from birthday.store.users import Planning, delete_user, profile_of
from tests.support.clock import ManualClock
from tests.support.product import eventually, is_waiting_for_a_lock
from tests.support.users import CSV_HEADER, TESTER, create_user, csv_line, make_profiles, write_csv, write_ndjson

PLANNING = Planning(Rules(), timedelta(hours=48))
ADA = Profile("Ada", "Lovelace", "ada@example.com", date(1990, 12, 10), "Europe/London")
WAIT_SECONDS = 30


async def import_file(
    pool: asyncpg.Pool,
    path: Path,
    clock: ManualClock | None = None,
    *,
    dry_run: bool = False,
    mode: Mode = Mode.CREATE,
) -> tuple[ImportSummary, dict[int, str]]:
    """Import a file; return what became of it, and what is wrong with the rejected lines."""
    rejected: list[Rejected] = []
    async with borrow(pool) as connection:
        with open_source(str(path)) as source:
            summary = await import_users(
                source,
                connection,
                clock or ManualClock(),
                PLANNING,
                TESTER,
                rejected.append,
                lambda _summary, _bytes: None,
                ImportOptions(mode, dry_run),
            )
    assert [each.line for each in rejected] == sorted(each.line for each in rejected)
    return summary, {each.line: str(InvalidInputError(*each.errors)) for each in rejected}


def none_rejected(rejected: Rejected) -> None:
    """Fail the import: all of its rows are good."""
    pytest.fail(str(rejected))


def write(path: Path, *lines: str) -> Path:
    """Write lines below the header of a CSV file."""
    path.write_text("\n".join([CSV_HEADER, *lines]) + "\n", encoding="utf-8")
    return path


async def stored_profiles(pool: asyncpg.Pool) -> set[Profile]:
    """Return all live users."""
    rows = await pool.fetch(
        """
        SELECT *, (SELECT json_object_agg(message_type, date) FROM anniversaries WHERE user_id = users.id) AS dates
        FROM users WHERE deleted_at IS NULL
        """
    )

    def dates(text: str | None) -> dict[str, date]:
        return {name: date.fromisoformat(on) for name, on in orjson.loads(text or "{}").items()}

    return {profile_of(row, dates(row["dates"])) for row in rows}


async def everything(pool: asyncpg.Pool) -> list[tuple[Any, ...]]:
    """Return every row of users, dates and messages, whole."""
    users = await pool.fetch("SELECT users.*, users.xmin FROM users ORDER BY id")
    dates = await pool.fetch("SELECT anniversaries.*, xmin FROM anniversaries ORDER BY user_id, message_type")
    messages = await pool.fetch("SELECT message_logs.*, message_logs.xmin FROM message_logs ORDER BY id")
    return [tuple(row) for row in (*users, *dates, *messages)]


@pytest.mark.parametrize("writer", [write_csv, write_ndjson])
async def test_every_user_of_a_file_is_created(
    pool: asyncpg.Pool, tmp_path: Path, writer: Callable[[Path, Iterable[Profile]], Path]
) -> None:
    """Over several batches, names, dates and zones arrive as they were written, fixed offsets included."""
    profiles = list(make_profiles(2 * BATCH_ROWS + 17))
    path = writer(tmp_path / "users", profiles)
    summary, rejected = await import_file(pool, path)
    assert rejected == {}
    assert (summary.created, summary.read, summary.unchanged) == (len(profiles), len(profiles), 0)
    assert await stored_profiles(pool) == set(profiles)


async def test_users_are_as_the_api_would_have_made_them(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """All instants are the clock's, the id is a UUID version 7 of that instant, and nothing else is set."""
    clock = ManualClock()
    await import_file(pool, write(tmp_path / "users.csv", csv_line(ADA)), clock)
    row = await pool.fetchrow("SELECT * FROM users")
    assert row is not None
    assert row["created_at"] == row["updated_at"] == row["schedule_from"] == clock.now()
    assert (row["greeted_year"], row["deleted_at"], row["birth_month_day"]) == (0, None, 1210)
    assert row["id"].version == 7
    assert row["id"].int >> 80 == int(clock.now().timestamp() * 1000)


async def test_good_rows_go_in_and_bad_rows_are_named(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Each bad row is reported by line with field, value and what is accepted; the others are users."""
    path = write(
        tmp_path / "users.csv",
        csv_line(ADA),
        "Bo,Ek,bo@example.com,1990-02-30,UTC,",
        "Cy,Ek,cy,1990-01-01,UTC,",
        '"Di,\nEk",Ek,di@example.com,1990-01-01,UTC,',
        "Ed,Ek,ed@example.com,1990-01-01,Europe/Berlim,",
        "Fo,Ek,fo@example.com,1990-01-01,,7",
        "Gi,Ek,gi@example.com,1990-01-01,UTC,420",
        "Hu",
        ",Ek,,1990-01-01,UTC,abc",
        "Io,Ek,io@example.com,2199-01-01,UTC,",
        csv_line(replace(ADA, email="last@example.com")),
    )
    summary, rejected = await import_file(pool, path)
    assert summary == ImportSummary(created=2, rejected=9)
    assert await stored_profiles(pool) == {ADA, replace(ADA, email="last@example.com")}
    # The quoted line break makes the record of line 5 two lines long.
    assert list(rejected) == [3, 4, 5, 7, 8, 9, 10, 11, 12]
    expected = {
        3: ["dateOfBirth: is not a date of the calendar", "YYYY-MM-DD is accepted"],
        4: ["email: is not an e-mail address"],
        5: ["firstName: ", "without control characters"],
        7: ["timezone: 'Europe/Berlim' is not a time zone", "did you mean Europe/Berlin"],
        8: ["timezoneOffset: 7 is not an offset", "420 is UTC+07:00"],
        9: ["exactly one of timezone and timezoneOffset is accepted"],
        10: ["has 1 cells; 6 are accepted"],
        11: ["firstName: is required", "email: is required", 'timezoneOffset: "abc" is not a whole number of minutes'],
        12: ["dateOfBirth: is outside of what is accepted"],
    }
    for line, texts in expected.items():
        assert [text for text in texts if text not in rejected[line]] == [], rejected[line]


async def test_bad_rows_of_ndjson_are_named_alike(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Broken JSON, unknown members and values of a wrong type cost their own row only."""
    good = orjson.dumps(ADA.as_input()).decode()
    path = tmp_path / "users.ndjson"
    path.write_text("\n".join([good, "{", '{"age": 7}', "7", good.replace('"Ada"', "7"), ""]), encoding="utf-8")
    summary, rejected = await import_file(pool, path)
    assert summary == ImportSummary(created=1, rejected=4)
    assert rejected[2].startswith("is not JSON: ")
    assert "age: is not a field of a user; accepted are firstName, lastName" in rejected[3]
    assert rejected[4] == "a JSON object is accepted"
    assert rejected[5] == "firstName: is not text"


@pytest.mark.parametrize("name", ["users.csv", "users.ndjson", "users"])
async def test_an_empty_file_imports_nothing(pool: asyncpg.Pool, tmp_path: Path, name: str) -> None:
    """It is no error: an export of an empty database is one."""
    path = tmp_path / name
    path.touch()
    assert await import_file(pool, path) == (ImportSummary(), {})
    assert await import_file(pool, write(tmp_path / "header.csv")) == (ImportSummary(), {})


async def test_a_wrong_header_imports_nothing(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """The whole file is refused with one error that names the missing column, and leaves the connection as it was."""
    path = tmp_path / "users.csv"
    path.write_text("firstName,lastName,email,timezone\nAda,Lovelace,ada@example.com,UTC\n")
    with pytest.raises(InvalidInputError, match="lacks the column dateOfBirth; accepted"):
        await import_file(pool, path)
    assert await everything(pool) == []
    assert await pool.fetchval("SELECT count(*) FROM pg_class WHERE relpersistence = 't'") == 0


@pytest.mark.parametrize("dry_run", [False, True])
async def test_duplicates_within_a_file(pool: asyncpg.Pool, tmp_path: Path, *, dry_run: bool) -> None:
    """The first line with an address wins; the same again is unchanged, anything else an error that names that line."""
    path = write(
        tmp_path / "users.csv",
        "Bo,Ek,bo@example.com,1990-01-01,UTC,",
        csv_line(ADA),
        csv_line(replace(ADA, email="ADA@Example.com")),
        csv_line(replace(ADA, first_name="Eda", zone="UTC")),
        csv_line(ADA),
    )
    summary, rejected = await import_file(pool, path, dry_run=dry_run)
    assert summary == ImportSummary(created=2, unchanged=2, rejected=1)
    assert rejected == {
        5: "email: line 3 has this address too; fields differ: firstName, timezone; "
        "one user for each address is accepted"
    }


@pytest.mark.parametrize("dry_run", [False, True])
async def test_who_is_there_already_is_left_alone(pool: asyncpg.Pool, tmp_path: Path, *, dry_run: bool) -> None:
    """A row that agrees with the stored user is unchanged, whatever the case of its address; another is an error."""
    await import_file(pool, write(tmp_path / "before.csv", csv_line(ADA)))
    before = await everything(pool)
    path = write(
        tmp_path / "users.csv",
        csv_line(replace(ADA, email="Ada@EXAMPLE.com")),
        csv_line(replace(ADA, last_name="Byron", date_of_birth=date(1991, 12, 10))),
    )
    summary, rejected = await import_file(pool, path, dry_run=dry_run)
    assert summary == ImportSummary(unchanged=1, rejected=1)
    assert rejected == {
        3: "email: another user has this address; fields differ: lastName, dateOfBirth; "
        "an import creates users and changes none"
    }
    assert await everything(pool) == before


async def test_spellings_of_one_address_are_one_user(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """In a file, and beside who is there already: an export in an older spelling changes nothing."""
    path = write(
        tmp_path / "users.csv",
        csv_line(replace(ADA, email="ada@münchen.de")),
        csv_line(replace(ADA, email="ada@XN--mnchen-3ya.de")),
    )
    assert await import_file(pool, path) == (ImportSummary(created=1, unchanged=1), {})
    assert await import_file(pool, path) == (ImportSummary(unchanged=2), {})
    assert await stored_profiles(pool) == {replace(ADA, email="ada@xn--mnchen-3ya.de")}


@pytest.mark.parametrize("header", ["firstName,lastName,email,dateOfBirth,timezone", CSV_HEADER])
async def test_somebody_with_one_name_comes_and_goes_as_such(pool: asyncpg.Pool, tmp_path: Path, header: str) -> None:
    """The cell of lastName may be empty, and the column may be missing; an export can be imported again."""
    path = tmp_path / "users.csv"
    path.write_text("firstName,email,dateOfBirth,timezone\nSukarno,s@example.com,1990-06-06,Asia/Jakarta\n")
    assert await import_file(pool, path) == (ImportSummary(created=1), {})
    [profile] = await stored_profiles(pool)
    assert profile.last_name == ""
    path.write_text(f"{header}\nSukarno,,s@example.com,1990-06-06,Asia/Jakarta{',' * (header == CSV_HEADER)}\n")
    assert await import_file(pool, path) == (ImportSummary(unchanged=1), {})


async def test_an_import_revives_nobody_who_has_opted_out(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """A file from before the opt-out, even one with suppressed=false, creates the person as suppressed."""
    now = ManualClock().now()
    await suppress_addresses(pool, [ADA.email], "asked by phone", now, Actor("ada"), dry_run=False)
    line = f"{csv_line(ADA).replace('ada@', 'ADA@')},false"
    old = tmp_path / "old.csv"
    old.write_text(f"{CSV_HEADER},suppressed\n{line}\n", encoding="utf-8")
    summary, rejected = await import_file(pool, old)
    assert (summary.created, rejected) == (1, {})
    assert await pool.fetchval("SELECT suppressed FROM users")


async def test_the_address_of_a_deleted_user_is_free(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Only live users have an address, as in the API."""
    path = write(tmp_path / "users.csv", csv_line(ADA))
    await import_file(pool, path)
    await delete_user(pool, await pool.fetchval("SELECT id FROM users"), ManualClock().now(), TESTER)
    assert await import_file(pool, path) == (ImportSummary(created=1), {})
    assert await pool.fetchval("SELECT count(*) FROM users") == 2


async def test_a_holder_who_is_gone_by_now_is_told_apart(pool: asyncpg.Pool) -> None:
    """Between being skipped and being compared, the user with the address may be deleted: no line is lost by that."""
    async with borrow(pool) as connection, staging(connection), connection.transaction():
        await stage_users(connection, [StagedUser(2, ADA)])
        assert await find_clashes(connection, [2]) == [Clash(2, None, [])]


async def test_importing_a_file_again_changes_nothing(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """The second time every user is unchanged, and nobody gets a second message."""
    clock = ManualClock()
    today = [replace(p, date_of_birth=date(1990, 3, 2)) for p in make_profiles(300, seed=2)]
    path = write_csv(tmp_path / "users.csv", [*make_profiles(BATCH_ROWS + 1), *today])
    first, _ = await import_file(pool, path, clock)
    assert first.created == first.read == BATCH_ROWS + 301
    assert first.messages_scheduled >= len(today)
    before = await everything(pool)
    clock.advance(timedelta(hours=3))
    assert await import_file(pool, path, clock) == (ImportSummary(unchanged=first.read), {})
    assert await everything(pool) == before


async def test_two_imports_of_one_file_at_once_create_each_user_once(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Neither fails: what the other one has created is unchanged, in whatever order the files are written."""
    profiles = list(make_profiles(3 * BATCH_ROWS))
    forwards = write_csv(tmp_path / "forwards.csv", profiles)
    backwards = write_csv(tmp_path / "backwards.csv", reversed(profiles))
    (first, first_rejected), (second, second_rejected) = await asyncio.gather(
        import_file(pool, forwards), import_file(pool, backwards)
    )
    assert first_rejected == second_rejected == {}
    assert first.created + second.created == len(profiles)
    assert first.read == second.read == len(profiles)
    assert first.messages_scheduled + second.messages_scheduled == await pool.fetchval(
        "SELECT count(*) FROM message_logs"
    )


async def test_a_dry_run_tells_the_same_and_changes_nothing(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Counts and errors are those of the real import, for clashes with the database and across batches too."""
    profiles = list(make_profiles(BATCH_ROWS + 2000))
    await import_file(pool, write_csv(tmp_path / "before.csv", profiles[:500]))
    today = [replace(p, date_of_birth=date(1990, 3, 1)) for p in make_profiles(100, seed=2)]
    path = tmp_path / "users.csv"
    write_csv(path, [*profiles, *today, profiles[1000], replace(profiles[1001], first_name="Other"), *profiles[:3]])
    with path.open("a") as file:
        file.write("not,a,user\n" + csv_line(replace(profiles[0], last_name="Other")) + "\n")
    before = await everything(pool)
    rehearsed = await import_file(pool, path, dry_run=True)
    assert await everything(pool) == before
    summary, rejected = rehearsed
    assert summary.created == BATCH_ROWS + 2000 - 500 + 100
    assert summary.unchanged == 500 + 4
    assert list(rejected) == [BATCH_ROWS + 2103, BATCH_ROWS + 2107, BATCH_ROWS + 2108]
    assert summary.messages_scheduled >= 100
    assert await import_file(pool, path) == rehearsed


BORN = [
    *(date(1990, 2, 26) + timedelta(days=days) for days in range(10)),
    date(1992, 2, 29),
    date(1990, 12, 31),
    date(2026, 2, 28),
]
ZONES = ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/New_York", "Asia/Kolkata", "UTC+07:00"]


@pytest.mark.parametrize("leap_day", LeapDay)
@pytest.mark.parametrize("now", [datetime(2026, 3, 1, 9, tzinfo=UTC), datetime(2028, 2, 28, 23, 30, tzinfo=UTC)])
async def test_birthdays_that_are_due_soon_are_planned_at_once(
    pool: asyncpg.Pool, tmp_path: Path, now: datetime, leap_day: LeapDay
) -> None:
    """The messages are those that the API plans for a new user: due now on the day itself, and until the horizon."""
    planning = Planning(Rules(leap_day=leap_day), timedelta(hours=48))
    profiles = {
        f"user{number}@example.com": Profile("Ada", "Ek", f"user{number}@example.com", born, zone)
        for number, (born, zone) in enumerate((born, zone) for born in BORN for zone in ZONES)
    }
    path = write_ndjson(tmp_path / "users", profiles.values())
    async with borrow(pool) as connection:
        with open_source(str(path)) as source:
            summary = await import_users(
                source, connection, ManualClock(now), planning, TESTER, none_rejected, lambda _summary, _bytes: None
            )
    rows = await pool.fetch(
        """
        SELECT u.email, m.occasion_year, m.occasion_on, m.scheduled_at, m.ends_at
        FROM message_logs m JOIN users u ON u.id = m.user_id
        WHERE m.status = 'scheduled' AND m.message_type = 'birthday' AND m.schedule_from = u.schedule_from
          AND m.created_at = $1 AND m.updated_at = $1 AND u.schedule_from = $1
        """,
        now,
    )
    expected = {
        (profile.email, message.occasion.year, message.occasion.on, message.due_at, message.occasion.ends_at)
        for profile in profiles.values()
        for message in planned_messages(profile, now, planning.horizon, planning.rules)
    }
    assert len(expected) > 10
    assert {tuple(row) for row in rows} == expected
    assert summary.messages_scheduled == len(rows) == await pool.fetchval("SELECT count(*) FROM message_logs")


@asynccontextmanager
async def importing_a_pipe(
    pool: asyncpg.Pool, clock: ManualClock
) -> AsyncIterator[tuple[asyncio.Task[ImportSummary], FileIO, list[ImportSummary], asyncio.Condition]]:
    """Import what is written to a pipe; lend the import, the end to write to, and what it tells of its progress."""
    read_end, write_end = os.pipe()
    told: list[ImportSummary] = []
    news = asyncio.Condition()
    notifications = set()

    async def notify() -> None:
        async with news:
            news.notify_all()

    def progress(summary: ImportSummary, _bytes: int) -> None:
        told.append(summary)
        notifications.add(asyncio.create_task(notify()))

    async def run() -> ImportSummary:
        async with borrow(pool) as connection:
            return await import_users(source, connection, clock, PLANNING, TESTER, none_rejected, progress)

    with FileIO(read_end) as source, FileIO(write_end, "w") as pipe:
        task = asyncio.create_task(run())
        yield task, pipe, told, news
        await asyncio.wait({task}, timeout=WAIT_SECONDS)


async def send(pipe: FileIO, text: str) -> None:
    """Write all of ``text``, as fast as the other end reads."""
    data = text.encode()
    while data:
        written = await asyncio.to_thread(pipe.write, data[:65536])
        data = data[written:]


async def batches_told(told: Sequence[ImportSummary], news: asyncio.Condition, count: int) -> None:
    """Wait until so many batches are in the database."""
    async with asyncio.timeout(WAIT_SECONDS), news:
        await news.wait_for(lambda: len(told) >= count)


async def test_a_batch_is_planned_from_its_own_moment(pool: asyncpg.Pool) -> None:
    """A slow import leaves no gap: who is created later is planned from then, while the planner has moved on too."""
    clock = ManualClock()
    lines = [csv_line(profile) + "\n" for profile in make_profiles(BATCH_ROWS + 500)]
    late = replace(ADA, date_of_birth=date(1990, 3, 4), zone="UTC")
    async with importing_a_pipe(pool, clock) as (task, pipe, told, news):
        await send(pipe, CSV_HEADER + "\n" + "".join(lines))
        await batches_told(told, news, 1)
        clock.advance(timedelta(days=1))
        await send(pipe, csv_line(late) + "\n")
        pipe.close()
        summary = await asyncio.wait_for(task, WAIT_SECONDS)
    assert summary.created == BATCH_ROWS + 501
    assert await pool.fetchval("SELECT schedule_from FROM users WHERE email = $1", ADA.email) == clock.now()
    scheduled_at = await pool.fetchval(
        "SELECT m.scheduled_at FROM message_logs m JOIN users u ON u.id = m.user_id WHERE u.email = $1", ADA.email
    )
    assert scheduled_at == datetime(2026, 3, 4, 9, tzinfo=UTC)


async def test_a_cancelled_import_keeps_what_it_has_told_and_can_go_on(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Ctrl-C while it waits for more: the batches that were told of are in, and the same file goes on from there."""
    clock = ManualClock()
    profiles = list(make_profiles(BATCH_ROWS + 2000))
    text = CSV_HEADER + "\n" + "".join(csv_line(profile) + "\n" for profile in profiles)
    async with importing_a_pipe(pool, clock) as (task, pipe, told, news):
        await send(pipe, text)
        await batches_told(told, news, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, WAIT_SECONDS)
    in_database = await pool.fetchval("SELECT count(*) FROM users")
    assert BATCH_ROWS <= in_database == told[-1].created < len(profiles)
    summary, _ = await import_file(pool, write_csv(tmp_path / "users.csv", profiles), clock)
    assert summary.unchanged == in_database
    assert summary.created == len(profiles) - in_database


async def test_cancelling_lets_the_running_batch_end(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """A batch that waits for a lock when Ctrl-C comes is not torn: it is committed and told of."""
    path = write(tmp_path / "users.csv", csv_line(ADA))
    told: list[ImportSummary] = []
    async with pool.acquire() as holder, borrow(pool) as connection:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("LOCK TABLE users IN EXCLUSIVE MODE")
        with open_source(str(path)) as source:
            task = asyncio.create_task(
                import_users(
                    source,
                    connection,
                    ManualClock(),
                    PLANNING,
                    TESTER,
                    none_rejected,
                    lambda summary, _bytes: told.append(summary),
                )
            )
            await eventually(lambda: is_waiting_for_a_lock(pool), "the batch waits for the lock")
            task.cancel()
            await transaction.rollback()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, WAIT_SECONDS)
    assert told == [ImportSummary(created=1)]
    assert await stored_profiles(pool) == {ADA}


async def test_a_lost_connection_keeps_what_was_committed(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """The import ends with an error that says so; the next one finds the first batch in and creates the rest."""
    profiles = list(make_profiles(BATCH_ROWS + 2000))
    text = CSV_HEADER + "\n" + "".join(csv_line(profile) + "\n" for profile in profiles)
    async with importing_a_pipe(pool, ManualClock()) as (task, pipe, told, news):
        await send(pipe, text)
        await batches_told(told, news, 1)
        async with pool.acquire() as holder, holder.transaction():
            await holder.execute("LOCK TABLE users IN EXCLUSIVE MODE")
            pipe.close()
            await eventually(lambda: is_waiting_for_a_lock(pool), "the last batch waits for the lock")
            await holder.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            )
        with pytest.raises(UnavailableError, match="the database cannot be used"):
            await asyncio.wait_for(task, WAIT_SECONDS)
    in_database = await pool.fetchval("SELECT count(*) FROM users")
    assert in_database == told[-1].created
    summary, _ = await import_file(pool, write_csv(tmp_path / "users.csv", profiles))
    assert (summary.unchanged, summary.created) == (in_database, len(profiles) - in_database)


async def run_program(database_url: str, name: str, feed: bytes = b"") -> dict[str, Any]:
    """Import in a process of its own, with ``feed`` as its standard input, and return what it prints."""
    process = await start_program(database_url, name)
    output, errors = await asyncio.wait_for(process.communicate(feed), 90)
    assert process.returncode == 0, errors.decode()
    result: dict[str, Any] = json.loads(output)
    return result


async def start_program(database_url: str, name: str) -> asyncio.subprocess.Process:
    """Start an import in a process of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.import_program",
        database_url,
        name,
        cwd=Path(__file__).parents[2],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.mark.parametrize("file_format", Format)
async def test_standard_input_is_read_and_its_format_found_out(
    pool: asyncpg.Pool, database_url: str, file_format: Format
) -> None:
    """``-`` takes either format from a pipe: the first character decides."""
    csv_text = f"\n{CSV_HEADER}\n{csv_line(ADA)}\n".encode()
    feed = csv_text if file_format is Format.CSV else b"\n" + orjson.dumps(ADA.as_input())
    result = await run_program(database_url, "-", feed)
    assert result["created"] == 1
    assert await stored_profiles(pool) == {ADA}


async def test_ctrl_c_says_how_far_it_came(pool: asyncpg.Pool, database_url: str) -> None:
    """The process ends by itself, says how many users are in, and that the same import goes on from there."""
    process = await start_program(database_url, "-")
    assert process.stdin is not None
    lines = [csv_line(profile) for profile in make_profiles(BATCH_ROWS + 1000)]
    process.stdin.write("\n".join([CSV_HEADER, *lines]).encode())
    await process.stdin.drain()
    await eventually(lambda: pool.fetchval("SELECT EXISTS (SELECT FROM users)"), "the first batch is in")
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.wait_for(process.communicate(), WAIT_SECONDS)
    assert process.returncode == 130, errors.decode()
    created = await pool.fetchval("SELECT count(*) FROM users")
    assert errors.decode().startswith("stopped early, the same import again goes on from here: ")
    assert f"{created:,} users created" in errors.decode()


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_file(database_url: str, tmp_path: Path) -> None:
    """Ten times the rows take no more memory than the first ten thousand, give or take a batch."""
    few = write_csv(tmp_path / "few.csv", make_profiles(10_000, seed=2))
    many = write_csv(tmp_path / "many.csv", make_profiles(100_000))
    small, large = await run_program(database_url, str(few)), await run_program(database_url, str(many))
    assert (small["created"], large["created"]) == (10_000, 100_000)
    assert large["peak_bytes"] < small["peak_bytes"] + 16 * 1024 * 1024


async def export(pool: asyncpg.Pool, file_format: Format) -> bytes:
    """Export all users."""
    out = io.BytesIO()
    async with borrow(pool) as connection:
        count = await export_users(connection, file_format, out)
    assert count == await pool.fetchval("SELECT count(*) FROM users WHERE deleted_at IS NULL")
    return out.getvalue()


def comparable(content: bytes, file_format: Format) -> list[tuple[Any, ...]]:
    """Return the exported users without what is new in each database."""
    if file_format is Format.CSV:
        rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    else:
        rows = [orjson.loads(line) for line in content.splitlines()]
    assert all(tuple(row) == EXPORT_COLUMNS for row in rows)
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    own = {"id", "createdAt", "updatedAt", "scheduleFrom"}
    return sorted(tuple(str(value) for name, value in row.items() if name not in own) for row in rows)


@pytest.mark.parametrize("file_format", Format)
async def test_an_export_can_be_imported_and_exported_again(
    pool: asyncpg.Pool, tmp_path: Path, file_format: Format
) -> None:
    """Into an empty database the same users come back, whatever a name begins with or contains."""
    names = ["=1+1", "+1", "-1", "@x", '"', "a,b", "'", "Zoë", "李", "\\", "\\.", "NULL"]
    odd = [
        Profile(name, name, f"odd{number}@example.com", date(1904, 2, 29), "UTC-03:30")
        for number, name in enumerate(names)
    ]
    await import_file(pool, write_ndjson(tmp_path / "users", [*make_profiles(3000), *odd]))
    first = await export(pool, file_format)
    await pool.execute("TRUNCATE users, anniversaries, message_logs")
    path = tmp_path / "exported"
    path.write_bytes(first)
    summary, rejected = await import_file(pool, path)
    assert (summary.created, rejected) == (3000 + len(odd), {})
    second = await export(pool, file_format)
    assert comparable(second, file_format) == comparable(first, file_format)


async def test_what_an_export_looks_like(pool: asyncpg.Pool) -> None:
    """The columns of the import between id and instants; a fixed offset in minutes; nobody who was deleted."""
    now = ManualClock().now()
    gone = replace(ADA, email="gone@example.com")
    fixed = replace(ADA, first_name="Bo", email="bo@example.com", zone="UTC+07:00")
    ids = []
    for number, profile in enumerate([ADA, gone, fixed], 1):
        user, _ = await create_user(pool, UUID(int=number), profile, now, PLANNING)
        ids.append(user.id)
    await delete_user(pool, ids[1], now, TESTER)
    at = "2026-03-01T09:00:00Z"
    assert (await export(pool, Format.CSV)).decode().splitlines() == [
        "id,firstName,lastName,email,dateOfBirth,timezone,timezoneOffset,createdAt,updatedAt,scheduleFrom,greetedYear",
        f"{ids[0]},Ada,Lovelace,ada@example.com,1990-12-10,Europe/London,,{at},{at},{at},0",
        f"{ids[2]},Bo,Lovelace,bo@example.com,1990-12-10,,420,{at},{at},{at},0",
    ]
    lines = [orjson.loads(line) for line in (await export(pool, Format.NDJSON)).splitlines()]
    assert lines == [
        {
            "id": str(user_id),
            **profile.as_input(),
            "createdAt": at,
            "updatedAt": at,
            "scheduleFrom": at,
            "greetedYear": 0,
        }
        for user_id, profile in ((ids[0], ADA), (ids[2], fixed))
    ]


async def test_an_export_of_nobody_has_a_header_alone(pool: asyncpg.Pool) -> None:
    """An empty database is exported like any other."""
    assert (await export(pool, Format.CSV)).decode() == ",".join(EXPORT_COLUMNS) + "\n"
    assert await export(pool, Format.NDJSON) == b""


async def test_a_reader_that_has_seen_enough_ends_an_export(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """``birthday export | head`` is no error, not even when the rest is flushed as the stream is closed."""
    await import_file(pool, write_csv(tmp_path / "users.csv", make_profiles(6000)))
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as out:
        async with borrow(pool) as connection:
            assert await export_users(connection, Format.CSV, out) < 6000
            assert await connection.fetchval("SELECT 1") == 1


async def test_the_screen_gets_what_a_person_needs(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """The bad rows, where all of them are listed, and one line that sums up; no bar where there is no terminal."""
    path = write(tmp_path / "users.csv", csv_line(ADA), "Bo,Ek,bo@example.com,1990-02-30,UTC,")
    for dry_run, would in ((True, "would be "), (False, "")):
        screen = io.StringIO()
        async with borrow(pool) as connection:
            summary = await import_to_screen(
                str(path), connection, ManualClock(), PLANNING, screen, ImportOptions(dry_run=dry_run)
            )
        assert summary == ImportSummary(created=1, rejected=1)
        lines = screen.getvalue().splitlines()
        assert lines[0].startswith("line 3: dateOfBirth: is not a date of the calendar")
        assert lines[1:] == [
            f"all rejected rows are in {path}.errors.ndjson",
            f"2 rows read: 1 users {would}created, 0 unchanged, 1 rejected; 0 messages {would}scheduled",
        ]
    assert orjson.loads((tmp_path / "users.csv.errors.ndjson").read_bytes())["line"] == 3


async def test_a_terminal_gets_a_bar(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """On a terminal the import draws how far it has come, and leaves the summary behind."""
    path = write_csv(tmp_path / "users.csv", make_profiles(BATCH_ROWS + 1000))
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "w") as screen, os.fdopen(controller, "rb", buffering=0) as other_end:
        async with borrow(pool) as connection:
            importing = import_to_screen(str(path), connection, ManualClock(), PLANNING, screen)
            # The kernel keeps a few kilobytes for a terminal: somebody has to read them meanwhile.
            drawn = asyncio.create_task(asyncio.to_thread(read_until, other_end, b"scheduled"))
            await importing
            screen.flush()
            text = (await asyncio.wait_for(drawn, WAIT_SECONDS)).decode()
    assert "\x1b[" in text
    assert "rejected" in text
    assert "6,000 rows read: 6,000 users created" in text


def read_until(stream: FileIO | io.BufferedIOBase, end: bytes) -> bytes:
    """Read until ``end`` has come."""
    text = b""
    while end not in text:
        text += stream.read(4096)
    return text


async def test_an_export_that_cannot_be_written_names_the_output(pool: asyncpg.Pool) -> None:
    """A full disk is not the database's fault."""
    with os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb") as out:
        async with pool.acquire() as connection:
            with pytest.raises(UnavailableError, match="standard output cannot be written: No space left") as raised:
                await export_users(connection, Format.CSV, out)

    assert raised.value.resource == "output"


FULL = replace(
    ADA,
    date_of_birth=date(4, 2, 29),
    extras=Extras(
        "crm 4711",
        "pt-BR",
        {"team": 'say "blau", b', "floors": [1, 2.5, None]},
        {"wedding": date(2004, 2, 29), "work-anniversary": date(2019, 3, 4)},
        suppressed=True,
    ),
)
PLAIN = replace(ADA, email="plain@example.com")


@pytest.mark.parametrize("file_format", Format)
async def test_what_few_users_have_comes_and_goes_too(pool: asyncpg.Pool, tmp_path: Path, file_format: Format) -> None:
    """An export with all of it can be imported, beside users without; importing it again changes nothing."""
    some = replace(PLAIN, email="some@example.com", extras=Extras(anniversaries={"wedding": date(2000, 1, 1)}))
    everybody = [FULL, PLAIN, some]
    assert await import_file(pool, write_ndjson(tmp_path / "users.ndjson", everybody)) == (
        ImportSummary(created=3),
        {},
    )
    path = tmp_path / f"exported.{file_format}"
    path.write_bytes(await export(pool, file_format))
    assert await import_file(pool, path) == (ImportSummary(unchanged=3), {})
    await pool.execute("TRUNCATE users, anniversaries, message_logs")
    assert await import_file(pool, path) == (ImportSummary(created=3), {})
    assert await stored_profiles(pool) == set(everybody)


async def test_a_csv_export_gets_the_columns_that_somebody_needs(pool: asyncpg.Pool) -> None:
    """They follow the columns that were always there, so that a reader of those goes on to work."""
    now = ManualClock().now()
    for number, profile in enumerate([PLAIN, FULL], 1):
        await create_user(pool, UUID(int=number), profile, now, PLANNING)
    header, plain, full = csv.reader(io.StringIO((await export(pool, Format.CSV)).decode()))
    added = header[len(EXPORT_COLUMNS) :]
    assert header[: len(EXPORT_COLUMNS)] == list(EXPORT_COLUMNS)
    assert added == [
        *("externalId", "locale", "suppressed", "attributes"),
        *("anniversaries.wedding", "anniversaries.work-anniversary", "anniversaryHistory"),
    ]
    assert plain[len(EXPORT_COLUMNS) :] == [""] * 7
    cells = dict(zip(header, full, strict=True))
    assert cells["dateOfBirth"] == "--02-29"
    assert [cells[name] for name in added if name not in {"attributes", "anniversaryHistory"}] == [
        *("crm 4711", "pt-BR", "true", "2004-02-29", "2019-03-04"),
    ]
    assert orjson.loads(cells["attributes"]) == FULL.extras.attributes


async def test_bad_cells_cost_their_row_and_empty_ones_are_not_given(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Each error names column, value and what is accepted; nothing is made of an empty cell, least of all a date."""
    header = f"{CSV_HEADER},externalId,locale,suppressed,attributes,anniversaries.work-anniversary"
    ada = csv_line(ADA)
    lines = {
        2: (",,,,", None),
        3: (",english,,,", 'locale: "english" is not a locale'),
        4: (",,yes,,", 'suppressed: "yes" is not accepted; true or false is'),
        5: (",,,{,", "attributes: is not a JSON object"),
        6: (",,,,2019-02-29", "anniversaries/work-anniversary: is not a date of the calendar"),
        7: (",,,,2026-03-02", "anniversaries/work-anniversary: is outside of what is accepted"),
        8: (",,,,--03-04", "anniversaries/work-anniversary: is not a date"),
        9: (f"{'x' * 201},,,,", "externalId: is too long: at most 200"),
        10: (f',,,"{{""a"": ""{"x" * 5120}""}}",', "attributes: takes 5128 bytes as JSON; at most 4096 are accepted"),
    }
    path = tmp_path / "users.csv"
    path.write_text("\n".join([header, *(f"{ada},{cells}" for cells, _ in lines.values())]) + "\n")
    summary, rejected = await import_file(pool, path)
    assert summary == ImportSummary(created=1, rejected=8)
    for line, problem in lines.items():
        assert (problem[1] is None) or problem[1] in rejected[line]
    assert await stored_profiles(pool) == {ADA}
    assert await pool.fetchval("SELECT count(*) FROM anniversaries") == 0


@pytest.mark.parametrize("column", ["anniversaries.birthday", "anniversaries.Birthday", "anniversaries.", "external"])
async def test_a_column_that_no_user_has_is_named(pool: asyncpg.Pool, tmp_path: Path, column: str) -> None:
    """The whole file is refused, with the columns that there are."""
    path = tmp_path / "users.csv"
    path.write_text(f"{CSV_HEADER},{column}\n")
    with pytest.raises(InvalidInputError, match=rf"unknown column '{column}'; accepted.* anniversaries\.TYPE"):
        await import_file(pool, path)


@pytest.mark.parametrize("dry_run", [False, True])
async def test_an_external_id_goes_to_the_first(pool: asyncpg.Pool, tmp_path: Path, *, dry_run: bool) -> None:
    """In a file, beside who is there already, and in a later batch of a dry run; the id of a deleted user is free."""
    gone = await create_user(
        pool, UUID(int=1), replace(ADA, extras=Extras(external_id="gone")), ManualClock().now(), PLANNING
    )
    await delete_user(pool, gone[0].id, ManualClock().now(), TESTER)
    held = replace(ADA, email="held@example.com", extras=Extras(external_id="held"))
    await create_user(pool, UUID(int=2), held, ManualClock().now(), PLANNING)
    users = [
        replace(ADA, email="a@example.com", extras=Extras(external_id="gone")),
        replace(ADA, email="b@example.com", extras=Extras(external_id="gone")),
        replace(ADA, email="c@example.com", extras=Extras(external_id="held")),
        replace(ADA, email="held@example.com", extras=Extras(external_id="other")),
        *(replace(ADA, email=f"{number}@example.com") for number in range(2 * BATCH_ROWS)),
        replace(ADA, email="d@example.com", extras=Extras(external_id="gone")),
    ]
    summary, rejected = await import_file(pool, write_ndjson(tmp_path / "users.ndjson", users), dry_run=dry_run)
    assert summary == ImportSummary(created=2 * BATCH_ROWS + 1, rejected=4)
    one = "one user for each externalId is accepted"
    assert rejected == {
        2: f"externalId: line 1 has this externalId too; {one}",
        3: f"externalId: another user has this externalId too; {one}",
        4: "email: another user has this address; fields differ: externalId; an import creates users and changes none",
        len(users): f"externalId: another user has this externalId too; {one}",
    }


async def test_what_a_line_does_not_give_does_not_differ(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """A file from before somebody got an id, or opted out, agrees with the user; another value does not."""
    await create_user(pool, UUID(int=1), FULL, ManualClock().now(), PLANNING)
    plain = replace(FULL, extras=NO_EXTRAS)
    fewer = replace(plain, extras=Extras(anniversaries={"wedding": date(2004, 2, 29)}))
    assert await import_file(pool, write_ndjson(tmp_path / "a.ndjson", [plain, fewer])) == (
        ImportSummary(unchanged=2),
        {},
    )
    other = replace(
        plain, extras=Extras("4712", "pt", {"team": "blue"}, {"wedding": date(2004, 3, 1)}, suppressed=True)
    )
    _, rejected = await import_file(pool, write_ndjson(tmp_path / "b.ndjson", [other]))
    assert "fields differ: externalId, locale, attributes, anniversaries; an import" in rejected[1]


def row_of(first_name: str, email: str, born: str, external_id: str | None = None) -> str:
    """Return a line of NDJSON."""
    row = {"firstName": first_name, "email": email, "dateOfBirth": born, "timezone": "UTC"}
    return orjson.dumps(row | ({"externalId": external_id} if external_id else {})).decode()


UPSERTED = (
    # Found by the external id, although the address is new.
    row_of("King", "king@example.com", "1990-12-10", "crm-1"),
    # Found by the address, and given an external id; then equal to what that row has made of it.
    row_of("Alan", "alan@example.com", "1990-03-02", "crm-2"),
    row_of("Alan", "alan@example.com", "1990-03-02"),
    # Another user's address, and another external id than the user of the address has.
    row_of("Ada", "alan@example.com", "1990-12-10", "crm-1"),
    row_of("Eve", "ada@example.com", "1990-12-10", "crm-3"),
    row_of("New", "new@example.com", "1990-03-02"),
    row_of("Newer", "new@example.com", "1990-03-02"),
    '{"firstName":"Nobody"}',
)


@pytest.mark.parametrize("dry_run", [False, True])
async def test_an_upsert_changes_users_whom_it_finds(pool: asyncpg.Pool, tmp_path: Path, *, dry_run: bool) -> None:
    """It finds a user by external id, then by address, and changes what the row has; a wrong row loses no other."""
    extras = Extras("crm-1", "en", {"team": "blue"}, {"name-day": date(2019, 7, 29)})
    now = ManualClock().now()
    alan = replace(ADA, first_name="Alan", last_name="", email="alan@example.com")
    for profile in (replace(ADA, extras=extras), alan):
        await create_user(pool, uuid7(now), profile, now, PLANNING)
    before = await everything(pool)
    path = tmp_path / "users.ndjson"
    path.write_text("\n".join(UPSERTED))
    clock = ManualClock()
    clock.advance(timedelta(hours=1))
    summary, rejected = await import_file(pool, path, clock, mode=Mode.UPSERT, dry_run=dry_run)
    if dry_run:
        assert await everything(pool) == before
        assert summary.read == len(UPSERTED)
        return
    assert summary == ImportSummary(created=1, updated=3, unchanged=1, rejected=3, messages_scheduled=2)
    assert {line: text.partition(":")[0] for line, text in rejected.items()} == {
        4: "email",
        5: "externalId",
        8: "email",
    }
    users = {row["email"]: row for row in await pool.fetch("SELECT * FROM users")}
    ada = users["king@example.com"]
    assert (ada["first_name"], ada["timezone"], ada["locale"], ada["external_id"]) == ("King", "UTC", "en", "crm-1")
    assert (ada["attributes"], ada["updated_at"], ada["schedule_from"]) == (
        '{"team": "blue"}',
        clock.now(),
        clock.now(),
    )
    assert (users["alan@example.com"]["external_id"], users["new@example.com"]["first_name"]) == ("crm-2", "Newer")
    again, _ = await import_file(pool, path, clock, mode=Mode.UPSERT)
    assert (again.created, again.updated, again.unchanged, again.rejected) == (1, 2, 3, 2)


async def test_two_upserts_at_once_change_each_user_once(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Imports of one file that run at the same time neither fail nor create anybody twice."""
    profiles = list(make_profiles(400))
    path = write_ndjson(tmp_path / "users.ndjson", profiles[:300])
    await import_file(pool, path)
    moved = [replace(profile, first_name="Moved") for profile in profiles]
    path = write_ndjson(tmp_path / "moved.ndjson", moved)
    done = await asyncio.gather(*(import_file(pool, path, mode=Mode.UPSERT) for _ in range(3)))
    assert [rejected for _, rejected in done] == [{}, {}, {}]
    assert (sum(each.created for each, _ in done), sum(each.updated for each, _ in done)) == (100, 300)
    assert await stored_profiles(pool) == set(moved)


async def test_upserts_of_the_same_users_at_once_do_not_deadlock(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """In whatever order the files are written, and although past greetings make each row look at its address."""
    profiles = list(make_profiles(150))
    await import_file(pool, write_ndjson(tmp_path / "users.ndjson", profiles))
    await pool.execute("INSERT INTO past_greetings (person_hash, message_type, year) VALUES ('', 'birthday', 2026)")
    files = []
    for number in range(4):
        moved = [replace(profile, first_name=f"Moved {number}") for profile in profiles]
        files.append(write_ndjson(tmp_path / f"moved-{number}.ndjson", moved[:: 1 if number % 2 else -1]))
    done = await asyncio.gather(*(import_file(pool, path, mode=Mode.UPSERT) for path in files))
    assert [(each.updated, rejected) for each, rejected in done] == [(150, {})] * 4

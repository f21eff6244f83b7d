"""After the restore of a backup: who is in a later export comes back as the same user, who was deleted goes again."""

import io
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from birthday.cli.transfer import import_deleted
from birthday.core.user import Extras, Profile
from birthday.errors import InvalidInputError
from birthday.operations.transfer.deletions import export_deletions
from birthday.operations.transfer.exporting import export_users
from birthday.operations.transfer.importing import ImportOptions, ImportSummary, import_users
from birthday.operations.transfer.records import Format, Rejected
from birthday.operations.transfer.source import open_source
from birthday.store.connection import borrow
from birthday.store.users import delete_user, lock_profile, replace_profile
from tests.support.clock import ManualClock
from tests.support.product import PLANNING
from tests.support.users import TESTER, create_user, make_profiles

NOW = ManualClock().now()
CATCH_UP = timedelta(hours=48)
ADA = Profile("Ada", "Lovelace", "ada@example.com", date(1990, 3, 2), "UTC")
HEADER = "id,firstName,lastName,email,dateOfBirth,timezone,createdAt,scheduleFrom,greetedYear"
AT = "2025-01-01T00:00:00Z"


async def export(pool: asyncpg.Pool, path: Path, *, deleted: bool = False, form: Format = Format.CSV) -> Path:
    """Write an export as the command does."""
    with path.open("wb") as out:
        async with borrow(pool) as connection:
            await (export_deletions if deleted else export_users)(connection, form, out)
    return path


async def bring_back(
    pool: asyncpg.Pool, path: Path, now: datetime = NOW, *, dry_run: bool = False
) -> tuple[ImportSummary, list[str]]:
    """Import with ids; return what became of it, and what is wrong with the rejected lines."""
    rejected: list[Rejected] = []
    async with borrow(pool) as connection:
        with open_source(str(path)) as source:
            summary = await import_users(
                source,
                connection,
                ManualClock(now),
                PLANNING,
                TESTER,
                rejected.append,
                lambda _summary, _bytes: None,
                ImportOptions(dry_run=dry_run, catch_up=CATCH_UP),
            )
    return summary, [f"{each.line}: {InvalidInputError(*each.errors)}" for each in rejected]


async def users(pool: asyncpg.Pool) -> Sequence[asyncpg.Record]:
    """Return everything about all users but when they were last changed."""
    return await pool.fetch(
        """
        SELECT id, first_name, last_name, email, date_of_birth, timezone, schedule_from, greeted_year, created_at,
               deleted_at
        FROM users ORDER BY id
        """
    )


async def messages(pool: asyncpg.Pool) -> Sequence[asyncpg.Record]:
    """Return all messages with what an operator or a receiver sees of them."""
    return await pool.fetch("SELECT id, user_id, occasion_on, scheduled_at, status FROM message_logs ORDER BY id")


async def move(pool: asyncpg.Pool, user_id: UUID, now: datetime, birth: date) -> None:
    """Change the date of birth of a user."""
    async with borrow(pool) as connection, connection.transaction():
        old = await lock_profile(connection, user_id)
        await replace_profile(connection, user_id, old, replace(old, date_of_birth=birth), now, PLANNING, TESTER)


@pytest.mark.parametrize("form", Format)
async def test_users_come_back_as_they_were_with_the_messages_of_then(
    pool: asyncpg.Pool, tmp_path: Path, form: Format
) -> None:
    """Into an empty database: ids, instants and keys are the same, whether or not a birthday was moved before."""
    for number, profile in enumerate([*make_profiles(300), ADA], 1):
        await create_user(pool, UUID(int=number), profile, NOW - timedelta(days=9), PLANNING)
    await move(pool, UUID(int=7), NOW - timedelta(days=3), date(1980, 3, 2))
    path = await export(pool, tmp_path / "users", form=form)
    before = await users(pool)
    await pool.execute("TRUNCATE users, anniversaries, message_logs")
    summary, rejected = await bring_back(pool, path)
    assert (summary.created, rejected) == (301, [])
    assert await users(pool) == before
    planned = {row["user_id"]: row for row in await messages(pool)}
    assert {UUID(int=7), UUID(int=301)} <= set(planned)
    for user in before:
        if user["id"] in planned:
            row = planned[user["id"]]
            expected = await pool.fetchval(
                "SELECT message_id($1, 'birthday', $2, $3)", user["id"], row["occasion_on"], user["schedule_from"]
            )
            assert row["id"] == expected
    assert await bring_back(pool, path) == (ImportSummary(unchanged=301), [])


async def test_what_was_due_meanwhile_is_planned_and_what_arrived_is_not(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Within the catch-up window, at its own instant; a greeting that the export knows of is the one of the year."""
    yesterday = replace(ADA, date_of_birth=date(1990, 2, 28))
    for number, profile in enumerate((yesterday, replace(yesterday, email="b@example.com")), 1):
        await create_user(pool, UUID(int=number), profile, NOW - timedelta(days=9), PLANNING)
    # The planner has not come by: the second one is greeted before the export all the same.
    await pool.execute(
        """
        INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from, status,
                                  created_at, updated_at)
        VALUES ($1, $2, 2026, '2026-02-28', $3, $3, $3, 'delivered', $3, $3)
        """,
        UUID(int=99),
        UUID(int=2),
        NOW - timedelta(days=1),
    )
    await move(pool, UUID(int=2), NOW, date(1990, 3, 2))
    path = await export(pool, tmp_path / "users.csv")
    await pool.execute("TRUNCATE users, anniversaries, message_logs")
    assert (await bring_back(pool, path))[0] == ImportSummary(created=2, messages_scheduled=1)
    [message] = await messages(pool)
    assert (message["user_id"], message["scheduled_at"]) == (UUID(int=1), datetime(2026, 2, 28, 9, tzinfo=UTC))
    assert [row["greeted_year"] for row in await users(pool)] == [0, 2026]


@pytest.mark.parametrize("form", Format)
async def test_yearly_dates_come_back_with_their_history(pool: asyncpg.Pool, tmp_path: Path, form: Format) -> None:
    """Since when each is known, the year that was greeted last, also of a date that was taken back meanwhile."""
    profile = replace(ADA, extras=Extras(anniversaries={name: date(2019, 3, 2) for name in ("a", "b", "c")}))
    await create_user(pool, UUID(int=1), profile, NOW - timedelta(days=9), PLANNING)
    fewer = replace(profile, extras=Extras(anniversaries={"a": date(2019, 3, 2), "b": date(2020, 2, 2)}))
    async with borrow(pool) as connection, connection.transaction():
        await replace_profile(connection, UUID(int=1), profile, fewer, NOW - timedelta(days=3), PLANNING, TESTER)
    await pool.execute("UPDATE anniversaries SET greeted_year = 2025 WHERE message_type = 'c'")
    await pool.execute(
        """
        INSERT INTO message_logs (id, user_id, message_type, occasion_year, occasion_on, scheduled_at, ends_at,
                                  schedule_from, status, created_at, updated_at)
        VALUES ($1, $2, 'b', 2026, '2026-02-02', $3, $3, $3, 'delivered', $3, $3)
        """,
        UUID(int=99),
        UUID(int=1),
        NOW - timedelta(days=3),
    )
    dates = "SELECT message_type, date, timezone, schedule_from, greeted_year FROM anniversaries ORDER BY message_type"
    before = [tuple(row) for row in await pool.fetch(dates)]
    path = await export(pool, tmp_path / "users", form=form)
    await pool.execute("TRUNCATE users, anniversaries, message_logs")
    assert (await bring_back(pool, path))[0].created == 1
    after = [tuple(row) for row in await pool.fetch(dates)]
    assert [row[4] for row in after] == [0, 2026, 2025]
    assert [row[:4] for row in after] == [row[:4] for row in before]
    assert before[2][1] is None
    assert await bring_back(pool, path) == (ImportSummary(unchanged=1), [])


@pytest.mark.parametrize("dry_run", [True, False])
async def test_whoever_is_there_is_not_changed_and_whoever_was_deleted_stays_so(
    pool: asyncpg.Pool, tmp_path: Path, *, dry_run: bool
) -> None:
    """Each line says what it meets: another id, another address, a deleted user, the same id twice."""
    for number, name in enumerate(("ada", "bo", "cy"), 1):
        await create_user(pool, UUID(int=number), replace(ADA, email=f"{name}@example.com"), NOW, PLANNING)
    await delete_user(pool, UUID(int=3), NOW, TESTER)
    before = await users(pool)
    path = tmp_path / "users.csv"
    rest = f"1990-03-02,UTC,{AT},,"
    path.write_text(
        f"{HEADER}\n"
        f"{UUID(int=1)},Ada,Lovelace,ada@example.com,{rest}\n"
        f"{UUID(int=8)},Ada,Lovelace,ada@example.com,{rest}\n"
        f"{UUID(int=2)},Ada,Lovelace,other@example.com,{rest}\n"
        f"{UUID(int=3)},Ada,Lovelace,cy@example.com,{rest}\n"
        f"{UUID(int=4)},Ada,Lovelace,new@example.com,{rest}\n"
        f"{UUID(int=4)},Ada,Lovelace,newer@example.com,{rest}\n"
    )
    summary, rejected = await bring_back(pool, path, dry_run=dry_run)
    assert (summary.created, summary.unchanged, summary.rejected) == (1, 1, 4)
    assert rejected == [
        "3: email: another user has this address; fields differ: id; an import creates users and changes none",
        "4: id: the user with this id differs in email; an import creates users and changes none",
        "5: id: the user with this id was deleted; deleted users do not come back",
        f"7: id: line 6 has {UUID(int=4)} too; one user for each id is accepted",
    ]
    assert [row for row in await users(pool) if row["id"] != UUID(int=4)] == before


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (f",A,B,a@example.com,1990-03-02,UTC,{AT},,", "id: is required with --with-ids"),
        (f"7,A,B,a@example.com,1990-03-02,UTC,{AT},,", "id: '7' is not accepted"),
        (f"{UUID(int=1)},A,B,a@example.com,1990-03-02,UTC,then,,", "createdAt: 'then' is not accepted"),
        (f"{UUID(int=1)},A,B,a@example.com,1990-03-02,UTC,2999-01-01T00:00:00Z,,", "createdAt: 2999"),
        (f"{UUID(int=1)},A,B,a@example.com,1990-03-02,UTC,{AT},{AT},soon", "greetedYear: 'soon' is not accepted"),
    ],
)
async def test_an_origin_that_is_wrong_is_named(pool: asyncpg.Pool, tmp_path: Path, cells: str, problem: str) -> None:
    """The row is rejected with the field, and nobody is created under an id that was made up."""
    path = tmp_path / "users.csv"
    path.write_text(f"{HEADER}\n{cells}\n")
    summary, [rejected] = await bring_back(pool, path)
    assert summary == ImportSummary(rejected=1)
    assert problem in rejected
    path.write_text("firstName,email,dateOfBirth,timezone\n")
    with pytest.raises(InvalidInputError, match="lacks the column id, createdAt"):
        await bring_back(pool, path)


async def delete_again(pool: asyncpg.Pool, path: Path, *, dry_run: bool = False) -> list[str]:
    """Apply a list of deletions and return what the screen says."""
    screen = io.StringIO()
    async with borrow(pool) as connection:
        await import_deleted(
            str(path), connection, ManualClock(NOW), screen, dry_run=dry_run, report_path=Path(os.devnull)
        )
    return screen.getvalue().splitlines()


@pytest.mark.parametrize("form", Format)
async def test_who_was_deleted_is_deleted_again(pool: asyncpg.Pool, tmp_path: Path, form: Format) -> None:
    """A list names ids and instants only; what is pending is cancelled; who is not there does not matter."""
    for number, name in enumerate(("ada", "bo", "cy"), 1):
        extras = Extras(anniversaries={"work-anniversary": date(2019, 3, 4)})
        profile = replace(ADA, email=f"{name}@example.com", extras=extras)
        await create_user(pool, UUID(int=number), profile, NOW, PLANNING)
    await delete_user(pool, UUID(int=1), NOW, TESTER)
    await delete_user(pool, UUID(int=2), NOW, TESTER)
    path = await export(pool, tmp_path / "deleted", deleted=True, form=form)
    assert "@" not in path.read_text()
    # The backup is older: Ada is there and planned, Bo is not there yet.
    await pool.execute("DELETE FROM users WHERE id = $1", UUID(int=2))
    await pool.execute("UPDATE users SET deleted_at = NULL WHERE id = $1", UUID(int=1))
    await pool.execute("UPDATE anniversaries SET deleted_at = NULL")
    await pool.execute("UPDATE message_logs SET status = 'scheduled' WHERE user_id = $1", UUID(int=1))
    result = "2 deletions read: 1 users {}deleted, the others are not there; 0 lines rejected; 1 messages {}cancelled"
    would = "would be "
    assert await delete_again(pool, path, dry_run=True) == [result.format(would, would)]
    assert await delete_again(pool, path) == [result.format("", "")]
    assert [row["deleted_at"] for row in await users(pool)] == [NOW, None]
    dates = await pool.fetch("SELECT deleted_at FROM anniversaries ORDER BY user_id")
    assert [row["deleted_at"] for row in dates] == [NOW, None]
    assert [row["status"] for row in await messages(pool) if row["user_id"] == UUID(int=1)] == ["cancelled"]
    assert (await delete_again(pool, path))[-1].startswith("2 deletions read: 0 users deleted")


async def test_the_log_is_a_list_of_deletions_and_an_export_of_users_is_none(
    pool: asyncpg.Pool, tmp_path: Path
) -> None:
    """Other events are passed over; whoever takes the wrong file deletes nobody."""
    for number, name in enumerate(("ada", "bo"), 1):
        await create_user(pool, UUID(int=number), replace(ADA, email=f"{name}@example.com"), NOW, PLANNING)
    for form in Format:
        lines = await delete_again(pool, await export(pool, tmp_path / "users", form=form))
        assert " 0 users deleted" in lines[-1]
        assert "names no deleted user" in lines[0]
    log = tmp_path / "birthday.log"
    log.write_text(
        f'{{"event": "http.request", "user_id": "{UUID(int=2)}"}}\n'
        f'{{"event": "user.deleted", "user_id": "{UUID(int=1)}", "messages_cancelled": 0}}\n'
        "\n"
        "Traceback\n"
    )
    rejected, _where, result = await delete_again(pool, log)
    assert rejected.startswith("line 4: names no deleted user")
    assert result.startswith("1 deletions read: 1 users deleted")
    assert [row["deleted_at"] for row in await users(pool)] == [NOW, None]

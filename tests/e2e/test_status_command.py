"""``birthday status``, and what processes tell of each other: a real program on a real database."""

import json
import re
import shutil
import signal
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import tzdata

from birthday.core.message import ErrorType
from tests.support.dead import store_failed
from tests.support.product import eventually
from tests.support.program import Program, run, running

OTHER_RELEASE = "1999z"


async def status(**settings: str) -> dict[str, Any]:
    """Return what ``birthday status --json`` says."""
    finished = await run("status", "--json", **settings)
    assert finished.status == 0, finished.err
    found: dict[str, Any] = json.loads(finished.out)
    return found


async def page(program: Program) -> str:
    """Return the metrics of a process."""
    async with aiohttp.ClientSession() as session, session.get(f"{program.url}/metrics") as response:
        return await response.text()


async def shows(program: Program, *samples: str) -> bool:
    """Say whether the metrics of a process have these samples."""
    text = await page(program)
    return all(f"\nbirthday_scheduler_{sample}\n" in text for sample in samples)


async def has_processes(pool: asyncpg.Pool, count: int) -> bool:
    """Say whether so many processes have reported."""
    found: int = await pool.fetchval("SELECT count(*) FROM processes")
    return found == count


@pytest.fixture
def other_data(tmp_path: Path) -> str:
    """Return a directory with time-zone data of another release, for PYTHONPATH."""
    there = tmp_path / "other" / "tzdata"
    shutil.copytree(Path(tzdata.__file__).parent, there)
    text = (there / "__init__.py").read_text()
    (there / "__init__.py").write_text(re.sub(r'IANA_VERSION = ".*"', f'IANA_VERSION = "{OTHER_RELEASE}"', text))
    return str(there.parent)


async def test_an_empty_database_has_a_status(database_url: str) -> None:
    """Nothing runs, nothing was ever planned: each line says so, and no line is logged."""
    finished = await run("status", DATABASE_URL=database_url)
    assert finished.status == 0
    lines = finished.out.splitlines()
    assert "no process has reported within a minute" in lines
    assert "roles       MISSING: no process has the role api or scheduler or worker" in lines
    assert "paused      nothing" in lines
    assert "overdue     nothing" in lines
    assert "circuit     no worker has reported" in lines
    assert "failed      nothing" in lines
    assert "planned     nothing yet" in lines
    assert "next peak   nothing falls due within a day" in lines
    assert "event" not in finished.err


async def test_a_database_that_is_away_ends_with_status_1() -> None:
    """One line names it, and there is no table of nothing."""
    finished = await run("status", DATABASE_URL="postgresql://127.0.0.1:1/birthday_scheduler")
    assert (finished.status, finished.out) == (1, "")
    assert "birthday: cannot connect to the database, postgresql://127.0.0.1:1/birthday_scheduler: " in finished.err


async def test_a_process_reports_and_withdraws(database_url: str, pool: asyncpg.Pool) -> None:
    """It is there with its build as soon as it runs, and gone as soon as it has stopped."""
    settings = {"DATABASE_URL": database_url, "CHANNEL": "console"}
    async with running(**settings, BIRTHDAY_COMMIT="abc123") as program:
        await eventually(partial(has_processes, pool, 1), "it has reported")
        [process] = (await status(**settings))["processes"]
        assert process["roles"] == ["api", "scheduler", "worker"]
        assert (process["pid"], process["commit"]) == (program.process.pid, "abc123")
        assert (process["tzdata"], process["circuit"]) == (tzdata.IANA_VERSION, "closed")
        assert process["settings"]["SEND_AT"] == "09:00"
        assert process["secondsAgo"] < 30
        roles = [f'processes{{role="{role}"}} 1.0' for role in ("api", "scheduler", "worker")]
        await eventually(partial(shows, program, *roles, "timezone_data_versions 1.0"), "its metrics say so")
        build = f'birthday_scheduler_build_info{{commit="abc123",tzdata="{tzdata.IANA_VERSION}",version='
        assert build in await page(program)
    assert await has_processes(pool, 0)


async def test_a_process_that_was_killed_is_forgotten(database_url: str, pool: asyncpg.Pool) -> None:
    """Within a minute it does not count any more, and within hours somebody else removes its row."""
    settings = {"DATABASE_URL": database_url, "CHANNEL": "console"}
    async with running("--role", "worker", **settings) as program:
        await eventually(partial(has_processes, pool, 1), "it has reported")
        await program.stop(signal.SIGKILL)
    assert await has_processes(pool, 1)
    await pool.execute("UPDATE processes SET seen_at = seen_at - interval '61 seconds'")
    found = await status(**settings)
    assert (found["processes"], found["missingRoles"]) == ([], ["api", "scheduler", "worker"])
    await pool.execute("UPDATE processes SET seen_at = seen_at - interval '1 hour'")
    async with running("--role", "api", **settings) as program:
        await eventually(partial(shows, program, 'processes{role="worker"} 0.0'), "it sees no worker")
        assert [row["roles"] for row in await pool.fetch("SELECT roles FROM processes")] == ["api"]


async def test_what_processes_differ_in_is_shown(database_url: str, pool: asyncpg.Pool, other_data: str) -> None:
    """Two commits, two releases of the time-zone data, two times of day: in the log, the metrics, check and status."""
    settings = {"DATABASE_URL": database_url, "CHANNEL": "console"}
    other = {"PYTHONPATH": other_data, "SEND_AT": "10:00", "BIRTHDAY_COMMIT": "other"}
    async with running("--role", "scheduler", **settings) as first:
        await eventually(partial(has_processes, pool, 1), "the first has reported")
        async with running("--role", "worker", **settings, **other) as second:
            for program, own in ((first, tzdata.IANA_VERSION), (second, OTHER_RELEASE)):
                event = await program.wait_for_event("timezone_data.differs")
                assert event["own"] == own
                assert sorted(event["releases"]) == sorted([OTHER_RELEASE, tzdata.IANA_VERSION])
                assert (await program.wait_for_event("settings.differ"))["settings"] == {"SEND_AT": ["09:00", "10:00"]}
                assert await shows(program, "timezone_data_versions 2.0")
            found = await status(**settings)
            assert found["differ"] == {
                "builds": True,
                "timezoneData": True,
                "settings": {"SEND_AT": ["09:00", "10:00"]},
            }
            assert len({one["settingsHash"] for one in found["processes"]}) == 2
            screen = (await run("status", **settings)).out
            assert f"tzdata      DIFFER: {OTHER_RELEASE} and {tzdata.IANA_VERSION}" in screen
            assert "settings    DIFFER: SEND_AT is 09:00 and 10:00" in screen
            assert "builds      DIFFER: " in screen
            checked = await run("check", **settings)
            assert checked.status == 0
            assert f"tzdata     DIFFER: {OTHER_RELEASE} and {tzdata.IANA_VERSION}" in checked.out
        await eventually(partial(shows, first, "timezone_data_versions 1.0"), "the other one is gone")
    assert f"tzdata     {tzdata.IANA_VERSION}\n" in (await run("check", **settings)).out


async def test_what_stands_still_is_shown(database_url: str, pool: asyncpg.Pool) -> None:
    """A pause with its author, what is overdue meanwhile, and what failed by cause; with no scheduler and no worker."""
    settings = {"DATABASE_URL": database_url}
    await store_failed(pool, 3, datetime.now(UTC), error_type=ErrorType.TIMEOUT)
    await store_failed(pool, 2, datetime.now(UTC), error_type=ErrorType.VALIDATION_ERROR)
    now = datetime.now(UTC)
    await pool.execute(
        """
        INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from,
                                  created_at, updated_at)
        SELECT gen_random_uuid(), gen_random_uuid(), 2026, $1::date, at, at + interval '1 day', at, at, at
        FROM (VALUES ($1::timestamptz - interval '10 minutes'), ($1::timestamptz + interval '1 hour')) AS due (at)
        """,
        now,
    )
    assert (await run("pause", **settings)).status == 0
    found = await status(**settings)
    [pause] = found["paused"]
    assert pause["messageType"] == "birthday"
    assert "@" in pause["by"]
    assert datetime.fromisoformat(pause["since"]) >= now
    assert found["overdue"]["messages"] == 1
    assert 600 <= found["overdue"]["oldestAgeSeconds"] < 660
    assert datetime.fromisoformat(found["overdue"]["oldestDueAt"]) == now - timedelta(minutes=10)
    assert found["failed"] == {"timeout": 3, "validation_error": 2}
    screen = (await run("status", **settings)).out
    assert "overdue     1 messages, the oldest for 10 min" in screen
    assert "failed      5 messages: 3 timeout, 2 validation_error" in screen
    assert re.search(r"^paused +birthday, since .* UTC by \S+@\S+$", screen, re.MULTILINE)


@pytest.mark.parametrize("command", [("check",), ("dlq", "list"), ("dlq", "list", "--json"), ("status",)])
async def test_a_command_that_succeeds_logs_nothing(
    database_url: str, rabbitmq_url: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """What it prints is its result, also with a service's LOG_LEVEL, and with either database."""
    embedded = {"BIRTHDAY_DATA_DIR": str(tmp_path / "data"), "LOG_LEVEL": "info"}
    assert (await run("import", "-", stdin="firstName,lastName,email,dateOfBirth,timezone\n", **embedded)).status == 0
    external = {"DATABASE_URL": database_url, "RABBITMQ_URL": rabbitmq_url, "CHANNEL": "console", "LOG_LEVEL": "info"}
    for settings in (embedded, external):
        finished = await run(*command, **settings)
        assert finished.status == 0, finished.err
        assert all(line.startswith("birthday: the database is ") for line in finished.err.splitlines()), finished.err

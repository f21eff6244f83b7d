"""The command line from outside: what it prints, and how it says what is wrong."""

import json
import socket
from pathlib import Path

import pytest

from birthday.config import mask_url
from birthday.store.migrations import load_migrations
from tests.support.program import run

PREVIEW = ("preview", "--date-of-birth", "1992-02-29", "--from", "2026-01-01")


async def test_preview_prints_the_keys_of_the_contract() -> None:
    """One JSON array of date, local, utc and age, and nothing else."""
    finished = await run(*PREVIEW, "--timezone", "America/New_York", "--count", "3", "--json")
    assert finished.status == 0
    assert json.loads(finished.out) == [
        {"date": "2026-02-28", "local": "2026-02-28T09:00:00-05:00", "utc": "2026-02-28T14:00:00Z", "age": 34},
        {"date": "2027-02-28", "local": "2027-02-28T09:00:00-05:00", "utc": "2027-02-28T14:00:00Z", "age": 35},
        {"date": "2028-02-29", "local": "2028-02-29T09:00:00-05:00", "utc": "2028-02-29T14:00:00Z", "age": 36},
    ]


async def test_preview_knows_no_age_without_a_year() -> None:
    """Not in JSON, and not in the table."""
    arguments = ("preview", "--date-of-birth", "--02-29", "--timezone", "UTC", "--from", "2028-01-01", "--count", "1")
    finished = await run(*arguments, "--json")
    assert json.loads(finished.out) == [
        {"date": "2028-02-29", "local": "2028-02-29T09:00:00+00:00", "utc": "2028-02-29T09:00:00Z", "age": None}
    ]
    assert (await run(*arguments)).out.split()[-1] == "unknown"


async def test_preview_writes_every_year_with_four_digits() -> None:
    """ISO 8601, for the first centuries too."""
    finished = await run(
        "preview", "--date-of-birth", "0001-01-01", "--timezone", "UTC", "--from", "0002-01-01", "--json"
    )
    assert json.loads(finished.out)[0]["utc"] == "0002-01-01T09:00:00Z"


@pytest.mark.parametrize("more", [(), ("--json",)])
async def test_preview_says_where_the_calendar_ends(more: tuple[str, ...]) -> None:
    """Fewer birthdays than were asked for have a reason."""
    arguments = ("preview", "--date-of-birth", "1990-05-05", "--timezone", "UTC")
    for first, count in (("9998-01-01", 1), ("9999-01-01", 0)):
        finished = await run(*arguments, "--from", first, *more)
        assert finished.status == 0
        assert finished.out.count("9998-05-05T09:00:00Z") == count
        assert "no birthday after the year 9998" in finished.err
    within = await run(*arguments, "--from", "9998-01-01", "--count", "1", *more)
    assert within.err == ""


async def test_commands_work_where_the_service_may_not_start(database_url: str) -> None:
    """An address that anybody could reach is refused to who listens on it, not to who sets a pause there."""
    finished = await run("pause", DATABASE_URL=database_url, HOST="0.0.0.0")  # noqa: S104 - nothing listens on it
    assert finished.status == 0


async def test_preview_obeys_the_settings_and_reads_well() -> None:
    """SEND_AT and the other leap-day policy, as a table."""
    finished = await run(*PREVIEW, "--timezone", "Africa/Cairo", "--count", "1", SEND_AT="00:00", LEAP_DAY="mar1")
    assert finished.status == 0
    assert finished.out.split()[-4:] == ["2026-03-01", "2026-03-01T00:00:00+02:00", "2026-02-28T22:00:00Z", "34"]


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        pytest.param((), {"PORT": "abc"}, ("PORT", "'abc'", "whole number"), id="port"),
        pytest.param((), {"CRON_PLAN": "whenever"}, ("CRON_PLAN", "'whenever'", "cron expression"), id="cron"),
        pytest.param((), {"SEND_AT": "25:00"}, ("SEND_AT", "'25:00'", "09:00"), id="time of day"),
        pytest.param((), {"RETRY_BASE_DELAY": "1h"}, ("RETRY_BASE_DELAY=1h", "RETRY_MAX_DELAY=10m"), id="relation"),
        pytest.param((), {"HOST": "0.0.0.0"}, ("HOST=0.0.0.0", "API_KEYS"), id="open API"),  # noqa: S104 - refused
        pytest.param((), {"DATABASE_URL": "mysql://u:hidden@h/x"}, ("DATABASE_URL", "postgresql://"), id="scheme"),
        pytest.param(
            (),
            {"DATABASE_URL": "postgresql://u:hidden@h:db/x"},
            ("DATABASE_URL='postgresql://u:***@h:db/x'", "65535"),
            id="port of a URL",
        ),
        pytest.param((), {"LOG_FILE": "/nowhere/at/all.log"}, ("LOG_FILE", "/nowhere/at/all.log"), id="log file"),
        pytest.param(("--role", "api,chef"), {}, ("ROLE", "'api,chef'", "scheduler"), id="role"),
        pytest.param(("preview", "--date-of-birth", "1990-02-30", "--timezone", "UTC"), {}, ("1990-02-30",), id="date"),
        pytest.param(
            ("preview", "--date-of-birth", "1990-02-03", "--timezone", "Mars/Base"), {}, ("Mars/Base",), id="zone"
        ),
        pytest.param(("dance",), {}, ("dance",), id="command"),
    ],
)
async def test_a_wrong_setting_or_argument_ends_with_status_2_and_says_what_is_accepted(
    arguments: tuple[str, ...], settings: dict[str, str], words: tuple[str, ...]
) -> None:
    """The variable, the value and what is accepted are named; a password is not."""
    finished = await run(*arguments, **settings)
    assert finished.status == 2
    for word in words:
        assert word in finished.err
    assert "hidden" not in finished.err
    assert "Traceback" not in finished.err


async def test_an_unreachable_database_ends_the_start_with_its_address_and_status_1() -> None:
    """Which resource, where, and why."""
    url = "postgresql://u:hidden@127.0.0.1:1/birthday_scheduler"
    finished = await run(DATABASE_URL=url, CHANNEL="console", START_TIMEOUT="0")
    assert finished.status == 1
    assert "cannot connect to the database, postgresql://u:***@127.0.0.1:1/birthday_scheduler" in finished.err
    assert "Traceback" not in finished.err


async def test_an_unreachable_broker_ends_the_start_with_its_address_and_status_1(database_url: str) -> None:
    """Which resource, where, and why."""
    away = {"RABBITMQ_URL": "amqp://u:hidden@127.0.0.1:1/", "START_TIMEOUT": "0"}
    finished = await run(DATABASE_URL=database_url, CHANNEL="console", **away)
    assert finished.status == 1
    assert "127.0.0.1:1" in finished.err
    assert "hidden" not in finished.err
    assert "Traceback" not in finished.err


async def test_a_port_in_use_ends_the_start_with_advice_and_status_1(database_url: str) -> None:
    """The other program does not share its port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        finished = await run(DATABASE_URL=database_url, PORT=port, CHANNEL="console")
    assert finished.status == 1
    assert f"HOST=127.0.0.1 PORT={port}" in finished.err
    assert "Traceback" not in finished.err


async def test_a_database_that_is_not_migrated_is_refused_with_the_command_that_helps(database_url: str) -> None:
    """Never migrated silently; undone and applied by hand; then the status tells."""
    migrations = [migration.label for migration in load_migrations()]
    assert len(migrations) >= 7
    undone = await run("migrate", "--rollback", str(len(migrations)), "--yes", DATABASE_URL=database_url)
    assert undone.status == 0
    refused = await run(DATABASE_URL=database_url, CHANNEL="console")
    assert refused.status == 1
    assert "birthday migrate" in refused.err
    applied = await run("migrate", DATABASE_URL=database_url)
    assert applied.out.splitlines() == [f"applied {migration}" for migration in migrations]
    status = await run("migrate", "--status", DATABASE_URL=database_url)
    assert [line.split()[1] for line in status.out.splitlines()[1:]] == ["applied"] * len(migrations)


async def test_check_shows_the_settings_masked_and_tries_every_dependency(database_url: str) -> None:
    """What works says ok, what does not says why; the exit status is 1 then, and no secret is shown."""
    finished = await run(
        "check",
        DATABASE_URL=database_url,
        MESSAGE_SERVICE_URL="http://127.0.0.1:1",
        MESSAGE_SERVICE_API_KEY="hidden",
        WORKER_CONCURRENCY="7",
    )
    assert finished.status == 1
    lines = {line.split()[0]: line for line in finished.out.splitlines() if line.strip()}
    assert lines["WORKER_CONCURRENCY"].split() == ["WORKER_CONCURRENCY", "7", "environment"]
    assert lines["CIRCUIT_BREAKER_FAILURE_THRESHOLD"].split() == ["CIRCUIT_BREAKER_FAILURE_THRESHOLD", "20", "default"]
    assert lines["DATABASE_URL"].split()[1] == mask_url(database_url)
    assert "default" in lines["SEND_AT"]
    assert lines["database"].endswith("ok")
    assert lines["queue"].endswith("ok")
    assert "FAILED" in lines["channel"]
    assert "hidden" not in finished.out + finished.err


async def test_check_blames_only_what_is_away(rabbitmq_url: str) -> None:
    """A queue in RabbitMQ is fine whatever becomes of the database; a queue in the database is away with it.

    What a command logs meanwhile says that it was a command.
    """
    settings = {"DATABASE_URL": "postgresql://127.0.0.1:1/birthday_scheduler"}
    for more, queue in (({"RABBITMQ_URL": rabbitmq_url, "LOG_LEVEL": "debug"}, "ok"), ({}, "FAILED:")):
        finished = await run("check", **settings, **more)
        assert finished.status == 1
        lines = {line.split()[0]: line for line in finished.out.splitlines() if line.strip()}
        assert "FAILED: cannot connect to the database" in lines["database"]
        assert queue in lines["queue"].split()
        logged = [json.loads(line) for line in finished.err.splitlines()]
        assert {line["role"] for line in logged} == ({"command"} if more else set())


async def test_an_import_from_standard_input_that_is_rehearsed_changes_nothing(database_url: str) -> None:
    """--dry-run says what would happen; the export after it is empty but for its header."""
    user = {"firstName": "Ada", "lastName": "Lovelace", "email": "a@example.com"}
    row = json.dumps(user | {"dateOfBirth": "1992-12-10", "timezone": "UTC"})
    rehearsed = await run("import", "-", "--dry-run", stdin=row, DATABASE_URL=database_url)
    assert rehearsed.status == 0
    assert "1 users would be created" in rehearsed.err
    exported = await run("export", DATABASE_URL=database_url)
    assert len(exported.out.splitlines()) == 1


async def test_help_names_every_command(tmp_path: Path) -> None:
    """What a newcomer types first."""
    finished = await run("--help", BIRTHDAY_DATA_DIR=str(tmp_path))
    assert finished.status == 0
    for command in ("migrate", "preview", "check", "import", "export", "status"):
        assert f"  {command} " in finished.out

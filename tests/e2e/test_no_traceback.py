"""No command ends in a traceback: whatever is wrong around it, it says so in a line, and its status fits."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from tests.support.program import COMMAND, Finished, run

COMMANDS = [
    ("pause",),
    ("resume",),
    ("check",),
    ("dlq", "list"),
    ("dlq", "list", "--json"),
    ("dlq", "requeue"),
    ("dlq", "purge", "--yes"),
    ("audit", "--from", "2026-01-01", "--to", "2026-01-02"),
    ("forecast",),
    ("forecast", "--json"),
    ("export",),
    ("migrate",),
    ("migrate", "--status"),
    ("preview", "--date-of-birth", "1990-01-01", "--timezone", "UTC"),
    ("--help",),
]
ROW = '{{"firstName":"J\u00f6rg","lastName":"M\u00fcller","email":"j@example.com","dateOfBirth":"{}","timezone":"UTC"}}'


def has_traceback(finished: Finished) -> bool:
    """Say whether Python, or our own log of a crash, shows where in the program it was."""
    return bool(re.search(r'Traceback|File "|program\.crashed|Exception ignored', finished.err + finished.out))


async def run_into(output: str, *arguments: str, **settings: str) -> Finished:
    """Run a command whose standard output is closed (``pipe``), or full (``disk``)."""
    reader, writer = os.pipe()
    os.close(reader)
    if output == "disk":
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=kept | settings, stdin=DEVNULL, stdout=writer, stderr=PIPE
    )
    os.close(writer)
    async with asyncio.timeout(60):
        _, told = await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, "", told.decode())


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
async def test_a_reader_that_has_seen_enough_is_no_error(database_url: str, arguments: tuple[str, ...]) -> None:
    """As with ``| head``: nothing is said about it."""
    finished = await run_into("pipe", *arguments, DATABASE_URL=database_url)
    assert not has_traceback(finished)
    assert [line for line in finished.err.splitlines() if "the database is" not in line] == []


@pytest.mark.parametrize("arguments", [("dlq", "list"), ("forecast", "--json"), ("check",), ("export",)], ids=" ".join)
async def test_output_that_cannot_be_written_is_one_line(database_url: str, arguments: tuple[str, ...]) -> None:
    """A full disk is a failure: what a program reads afterwards is not all there is."""
    finished = await run_into("disk", *arguments, DATABASE_URL=database_url)
    assert finished.status == 1
    assert not has_traceback(finished)
    assert "No space left on device" in finished.err


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
async def test_a_terminal_that_lacks_characters_gets_others(database_url: str, encoding: str) -> None:
    """Names beyond its encoding, and the bars of a forecast."""
    settings = {"DATABASE_URL": database_url, "PYTHONIOENCODING": encoding, "LC_ALL": "C", "CHANNEL": "console"}
    rows = ROW.format(f"1990-{datetime.now(UTC):%m-%d}")
    imported = await run("import", "-", stdin=rows, SEND_AT="23:59:59", **settings)
    assert imported.status == 0, imported.err
    unknown = ("preview", "--date-of-birth", "1990-01-01", "--timezone", "M\u00fcnchen")
    for arguments in (("forecast",), ("forecast", "--json"), ("export",), ("check",), ("dlq", "list"), unknown):
        finished = await run(*arguments, SEND_AT="23:59:59", **settings)
        assert not has_traceback(finished)
        assert finished.status == (2 if arguments == unknown else 0), finished.err


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_role_without_privileges_is_told_what_it_lacks(database_url: str) -> None:
    """By every command and the service; 3 is an audit that could not look. ``check`` tells of everything else too."""
    connection = await asyncpg.connect(database_url)
    role = f"weak_{os.urandom(4).hex()}"
    await connection.execute(f"CREATE ROLE {role}")
    weak = f"{database_url}{'&' if '?' in database_url else '?'}role={role}"
    try:
        for arguments in (*COMMANDS[:12], ("--role", "scheduler"), ("import", "/dev/null")):
            finished = await run(*arguments, DATABASE_URL=weak)
            assert finished.status == (3 if arguments[0] == "audit" else 1), finished
            said = finished.err + finished.out
            assert "permission denied" in said or f"the role {role} may not read" in said
            assert not has_traceback(finished)
            if arguments[0] == "check":
                assert "WORKER_CONCURRENCY" in finished.out
    finally:
        await connection.execute(f"DROP ROLE {role}")
        await connection.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take another user id")
async def test_a_user_id_without_a_name_is_told_to_name_a_user() -> None:
    """As a container may have: PostgreSQL's client falls back on the name of the process's user."""
    imports = "import os; import birthday.cli.main, birthday.cli.pauses; from birthday.__main__ import main"
    script = f"{imports}; os.setuid(54321); main()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, "pause"),
        env={"PATH": os.environ["PATH"], "DATABASE_URL": "postgresql://127.0.0.1:1/x"},
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await process.communicate()
    finished = Finished(process.returncode or 0, out.decode(), err.decode())
    assert finished.status == 1
    assert not has_traceback(finished)
    assert "names no user, and the user id of this process, 54321, has no name" in finished.err


async def test_a_terminal_does_not_obey_what_a_file_says(database_url: str, tmp_path: Path) -> None:
    """Escape sequences in the header of a CSV, or in the name of a file, are shown as a replacement."""
    file = tmp_path / "users\x1b]0;owned\x07.csv"
    file.write_text("firstName,last\x1b[2JName\n", encoding="utf-8")
    for name in (file, tmp_path / "gone\x1b[2J.csv"):
        finished = await run("import", str(name), DATABASE_URL=database_url)
        assert finished.status == 2
        assert "\N{REPLACEMENT CHARACTER}" in finished.err
        assert "\x1b" not in finished.err


async def test_a_rollback_says_what_is_lost_and_wants_a_yes(database_url: str) -> None:
    """Counted, by migration; without a terminal and without --yes nothing is undone."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("INSERT INTO pauses VALUES ('birthday', true, now(), 'ada')")
    labels = [row["name"] for row in await connection.fetch("SELECT name FROM schema_migrations")]
    steps = str(len(labels) - labels.index("pauses"))
    asked = await run("migrate", "--rollback", steps, DATABASE_URL=database_url)
    assert asked.status == 2
    assert "undoing 0005_message_ids loses no data" in asked.err
    assert "undoing 0003_pauses loses 1 message types that are paused" in asked.err
    assert "use --yes" in asked.err
    assert await connection.fetchval("SELECT count(*) FROM schema_migrations") == len(labels)
    undone = await run("migrate", "--rollback", steps, "--yes", DATABASE_URL=database_url)
    assert undone.status == 0
    assert "undoing 0003_pauses loses 1 message types that are paused" in undone.err
    assert await connection.fetchval("SELECT to_regclass('pauses')") is None
    await connection.close()


async def test_check_asks_what_ready_asks(database_url: str) -> None:
    """A read-only session fails it; migrations that are still to come are the next step, and no failure."""
    mark = "&" if "?" in database_url else "?"
    read_only = await run(
        "check", DATABASE_URL=f"{database_url}{mark}default_transaction_read_only=on", CHANNEL="console"
    )
    assert read_only.status == 1
    assert re.search(r"^database .*FAILED: the database is read-only", read_only.out, re.MULTILINE)
    await run("migrate", "--rollback", "2", "--yes", DATABASE_URL=database_url)
    before = await run("check", DATABASE_URL=database_url, CHANNEL="console")
    assert before.status == 0, before.out
    assert re.search(
        r"^migrations .*next step: `birthday migrate`: 00\d\d_\w+(, 00\d\d_\w+)*$", before.out, re.MULTILINE
    )
    await run("migrate", "--contract", DATABASE_URL=database_url)
    after = await run("check", DATABASE_URL=database_url, CHANNEL="console")
    assert re.search(r"^migrations .*  ok$", after.out, re.MULTILINE)

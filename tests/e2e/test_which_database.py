"""Which database a command acts on, and which channel a service has: never one that nobody meant."""

import json
from pathlib import Path

import pytest

from birthday.config import mask_url
from tests.support.program import run, running

COMMANDS = [
    ("pause",),
    ("resume",),
    ("dlq", "list"),
    ("dlq", "requeue"),
    ("dlq", "purge", "--yes"),
    ("dlq", "archive", "-"),
    ("requeue", "--delivered-from", "2026-01-01", "--delivered-to", "2026-01-02"),
    ("audit", "--from", "2026-01-01", "--to", "2026-01-02"),
    ("explain", "ada@example.com"),
    ("forecast",),
    ("export",),
    ("migrate",),
    ("migrate", "--status"),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
async def test_a_command_never_makes_a_database(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Without DATABASE_URL and without an embedded database it ends with status 2 and names the ways out."""
    data = tmp_path / "data"
    finished = await run(*arguments, BIRTHDAY_DATA_DIR=str(data))
    assert finished.status == 2
    assert finished.out == ""
    for way_out in ("DATABASE_URL", f"BIRTHDAY_DATA_DIR='{data}'", "--env-file", "birthday import"):
        assert way_out in finished.err
    assert not data.exists()


async def test_check_shows_the_settings_and_makes_no_database_either(tmp_path: Path) -> None:
    """Whoever asks why nothing works sees what is in force, and that there is no database."""
    finished = await run("check", BIRTHDAY_DATA_DIR=str(tmp_path / "data"))
    assert finished.status == 2
    assert "WORKER_CONCURRENCY" in finished.out
    assert "FAILED: DATABASE_URL is not set" in finished.out
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_command_says_on_standard_error_which_database_it_acts_on(database_url: str) -> None:
    """For every command that uses one; standard output stays what programs read."""
    for arguments in [*COMMANDS, ("dlq", "list", "--json")]:
        finished = await run(*arguments, DATABASE_URL=database_url)
        # There is no user whose messages could be explained.
        assert finished.status == (1 if arguments[0] == "explain" else 0), finished.err
        assert f"birthday: the database is {mask_url(database_url)}" in finished.err.splitlines()
        assert "the database is" not in finished.out


async def test_a_file_of_settings_is_read_by_every_command_and_the_service(database_url: str, tmp_path: Path) -> None:
    """Before or after the name of the command; it wins over the environment."""
    file = tmp_path / "settings.env"
    file.write_text(f"# The one that is meant\nDATABASE_URL='{database_url}'\nCHANNEL=console\n", encoding="utf-8")
    other = {"DATABASE_URL": "postgresql://127.0.0.1:1/nowhere"}
    for arguments in (("--env-file", str(file), "dlq", "list"), ("dlq", "list", "--env-file", str(file))):
        finished = await run(*arguments, **other)
        assert (finished.status, finished.out) == (0, "no dead letters\n")
    async with running("--env-file", str(file), **other) as program:
        assert mask_url(database_url) in str(await program.wait_for_event("service.started"))


async def test_a_file_of_settings_with_a_bad_line_is_refused(tmp_path: Path) -> None:
    """With its path and the line; what it would have set may be secret, and is not repeated."""
    file = tmp_path / "settings.env"
    file.write_text("PORT=0\nMESSAGE_SERVICE_API_KEY='hidden\n", encoding="utf-8")
    for arguments in (("--env-file", str(file)), ("pause", "--env-file", str(file))):
        finished = await run(*arguments)
        assert finished.status == 2
        assert f"{file}, line 2: MESSAGE_SERVICE_API_KEY" in finished.err
        assert "hidden" not in finished.err


async def test_a_worker_with_a_real_database_and_a_misspelt_url_does_not_start(database_url: str) -> None:
    """It would print greetings and count them as delivered; ``check`` says the same, with all the rest."""
    settings = {"DATABASE_URL": database_url, "MESAGE_SERVICE_URL": "http://127.0.0.1:1"}
    started = await run(**settings)
    assert started.status == 2
    for word in ("MESSAGE_SERVICE_URL is not set", "CHANNEL=console", "MESAGE_SERVICE_URL is not a setting"):
        assert word in started.err
    checked = await run("check", **settings)
    assert checked.status == 1
    lines = {line.split()[0]: line for line in checked.out.splitlines() if line.strip()}
    assert "FAILED: MESSAGE_SERVICE_URL is not set" in lines["channel"]
    assert "MESAGE_SERVICE_URL is not a setting: did you mean MESSAGE_SERVICE_URL?" in lines["warning"]


async def test_a_service_names_what_looks_like_a_setting_and_is_none(database_url: str) -> None:
    """As a warning in its log: the setting that was meant has its default."""
    settings = {"DATABASE_URL": database_url, "CHANNEL": "console", "SEND_ATT": "10:00"}
    async with running(**settings) as program:
        warning = await program.wait_for_event("settings.unknown_variable")
    assert (warning["level"], warning["variable"], warning["did_you_mean"]) == ("warning", "SEND_ATT", "SEND_AT")
    assert "10:00" not in json.dumps(warning)

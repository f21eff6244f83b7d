"""What commands import: whoever asks for the version does not wait for the server, the database or the queue."""

import os
import subprocess
import sys

import click
import pytest

from birthday.cli.main import COMMANDS, main

DRIVERS = {"aiohttp", "aiormq", "asyncpg", "structlog", "uvloop"}
PREVIEW = ("preview", "--date-of-birth", "1990-02-28", "--timezone", "Asia/Jakarta")
SCRIPT = """
import sys
from birthday.__main__ import main
try:
    main()
finally:
    print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def imported_by(*arguments: str) -> set[str]:
    """Run a command in a process of its own, and return the packages that it has imported at its end."""
    environment = {"PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert finished.stdout
    return set(finished.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (("--version",), DRIVERS | {"croniter", "orjson", "pydantic", "rich", "asyncio"}),
        (("--help",), DRIVERS | {"croniter", "orjson", "pydantic", "rich", "asyncio"}),
        (PREVIEW, DRIVERS | {"orjson"}),
        ((*PREVIEW, "--json"), DRIVERS | {"rich"}),
    ],
)
def test_a_command_imports_no_package_that_only_others_need(arguments: tuple[str, ...], unneeded: set[str]) -> None:
    """Each of these packages takes a considerable part of what such a command may take."""
    imported = imported_by(*arguments)
    assert {"click", "birthday"} <= imported
    assert not imported & unneeded


def test_a_command_that_uses_the_database_imports_its_driver() -> None:
    """What the other test does not find would be found."""
    assert imported_by("forecast", "--help") >= {"asyncpg", "pydantic", "rich", "structlog"}


def test_the_list_of_commands_says_of_each_what_its_own_help_says() -> None:
    """The list does not import the commands."""
    assert {name for name, _, _ in COMMANDS} >= {"audit", "import", "preview"}
    for name, _, summary in COMMANDS:
        _, command, _ = main.resolve_command(click.Context(main), [name])
        assert command is not None
        assert (command.name, command.get_short_help_str(1000)) == (name, summary)

"""What all commands do alike: read the settings, run to an end, and turn errors into exit statuses, here only.

0 is success, 1 a failure, 2 a wrong setting or a wrong argument, 130 an end by Ctrl-C. Where 1 says what a command has
found, as that of ``birthday audit`` does, 3 says that it could not look.
"""

import os
import pwd
import socket
import sys
import traceback
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg
import click
import structlog
import uvloop

from birthday.config import Settings, load_settings
from birthday.errors import BirthdayError, ConfigurationError, InvalidInputError
from birthday.telemetry.errors import error_text
from birthday.telemetry.logs import LogFile, configure_logs
from birthday.wiring.database import require_database
from birthday.wiring.names import database_name

log = structlog.get_logger()

_Result = TypeVar("_Result")

COULD_NOT_LOOK = 3


def command_settings() -> Settings:
    """Read the settings for a command: it logs what is wrong to standard error, readable, and nothing if all is well.

    Raises:
        ConfigurationError: if one is wrong.
    """
    settings = load_settings()
    # Its result is what it prints. LOG_LEVEL=info is what the service runs with, often in the same environment.
    level = "warning" if settings.log_level == "info" else settings.log_level
    configure_logs(level, settings.log_format, LogFile(None), "command")
    return settings


def database_settings(*, create: bool = False) -> Settings:
    """Read the settings for a command that uses the database, and say on standard error which database that is.

    Raises:
        ConfigurationError: if a setting is wrong, or there is no database and the command must not ``create`` one.
    """
    settings = command_settings()
    if not create:
        require_database(settings)
    click.echo(f"birthday: the database is {database_name(settings)}", err=True)
    return settings


def run(main_task: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a command to its end on an event loop of its own. Ctrl-C cancels it, and is raised once it has tidied up."""
    return uvloop.run(main_task)


def operator() -> str:
    """Name who runs this command, as user@host."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


@contextmanager
def errors(failure: int = 1) -> Iterator[None]:
    """Say what went wrong in a line on standard error, and leave with the status that fits; ``failure`` by default.

    Nothing gets past it as a traceback: of an error that nobody expected, the line names the place in the program.
    """
    try:
        yield
    except (ConfigurationError, InvalidInputError) as error:
        _complain(str(error))
        sys.exit(2)
    except BirthdayError as error:
        _complain(str(error))
        sys.exit(failure)
    except asyncpg.PostgresError as error:
        _complain(f"the database refuses: {error_text(error)}")
        sys.exit(failure)
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        sys.exit(failure)
    except OSError as error:
        _complain(f"{error.filename or 'standard output'} cannot be used: {error.strerror or error}")
        sys.exit(failure)
    except KeyboardInterrupt:
        sys.exit(130)
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        log.debug("command.crashed", exc_info=True)
        place = traceback.extract_tb(error.__traceback__)[-1]
        _complain(f"an error that is ours, please report it: {error_text(error)}, {place.filename}:{place.lineno}")
        sys.exit(failure)


class Commands(click.Group):
    """Commands of which none ends in a traceback, wherever it fails: at printing what it has found, for example."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's
        """Run the command that was chosen."""
        with errors():
            return super().invoke(ctx)


def _complain(text: str) -> None:
    """Write lines that a terminal shows and does not obey: a text may quote a file or an argument."""
    for line in text.splitlines():
        shown = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line)
        click.echo(f"birthday: {shown}", err=True)

"""What all commands have in common: confirmation, exit statuses, and the option --env-file.

Exit statuses: 0 is success, 1 a failure, 2 a wrong setting or argument, 130 an end by Ctrl-C. If 1 is a result of the
command, as with ``birthday audit``, 3 means that the command could not get a result.

Modules that are slow to import are imported where they are used, so that other commands do not wait for them.
"""

import pkgutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from birthday.errors import BirthdayError, ConfigurationError, InvalidInputError

COULD_NOT_LOOK = 3


def require_terminal(why: str) -> None:
    """Refuse a command that must ask for confirmation and has no terminal; ``why`` says both."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"{why}: use --yes")


@contextmanager
def errors(failure: int = 1) -> Iterator[None]:
    """Turn an error into text on standard error and an exit status: 2, 130 or otherwise ``failure``.

    No error becomes a traceback. If the error was not expected, the line names the place in the program instead.
    """
    try:
        yield
    except (ConfigurationError, InvalidInputError) as error:
        _complain(str(error))
        sys.exit(2)
    except BirthdayError as error:
        _complain(str(error))
        sys.exit(failure)
    except BrokenPipeError:
        # The reader of the output has closed it, as ``head`` does.
        sys.exit(failure)
    except OSError as error:
        _complain(f"{error.filename or 'standard output'} cannot be used: {error.strerror or error}")
        sys.exit(failure)
    except KeyboardInterrupt:
        sys.exit(130)
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:  # noqa: BLE001 - the last resort; it is logged where it is described
        _complain(_describe(error))
        sys.exit(failure)


def _describe(error: Exception) -> str:
    """Return the text of an unexpected error: what the database refuses, or the place in the program."""
    import asyncpg  # noqa: PLC0415 - see above
    import structlog  # noqa: PLC0415 - see above

    from birthday.telemetry.errors import error_text  # noqa: PLC0415 - see above

    if isinstance(error, asyncpg.PostgresError):
        return f"the database refuses: {error_text(error)}"
    if structlog.is_configured():
        structlog.get_logger().debug("command.crashed", exc_info=error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"an error that is ours, please report it: {error_text(error)}, {place.filename}:{place.lineno}"


class Commands(click.Group):
    """Commands that never end in a traceback, even if printing the result fails.

    The module of a command is imported when the command is chosen. Until then a placeholder stands for it.
    """

    def add_later(self, name: str, place: str, summary: str) -> None:
        """Add the command at ``place``, a ``module:attribute`` in birthday.cli; ``summary`` begins its help."""
        self.add_command(_Placeholder(name, place, summary))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the command that was chosen, and return it."""
        chosen = self.commands.get(args[0])
        if isinstance(chosen, _Placeholder):
            command = pkgutil.resolve_name(f"birthday.cli.{chosen.place}")
            offer_env_file(command)
            self.add_command(command, args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's
        """Run the command that was chosen."""
        with errors():
            return super().invoke(ctx)


class _Placeholder(click.Command):
    """The entry in ``--help`` for a command that is not imported yet."""

    def __init__(self, name: str, place: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self.place = place


def offer_env_file(command: click.Command) -> None:
    """Give a command, and all commands in it, the option --env-file; it is applied before any setting is read."""
    command.params.append(
        click.Option(
            ["--env-file"],
            metavar="PATH",
            type=click.Path(path_type=Path),
            is_eager=True,
            expose_value=False,
            callback=_apply_env_file,
            help="Read settings from this file, like systemd and Compose. They override the environment.",
        )
    )
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        if not isinstance(inner, _Placeholder):
            offer_env_file(inner)


def _apply_env_file(_context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    if path is not None:
        from birthday.config import apply_env_file  # noqa: PLC0415 - see above

        with errors():
            apply_env_file(path)


def _complain(text: str) -> None:
    """Write lines with control characters replaced, because ``text`` may quote a file or an argument."""
    for line in text.splitlines():
        shown = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line)
        click.echo(f"birthday: {shown}", err=True)

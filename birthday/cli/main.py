"""The command ``birthday``: what an operator types. Its exit statuses are those of ``cli/command.py``."""

import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import click
import orjson
import structlog
from rich.console import Console
from rich.table import Column, Table

from birthday import service
from birthday.cli.command import COULD_NOT_LOOK, Commands, command_settings, database_settings, errors, run
from birthday.cli.dlq import dlq
from birthday.cli.forecast import forecast
from birthday.cli.pauses import pause, resume
from birthday.cli.render.audit import LISTABLE, run_audit
from birthday.cli.render.status import describe_differences
from birthday.cli.render.transfer import run_deletions, run_import
from birthday.cli.requeue import requeue
from birthday.cli.status import status
from birthday.clock import SystemClock
from birthday.config import (
    Settings,
    apply_env_file,
    check_channel,
    check_listener,
    effective_settings,
    load_settings,
    misspelt_settings,
)
from birthday.core.audit import FAILABLE, Finding
from birthday.core.occasion import LAST_YEAR, Occasion, birthdays_from
from birthday.core.user import parse_date
from birthday.core.zone import load_zone
from birthday.errors import ConfigurationError
from birthday.operations.audit import Audit, Auditor
from birthday.operations.clock_guard import require_right_clock
from birthday.operations.heartbeats import RUNNING_SECONDS, differences
from birthday.operations.readiness import DATABASE, MIGRATIONS
from birthday.operations.transfer.deletions import DeletionSummary, export_deletions
from birthday.operations.transfer.exporting import export_users
from birthday.operations.transfer.importing import ImportSummary
from birthday.operations.transfer.records import Format
from birthday.store import migrations
from birthday.store.connection import borrow
from birthday.store.migrations import Loss, Migration, Status
from birthday.store.processes import Seen, read_processes
from birthday.store.users import Planning
from birthday.telemetry.logs import LogFile, configure_logs
from birthday.wiring.database import connect_database, lacks_database, open_database
from birthday.wiring.dependencies import try_dependencies
from birthday.wiring.file_limit import raise_file_limit
from birthday.wiring.process import this_process

log = structlog.get_logger()

_WIDTH = 200
_EPILOG = (
    "Settings are environment variables, or lines of the file --env-file; 'birthday check' lists them all, with what "
    "is in force."
)


def _apply_env_file(_context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    if path is not None:
        with errors():
            apply_env_file(path)


def _offer_env_file(command: click.Command) -> None:
    """Give a command, and all commands in it, the option --env-file; it is obeyed before anything reads a setting."""
    command.params.append(
        click.Option(
            ["--env-file"],
            metavar="PATH",
            type=click.Path(path_type=Path),
            is_eager=True,
            expose_value=False,
            callback=_apply_env_file,
            help="Read settings from this file first, as systemd and Compose do; they win over the environment.",
        )
    )
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _offer_env_file(inner)


@click.group(
    cls=Commands, invoke_without_command=True, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--role", metavar="ROLES", help="Any mix of api, scheduler and worker, separated by commas.  [default: all]"
)
@click.version_option(version("birthday-scheduler"), "--version", prog_name="birthday", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context, role: str | None) -> None:
    """Greet every user on their birthday, at 09:00 in their own time zone, exactly once.

    Without a command it runs the service until it is stopped with Ctrl-C or SIGTERM. With neither DATABASE_URL nor
    RABBITMQ_URL set, it needs nothing else: an embedded PostgreSQL keeps users, messages and the queue.
    """
    if context.invoked_subcommand is None:
        with errors():
            settings = load_settings(role=role)
            check_listener(settings)
            check_channel(settings)
            logs = _open_logs(settings)
            for name, setting in misspelt_settings().items():
                log.warning("settings.unknown_variable", variable=name, did_you_mean=setting)
            status = run(service.run(settings, SystemClock(), logs))
        sys.exit(status)
    elif role is not None:
        raise click.UsageError("--role goes with no command: it says what the service does")


@main.command()
@click.option(
    "--rollback",
    "steps",
    metavar="[N]",
    type=click.IntRange(min=1),
    is_flag=False,
    flag_value=1,
    default=None,
    help="Undo the last N migrations instead.  [N: 1]",
)
@click.option("--status", is_flag=True, help="List the migrations and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before a rollback.")
def migrate(steps: int | None, *, status: bool, yes: bool) -> None:
    """Bring the database to the schema of this version.

    Safe to run at any time and from several hosts at once. An embedded database is migrated by the service itself.
    --rollback says what is lost with it, and asks first, on a terminal; anywhere else it needs --yes.
    """
    if status and steps is not None:
        raise click.UsageError("--status and --rollback exclude each other")
    with errors():
        settings = database_settings()
        if status:
            table = Table("migration", "state", "applied at (UTC)", box=None)
            for one in run(_migration_status(settings)):
                applied_at = f"{one.applied_at:%Y-%m-%d %H:%M:%S}" if one.applied_at else "-"
                table.add_row(one.label, one.state, applied_at)
            Console().print(table)
            return
        if steps is not None:
            _confirm_rollback(settings, steps, yes=yes)
        changed = run(_undo(settings, steps) if steps is not None else _apply(settings))
    verb = "applied" if steps is None else "undone"
    for migration in changed:
        click.echo(f"{verb} {migration.label}")
    if not changed:
        click.echo(f"nothing to be {verb}")


def _confirm_rollback(settings: Settings, steps: int, *, yes: bool) -> None:
    """Say what would be lost, and go on if that is meant."""
    labels, losses = run(_foresee(settings, steps))
    for label in labels:
        lost = [f"{loss.count:,} {loss.what}" for loss in losses if loss.label == label]
        click.echo(f"undoing {label} loses {'; '.join(lost) or 'no data'}", err=True)
    if labels and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("a rollback asks before it destroys anything, and there is no terminal: use --yes")
        click.confirm("Nothing brings that back but a backup. Undo?", abort=True, err=True)


async def _foresee(settings: Settings, steps: int) -> tuple[list[str], list[Loss]]:
    async with connect_database(settings) as pool, borrow(pool, None) as connection:
        return await migrations.foresee_rollback(connection, _known_migrations(), steps)


async def _apply(settings: Settings) -> list[Migration]:
    async with connect_database(settings) as pool, borrow(pool, None) as connection:
        return await migrations.migrate(connection, _known_migrations(), SystemClock().now())


async def _undo(settings: Settings, steps: int) -> list[Migration]:
    async with connect_database(settings) as pool, borrow(pool, None) as connection:
        return await migrations.rollback(connection, _known_migrations(), steps)


async def _migration_status(settings: Settings) -> list[Status]:
    async with connect_database(settings) as pool, borrow(pool, None) as connection:
        return await migrations.status(connection, _known_migrations())


def _known_migrations() -> list[Migration]:
    return migrations.load_migrations(migrations.schema_directory())


@main.command()
@click.option("--date-of-birth", required=True, metavar="DATE", help="YYYY-MM-DD.")
@click.option(
    "--timezone", "zone", required=True, metavar="ZONE", help="IANA name, or a fixed offset such as UTC+07:00."
)
@click.option("--from", "first", metavar="DATE", help="First local date to look at.  [default: today]")
@click.option("--count", default=5, show_default=True, type=click.IntRange(1, 1000), help="How many birthdays.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of date, local, utc, age.")
def preview(date_of_birth: str, zone: str, first: str | None, count: int, *, as_json: bool) -> None:
    """Show when somebody would be greeted: the local date and time, and the instant in UTC.

    SEND_AT and LEAP_DAY are obeyed as they are set.
    """
    with errors():
        settings = load_settings()
        loaded = load_zone(zone)
        born = _parse_day("--date-of-birth", date_of_birth)
        day = _parse_day("--from", first) if first else datetime.now(UTC).astimezone(loaded).date()
        occasions = list(islice(birthdays_from(born, loaded, settings.rules, day), count))
    rows = [_preview_row(occasion, born, occasion.due_at.astimezone(loaded)) for occasion in occasions]
    if len(rows) < count:
        click.echo(f"birthday: no birthday after the year {LAST_YEAR} can be computed", err=True)
    if as_json:
        click.echo(orjson.dumps(rows).decode())
        return
    table = Table("date", "local time", "UTC", "age", box=None)
    for row in rows:
        table.add_row(row["date"], row["local"], row["utc"], str(row["age"]))
    Console().print(table)


@main.command()
def check() -> None:
    """Print the configuration in force, secrets masked, and try every dependency, as /ready does.

    The exit status is 1 if one cannot be used. Migrations that are still to be applied are the next step, and no
    failure.
    """
    with errors():
        settings = command_settings()
        check_listener(settings)
        dependencies = run(try_dependencies(settings, SystemClock(), sys.stdout))
        asked = [one for one in dependencies if one.name in {DATABASE, MIGRATIONS}]
        # What others are is asked only of a database that can tell.
        others = [] if any(one.error or one.next_step for one in asked) else run(_running(settings))
    table = Table("variable", Column("value", overflow="fold"), "set by", box=None)
    for line in effective_settings(settings):
        table.add_row(line.variable, line.value, "environment" if line.is_set else "default")
    # Wider than most terminals: a name or a value that is cut can be neither searched for nor copied.
    Console(width=_WIDTH).print(table)
    click.echo()
    for name, setting in misspelt_settings().items():
        click.echo(f"warning    {name} is not a setting: did you mean {setting}?")
    for dependency in dependencies:
        step = f"next step: {dependency.next_step}" if dependency.next_step else "ok"
        state = step if dependency.error is None else f"FAILED: {dependency.error}"
        noted = f"; {dependency.note}" if dependency.note else ""
        click.echo(f"{dependency.name:<10} {dependency.where}  {state}{noted}")
    click.echo(f"{'files':<10} {raise_file_limit()}")
    here = this_process(settings, SystemClock())
    found = differences([here, *(one.process for one in others)])
    if len(found.tzdata) == 1:
        click.echo(f"{'tzdata':<10} {here.tzdata}")
    for name, text in describe_differences(found):
        click.echo(f"{name:<10} {text}")
    if any(dependency.error is not None for dependency in dependencies):
        sys.exit(2 if lacks_database(settings) else 1)


async def _running(settings: Settings) -> Sequence[Seen]:
    async with open_database(settings, SystemClock()) as pool, borrow(pool) as connection:
        return await read_processes(connection, RUNNING_SECONDS)


@main.command("import")
@click.argument("file")
@click.option("--dry-run", is_flag=True, help="Check everything and change nothing.")
@click.option(
    "--report",
    metavar="PATH",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where rejected rows are listed.  [default: FILE.errors.ndjson]",
)
@click.option("--with-ids", is_flag=True, help="Keep the ids of an export: after a restore, the same users come back.")
@click.option("--deleted", is_flag=True, help="FILE is a list of deletions: after a restore, delete these users again.")
def import_(file: str, report: Path | None, *, dry_run: bool, with_ids: bool, deleted: bool) -> None:
    """Create a user for each row of FILE, which is CSV or NDJSON; '-' is standard input.

    CSV has a header of firstName, lastName, email, dateOfBirth, and timezone or timezoneOffset; NDJSON has the objects
    that POST /users takes. Rows that are wrong are reported by line, the others go in. Importing a file again creates
    nobody twice. The exit status is 1 if a row was rejected.

    After the restore of a backup, --with-ids brings back who is in a later export, with the ids of then: what they are
    sent has the Idempotency-Key of then. --deleted takes a list of 'birthday export --deleted', or the API's log.
    """
    if with_ids and deleted:
        raise click.UsageError("--with-ids and --deleted exclude each other")
    with errors():
        settings = database_settings(create=not deleted)
        if deleted:
            summary: ImportSummary | DeletionSummary = run(_delete_again(settings, file, report, dry_run=dry_run))
        else:
            summary = run(_import(settings, file, report, dry_run=dry_run, with_ids=with_ids))
    if summary.rejected:
        sys.exit(1)


async def _import(
    settings: Settings, file: str, report: Path | None, *, dry_run: bool, with_ids: bool
) -> ImportSummary:
    clock = SystemClock()
    catch_up = settings.catch_up_window if with_ids else None
    planning = Planning(settings.rules, settings.plan_horizon)
    async with open_database(settings, clock, create=True) as pool:
        await require_right_clock(pool, clock)
        async with borrow(pool, None) as connection:
            return await run_import(
                file, connection, clock, planning, sys.stderr, dry_run=dry_run, report_path=report, catch_up=catch_up
            )


async def _delete_again(settings: Settings, file: str, report: Path | None, *, dry_run: bool) -> DeletionSummary:
    clock = SystemClock()
    async with open_database(settings, clock) as pool:
        await require_right_clock(pool, clock)
        async with borrow(pool, None) as connection:
            return await run_deletions(file, connection, clock, sys.stderr, dry_run=dry_run, report_path=report)


@main.command()
@click.option("--format", "form", type=click.Choice(["csv", "ndjson"]), default="csv", show_default=True)
@click.option("--deleted", is_flag=True, help="Write who was deleted instead: ids and instants, and nothing else.")
def export(form: str, *, deleted: bool) -> None:
    """Write all users to standard output, in a form that 'birthday import' takes.

    Values stand as they are: a spreadsheet may take one that begins with = + - or @ for a formula.
    """
    with errors():
        run(_export(database_settings(), Format(form), deleted=deleted))


async def _export(settings: Settings, form: Format, *, deleted: bool) -> None:
    async with open_database(settings, SystemClock()) as pool, borrow(pool, None) as connection:
        await (export_deletions if deleted else export_users)(connection, form, sys.stdout.buffer)


@main.command()
@click.option("--from", "first", required=True, metavar="DATE", help="First day, UTC.")
@click.option("--to", "last", required=True, metavar="DATE", help="Last day, UTC.")
@click.option("--list", "listed", type=click.Choice(LISTABLE), help="Print these one by one as well.")
@click.option(
    "--fail-on",
    metavar="FINDINGS",
    default="",
    help=f"Let these count as failures as well: any of {', '.join(FAILABLE)}, separated by commas.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def audit(first: str, last: str, listed: str | None, fail_on: str, *, as_json: bool) -> None:
    """Recompute who was due from DATE to DATE, and compare it with what the messages say.

    Who was due, and when, follows from the users alone, with SEND_AT and LEAP_DAY as they are set here. Nothing is
    changed. The exit status is 1 if a birthday is missing, a message is a duplicate or was sent at the wrong time, or
    there is a finding of --fail-on; 3 if the database could not be asked.
    """
    with errors(COULD_NOT_LOOK):
        settings = database_settings()
        first_on, last_on = _parse_day("--from", first), _parse_day("--to", last)
        if first_on > last_on:
            raise click.BadParameter(f"{last_on} is before --from {first_on}", param_hint="--to")
        failures = _parse_failures(fail_on)
        result = run(_audit(settings, first_on, last_on, listed, as_json=as_json))
    if result.broken or result.has_any(failures):
        sys.exit(1)


async def _audit(settings: Settings, first: date, last: date, listed: str | None, *, as_json: bool) -> Audit:
    clock = SystemClock()
    planning = Planning(settings.rules, settings.plan_horizon)
    async with open_database(settings, clock) as pool:
        await require_right_clock(pool, clock)
        auditor = Auditor(pool, planning, timedelta(days=settings.retention_days))
        return await run_audit(auditor, first, last, clock.now(), sys.stdout, listed=listed, as_json=as_json)


for command in (dlq, forecast, pause, requeue, resume, status):
    main.add_command(command)
_offer_env_file(main)


def _preview_row(occasion: Occasion, born: date, local: datetime) -> dict[str, Any]:
    return {
        "date": occasion.on.isoformat(),
        "local": local.isoformat(),
        "utc": occasion.due_at.isoformat().replace("+00:00", "Z"),
        "age": occasion.year - born.year,
    }


def _parse_day(option: str, text: str) -> date:
    try:
        return parse_date(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _parse_failures(text: str) -> list[Finding]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    accepted = [*map(str, FAILABLE)]
    if strangers := [name for name in names if name not in accepted]:
        detail = f"'{strangers[0]}' is not accepted; accepted are {', '.join(accepted)}, separated by commas"
        raise click.BadParameter(detail, param_hint="--fail-on")
    return [Finding(name) for name in names]


def _open_logs(settings: Settings) -> LogFile:
    try:
        file = LogFile(settings.log_file)
    except OSError as error:
        raise ConfigurationError(
            f"LOG_FILE='{settings.log_file}': {error.strerror}; a file in a writable directory is accepted"
        ) from None
    configure_logs(settings.log_level, settings.log_format, file, settings.role_names)
    return file

"""The commands ``birthday import`` and ``birthday export``: users from a file, and users to standard output."""

import sys
from pathlib import Path
from typing import TextIO

import click

from birthday.cli.command import errors
from birthday.cli.database import checked_pool, connection_for_long, database_settings, operator, run
from birthday.cli.render.progress import ImportProgress
from birthday.cli.render.transfer import describe_deletions, describe_import, describe_report
from birthday.clock import Clock, SystemClock
from birthday.config import Settings
from birthday.operations.transfer.deletions import DeletionSummary, export_deletions, import_deletions
from birthday.operations.transfer.exporting import export_users
from birthday.operations.transfer.importing import CREATION, ImportOptions, ImportSummary, Mode, import_users
from birthday.operations.transfer.records import Format
from birthday.operations.transfer.report import default_report_path, open_report
from birthday.operations.transfer.source import open_source, source_size
from birthday.store.connection import Connection, borrow
from birthday.store.users import Planning
from birthday.wiring.database import compare_with_pooler
from birthday.wiring.scheduler import make_planning


@click.command("import")
@click.argument("file")
@click.option(
    "--mode",
    type=click.Choice(list(Mode)),
    default=Mode.CREATE,
    show_default=True,
    help="upsert also changes users who differ.",
)
@click.option("--dry-run", is_flag=True, help="Check everything and change nothing.")
@click.option(
    "--report",
    metavar="PATH",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where rejected rows are listed.  [default: FILE.errors.ndjson]",
)
@click.option("--with-ids", is_flag=True, help="Keep the ids of an export, after a restore.")
@click.option("--deleted", is_flag=True, help="FILE is a list of deletions: delete these users again, after a restore.")
def import_(file: str, mode: Mode, report: Path | None, *, dry_run: bool, with_ids: bool, deleted: bool) -> None:
    """Create a user for each row of FILE (CSV or NDJSON).

    '-' is standard input. CSV has a header of firstName, lastName, email, dateOfBirth, and timezone or timezoneOffset;
    also externalId, locale, suppressed (true or false), attributes (JSON), and anniversaries.TYPE for another yearly
    date, such as anniversaries.work-anniversary. An empty cell counts as not given. dateOfBirth is YYYY-MM-DD, or
    --MM-DD without a year. NDJSON has the objects that POST /users takes. Wrong rows are reported by line and do not
    stop the others. Importing a file again creates no user twice. The exit status is 1 if a row was rejected.

    --mode upsert finds the user of a row by its externalId, then by its e-mail address, and changes what the row has.

    After the restore of a backup, --with-ids adds the users of a later export with their ids and Idempotency-Keys.
    --deleted takes the output of 'birthday export --deleted', or the API's log.
    """
    if with_ids and deleted:
        raise click.UsageError("--with-ids and --deleted exclude each other")
    if mode is Mode.UPSERT and (with_ids or deleted):
        raise click.UsageError("--mode upsert excludes --with-ids and --deleted")
    with errors():
        settings = database_settings(create=not deleted, direct=dry_run and not deleted)
        if deleted:
            summary: ImportSummary | DeletionSummary = run(_delete_again(settings, file, report, dry_run=dry_run))
        else:
            summary = run(_import(settings, file, report, mode, dry_run=dry_run, with_ids=with_ids))
    if summary.rejected:
        sys.exit(1)


async def _import(
    settings: Settings, file: str, report: Path | None, mode: Mode, *, dry_run: bool, with_ids: bool
) -> ImportSummary:
    clock = SystemClock()
    options = ImportOptions(mode, dry_run, settings.catch_up_window if with_ids else None)
    planning = make_planning(settings)
    used = settings.direct if dry_run else settings
    async with checked_pool(used, clock, create=True) as pool:
        if dry_run:
            await compare_with_pooler(settings, pool)
        async with borrow(pool, None) as connection:
            return await import_file(file, connection, clock, planning, sys.stderr, options, report_path=report)


async def import_file(
    name: str,
    connection: Connection,
    clock: Clock,
    planning: Planning,
    screen: TextIO,
    options: ImportOptions = CREATION,
    *,
    report_path: Path | None = None,
) -> ImportSummary:
    """Import the file ``name``, or standard input for ``-``, and show progress and result on ``screen``.

    Rejected rows are listed in ``report_path``, by default
    ``NAME.errors.ndjson``. If the import ends early, by Ctrl-C or an error, it still writes how many users are created.
    """
    path = report_path or default_report_path(name)
    with open_source(name) as source, open_report(path, source) as report:
        bar = ImportProgress(source_size(source), screen)
        finished = False
        try:
            with bar:
                await import_users(source, connection, clock, planning, operator(), report.add, bar.update, options)
            finished = True
        finally:
            lines = describe_report(report)
            # If nothing was read, the error that ended the import says enough.
            if finished or bar.summary.read:
                lines.append(describe_import(bar.summary, dry_run=options.dry_run, finished=finished))
            screen.writelines(f"{line}\n" for line in lines)
    return bar.summary


async def _delete_again(settings: Settings, file: str, report: Path | None, *, dry_run: bool) -> DeletionSummary:
    clock = SystemClock()
    async with checked_pool(settings, clock) as pool, borrow(pool, None) as connection:
        return await import_deleted(file, connection, clock, sys.stderr, dry_run=dry_run, report_path=report)


async def import_deleted(
    name: str, connection: Connection, clock: Clock, screen: TextIO, *, dry_run: bool = False, report_path: Path | None
) -> DeletionSummary:
    """Delete again the users that the file ``name`` lists, and write the result to ``screen``."""
    path = report_path or default_report_path(name)
    with open_source(name) as source, open_report(path, source) as report:
        summary = await import_deletions(source, connection, clock, operator(), report.add, dry_run=dry_run)
        lines = [*describe_report(report), describe_deletions(summary, dry_run=dry_run)]
        screen.writelines(f"{line}\n" for line in lines)
    return summary


@click.command()
@click.option("--format", "form", type=click.Choice(["csv", "ndjson"]), default="csv", show_default=True)
@click.option("--deleted", is_flag=True, help="Write deleted users instead: only ids and instants.")
def export(form: str, *, deleted: bool) -> None:
    """Write all users to standard output, for 'birthday import'.

    CSV has the columns that few users need, such as locale, only if a user needs them, after the others. Values are not
    escaped: a spreadsheet may take one that begins with = + - or @ for a formula.
    """
    with errors():
        run(_export(database_settings(), Format(form), deleted=deleted))


async def _export(settings: Settings, form: Format, *, deleted: bool) -> None:
    async with connection_for_long(settings) as connection:
        await (export_deletions if deleted else export_users)(connection, form, sys.stdout.buffer)

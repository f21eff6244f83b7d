"""An import with its output: a progress bar, the first rejected rows, and the result."""

from datetime import timedelta
from pathlib import Path
from typing import TextIO

from birthday.cli.render.progress import ImportProgress
from birthday.clock import Clock
from birthday.operations.transfer.deletions import DeletionSummary, import_deletions
from birthday.operations.transfer.importing import ImportSummary, import_users
from birthday.operations.transfer.report import default_report_path, open_report
from birthday.operations.transfer.source import open_source, source_size
from birthday.store.users import Connection, Planning


async def run_import(
    name: str,
    connection: Connection,
    clock: Clock,
    planning: Planning,
    screen: TextIO,
    *,
    dry_run: bool = False,
    report_path: Path | None = None,
    catch_up: timedelta | None = None,
) -> ImportSummary:
    """Import the file ``name``, or standard input for ``-``, and show progress and result on ``screen``.

    With ``catch_up`` users keep the ids of the file. Rejected rows are listed in ``report_path``, by default
    ``NAME.errors.ndjson``. If the import ends early, by Ctrl-C or an error, it still writes how many users are created.

    Raises:
        InvalidInputError: if the file as a whole cannot be read, or the report cannot be written.
    """
    path = report_path or default_report_path(name)
    with open_source(name) as source, open_report(path, source) as report:
        progress = ImportProgress(source_size(source), screen)
        finished = False
        try:
            with progress:
                await import_users(
                    source,
                    connection,
                    clock,
                    planning,
                    report.add,
                    progress.update,
                    dry_run=dry_run,
                    catch_up=catch_up,
                )
            finished = True
        finally:
            lines = report.excerpt()
            # If nothing was read, the error that ended the import says enough.
            if finished or progress.summary.read:
                lines.append(_describe(progress.summary, dry_run=dry_run, finished=finished))
            screen.writelines(f"{line}\n" for line in lines)
    return progress.summary


async def run_deletions(
    name: str,
    connection: Connection,
    clock: Clock,
    screen: TextIO,
    *,
    dry_run: bool = False,
    report_path: Path | None = None,
) -> DeletionSummary:
    """Delete again the users that the file ``name`` lists, and write the result to ``screen``.

    Raises:
        InvalidInputError: if the file as a whole cannot be read, or the report cannot be written.
    """
    path = report_path or default_report_path(name)
    with open_source(name) as source, open_report(path, source) as report:
        summary = await import_deletions(source, connection, clock, report.add, dry_run=dry_run)
        would = "would be " if dry_run else ""
        result = (
            f"{summary.named:,} deletions read: {summary.deleted:,} users {would}deleted, the others are not there; "
            f"{summary.rejected:,} lines rejected; {summary.messages_cancelled:,} messages {would}cancelled"
        )
        screen.writelines(f"{line}\n" for line in [*report.excerpt(), result])
    return summary


def _describe(summary: ImportSummary, *, dry_run: bool, finished: bool) -> str:
    would = "would be " if dry_run else ""
    again = "" if dry_run else ", the same import again goes on from here"
    stopped = "" if finished else f"stopped early{again}: "
    return (
        f"{stopped}{summary.read:,} rows read: {summary.created:,} users {would}created, "
        f"{summary.unchanged:,} unchanged, {summary.rejected:,} rejected; "
        f"{summary.messages_scheduled:,} messages {would}scheduled"
    )

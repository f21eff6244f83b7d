"""What an import prints: the first rejected rows, and the result."""

from typing import Final

from birthday.errors import InvalidInputError
from birthday.operations.transfer.deletions import DeletionSummary
from birthday.operations.transfer.importing import ImportSummary
from birthday.operations.transfer.records import Rejected
from birthday.operations.transfer.report import Report

_SHOWN_CHARACTERS: Final = 400


def describe_report(report: Report) -> list[str]:
    """Return the first rejected rows, how many more there are, and which file has all of them."""
    lines = [describe_rejected(rejected) for rejected in report.first]
    more = report.count - len(lines)
    if more:
        lines.append(f"… and {more:,} rejected rows more")
    if report.count and report.path:
        lines.append(f"all rejected rows are in {report.path}")
    elif more:
        lines.append("--report PATH keeps all of them")
    return lines


def describe_rejected(rejected: Rejected) -> str:
    """Return one line of text for a terminal: not too long, and without control characters."""
    text = f"line {rejected.line}: {InvalidInputError(*rejected.errors)}"
    shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in shown)


def describe_import(summary: ImportSummary, *, dry_run: bool, finished: bool) -> str:
    """Return the result of an import; ``finished`` says whether it came to the end of the file."""
    would = "would be " if dry_run else ""
    again = "" if dry_run else ", the same import again goes on from here"
    stopped = "" if finished else f"stopped early{again}: "
    updated = f"{summary.updated:,} {would}updated, " if summary.updated else ""
    return (
        f"{stopped}{summary.read:,} rows read: {summary.created:,} users {would}created, {updated}"
        f"{summary.unchanged:,} unchanged, {summary.rejected:,} rejected; "
        f"{summary.messages_scheduled:,} messages {would}scheduled"
    )


def describe_deletions(summary: DeletionSummary, *, dry_run: bool) -> str:
    """Return the result of an import of deletions."""
    would = "would be " if dry_run else ""
    return (
        f"{summary.named:,} deletions read: {summary.deleted:,} users {would}deleted, the others are not there; "
        f"{summary.rejected:,} lines rejected; {summary.messages_cancelled:,} messages {would}cancelled"
    )

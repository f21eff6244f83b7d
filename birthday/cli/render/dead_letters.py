"""The output of commands on dead letters: a table, one message in full, and results."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from birthday.broker import DeadLetter
from birthday.operations.dead_letters.letters import Kind
from birthday.operations.dead_letters.listing import Listing
from birthday.operations.dead_letters.records import encode, excerpt, letter_record
from birthday.operations.dead_letters.removal import Tally
from birthday.store.failed import FailedGroup
from birthday.store.history import Message

# Wider than most terminals: a line that the terminal folds can still be searched for and copied.
_WIDTH: Final = 200
_DETAIL_CHARACTERS: Final = 80


def print_listing(listing: Listing, out: TextIO) -> None:
    """Write a line for each failed message and each unknown dead letter, then the totals."""
    table = Table("message", "user", "error", "detail", "attempts", "failed at (UTC)", "in queue", box=None)
    for message in listing.messages:
        table.add_row(
            str(message.id),
            str(message.user_id),
            message.error_type,
            _cell(message.error_detail or "-"),
            str(message.attempts),
            _instant(message.updated_at),
            "yes" if listing.copies[message.id] else "no",
        )
    for found in listing.unknown:
        letter = found.letter
        cells = (_cell(excerpt(letter.body)), "-", _instant(letter.died_at), "yes")
        table.add_row(str(letter.message_id or "-"), "-", found.kind.value, *cells)
    shown = len(listing.messages) + len(listing.unknown)
    if shown:
        Console(file=out, width=_WIDTH).print(table)
        out.write(f"{shown:,} of {listing.total:,}\n")
    elif not listing.total:
        out.write("no dead letters\n")
    if listing.settled:
        out.write(f"and {many(listing.settled, 'dead letter')} of messages that are not failed any more\n")


def print_summary(groups: Sequence[FailedGroup], out: TextIO) -> None:
    """Write a line for each hour, cause and status, then the total."""
    if not groups:
        out.write("no failed messages\n")
        return
    table = Table("hour (UTC)", "error", "status", box=None)
    table.add_column("messages", justify="right")
    for group in groups:
        table.add_row(
            f"{group.hour:%Y-%m-%d %H:%M}", group.error_type, str(group.http_status or "-"), f"{group.messages:,}"
        )
    Console(file=out, width=_WIDTH).print(table, highlight=False)
    out.write(f"{many(sum(group.messages for group in groups), 'failed message')}\n")


def print_one(message: Message | None, copies: Sequence[DeadLetter], out: TextIO) -> None:
    """Write everything about one message and its dead letters."""
    table = Table("", "", box=None, show_header=False)
    for name, value in (asdict(message) if message else {}).items():
        table.add_row(name, _cell(_instant(value) if isinstance(value, datetime) else str(value or "-"), None))
    console = Console(file=out, width=_WIDTH)
    console.print(table)
    out.write("" if message else "there is no such message\n")
    out.write(f"{many(len(copies), 'dead letter')}\n")
    for letter in copies:
        console.print(_cell(encode(letter_record(letter)).decode().rstrip(), None), soft_wrap=True)


def describe_requeued(requeued: int, wanted: int, tally: Tally, *, finished: bool) -> list[str]:
    """Return the lines of a requeue's result."""
    stopped = "" if finished else "stopped early, the same command goes on from here: "
    lines = [f"{stopped}{requeued:,} of {many(wanted, 'failed message')} requeued"]
    if tally.settled:
        lines.append(
            f"{many(tally.settled, 'dead letter')} removed from the queue: their messages are not failed any more"
        )
    unknown = tally.left[Kind.UNKNOWN] + tally.left[Kind.MALFORMED]
    if unknown:
        lines.append(
            f"{many(unknown, 'dead letter')} left that are no message of ours: 'birthday dlq list' shows them, "
            "archive and purge remove them"
        )
    return lines


def describe_removed(verb: str, tally: Tally, *, finished: bool) -> list[str]:
    """Return the lines of a purge's or archive's result."""
    stopped = "" if finished else "stopped early, the same command goes on from here: "
    unknown = tally.chosen[Kind.UNKNOWN] + tally.chosen[Kind.MALFORMED]
    letters = many(tally.chosen.total(), "dead letter")
    messages = f"{tally.chosen[Kind.FAILED]:,} of messages, which stay failed"
    lines = [f"{stopped}{letters} {verb}: {messages}, and {unknown:,} that are no message of ours"]
    if tally.settled:
        lines.append(f"{tally.settled:,} more removed: their messages are not failed any more")
    if tally.left:
        lines.append(f"{tally.left.total():,} left")
    return lines


def many(count: int, what: str) -> str:
    """Return a count with its noun, such as ``1 message`` or ``2 messages``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _instant(at: datetime | None) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if at else "-"


def _cell(text: str, most: int | None = _DETAIL_CHARACTERS) -> Text:
    """Return text with control characters replaced, cut after ``most`` characters."""
    shown = text if most is None or len(text) <= most else f"{text[:most]}…"
    return Text("".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in shown))

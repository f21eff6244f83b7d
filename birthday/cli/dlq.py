"""The commands ``birthday dlq``: dead letters, with either queue."""

import functools
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

import click

from birthday.cli.command import errors, require_terminal
from birthday.cli.database import connection_for_long, database_settings, operator, pool_and_broker, run
from birthday.cli.render.dead_letters import (
    describe_removed,
    describe_requeued,
    many,
    print_listing,
    print_one,
    print_summary,
)
from birthday.cli.render.progress import Bar
from birthday.cli.values import Age
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.core.message import ErrorType
from birthday.operations.clock_guard import require_right_clock
from birthday.operations.dead_letters.archive import STDOUT, open_archive
from birthday.operations.dead_letters.letters import Found
from birthday.operations.dead_letters.listing import find_dead, list_dead
from birthday.operations.dead_letters.records import (
    encode,
    letter_record,
    listed_message,
    listed_unknown,
    summary_record,
)
from birthday.operations.dead_letters.removal import Sifted, Tally, remove_dead
from birthday.operations.dead_letters.requeue import requeue_selected
from birthday.store.connection import borrow
from birthday.store.failed import FailedFilter, FailedGroup, count_failed

LISTED = 100


_CONDITIONS = (
    click.option(
        "--error-type", type=click.Choice([*map(str, ErrorType)]), help="Only messages with this type of error."
    ),
    click.option(
        "--status",
        "http_status",
        metavar="CODE",
        type=click.IntRange(100, 599),
        help="Only messages that the message service last answered with this, such as 401.",
    ),
    click.option(
        "--detail", metavar="TEXT", help="Only messages whose error begins with this, such as 'outcome unknown'."
    ),
    click.option("--type", "message_type", metavar="TYPE", help="Only messages of this type, such as birthday."),
    click.option("--user", "user_id", metavar="ID", type=click.UUID, help="Only messages of this user."),
    click.option("--id", "message_id", metavar="ID", type=click.UUID, help="Only this message."),
    click.option(
        "--older-than", metavar="AGE", type=Age(), help="Only messages that failed longer ago, such as 30m or 7d."
    ),
    click.option(
        "--newer-than", metavar="AGE", type=Age(), help="Only messages that failed within this time, such as 30m or 7d."
    ),
)


def _with_conditions(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that select dead letters, as one argument."""

    @functools.wraps(command)
    def with_conditions(
        *,
        error_type: str | None,
        http_status: int | None,
        detail: str | None,
        message_type: str | None,
        user_id: UUID | None,
        message_id: UUID | None,
        older_than: timedelta | None,
        newer_than: timedelta | None,
        **others: object,
    ) -> None:
        now = SystemClock().now()
        command(
            wanted=FailedFilter(
                error_type=ErrorType(error_type) if error_type else None,
                user_id=user_id,
                failed_from=None if newer_than is None else now - newer_than,
                failed_before=None if older_than is None else now - older_than,
                message_id=message_id,
                http_status=http_status,
                message_type=message_type,
                detail=detail,
            ),
            **others,
        )

    for option in reversed(_CONDITIONS):
        with_conditions = option(with_conditions)
    return with_conditions


_limit = click.option("--limit", metavar="N", type=click.IntRange(min=1), help="At most this many.  [default: all]")


@click.group()
def dlq() -> None:
    """Handle dead letters: messages that failed for good.

    A failed message stays failed in the database until it is requeued, whatever happens to its copy in the dead-letter
    queue. Without filters a command applies to all of them.
    """


@dlq.command("list")
@_with_conditions
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=LISTED, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_(wanted: FailedFilter, limit: int, *, as_json: bool) -> None:
    """List failed messages and unknown dead letters.

    Unknown means: not a message of ours. If there are more than --limit, standard error says how many.
    """
    with errors():
        run(_list(database_settings(), wanted, limit, as_json=as_json))


async def _list(settings: Settings, wanted: FailedFilter, limit: int, *, as_json: bool) -> None:
    async with pool_and_broker(settings) as (pool, broker, _):
        listing = await list_dead(pool, broker, wanted, limit)
    if as_json:
        records = [listed_message(message, listing.copies[message.id]) for message in listing.messages]
        records += [listed_unknown(found) for found in listing.unknown]
        click.echo(encode(records), nl=False)
    else:
        print_listing(listing, sys.stdout)
    if listing.left_out:
        click.echo(f"birthday: {listing.left_out:,} more not listed: --limit {listing.total} lists all", err=True)


@dlq.command()
@_with_conditions
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def summary(wanted: FailedFilter, *, as_json: bool) -> None:
    """Count failed messages by cause, answer and hour (UTC).

    Unknown dead letters do not count.
    """
    with errors():
        groups = run(_summary(database_settings(), wanted))
    if as_json:
        click.echo(encode([summary_record(group) for group in groups]), nl=False)
    else:
        print_summary(groups, sys.stdout)


async def _summary(settings: Settings, wanted: FailedFilter) -> list[FailedGroup]:
    async with connection_for_long(settings) as connection:
        return await count_failed(connection, wanted)


@dlq.command()
@click.argument("message_id", metavar="ID", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(message_id: UUID, *, as_json: bool) -> None:
    """Show one message and its dead letters.

    It shows no name and no e-mail address.
    """
    with errors():
        run(_show(database_settings(), message_id, as_json=as_json))


async def _show(settings: Settings, message_id: UUID, *, as_json: bool) -> None:
    async with pool_and_broker(settings) as (pool, broker, _):
        message, copies = await find_dead(pool, broker, message_id)
    if as_json:
        click.echo(encode({"row": message, "deadLetters": [letter_record(copy) for copy in copies]}), nl=False)
    else:
        print_one(message, copies, sys.stdout)


@dlq.command()
@_with_conditions
@_limit
def requeue(wanted: FailedFilter, limit: int | None) -> None:
    """Send failed messages again, with all their attempts.

    Their dead letters are removed. Messages whose dead letters were archived or purged are requeued too. The command
    prints how many failed messages are left.
    """
    with errors():
        run(_requeue(database_settings(), wanted, limit))


async def _requeue(settings: Settings, wanted: FailedFilter, limit: int | None) -> None:
    async with pool_and_broker(settings) as (pool, broker, clock):
        await require_right_clock(pool, clock)
        async with borrow(pool) as connection:
            selected = sum(group.messages for group in await count_failed(connection, wanted))
        total = selected if limit is None else min(limit, selected)
        bar, tally, finished = Bar("requeued", total, sys.stderr), Tally(), False
        try:
            with bar:
                await requeue_selected(pool, broker, wanted, total, clock, operator(), bar.count)
            await remove_dead(pool, broker, None, clock, operator(), tally.add)
            finished = True
        finally:
            for line in describe_requeued(bar.done, total, tally, finished=finished):
                click.echo(line)
        async with borrow(pool, None) as connection:
            left = sum(group.messages for group in await count_failed(connection, FailedFilter()))
        if left:
            click.echo(f"{many(left, 'other failed message')} left: 'birthday dlq summary' shows why")


@dlq.command()
@click.argument("file", metavar="FILE")
@_with_conditions
@_limit
def archive(wanted: FailedFilter, file: str, limit: int | None) -> None:
    """Write dead letters to FILE, then remove them from the queue.

    '-' is standard output. Each line is a JSON object with the payload, the headers and the row of a message. FILE must
    not exist yet. A line is on the disk before its dead letter leaves the queue. Messages stay failed.
    """
    with errors():
        settings = database_settings()
        with open_archive(file, sys.stdout.fileno(), SystemClock()) as kept:
            run(_remove(settings, wanted, limit, "archived", kept.add, to_stderr=file == STDOUT))


@dlq.command()
@_with_conditions
@_limit
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(wanted: FailedFilter, limit: int | None, *, yes: bool) -> None:
    """Remove dead letters from the queue. Messages stay failed.

    The command asks first; without a terminal it needs --yes.
    """
    if not yes:
        require_terminal("purge asks before it removes anything, and there is no terminal to ask on")
    with errors():
        settings = database_settings()
        if not yes:
            which = "all" if wanted == FailedFilter() and limit is None else "those selected"
            depth = many(run(_depth(settings)), "dead letter")
            click.confirm(f"The queue has {depth}. Remove {which}?", abort=True)
        run(_remove(settings, wanted, limit, "removed", lambda _chosen: None))


async def _depth(settings: Settings) -> int:
    async with pool_and_broker(settings) as (_, broker, _):
        return (await broker.stats()).dead


async def _remove(
    settings: Settings,
    wanted: FailedFilter,
    limit: int | None,
    verb: str,
    save: Callable[[Sequence[Found]], None],
    *,
    to_stderr: bool = False,
) -> None:
    async with pool_and_broker(settings) as (pool, broker, clock):
        # --older-than and --newer-than depend on the current time.
        await require_right_clock(pool, clock)
        tally, finished = Tally(), False
        try:
            with Bar(verb, (await broker.stats()).dead, sys.stderr) as bar:

                def on_batch(sifted: Sifted) -> None:
                    tally.add(sifted)
                    bar.advance(len(sifted.chosen) + len(sifted.settled) + len(sifted.left))

                await remove_dead(pool, broker, wanted, clock, operator(), on_batch, save=save, limit=limit)
            finished = True
        finally:
            for line in describe_removed(verb, tally, finished=finished):
                click.echo(line, err=to_stderr)

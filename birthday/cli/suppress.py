"""The commands ``birthday suppress``: the list of those who are sent nothing."""

import json
import sys
from collections.abc import Iterator
from typing import Final, TextIO

import click

from birthday.cli.command import errors
from birthday.cli.database import checked_pool, connection_for_long, database_settings, operator, run
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.core.address import parse_address
from birthday.operations.suppressions import check_reason, suppress_addresses, unsuppress_addresses
from birthday.store.suppressions import FIRST, Changed, Position, list_suppressions

PAGE: Final = 1000

_addresses = click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
_file = click.option(
    "--file",
    type=click.File(encoding="utf-8", errors="surrogateescape"),
    help="Take addresses from this file, one a line; '-' is stdin.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Count, and change nothing.")


@click.group()
def suppress() -> None:
    """Manage the list of people who get no messages."""


@suppress.command()
@_addresses
@_file
@click.option("--reason", default="asked an operator", show_default=True, help="Why, as one line of text.")
@_dry_run
def add(addresses: tuple[str, ...], file: TextIO | None, reason: str, *, dry_run: bool) -> None:
    """Send nothing more to these e-mail addresses.

    Pending messages are cancelled. The list outlives the users: a user who is created or imported later with such an
    address gets no messages. An address that is already on the list keeps its date and reason. If a line is not an
    e-mail address, the others are added, and the exit status is 1.
    """
    try:
        check_reason(reason)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--reason") from None
    _change(
        addresses, file, reason, "added, {users:,} users suppressed, {messages:,} messages cancelled", dry_run=dry_run
    )


@suppress.command()
@_addresses
@_file
@_dry_run
def remove(addresses: tuple[str, ...], file: TextIO | None, *, dry_run: bool) -> None:
    """Greet the people with these e-mail addresses again.

    A message that was cancelled for this reason is scheduled again if its day is not over and it cannot have arrived.
    If a line is not an e-mail address, the others are removed, and the exit status is 1.
    """
    _change(
        addresses,
        file,
        None,
        "removed, {users:,} users greeted again, {messages:,} messages scheduled again",
        dry_run=dry_run,
    )


@suppress.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_(*, as_json: bool) -> None:
    """Print the list, newest first: date, hash, who and why. It has no addresses."""
    with errors():
        run(_list(database_settings(), as_json=as_json))


def _change(addresses: tuple[str, ...], file: TextIO | None, reason: str | None, text: str, *, dry_run: bool) -> None:
    """Add addresses for a ``reason``, or remove them if there is none; print what was done."""
    if not addresses and file is None:
        raise click.UsageError("no addresses: give them as arguments, or a file with --file")
    wrong = 0
    valid = []
    with errors():
        settings = database_settings()
        for place, address in _given(addresses, file):
            try:
                valid.append(parse_address(address))
            except ValueError as error:
                wrong += 1
                click.echo(f"birthday: {place} is not an e-mail address: {error}", err=True)
        done = run(_apply(settings, valid, reason, dry_run=dry_run))
    counts = text.format(users=done.users, messages=done.messages)
    click.echo(f"{'dry run: ' if dry_run else ''}{done.addresses:,} addresses {counts}")
    if wrong:
        sys.exit(1)


def _given(addresses: tuple[str, ...], file: TextIO | None) -> Iterator[tuple[str, str]]:
    """Yield each address with its place. Empty lines do not count."""
    for number, address in enumerate(addresses, 1):
        yield f"argument {number}", address.strip()
    for number, line in enumerate(file or (), 1):
        if line.strip():
            yield f"line {number}", line.strip()


async def _apply(settings: Settings, addresses: list[str], reason: str | None, *, dry_run: bool) -> Changed:
    clock = SystemClock()
    async with checked_pool(settings, clock) as pool:
        now = clock.now()
        if reason is None:
            return await unsuppress_addresses(pool, addresses, now, operator(), dry_run=dry_run)
        return await suppress_addresses(pool, addresses, reason, now, operator(), dry_run=dry_run)


async def _list(settings: Settings, *, as_json: bool) -> None:
    after: Position | None = FIRST
    async with connection_for_long(settings) as connection:
        while after:
            page = await list_suppressions(connection, after, PAGE)
            for one in page:
                created_at, address_hash = one.created_at.isoformat(timespec="seconds"), one.address_hash.hex()
                if as_json:
                    record = {"createdAt": created_at, "addressHash": address_hash}
                    click.echo(json.dumps(record | {"createdBy": one.created_by, "reason": one.reason}))
                else:
                    click.echo(f"{created_at}  {address_hash}  {one.created_by}  {one.reason}")
            after = Position(page[-1].created_at, page[-1].address_hash) if len(page) == PAGE else None

"""Opt-out: who is on the list of suppressed addresses is sent nothing, until an operator or a client takes it off.

An unsubscribe link does the same for the person it was sent to.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Final
from uuid import UUID

import asyncpg

from birthday.core.text import BIDI, CONTROL, INVISIBLE_IN_BMP
from birthday.core.unsubscribe import Unsubscriber
from birthday.store import suppressions as store
from birthday.store.changes import Actor
from birthday.store.connection import Connection, borrow
from birthday.store.suppressions import Changed, Suppression

Check = Callable[[Connection], Awaitable[None]]

BATCH: Final = 1000
WRITERS_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.05
MAX_REASON: Final = 200
REASON_PATTERN: Final = rf"^[^{CONTROL}{BIDI}]*[^\s{CONTROL}{INVISIBLE_IN_BMP}][^{CONTROL}{BIDI}]*$"
"""One line with a visible character."""
LINK_REASON: Final = "unsubscribed by a link"
BY_LINK: Final = "link"


def check_reason(value: object) -> None:
    """Refuse what is no reason for a suppression.

    Raises:
        ValueError: if it is none; the text says what is accepted.
    """
    if not isinstance(value, str) or len(value) > MAX_REASON or not re.match(REASON_PATTERN, value):
        raise ValueError(f"one line of text is accepted, of at most {MAX_REASON} characters")


async def suppress_user(
    pool: asyncpg.Pool, user_id: UUID, reason: str, now: datetime, by: Actor, check: Check | None = None
) -> tuple[Suppression, Changed]:
    """Suppress a live user; return the entry of the list. If there is one already, it stays as it is.

    ``check`` is called while the user is held. What it raises ends the change.

    Raises:
        NotFoundError: if there is no such live user.
    """
    async with borrow(pool) as connection, connection.transaction():
        email = await store.lock_address(connection, user_id)
        if check is not None:
            await check(connection)
        changed = await store.suppress(connection, [email], reason, now, by)
        entry = await store.read_suppression(connection, email)
    assert entry is not None  # noqa: S101 - this transaction has put it there, or found it
    return entry, changed


async def unsuppress_user(
    pool: asyncpg.Pool, user_id: UUID, now: datetime, by: Actor, check: Check | None = None
) -> Changed:
    """Take a live user's address off the list, if it is there; ``check`` is as for ``suppress_user``.

    Raises:
        NotFoundError: if there is no such live user.
    """
    async with borrow(pool) as connection, connection.transaction():
        email = await store.lock_address(connection, user_id)
        if check is not None:
            await check(connection)
        return await store.unsuppress(connection, [email], now, by)


async def unsubscribe(pool: asyncpg.Pool, named: Unsubscriber, now: datetime, by: Actor) -> Changed:
    """Suppress whom a link names. Safe to repeat.

    These are the address that the greeting went to, whoever has it now, and the one that its user has now.
    """
    async with borrow(pool) as connection, connection.transaction():
        former = await store.find_unlisted(connection, named.user_id, named.address_hash)
        addresses = await store.lock_addresses(connection, named.user_id, former)
        changed = await store.suppress(connection, addresses, LINK_REASON, now, by)
        is_new = await store.add_hash(connection, named.address_hash, LINK_REASON, now, by)
    return replace(changed, addresses=changed.addresses + is_new)


async def suppress_addresses(
    pool: asyncpg.Pool, addresses: Iterable[str], reason: str, now: datetime, by: Actor, *, dry_run: bool
) -> Changed:
    """Suppress addresses, whether or not there are users who have them, a batch in each transaction.

    An import that runs meanwhile may create users in a transaction that has not seen the list yet, and that is not seen
    here. So the users are looked for again once such transactions have ended.

    Raises:
        UnavailableError: if the database cannot be used, or such a transaction does not end. Addresses may be listed.
    """

    async def suppress(connection: Connection, batch: Sequence[str]) -> Changed:
        return await store.suppress(connection, batch, reason, now, by)

    addresses = list(dict.fromkeys(addresses))
    done = await _change(pool, addresses, suppress, dry_run=dry_run)
    if dry_run:
        return done
    await _outwait_writers(pool)
    return done + await _change(pool, addresses, suppress, dry_run=False)


async def unsuppress_addresses(
    pool: asyncpg.Pool, addresses: Iterable[str], now: datetime, by: Actor, *, dry_run: bool
) -> Changed:
    """Take addresses off the list, a batch in each transaction."""

    async def unsuppress(connection: Connection, batch: Sequence[str]) -> Changed:
        return await store.unsuppress(connection, batch, now, by)

    return await _change(pool, dict.fromkeys(addresses), unsuppress, dry_run=dry_run)


async def _change(
    pool: asyncpg.Pool,
    addresses: Iterable[str],
    change: Callable[[Connection, Sequence[str]], Awaitable[Changed]],
    *,
    dry_run: bool,
) -> Changed:
    """Apply ``change`` to batches of addresses and return the totals. A dry run rolls each batch back."""
    total = Changed()
    for batch in _batches(addresses):
        async with borrow(pool, None) as connection:
            transaction = connection.transaction()
            await transaction.start()
            done = await change(connection, batch)
            await (transaction.rollback() if dry_run else transaction.commit())
        total += done
    return total


async def _outwait_writers(pool: asyncpg.Pool) -> None:
    """Return when all transactions that have written something up to now have ended."""
    async with borrow(pool, WRITERS_SECONDS) as connection:
        newest = await store.read_newest_writer(connection)
        while await store.has_writers_before(connection, newest):  # noqa: ASYNC110 - other sessions do not tell
            await asyncio.sleep(POLL_SECONDS)


def _batches(addresses: Iterable[str]) -> Iterator[Sequence[str]]:
    left = iter(addresses)
    while batch := list(islice(left, BATCH)):
        yield batch

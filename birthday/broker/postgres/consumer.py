"""A subscription to the queue in PostgreSQL: it claims rows ahead, and settles them."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg

from birthday.broker.postgres.links import Link
from birthday.broker.protocol import Delivery, Inbox, Wait, decode_payload
from birthday.errors import UnavailableError

_CLAIM_LIMIT: Final = 500
_BODY_CHARACTERS: Final = 1024
"""Longer bodies are cut: they are no messages of ours, and hundreds of a megabyte each would fill the memory."""

# clock_timestamp() changes during a statement, so PostgreSQL cannot use an index for it. A subselect is evaluated once.
# Concurrent claims are safe: a row that another consumer is taking is skipped. A row that another consumer has just
# taken is checked again after it is locked, and its lease then excludes it.
CLAIM: Final = """
    WITH next AS (
        SELECT id FROM queue_messages
        WHERE dead_at IS NULL AND available_at <= (SELECT clock_timestamp())
          AND (lease_until IS NULL OR lease_until <= (SELECT clock_timestamp()))
        ORDER BY available_at LIMIT $1
        FOR UPDATE SKIP LOCKED
    )
    UPDATE queue_messages held
    SET consumer_id = $2, lease_until = clock_timestamp() + $3::interval, deliveries = deliveries + 1
    FROM next WHERE held.id = next.id
    RETURNING held.id, left(held.body, $4) AS body, octet_length(held.body) AS size, held.by_hand, held.deliveries,
              held.due_at
"""
# The consumer's id fences these statements. If the lease ran out and another consumer took the row, they leave it
# alone.
_EXTEND: Final = """
    UPDATE queue_messages SET lease_until = clock_timestamp() + $3::interval
    WHERE id = ANY($1::bigint[]) AND consumer_id = $2
"""
# An ack does not wait for the disk. If a crash of the server takes it back, the row comes again, as after any lost ack.
_ACK: Final = """
    DELETE FROM queue_messages
    WHERE id = ANY($1::bigint[]) AND consumer_id = $2 AND (SELECT set_config('synchronous_commit', 'off', true)) = 'off'
"""
_REJECT: Final = """
    UPDATE queue_messages SET dead_at = clock_timestamp(), consumer_id = NULL, lease_until = NULL
    WHERE id = ANY($1::bigint[]) AND consumer_id = $2
"""


class PostgresConsumer:
    """A ``Consumer`` that does everything over one link. Once that breaks or an ack fails, every method raises.

    ``run`` claims ahead, up to the prefetch, and extends the leases of all held rows.
    """

    def __init__(self, consumer_id: UUID, link: Link, prefetch: int, lease: timedelta, where: str) -> None:
        """Keep what is passed in; ``PostgresBroker.consume`` calls ``open`` and then ``run``."""
        self.id = consumer_id
        self.held: set[int] = set()
        self._link = link
        self._prefetch = prefetch
        self._lease = lease
        self._where = where
        self._inbox: Inbox[Delivery] = Inbox()
        self._claiming = asyncio.Lock()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._ceasing = False

    @property
    def lost(self) -> bool:
        """Whether the subscription is over; see ``Consumer``."""
        return self._inbox.lost

    async def open(self) -> None:
        """Open the link."""
        await self._link.open(self._news.set, self._on_lost)

    async def receive(self, most: int, wait: Wait) -> list[Delivery]:
        """Take what has been claimed; see ``Consumer``."""
        handed_out = len(self.held) - len(self._inbox)
        return await self._inbox.take(max(1, min(most, self._prefetch - handed_out)), wait)

    async def cease(self) -> None:
        """Claim nothing more, and keep what is held; see ``Consumer``."""
        self._inbox.check()
        self._ceasing = True
        async with self._claiming:
            self._inbox.cease()

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Delete these, in one statement; see ``Consumer``."""
        await self._settle(_ACK, deliveries)

    async def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Mark these as dead, in one statement; see ``Consumer``."""
        await self._settle(_REJECT, deliveries)

    async def run(self) -> None:
        """Claim rows whenever there is room, and extend leases, until the subscription is over."""
        pause = min(self._link.poll_seconds, self._lease.total_seconds() / 3)
        try:
            extend_at = 0.0
            while not self.lost:
                extend_at = await self._extend(extend_at)
                await self._link.tend()
                self._room.clear()
                self._news.clear()
                wanted = 0 if self._ceasing else min(_CLAIM_LIMIT, self._prefetch - len(self.held))
                if wanted == 0:
                    await _wait(self._room, pause)
                elif await self._claim(wanted) < wanted:
                    await _wait(self._news, pause)
        except UnavailableError as error:
            self._inbox.fail(str(error))
        finally:
            # However this ends, nothing is claimed any more, so no ``receive`` may wait for it.
            self._inbox.fail("this subscription has ended")

    def stop(self) -> None:
        """End the subscription. A statement that ``run`` has begun is still finished."""
        self._end("this subscription has ended")

    async def _claim(self, wanted: int) -> int:
        async with self._claiming:
            rows = await self._link.fetch(CLAIM, wanted, self.id, self._lease, _BODY_CHARACTERS)
            for row in rows:
                self.held.add(row["id"])
                self._inbox.put(_delivery(row))
        return len(rows)

    async def _extend(self, due_at: float) -> float:
        """Extend the leases if that is due. Return when it is due next, in the loop's time."""
        now = asyncio.get_running_loop().time()
        if now < due_at:
            return due_at
        if self.held:
            await self._link.fetch(_EXTEND, list(self.held), self.id, self._lease)
        return now + self._lease.total_seconds() / 3

    async def _settle(self, statement: str, deliveries: Sequence[Delivery]) -> None:
        self._inbox.check()
        ids = [delivery.tag for delivery in deliveries]
        if ids:
            try:
                await self._link.fetch(statement, ids, self.id)
            except UnavailableError as error:
                # Nobody would ack these again, also if the connection survives. So all that is held goes back.
                self._end(str(error))
                raise
            self.held.difference_update(ids)
            self._room.set()

    def _on_lost(self) -> None:
        self._end(f"{self._where}: the connection of the consumer was closed")

    def _end(self, reason: str) -> None:
        self._inbox.fail(reason)
        self._news.set()
        self._room.set()


def _delivery(row: asyncpg.Record) -> Delivery:
    body = row["body"].encode()
    cut = row["size"] > len(body)
    message_id = None if cut else decode_payload(body)
    size_bytes = row["size"] if cut else None
    return Delivery(row["id"], message_id, row["deliveries"] > 1, body, row["by_hand"], size_bytes, row["due_at"])


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()

"""Lists dead letters. Nothing changes, except that RabbitMQ counts one more delivery of each letter."""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from birthday.broker import Broker, DeadLetter
from birthday.errors import NotFoundError
from birthday.operations.dead_letters.letters import Found, Kind, is_meant, look_up
from birthday.store.connection import borrow
from birthday.store.failed import FailedFilter, count_failed, find_failed
from birthday.store.history import Message, read_messages


@dataclass(frozen=True, slots=True)
class Listing:
    """What an operator has to handle: failed messages, and dead letters that are no message of ours.

    ``total`` counts all that are selected; ``messages`` and ``unknown`` may be only the first of them. ``copies``
    counts the dead letters of each message, and ``settled`` those of messages that are no longer failed.
    """

    messages: Sequence[Message]
    unknown: Sequence[Found]
    total: int
    copies: Counter[UUID]
    settled: int

    @property
    def left_out(self) -> int:
        """How many are selected but not listed."""
        return self.total - len(self.messages) - len(self.unknown)


async def list_dead(pool: asyncpg.Pool, broker: Broker, wanted: FailedFilter, limit: int) -> Listing:
    """Return up to ``limit`` selected items: failed messages first, sorted by the end of their local birthday."""
    async with borrow(pool) as connection:
        total = sum(group.messages for group in await count_failed(connection, wanted))
    by_id: dict[UUID, Message] = {}
    async for ids in find_failed(pool, wanted, limit):
        async with borrow(pool) as connection:
            read = await read_messages(connection, ids)
        by_id |= {message_id: read[message_id] for message_id in ids if message_id in read}
    copies: Counter[UUID] = Counter()
    unknown: list[Found] = []
    others = settled = 0
    async for some in browse_dead(pool, broker):
        for found in some:
            settled += found.kind is Kind.SETTLED
            if found.message is not None:
                copies[found.message.id] += 1
            elif is_meant(found.letter, wanted):
                others += 1
                if len(by_id) + len(unknown) < limit:
                    unknown.append(found)
    return Listing(list(by_id.values()), unknown, max(total, len(by_id)) + others, copies, settled)


async def browse_dead(pool: asyncpg.Pool, broker: Broker) -> AsyncGenerator[list[Found], None]:
    """Yield all dead letters with their messages, hundreds at a time."""
    async with broker.dead_letters() as browsing:
        while letters := await browsing.take():
            yield await look_up(pool, letters)


async def find_dead(pool: asyncpg.Pool, broker: Broker, message_id: UUID) -> tuple[Message | None, list[DeadLetter]]:
    """Return a message, in whatever state it is, and its dead letters.

    Raises:
        NotFoundError: if there is neither.
    """
    async with borrow(pool) as connection:
        message = (await read_messages(connection, [message_id])).get(message_id)
    copies: list[DeadLetter] = []
    async with broker.dead_letters() as browsing:
        while letters := await browsing.take():
            copies += [letter for letter in letters if letter.message_id == message_id]
    if message is None and not copies:
        raise NotFoundError(f"there is neither a message {message_id} nor a dead letter of one")
    return message, copies

"""Removes dead letters from the queue: the selected ones, and always those of messages that are no longer failed.

Messages stay as they are. Letters that came after the removal began stay too.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from birthday.broker import Broker
from birthday.clock import Clock
from birthday.operations.dead_letters.letters import Found, Kind, choose, look_up
from birthday.store.changes import MESSAGE, Actor, record_changes
from birthday.store.connection import borrow
from birthday.store.failed import FailedFilter

DROPPED: Final = "dropped"


@dataclass(frozen=True, slots=True)
class Sifted:
    """The result for a batch of dead letters: ``chosen`` and ``settled`` ones are removed, the others are left."""

    chosen: Sequence[Found]
    settled: Sequence[Found]
    left: Sequence[Found]


@dataclass(slots=True)
class Tally:
    """How many dead letters were removed or left so far."""

    chosen: Counter[Kind] = field(default_factory=Counter)
    left: Counter[Kind] = field(default_factory=Counter)
    settled: int = 0

    def add(self, sifted: Sifted) -> None:
        """Add the dead letters of ``sifted`` to the counts."""
        self.chosen.update(found.kind for found in sifted.chosen)
        self.left.update(found.kind for found in sifted.left)
        self.settled += len(sifted.settled)

    @property
    def seen(self) -> int:
        """How many dead letters were looked at."""
        return self.chosen.total() + self.left.total() + self.settled


async def remove_dead(
    pool: asyncpg.Pool,
    broker: Broker,
    wanted: FailedFilter | None,
    clock: Clock,
    by: Actor,
    on_batch: Callable[[Sifted], None],
    *,
    save: Callable[[Sequence[Found]], None] = lambda _chosen: None,
    limit: int | None = None,
) -> None:
    """Remove up to ``limit`` dead letters that ``wanted`` selects from the queue, and all that are settled.

    ``save`` gets the chosen letters of a batch before they are removed. If it raises, they stay and the removal ends.
    That ``by`` drops them is recorded before they are removed. ``on_batch`` gets the result of each batch at once.

    Raises:
        UnavailableError: if the database or the queue cannot be used. Batches given to ``on_batch`` are done.
    """
    room = limit
    async with broker.dead_letters() as browsing:
        while letters := await browsing.take():
            found = await look_up(pool, letters)
            chosen = (await choose(pool, wanted, found))[:room] if wanted else []
            settled = [one for one in found if one.kind is Kind.SETTLED]
            room = None if room is None else room - len(chosen)
            save(chosen)
            await _record(pool, chosen, clock, by)
            gone = {one.letter.tag for one in (*chosen, *settled)}
            if gone:
                await browsing.drop([letter for letter in letters if letter.tag in gone])
            on_batch(Sifted(chosen, settled, [one for one in found if one.letter.tag not in gone]))


async def _record(pool: asyncpg.Pool, chosen: Sequence[Found], clock: Clock, by: Actor) -> None:
    """Record what is dropped. A letter without the id of a message is recorded with an empty one."""
    if chosen:
        changes = [by.change(DROPPED, MESSAGE, one.letter.message_id or "", {"letter": one.kind}) for one in chosen]
        async with borrow(pool) as connection, connection.transaction():
            await record_changes(connection, changes, clock.now())

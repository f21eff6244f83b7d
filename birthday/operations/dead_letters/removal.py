"""Dead letters out of the queue: those that are chosen, and in any case those of messages that are not failed any more.

Messages stay as they are. What died after the removal began stays too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg

from birthday.broker import Broker
from birthday.operations.dead_letters.letters import Found, Kind, choose, look_up
from birthday.store.failed import FailedFilter


@dataclass(frozen=True, slots=True)
class Sifted:
    """What became of some dead letters: removed because they were chosen, or because they are settled; or left."""

    chosen: Sequence[Found]
    settled: Sequence[Found]
    left: Sequence[Found]


async def remove_dead(
    pool: asyncpg.Pool,
    broker: Broker,
    wanted: FailedFilter | None,
    on_batch: Callable[[Sifted], None],
    *,
    save: Callable[[Sequence[Found]], None] = lambda _chosen: None,
    limit: int | None = None,
) -> None:
    """Remove up to ``limit`` dead letters that ``wanted`` selects from the queue, and all that are settled.

    ``save`` is given the chosen ones before they are removed; what it raises ends the removal before they are.
    ``on_batch`` is told what became of some, as soon as it did.

    Raises:
        UnavailableError: if the database or the queue cannot be used. What ``on_batch`` was told holds.
    """
    room = limit
    async with broker.dead_letters() as browsing:
        while letters := await browsing.take():
            found = await look_up(pool, letters)
            chosen = (await choose(pool, wanted, found))[:room] if wanted else []
            settled = [one for one in found if one.kind is Kind.SETTLED]
            room = None if room is None else room - len(chosen)
            save(chosen)
            gone = {one.letter.tag for one in (*chosen, *settled)}
            if gone:
                await browsing.drop([letter for letter in letters if letter.tag in gone])
            on_batch(Sifted(chosen, settled, [one for one in found if one.letter.tag not in gone]))

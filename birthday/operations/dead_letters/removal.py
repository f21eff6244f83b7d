"""Removes dead letters from the queue: the selected ones, and always those of messages that are no longer failed.

Messages stay as they are. Letters that came after the removal began stay too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import asyncpg

from birthday.broker import Broker
from birthday.operations.dead_letters.letters import Found, Kind, choose, look_up
from birthday.store.failed import FailedFilter


@dataclass(frozen=True, slots=True)
class Sifted:
    """The result for a batch of dead letters: ``chosen`` and ``settled`` ones are removed, the others are left."""

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

    ``save`` gets the chosen letters of a batch before they are removed. If it raises, they stay and the removal ends.
    ``on_batch`` gets the result of each batch at once.

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
            gone = {one.letter.tag for one in (*chosen, *settled)}
            if gone:
                await browsing.drop([letter for letter in letters if letter.tag in gone])
            on_batch(Sifted(chosen, settled, [one for one in found if one.letter.tag not in gone]))

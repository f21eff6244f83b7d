"""The feed of outcomes: a poller that follows it misses none and sees none twice, whoever writes them."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from uuid import UUID, uuid4

import asyncpg
import pytest

from birthday.core.message import Status
from birthday.store.events import hold_stream, make_events
from birthday.store.feed import (
    BEGINNING,
    SCANNED,
    FeedFilter,
    FeedPosition,
    find_start,
    follow_cluster,
    read_feed,
)
from birthday.store.history import Message
from birthday.store.settling import Settlement, settle
from tests.support.outcomes import NOW, finish, store_queued

ALL = FeedFilter()
WRITERS = 10
WRITES = 100
"""How many transactions each of them has."""
PLANS_ARE_KEPT = 8
"""After that many uses of a statement, PostgreSQL keeps its plan."""


class Poller:
    """Follows the feed from page to page."""

    def __init__(self, pool: asyncpg.Pool, wanted: FeedFilter = ALL, after: FeedPosition = BEGINNING) -> None:
        """Begin after a position."""
        self._pool = pool
        self._wanted = wanted
        self.after = after
        self.seen: list[Message] = []

    async def poll(self, limit: int = 30) -> list[UUID]:
        """Read to the present end of the feed; return what is new there."""
        found: list[Message] = []
        has_more = True
        while has_more:
            async with self._pool.acquire() as connection:
                page = await read_feed(connection, self.after, self._wanted, limit)
            found += page.messages
            self.after, has_more = page.end, page.has_more
        self.seen += found
        return [message.id for message in found]


async def write(pool: asyncpg.Pool, ids: Sequence[UUID], random: Random, *, seconds: float) -> None:
    """Give outcomes to messages in many transactions of different lengths; some are undone, some messages requeued."""
    async with pool.acquire() as connection:
        for number in range(WRITES):
            message_id = ids[number % len(ids)]
            transaction = connection.transaction()
            await transaction.start()
            # What has an outcome already is requeued, and may get another one by the same transaction.
            await finish(connection, [message_id], "queued")
            if random.random() < 0.9:
                await finish(connection, [message_id], random.choice(["delivered", "failed", "cancelled", "expired"]))
            await connection.execute("SELECT pg_sleep($1)", random.expovariate(1 / seconds))
            await (transaction.rollback() if random.random() < 0.2 else transaction.commit())


async def test_a_poller_misses_nothing_and_sees_nothing_twice_beside_ten_writers(
    pool: asyncpg.Pool, database_url: str
) -> None:
    """Ten writers commit and undo some 500 transactions a second, in another order than they began them."""
    ids = await store_queued(pool, WRITERS * 60)
    poller, polls = Poller(pool), 0
    async with asyncpg.create_pool(database_url, min_size=WRITERS, max_size=WRITERS) as writing:
        writers = [
            asyncio.ensure_future(write(writing, ids[number::WRITERS], Random(number), seconds=0.015))  # noqa: S311
            for number in range(WRITERS)
        ]
        while not all(writer.done() for writer in writers):
            polls += bool(await poller.poll())
        await asyncio.gather(*writers)
    await poller.poll()
    seen = [(message.id, message.attempts) for message in poller.seen]
    rows = await pool.fetch(
        "SELECT id, attempts FROM message_logs WHERE feed_position IS NOT NULL ORDER BY feed_position, id"
    )
    assert polls > 20, "the poller ran beside the writers"
    assert len(seen) == len(set(seen)), "nothing twice"
    assert len(rows) > 400
    assert {(row["id"], row["attempts"]) for row in rows} <= set(seen), "nothing missed"
    assert await Poller(pool).poll() == [row["id"] for row in rows], "in the order of the feed"


@pytest.mark.parametrize("seed", range(4))
async def test_whoever_reads_in_whatever_steps_finds_the_same(pool: asyncpg.Pool, seed: int) -> None:
    """Outcomes by batches of a worker and by others, messages that were requeued, removed or failed again since.

    They are followed in pages of any size, with a filter and without, and by events.
    """
    random = Random(seed)  # noqa: S311
    ids = await store_queued(pool, 400)
    left = list(ids)
    while left:
        count = random.choice([1, 1, 2, 5, 30, 90])
        some, left = left[:count], left[count:]
        if random.random() < 0.5:
            await settle_all(pool, some)
        else:
            async with pool.acquire() as connection, connection.transaction():
                for status in ("failed", "queued", "expired"):
                    await finish(connection, some, status)
                await finish(connection, left[:1], "failed")
    changed = random.sample(ids, random.choice([0, 50, 200, 399]))
    await finish(pool, changed[::2], "queued")
    await finish(pool, changed[::4], "failed")
    await pool.execute("DELETE FROM message_logs WHERE id = ANY($1)", changed[1::2])
    rows = await pool.fetch("SELECT id FROM message_logs WHERE feed_position IS NOT NULL ORDER BY feed_position, id")
    expected = [row["id"] for row in rows]
    for wanted in (ALL, FeedFilter(message_type="birthday")):
        for limit in (1, 2, 7, 500):
            assert await Poller(pool, wanted).poll(limit) == expected, (wanted, limit)
    assert await follow_by_events(pool, random) == sorted(expected)


async def follow_by_events(pool: asyncpg.Pool, random: Random) -> list[UUID]:
    """Make events of the whole feed; return the ids of their messages, in order."""
    holder, before = uuid4(), None
    async with pool.acquire() as connection:
        await connection.execute("UPDATE event_stream SET lease_until = clock_timestamp() - interval '1 day'")
        while (stream := await hold_stream(connection, holder, "receiver", timedelta(seconds=30))) is not None:
            if stream.after == before:
                break
            before = stream.after
            await make_events(connection, holder, stream.after, NOW, random.randint(1, 50))
        rows = await connection.fetch("SELECT (data ->> 'messageId')::uuid AS id FROM events ORDER BY 1")
    return [row["id"] for row in rows]


async def settle_all(pool: asyncpg.Pool, ids: Sequence[UUID]) -> None:
    """Store deliveries as a worker does."""
    await pool.execute("UPDATE message_logs SET status = 'sending', lease_until = $2 WHERE id = ANY($1)", ids, NOW)
    done = [Settlement(one, NOW, Status.DELIVERED, NOW, NOW, None, counted=True) for one in ids]
    assert len(await settle(pool, done)) == len(ids)


async def test_a_page_is_not_empty_because_many_messages_were_requeued(pool: asyncpg.Pool) -> None:
    """A poller without a filter need not ask again and again to get past them."""
    ids = await store_queued(pool, 1000)
    for start in range(0, 1000, 100):
        await settle_all(pool, ids[start : start + 100])
    await finish(pool, ids[:990], "queued")
    async with pool.acquire() as connection:
        page = await read_feed(connection, BEGINNING, ALL, 50)
    assert ([message.id for message in page.messages], page.has_more) == (sorted(ids[990:]), False)


async def test_a_running_transaction_holds_the_feed_back_and_hides_nothing(pool: asyncpg.Pool) -> None:
    """What commits beside a longer transaction comes after it, and in its place."""
    first, second = await store_queued(pool, 2)
    poller = Poller(pool)
    async with pool.acquire() as connection:
        async with connection.transaction():
            await finish(connection, [first])
            await finish(pool, [second])
            assert await poller.poll() == []
        assert await poller.poll() == [first, second]
    assert await poller.poll() == []


async def test_a_message_with_another_outcome_appears_again(pool: asyncpg.Pool) -> None:
    """A requeue takes a failed message out of the feed; its next outcome puts it at the end."""
    first, second = await store_queued(pool, 2)
    poller = Poller(pool)
    await finish(pool, [first], "failed")
    await finish(pool, [second])
    assert await poller.poll() == [first, second]
    await finish(pool, [first], "queued")
    assert await poller.poll() == []
    assert await Poller(pool).poll() == [second]
    await finish(pool, [first])
    assert await poller.poll() == [first]
    assert [message.status for message in poller.seen] == ["failed", "delivered", "delivered"]


async def test_the_same_outcome_again_is_not_another_one(pool: asyncpg.Pool) -> None:
    """A worker that stores an outcome again, because the answer was lost, does not move the message."""
    [message_id] = await store_queued(pool, 1)
    poller = Poller(pool)
    await finish(pool, [message_id])
    assert await poller.poll() == [message_id]
    await finish(pool, [message_id])
    assert await poller.poll() == []


async def test_a_worker_places_its_outcomes_itself(pool: asyncpg.Pool) -> None:
    """What a worker stores is in the feed without the trigger, whose call for each message takes longer."""
    [message_id] = await store_queued(pool, 1)
    await pool.execute("DROP TRIGGER place_in_feed ON message_logs")
    await pool.execute("UPDATE message_logs SET status = 'sending', lease_until = $1", NOW)
    done = Settlement(message_id, NOW, Status.DELIVERED, NOW, NOW, None, counted=True)
    assert await settle(pool, [done])
    poller = Poller(pool)
    assert await poller.poll() == [message_id]
    # Stored again, because the answer was lost, it keeps its place.
    assert await settle(pool, [done])
    assert await poller.poll() == []


async def test_a_wrong_place_in_the_feed_is_replaced(pool: asyncpg.Pool) -> None:
    """An outcome has the place of its transaction, whatever its writer says; a requeue removes it."""
    [message_id] = await store_queued(pool, 1)
    write = "UPDATE message_logs SET status = $2, feed_position = $3 WHERE id = $1 RETURNING feed_position"
    for wrong in (None, 0, 2**60):
        async with pool.acquire() as writer, writer.transaction():
            right = await writer.fetchval("SELECT feed_base() + pg_current_xact_id()::text::bigint")
            assert await writer.fetchval(write, message_id, "failed", wrong) == right
        assert await pool.fetchval(write, message_id, "queued", wrong) is None


async def test_a_rare_outcome_costs_a_bounded_look(pool: asyncpg.Pool) -> None:
    """With a filter, a page looks at a limited part of the feed, and says where to go on."""
    ids = await store_queued(pool, SCANNED + 10)
    await finish(pool, ids[:-1])
    await finish(pool, ids[-1:], "failed", error_type="timeout")
    of_user = FeedFilter(user_id=await pool.fetchval("SELECT user_id FROM message_logs WHERE id = $1", ids[-1]))
    async with pool.acquire() as connection:
        for wanted in (
            FeedFilter(status="failed"),
            FeedFilter("failed", "birthday"),
            FeedFilter(error_type="timeout"),
            of_user,
        ):
            page = await read_feed(connection, BEGINNING, wanted, 10)
            assert (page.messages, page.has_more) == ([], True)
            page = await read_feed(connection, page.end, wanted, 10)
            assert ([message.id for message in page.messages], page.has_more) == (ids[-1:], False)


async def test_a_start_by_time_finds_what_was_stored_since(pool: asyncpg.Pool) -> None:
    """The start lies before everything of that time or later, and at most an hour too early."""
    ids = await store_queued(pool, 300)
    for number, message_id in enumerate(ids):
        await finish(pool, [message_id], at=NOW + timedelta(minutes=number))
    for since in (-5, 0, 1, 150, 299, 301):
        async with pool.acquire() as connection:
            start = await find_start(connection, NOW + timedelta(minutes=since))
        assert await Poller(pool, after=start).poll() == ids[max(0, since - 60) :], since


async def test_a_start_by_time_is_before_what_was_stored_late(pool: asyncpg.Pool) -> None:
    """After an outage many outcomes are stored that are older than those before them: none is passed over."""
    before, late, after = [await store_queued(pool, count) for count in (50, 200, 50)]
    for number, message_id in enumerate(before):
        await finish(pool, [message_id], at=NOW + timedelta(minutes=number))
    for message_id in late:
        await finish(pool, [message_id], at=NOW + timedelta(minutes=20))
    for number, message_id in enumerate(after, 60):
        await finish(pool, [message_id], at=NOW + timedelta(minutes=number))
    for since in (0, 40, 50, 65, 79):
        async with pool.acquire() as connection:
            start = await find_start(connection, NOW + timedelta(minutes=since))
        found = await Poller(pool, after=start).poll()
        assert set(found) >= {*before[since:], *late, *after}, since


async def test_a_start_by_time_in_an_empty_feed_is_its_beginning(pool: asyncpg.Pool) -> None:
    """What comes later is found."""
    async with pool.acquire() as connection:
        start = await find_start(connection, NOW)
    ids = await store_queued(pool, 1)
    await finish(pool, ids)
    assert await Poller(pool, after=start).poll() == ids


async def test_positions_grow_although_a_restored_database_counts_from_less(pool: asyncpg.Pool) -> None:
    """In another cluster transactions are counted anew: a poller that was far ahead still sees what follows."""
    first, second = await store_queued(pool, 2)
    await finish(pool, [first])
    poller = Poller(pool)
    assert await poller.poll() == [first]
    for _ in range(PLANS_ARE_KEPT):
        assert await poller.poll() == []
    poller.after = FeedPosition(poller.after.position + 1_000_000_000, poller.after.id)
    async with pool.acquire() as connection:
        assert not await follow_cluster(connection)
        await connection.execute("UPDATE feed SET cluster = 'another/1'")
        async with pool.acquire() as writer:
            # It has planned its statements with the old base.
            await finish(writer, [first], "queued")
            await finish(writer, [first])
            assert await follow_cluster(connection)
            await finish(writer, [second])
        assert not await follow_cluster(connection)
    assert await poller.poll() == [second]

"""Dead letters on both brokers: looked at, requeued, archived and purged, whatever they are and however many."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import aiormq
import asyncpg
import pytest

from birthday.broker import Broker
from birthday.broker.postgres import PostgresBroker
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.broker.rabbitmq.topology import EXCHANGE, QUEUE
from birthday.channels import Delivered, Permanent
from birthday.core.message import OUTCOME_UNKNOWN, ErrorType
from birthday.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from birthday.operations.dead_letters.archive import Archive, open_archive
from birthday.operations.dead_letters.letters import Found, Kind
from birthday.operations.dead_letters.listing import Listing, find_dead, list_dead
from birthday.operations.dead_letters.removal import DROPPED, Tally, remove_dead
from birthday.operations.dead_letters.requeue import drop_copy, requeue_many, requeue_one
from birthday.store.changes import MESSAGE, ChangeFilter, list_changes
from birthday.store.failed import FailedFilter, find_failed
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel
from tests.support.clock import NINE_O_CLOCK, ManualClock
from tests.support.dead import bury, dead_ids, store_failed, take_all
from tests.support.product import Product, eventually
from tests.support.users import TESTER

HOUR = timedelta(hours=1)
ALL = FailedFilter()
BuryText = Callable[[str], Awaitable[None]]


@pytest.fixture
def product(pool: asyncpg.Pool, either_broker: Broker) -> Product:
    """An installation at 09:00 UTC on 1 March 2026, on either broker."""
    return Product(pool, either_broker, ManualClock(), Metrics())


@pytest.fixture
def bury_text(request: pytest.FixtureRequest, product: Product) -> BuryText:
    """Let a payload that somebody published by hand become a dead letter."""

    async def bury_text(body: str) -> None:
        dead = (await product.broker.stats()).dead
        if isinstance(product.broker, PostgresBroker):
            await product.pool.execute("INSERT INTO queue_messages (body) VALUES ($1)", body)
        else:
            connection = await aiormq.connect(request.getfixturevalue("rabbitmq_url"))
            channel = await connection.channel()
            await channel.basic_publish(body.encode(), exchange=EXCHANGE, routing_key=QUEUE)
            await connection.close()
        async with product.broker.consume(prefetch=1) as consumer:
            await consumer.reject(await consumer.receive(1, 0))
            await eventually(lambda: has_dead(product.broker, dead + 1), "it is dead")

    return bury_text


async def has_dead(broker: Broker, count: int) -> bool:
    """Say whether there are so many dead letters."""
    return (await broker.stats()).dead == count


async def find(product: Product, wanted: FailedFilter = ALL) -> list[UUID]:
    """Return the failed messages that are meant, in order."""
    return [message_id async for page in find_failed(product.pool, wanted) for message_id in page]


async def requeue(product: Product, wanted: FailedFilter = ALL) -> list[UUID]:
    """Requeue what is meant and clear the dead-letter queue of it; return what was requeued, in order."""
    requeued: list[UUID] = []
    ids = await find(product, wanted)
    await requeue_many(product.pool, product.broker, ids, product.clock, TESTER, requeued.extend)
    await sweep(product)
    return requeued


async def sweep(product: Product) -> Tally:
    """Remove dead letters of messages that are not failed any more, and nothing else."""
    tally = Tally()
    await remove_dead(product.pool, product.broker, None, product.clock, TESTER, tally.add)
    return tally


async def purge(product: Product, wanted: FailedFilter = ALL, limit: int | None = None) -> Tally:
    """Remove what is meant from the dead-letter queue."""
    return await archive(product, wanted, lambda _chosen: None, limit)


async def archive(
    product: Product, wanted: FailedFilter, save: Callable[[Sequence[Found]], None], limit: int | None = None
) -> Tally:
    """Save what is meant, and remove it from the dead-letter queue."""
    tally = Tally()
    await remove_dead(product.pool, product.broker, wanted, product.clock, TESTER, tally.add, save=save, limit=limit)
    return tally


async def look(product: Product, wanted: FailedFilter = ALL, limit: int = 100) -> Listing:
    """List what is meant."""
    return await list_dead(product.pool, product.broker, wanted, limit)


async def store_dead(product: Product, count: int, failed_at: datetime = NINE_O_CLOCK) -> list[UUID]:
    """Store messages that failed, and their dead letters."""
    ids = await store_failed(product.pool, count, failed_at)
    await bury(product.broker, ids)
    return ids


class TestRequeue:
    """``birthday dlq requeue`` and the API's retries."""

    async def test_what_the_service_refused_is_delivered_after_a_requeue(self, product: Product) -> None:
        """From the worker's dead letter to a delivery: with all attempts, and with no dead letter left."""
        await product.create(date(1990, 3, 1))
        await product.dispatcher.dispatch_once(product.clock.now())
        channel = RecordingChannel(product.clock, lambda _letter: Permanent(ErrorType.VALIDATION_ERROR, "refused"))
        async with product.working(channel):
            await product.wait_for_statuses({"failed": 1})
            await eventually(lambda: has_dead(product.broker, 1), "the worker rejects it")
            product.clock.advance(timedelta(days=30))
            channel.answer = lambda _letter: Delivered()
            [message_id] = await requeue(product)
            await product.wait_for_statuses({"delivered": 1})
        assert [sent.greeting.message_id for sent in channel.sent] == [message_id] * 2
        assert await product.pool.fetchval("SELECT attempts FROM message_logs") == 1
        assert await dead_ids(product.broker) == []

    async def test_every_condition_selects(self, product: Product) -> None:
        """Error, text, user, age, id: what is meant is queued once, what is not stays failed with its dead letter."""
        user_id = uuid4()
        old = await store_failed(product.pool, 2, NINE_O_CLOCK - 3 * HOUR, ErrorType.TIMEOUT)
        new = await store_failed(product.pool, 2, NINE_O_CLOCK - HOUR, ErrorType.TIMEOUT)
        other = await store_failed(product.pool, 1, NINE_O_CLOCK - HOUR, ErrorType.VALIDATION_ERROR)
        own = await store_failed(product.pool, 1, NINE_O_CLOCK - HOUR, ErrorType.TIMEOUT, user_id)
        [lost] = await store_failed(product.pool, 1, NINE_O_CLOCK - 4 * HOUR, ErrorType.PERMANENT_FAILURE)
        await product.pool.execute(
            "UPDATE message_logs SET error_detail = $2 || ': why' WHERE id = $1", lost, OUTCOME_UNKNOWN
        )
        left = [*old, *new, *other, *own, lost]
        await bury(product.broker, left)
        for wanted, expected in (
            (FailedFilter(user_id=user_id), own),
            (FailedFilter(error_type=ErrorType.VALIDATION_ERROR), other),
            (FailedFilter(detail="outcome unknown"), [lost]),
            (FailedFilter(message_id=new[0]), new[:1]),
            (FailedFilter(failed_before=NINE_O_CLOCK - 2 * HOUR, error_type=ErrorType.VALIDATION_ERROR), []),
            (FailedFilter(failed_before=NINE_O_CLOCK - 2 * HOUR), old),
            (FailedFilter(failed_from=NINE_O_CLOCK - HOUR), new[1:]),
        ):
            assert sorted(await requeue(product, wanted)) == sorted(expected)
            left = [message_id for message_id in left if message_id not in expected]
            assert sorted(await dead_ids(product.broker), key=str) == sorted(left, key=str)
            assert sorted(await take_all(product.broker, len(expected)), key=str) == sorted(expected, key=str)
        assert left == []

    async def test_what_ends_first_goes_first(self, product: Product) -> None:
        """Messages are queued in the order in which the local birthdays end."""
        late = await store_failed(product.pool, 1, NINE_O_CLOCK + HOUR)
        early = await store_failed(product.pool, 1, NINE_O_CLOCK - HOUR)
        assert await requeue(product) == [*early, *late]

    async def test_without_a_dead_letter(self, product: Product) -> None:
        """A message whose dead letter somebody has purged is requeued like any other."""
        ids = await store_failed(product.pool, 3, NINE_O_CLOCK)
        assert sorted(await requeue(product)) == sorted(ids)
        assert len(await take_all(product.broker, 3)) == 3

    async def test_all_copies_go(self, product: Product) -> None:
        """Several dead letters of one message are removed together, and it is queued once."""
        ids = await store_dead(product, 2)
        await bury(product.broker, ids)
        await bury(product.broker, ids[:1])
        assert len(await requeue(product)) == 2
        assert await dead_ids(product.broker) == []
        assert (await product.broker.stats()).ready == 2

    async def test_what_is_settled_is_cleared_away(self, product: Product) -> None:
        """Dead letters of messages that were delivered since go with the next requeue, and are counted."""
        ids = await store_dead(product, 3)
        await product.pool.execute("UPDATE message_logs SET status = 'delivered' WHERE id = $1", ids[0])
        tally = await sweep(product)
        assert tally.settled == 1
        assert tally.left == {Kind.FAILED: 2}
        assert sorted(await dead_ids(product.broker), key=str) == sorted(ids[1:], key=str)

    async def test_strangers_stay(self, product: Product, bury_text: BuryText) -> None:
        """What is no message of ours is left where it is."""
        unknown = uuid4()
        await bury_text("nonsense")
        await bury(product.broker, [unknown])
        assert await requeue(product) == []
        assert set(await dead_ids(product.broker)) == {unknown, None}
        assert (await sweep(product)).left == {Kind.MALFORMED: 1, Kind.UNKNOWN: 1}

    async def test_at_the_same_time(self, product: Product) -> None:
        """Two operators who requeue the same messages queue each of them once."""
        ids = await store_dead(product, 1200)
        found = await find(product)
        counts: Counter[UUID] = Counter()
        await asyncio.gather(
            requeue_many(product.pool, product.broker, found, product.clock, TESTER, counts.update),
            requeue_many(product.pool, product.broker, found[::-1], product.clock, TESTER, counts.update),
        )
        assert counts == dict.fromkeys(ids, 1)
        assert (await product.broker.stats()).ready == len(ids)

    async def test_without_the_queue(self, product: Product, pool: asyncpg.Pool) -> None:
        """When the queue does not confirm, messages stay failed and their dead letters stay, to be requeued later."""
        ids = await store_dead(product, 3)
        closed = RabbitMQBroker("amqp://127.0.0.1:1")
        with pytest.raises(UnavailableError):
            await requeue_many(pool, closed, ids, product.clock, TESTER, lambda _batch: None)
        with pytest.raises(UnavailableError):
            await requeue_one(pool, closed, ids[0], product.clock.now(), TESTER)
        await closed.close()
        assert await product.statuses() == {"failed": 3}
        assert len(await dead_ids(product.broker)) == 3
        assert len(await requeue(product)) == 3

    async def test_one(self, product: Product) -> None:
        """A single message is requeued by id, and its dead letter can be removed among others."""
        ids = await store_dead(product, 300)
        message = await requeue_one(product.pool, product.broker, ids[7], product.clock.now(), TESTER)
        assert (message.id, message.status, message.attempts) == (ids[7], "queued", 0)
        assert await drop_copy(product.pool, product.broker, ids[7])
        assert not await drop_copy(product.pool, product.broker, ids[7])
        assert ids[7] not in await dead_ids(product.broker)
        assert (await product.broker.stats()).dead == 299
        with pytest.raises(ConflictError, match="queued"):
            await requeue_one(product.pool, product.broker, ids[7], product.clock.now(), TESTER)
        with pytest.raises(NotFoundError):
            await requeue_one(product.pool, product.broker, uuid4(), product.clock.now(), TESTER)

    async def test_one_that_fails_again(self, product: Product) -> None:
        """A message that a worker was faster to fail again than its old dead letter was removed keeps that one."""
        [message_id] = await store_dead(product, 1)
        await requeue_one(product.pool, product.broker, message_id, product.clock.now(), TESTER)
        refuse = RecordingChannel(product.clock, lambda _letter: Permanent(ErrorType.VALIDATION_ERROR, "refused"))
        async with product.working(refuse):
            await eventually(lambda: has_dead(product.broker, 2), "its new dead letter is there")
        assert not await drop_copy(product.pool, product.broker, message_id)
        assert await dead_ids(product.broker) == [message_id, message_id]


class TestPurge:
    """``birthday dlq purge``."""

    async def test_messages_stay_failed(self, product: Product, bury_text: BuryText) -> None:
        """Everything leaves the queue, unknown ones too; messages stay failed and can still be requeued."""
        ids = await store_dead(product, 3)
        await bury_text("nonsense")
        tally = await purge(product)
        assert tally.chosen == {Kind.FAILED: 3, Kind.MALFORMED: 1}
        assert await dead_ids(product.broker) == []
        assert await product.statuses() == {"failed": 3}
        assert sorted(await requeue(product)) == sorted(ids)

    async def test_what_is_dropped_is_recorded(self, product: Product, bury_text: BuryText) -> None:
        """Each letter that somebody drops is a change of its message; one without a message has no id."""
        ids = await store_dead(product, 2)
        await bury_text("nonsense")
        await purge(product)
        async with product.pool.acquire() as connection:
            recorded = await list_changes(connection, ChangeFilter(entity=MESSAGE, actor=TESTER.name), None, 10)
        assert {one.change.action for one in recorded} == {DROPPED}
        assert sorted(one.change.entity_id for one in recorded) == sorted(["", *map(str, ids)])

    async def test_a_condition_spares_the_rest(self, product: Product, bury_text: BuryText) -> None:
        """By error, only those messages are meant: an unknown one has none, and what is settled goes in any case."""
        ids = await store_dead(product, 2)
        timeouts = await store_failed(product.pool, 1, NINE_O_CLOCK, ErrorType.TIMEOUT)
        await bury(product.broker, timeouts)
        await bury_text("nonsense")
        await product.pool.execute("UPDATE message_logs SET status = 'delivered' WHERE id = $1", ids[0])
        tally = await purge(product, FailedFilter(error_type=ErrorType.TIMEOUT))
        assert (tally.chosen, tally.settled) == ({Kind.FAILED: 1}, 1)
        assert sorted(await dead_ids(product.broker), key=str) == sorted([ids[1], None], key=str)

    async def test_a_stranger_has_an_age(self, product: Product, bury_text: BuryText) -> None:
        """What is no message is as old as its death, and is meant by conditions of age and id alone."""
        unknown = uuid4()
        await bury(product.broker, [unknown])
        await bury_text("nonsense")
        now = datetime.now(UTC)
        assert not (await purge(product, FailedFilter(failed_before=now - HOUR))).chosen
        assert not (await purge(product, FailedFilter(failed_from=now + HOUR))).chosen
        assert not (await purge(product, FailedFilter(user_id=unknown))).chosen
        assert (await purge(product, FailedFilter(message_id=unknown))).chosen == {Kind.UNKNOWN: 1}
        assert (await purge(product, FailedFilter(failed_from=now - HOUR))).chosen == {Kind.MALFORMED: 1}

    async def test_a_limit(self, product: Product) -> None:
        """No more than the limit are removed, from several batches."""
        await store_dead(product, 500)
        assert (await purge(product, limit=450)).chosen == {Kind.FAILED: 450}
        assert len(await dead_ids(product.broker)) == 50


class TestLooking:
    """``birthday dlq list`` and ``show``."""

    async def test_failed_messages_and_strangers(self, product: Product, bury_text: BuryText) -> None:
        """Every failed message, with or without a dead letter; then what is no message; what is settled is counted."""
        with_copy = await store_dead(product, 2)
        without = await store_failed(product.pool, 1, NINE_O_CLOCK + HOUR)
        unknown = uuid4()
        await bury(product.broker, [unknown])
        await bury_text("nonsense")
        await product.pool.execute("UPDATE message_logs SET status = 'delivered' WHERE id = $1", with_copy[0])
        listing = await look(product)
        assert [(message.id, listing.copies[message.id]) for message in listing.messages] == [
            (with_copy[1], 1),
            (without[0], 0),
        ]
        kinds = Counter((found.kind, found.letter.message_id) for found in listing.unknown)
        assert kinds == {(Kind.UNKNOWN, unknown): 1, (Kind.MALFORMED, None): 1}
        assert (listing.total, listing.settled) == (4, 1)
        assert len(await dead_ids(product.broker)) == 4

    async def test_a_limit(self, product: Product, bury_text: BuryText) -> None:
        """The first ones are shown, and all are counted."""
        await store_dead(product, 3)
        for _ in range(2):
            await bury_text("nonsense")
        for limit, shown in ((2, (2, 0)), (4, (3, 1)), (9, (3, 2))):
            listing = await look(product, limit=limit)
            assert (len(listing.messages), len(listing.unknown), listing.total) == (*shown, 5)

    async def test_conditions(self, product: Product, bury_text: BuryText) -> None:
        """With a condition on messages, unknown ones are not shown."""
        ids = await store_dead(product, 2)
        await bury_text("nonsense")
        listing = await look(product, FailedFilter(message_id=ids[0]))
        assert ([message.id for message in listing.messages], list(listing.unknown)) == (ids[:1], [])
        assert (await look(product, FailedFilter(error_type=ErrorType.TIMEOUT))).total == 0
        assert (await look(product, FailedFilter(message_type="work-anniversary"))).total == 0

    async def test_one(self, product: Product) -> None:
        """A message is found in any state, with all its dead letters; a dead letter also without a message."""
        ids = await store_dead(product, 3)
        await bury(product.broker, ids[:1])
        message, copies = await find_dead(product.pool, product.broker, ids[0])
        assert message is not None
        assert (message.id, message.error_detail) == (ids[0], "refused")
        assert [copy.message_id for copy in copies] == [ids[0]] * 2
        unknown = uuid4()
        await bury(product.broker, [unknown])
        nothing, [stranger] = await find_dead(product.pool, product.broker, unknown)
        assert (nothing, stranger.reason) == (None, "rejected")
        with pytest.raises(NotFoundError):
            await find_dead(product.pool, product.broker, uuid4())


class TestArchive:
    """``birthday dlq archive``."""

    async def test_everything_is_kept(self, product: Product, bury_text: BuryText, tmp_path: Path) -> None:
        """A line for each: payload, headers, why and when it died, and the row; then the queue is empty."""
        [message_id] = await store_dead(product, 1)
        await bury_text("nonsense \u20ac")
        file = tmp_path / "archive.ndjson"
        with open_archive(str(file), 1, product.clock) as kept:
            tally = await archive(product, ALL, kept.add)
        assert tally.chosen.total() == 2
        lines = {line["kind"]: line for line in map(json.loads, file.read_text("utf-8").splitlines())}
        failed, malformed = lines["failed"], lines["malformed"]
        assert json.loads(failed["payload"]) == {"messageId": str(message_id)}
        assert failed["messageId"] == failed["row"]["id"] == str(message_id)
        assert failed["row"]["error_type"] == "external_api_error"
        assert failed["archivedAt"] == "2026-03-01T09:00:00Z"
        assert (malformed["payload"], malformed["messageId"], malformed["row"]) == ("nonsense \u20ac", None, None)
        for line in (failed, malformed):
            assert line["reason"] == "rejected"
            assert line["diedAt"] is not None
        if isinstance(product.broker, RabbitMQBroker):
            assert failed["headers"]["x-death"][0]["queue"] == QUEUE
        assert file.stat().st_mode & 0o777 == 0o600
        assert await dead_ids(product.broker) == []
        assert await product.statuses() == {"failed": 1}

    async def test_a_full_disk(self, product: Product) -> None:
        """What cannot be written stays in the queue."""
        await store_dead(product, 3)
        full = os.open("/dev/full", os.O_WRONLY)
        try:
            with pytest.raises(UnavailableError, match="standard output cannot be written: No space left"):
                await archive(product, ALL, Archive(full, "standard output", product.clock).add)
        finally:
            os.close(full)
        await eventually(lambda: has_dead(product.broker, 3), "all are given back")

    async def test_an_archive_is_never_replaced(self, product: Product, tmp_path: Path) -> None:
        """A file that exists is refused and left as it is; one that nothing was written to does not remain."""
        file = tmp_path / "archive.ndjson"
        with open_archive(str(file), 1, product.clock) as kept:
            await archive(product, ALL, kept.add)
        assert not file.exists()
        file.write_text("precious")
        with pytest.raises(InvalidInputError, match="exists"), open_archive(str(file), 1, product.clock):
            pass
        with pytest.raises(InvalidInputError, match="No such file"), open_archive("/nowhere/at/all", 1, product.clock):
            pass
        assert file.read_text() == "precious"


@pytest.mark.slow
async def test_thousands_in_one_call(product: Product, tmp_path: Path) -> None:
    """Looking at thousands, archiving, requeueing and purging them takes seconds each."""
    ids = await store_dead(product, 4_000)
    file = tmp_path / "archive.ndjson"

    async def timed(work: Awaitable[object]) -> None:
        began = time.monotonic()
        await work
        assert time.monotonic() - began < 20

    listing = asyncio.ensure_future(look(product))
    await timed(listing)
    assert (listing.result().total, len(listing.result().copies)) == (4_000, 4_000)
    await timed(requeue(product))
    assert await product.statuses() == {"queued": 4_000}
    assert await dead_ids(product.broker) == []
    assert set(await take_all(product.broker, 4_000)) == set(ids)
    await product.pool.execute("UPDATE message_logs SET status = 'failed'")
    await bury(product.broker, ids)
    with open_archive(str(file), 1, product.clock) as kept:
        await timed(archive(product, ALL, kept.add, 2000))
    await timed(purge(product))
    assert len(file.read_bytes().splitlines()) == 2000
    assert await dead_ids(product.broker) == []

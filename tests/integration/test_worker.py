"""The worker on a real database and both brokers, with a channel and a clock in the hands of the test."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import date, timedelta
from uuid import UUID, uuid4

import aiormq
import asyncpg
import pytest

from birthday.broker import Broker
from birthday.broker.postgres import PostgresBroker
from birthday.broker.protocol import encode_payload
from birthday.channels import Delivered, Greeting, Outcome, Permanent, Temporary
from birthday.core.message import ErrorType
from birthday.store.claims import cancel
from birthday.store.dispatching import lock_due, mark_queued
from birthday.store.users import Replanned, delete_user, lock_profile, replace_profile
from birthday.telemetry.metrics import Metrics
from tests.support.channel import HeldChannel, RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import CATCH_UP, Product, eventually, is_waiting_for_a_lock, metric, parse
from tests.support.users import TESTER

DOWN = Temporary(ErrorType.EXTERNAL_API_ERROR, "down")
BUSY = Temporary(ErrorType.EXTERNAL_API_ERROR, "busy", outage=False)
LATE = Temporary(ErrorType.TIMEOUT, "no answer")
BROKEN = Temporary(ErrorType.EXTERNAL_API_ERROR, "the connection broke", answer_lost=True)
REFUSED = Permanent(ErrorType.VALIDATION_ERROR, "refused")


@pytest.fixture
def product(pool: asyncpg.Pool, either_broker: Broker) -> Product:
    """An installation at 09:00 UTC on 1 March 2027, on either broker."""
    return Product(pool, either_broker, ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())


PublishByHand = Callable[[UUID], Awaitable[None]]


@pytest.fixture
def publish_by_hand(request: pytest.FixtureRequest, product: Product) -> PublishByHand:
    """Publish a bare payload, as an operator does: with no properties, or as a row with nothing but a body."""

    async def publish(message_id: UUID) -> None:
        if isinstance(product.broker, PostgresBroker):
            await product.pool.execute(
                "INSERT INTO queue_messages (body) VALUES ($1)", encode_payload(message_id).decode()
            )
            return
        connection = await aiormq.connect(request.getfixturevalue("rabbitmq_url"))
        channel = await connection.channel()
        await channel.basic_publish(
            encode_payload(message_id), exchange="birthday_exchange", routing_key="birthday_messages"
        )
        await connection.close()

    return publish


async def queue_birthdays(product: Product, count: int) -> list[UUID]:
    """Create users whose birthday is now, publish their messages, and return the ids of the messages."""
    for _ in range(count):
        await product.create(date(1990, 3, 1))
    dispatched = await product.dispatcher.dispatch_once(product.clock.now())
    assert dispatched.published == count
    rows = await product.pool.fetch("SELECT id FROM message_logs WHERE status = 'queued'")
    return [UUID(bytes=row["id"].bytes) for row in rows]


async def test_a_due_message_is_sent_once_and_recorded(product: Product) -> None:
    """The letter of the contract, the outcome in the row, the counters, and an empty queue."""
    [message_id] = await queue_birthdays(product, 1)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})
    [sent] = channel.sent
    assert sent.greeting.message_id == message_id
    assert sent.greeting.text == "Hey, Ada Lovelace it's your birthday"
    row = await product.pool.fetchrow("SELECT attempts, sent_at, delivered_at, lease_until FROM message_logs")
    assert row is not None
    assert tuple(row) == (1, product.clock.now(), product.clock.now(), None)
    for name in ("delivered", "on_time", "processed"):
        assert metric(product.metrics, f"messages_{name}_total") == 1
    assert metric(product.metrics, "messages_sent_total", hour="09") == 1
    stats = await product.broker.stats()
    assert (stats.ready, stats.unacked, stats.dead) == (0, 0, 0)


async def test_what_is_delivered_after_an_outage_counts_as_delivered_and_not_as_on_time(product: Product) -> None:
    """Two hours late is late, and delivered all the same."""
    await queue_birthdays(product, 1)
    product.clock.advance(timedelta(hours=2))
    async with product.working(RecordingChannel(product.clock)):
        await product.wait_for_statuses({"delivered": 1})
    assert metric(product.metrics, "messages_delivered_total") == 1
    assert metric(product.metrics, "messages_on_time_total") == 0


async def test_a_thousand_messages_are_shared_by_two_workers_without_a_repeat(product: Product) -> None:
    """Two workers compete; each message is sent by one of them."""
    ids = await queue_birthdays(product, 1000)
    channel = RecordingChannel(product.clock)
    async with product.working(channel), product.working(channel):
        await product.wait_for_statuses({"delivered": 1000})
    assert sorted(sent.greeting.message_id for sent in channel.sent) == sorted(ids)


async def test_a_name_that_is_edited_after_dispatch_is_honoured(product: Product) -> None:
    """The user's data are read at the claim."""
    await queue_birthdays(product, 1)
    await product.pool.execute("UPDATE users SET first_name = 'Augusta'")
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await channel.wait_for(1)
    assert channel.sent[0].greeting.text == "Hey, Augusta Lovelace it's your birthday"


async def test_the_message_of_a_deleted_user_is_cancelled_and_not_sent(product: Product) -> None:
    """Deletion cancels what is queued in the same transaction; the copy in the queue comes to nothing."""
    await queue_birthdays(product, 1)
    user_id = await product.pool.fetchval("SELECT id FROM users")
    assert await delete_user(product.pool, user_id, product.clock.now(), TESTER) == 1
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await eventually(lambda: queue_is_empty(product), "the queue is empty")
    assert channel.sent == []
    assert await product.statuses() == {"cancelled": 1}


async def test_a_moved_birthday_is_not_greeted_on_the_old_date(product: Product) -> None:
    """The queued message is cancelled, and the one for the new date waits for its time."""
    await queue_birthdays(product, 1)
    await move_birthday(product, date(1990, 3, 2))
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"cancelled": 1, "scheduled": 1})
        product.clock.advance(timedelta(days=1))
        await product.dispatcher.dispatch_once(product.clock.now())
        await product.wait_for_statuses({"cancelled": 1, "delivered": 1})
    assert len(channel.sent) == 1


async def test_a_stale_message_that_a_planner_made_meanwhile_is_cancelled_at_the_claim(product: Product) -> None:
    """A planner that read the user before the birthday moved leaves a message with the old schedule_from."""
    await queue_birthdays(product, 1)
    await product.pool.execute("UPDATE users SET schedule_from = schedule_from + interval '1 second'")
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"cancelled": 1})
    assert channel.sent == []
    assert metric(product.metrics, "messages_cancelled_total") == 1


async def test_a_temporary_failure_is_tried_again_under_the_same_key(product: Product) -> None:
    """Failed, retrying, delivered: one message id, two attempts, one retry counted."""
    await queue_birthdays(product, 1)
    answers: Iterator[Outcome] = iter([BUSY, Delivered()])
    channel = RecordingChannel(product.clock, lambda _letter: next(answers))
    async with product.working(channel):
        await product.wait_for_statuses({"retrying": 1})
        product.clock.advance(timedelta(seconds=5))
        await product.wait_for_statuses({"delivered": 1})
    assert len({sent.greeting.message_id for sent in channel.sent}) == 1
    assert await product.pool.fetchval("SELECT attempts FROM message_logs") == 2
    assert metric(product.metrics, "message_retries_total", retry_reason="external_api_error") == 1
    assert metric(product.metrics, "messages_sent_total", hour="09") == 1


async def test_retry_after_is_obeyed(product: Product) -> None:
    """The service asks for an hour: nothing is sent before it has passed."""
    await queue_birthdays(product, 1)
    asks = Temporary(ErrorType.EXTERNAL_API_ERROR, "busy", timedelta(hours=1), outage=False)
    channel = RecordingChannel(product.clock, lambda _letter: asks)
    async with product.working(channel):
        await product.wait_for_statuses({"retrying": 1})
        next_at = await product.pool.fetchval("SELECT next_attempt_at FROM message_logs")
    assert next_at == product.clock.now() + timedelta(hours=1)


async def test_a_message_fails_for_good_after_the_last_attempt(product: Product) -> None:
    """Three attempts here; then failed, dead-lettered, counted by type."""
    await queue_birthdays(product, 1)
    channel = RecordingChannel(product.clock, lambda _letter: BUSY)
    async with product.working(channel):
        for attempt in (1, 2):
            await channel.wait_for(attempt)
            await product.wait_for_statuses({"retrying": 1})
            product.clock.advance(timedelta(seconds=10))
        await product.wait_for_statuses({"failed": 1})
        await eventually(lambda: dead_letters(product, 1), "one dead letter")
    assert len(channel.sent) == 3
    assert metric(product.metrics, "messages_failed_total", error_type="external_api_error") == 1


async def test_a_refused_message_is_dead_lettered_at_once(product: Product) -> None:
    """A permanent failure burns one attempt and keeps its reason."""
    await queue_birthdays(product, 1)
    channel = RecordingChannel(product.clock, lambda _letter: REFUSED)
    async with product.working(channel):
        await product.wait_for_statuses({"failed": 1})
        await eventually(lambda: dead_letters(product, 1), "one dead letter")
    row = await product.pool.fetchrow("SELECT attempts, error_type, error_detail FROM message_logs")
    assert row is not None
    assert tuple(row) == (1, "validation_error", "refused")


async def test_a_failed_message_that_an_operator_publishes_again_is_delivered(
    product: Product, publish_by_hand: PublishByHand
) -> None:
    """The data were mended: the same id goes out, and the message is delivered."""
    [message_id] = await queue_birthdays(product, 1)
    channel = RecordingChannel(product.clock, lambda _letter: REFUSED)
    async with product.working(channel):
        await product.wait_for_statuses({"failed": 1})
        channel.answer = lambda _letter: Delivered()
        product.clock.advance(timedelta(days=7))
        await publish_by_hand(message_id)
        await product.wait_for_statuses({"delivered": 1})
    assert [sent.greeting.message_id for sent in channel.sent] == [message_id] * 2


async def test_a_failed_message_that_an_operator_publishes_survives_the_worker_that_took_it(
    product: Product, publish_by_hand: PublishByHand
) -> None:
    """A worker that dies with the delivery before it claims the message does not undo what the operator has done."""
    [message_id] = await queue_birthdays(product, 1)
    channel = RecordingChannel(product.clock, lambda _letter: REFUSED)
    async with product.working(channel):
        await product.wait_for_statuses({"failed": 1})
        await eventually(lambda: dead_letters(product, 1), "one dead letter")
    await publish_by_hand(message_id)
    async with product.broker.consume(prefetch=1) as dying, asyncio.timeout(60):
        assert [delivery.message_id for delivery in await dying.receive(1, 0)] == [message_id]
    channel.answer = lambda _letter: Delivered()
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})


async def test_a_failed_message_that_an_operator_publishes_is_delivered_though_a_copy_of_our_own_comes_first(
    product: Product, publish_by_hand: PublishByHand
) -> None:
    """Both come at once: what the operator has published is not taken for a mere copy."""
    [message_id] = await queue_birthdays(product, 1)
    channel = RecordingChannel(product.clock, lambda _letter: REFUSED)
    async with product.working(channel):
        await product.wait_for_statuses({"failed": 1})
        await eventually(lambda: dead_letters(product, 1), "one dead letter")
    await product.broker.publish([message_id])
    await publish_by_hand(message_id)
    channel.answer = lambda _letter: Delivered()
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})


async def test_a_copy_of_our_own_does_not_bring_a_failed_message_back(product: Product) -> None:
    """The janitor had published it twice: it is refused once, sent once, and dead-lettered."""
    [message_id] = await queue_birthdays(product, 1)
    await product.broker.publish([message_id])
    channel = RecordingChannel(product.clock, lambda _letter: REFUSED)
    async with product.working(channel):
        await product.wait_for_statuses({"failed": 1})
        await product.broker.publish([message_id])
        await eventually(lambda: nothing_is_ready(product), "all copies have been looked at")
    assert len(channel.sent) == 1


async def test_what_a_dead_worker_held_fails_if_nobody_may_send_it_any_more(product: Product) -> None:
    """The user was deleted meanwhile: whether the message arrived is not known, and the year stays taken."""
    await queue_birthdays(product, 1)
    await product.pool.execute(
        "UPDATE message_logs SET status = 'sending', attempts = 1, lease_until = clock_timestamp() - interval '1 s'"
    )
    user_id = await product.pool.fetchval("SELECT id FROM users")
    await delete_user(product.pool, user_id, product.clock.now(), TESTER)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"failed": 1})
        await eventually(lambda: dead_letters(product, 1), "one dead letter")
    assert channel.sent == []


@pytest.mark.parametrize("answers", [[LATE], [LATE, BUSY], [BROKEN], [BROKEN, BUSY]], ids=str)
async def test_what_may_have_arrived_is_finished_under_its_own_key_although_the_birthday_moves(
    product: Product, answers: list[Outcome]
) -> None:
    """Another message for the new date could be the second one of the year, whatever later attempts have said."""
    [message_id] = await queue_birthdays(product, 1)
    coming = iter([*answers, Delivered()])
    channel = RecordingChannel(product.clock, lambda _letter: next(coming))
    async with product.working(channel):
        for attempt in range(1, len(answers) + 1):
            await wait_for_retry(product, attempt)
            if attempt == len(answers):
                await move_birthday(product, date(1990, 3, 2))
            product.clock.advance(timedelta(seconds=5))
        await product.wait_for_statuses({"delivered": 1})
    assert {sent.greeting.message_id for sent in channel.sent} == {message_id}
    assert await nothing_is_planned_for_tomorrow(product)


@pytest.mark.parametrize("answer", [LATE, BROKEN], ids=["timeout", "broken"])
async def test_what_may_have_arrived_is_finished_under_its_own_key_although_the_birthday_moved_meanwhile(
    product: Product, answer: Outcome
) -> None:
    """The birthday moves while the message is being sent, and only then nobody knows what became of that."""
    [message_id] = await queue_birthdays(product, 1)
    channel = HeldChannel(product.clock)
    channel.answer = lambda _letter: answer
    async with product.working(channel):
        await channel.wait_for(1)
        await move_birthday(product, date(1990, 3, 2))
        channel.answer = lambda _letter: Delivered()
        channel.release()
        await product.wait_for_statuses({"retrying": 1})
        assert await audited(product) == {}
        product.clock.advance(timedelta(seconds=5))
        await product.wait_for_statuses({"delivered": 1})
    assert {sent.greeting.message_id for sent in channel.sent} == {message_id}
    assert await nothing_is_planned_for_tomorrow(product)


@pytest.mark.parametrize("answers", [[], [BUSY]], ids=["accepted", "refused for now"])
async def test_what_a_dead_worker_held_is_finished_under_its_own_key_although_the_birthday_moves(
    product: Product, answers: list[Outcome]
) -> None:
    """Before another worker takes it over, or after that one has failed: the dead worker may have sent it."""
    [message_id] = await queue_birthdays(product, 1)
    await product.pool.execute(
        "UPDATE message_logs SET status = 'sending', attempts = 1, lease_until = clock_timestamp() - interval '1 s'"
    )
    if not answers:
        await move_birthday(product, date(1990, 3, 2))
    coming = iter([*answers, Delivered()])
    channel = RecordingChannel(product.clock, lambda _letter: next(coming))
    async with product.working(channel):
        if answers:
            await product.wait_for_statuses({"retrying": 1})
            await move_birthday(product, date(1990, 3, 2))
            product.clock.advance(timedelta(seconds=5))
        await product.wait_for_statuses({"delivered": 1})
    assert {sent.greeting.message_id for sent in channel.sent} == {message_id}
    assert await nothing_is_planned_for_tomorrow(product)


@pytest.mark.parametrize("hours", [48, 2])
async def test_what_has_certainly_not_arrived_moves_with_the_birthday(product: Product, hours: int) -> None:
    """It is refused for now while the birthday moves: cancelled at the next claim, and planned anew soon after.

    However short the catch-up window is: by then the instant of the day is three hours ago.
    """
    product = replace(product, catch_up=timedelta(hours=hours))
    product.clock.advance(timedelta(hours=3))
    [message_id] = await queue_birthdays(product, 1)
    channel = HeldChannel(product.clock)
    channel.answer = lambda _letter: BUSY
    async with product.working(channel):
        await channel.wait_for(1)
        await move_birthday(product, date(1990, 3, 1), "Europe/London")
        channel.answer = lambda _letter: Delivered()
        channel.release()
        await product.wait_for_statuses({"retrying": 1})
        assert await audited(product) == {"pending": 1}
        product.clock.advance(timedelta(seconds=5))
        await product.wait_for_statuses({"cancelled": 1})
        assert await audited(product) == {"pending": 1}
        await eventually(lambda: sweep_is_due(product), "the worker has asked for a sweep")
        assert await product.planner.plan_once(product.clock.now()) == 1
        await product.dispatcher.dispatch_once(product.clock.now())
        await product.wait_for_statuses({"cancelled": 1, "delivered": 1})
    assert await audited(product) == {"delivered": 1}
    first, second = [sent.greeting.message_id for sent in channel.sent]
    assert first == message_id != second


async def move_after_an_outage(product: Product, born: date, zone: str) -> Replanned:
    """Let a day end with its message still queued, and then give the user another date of birth and zone."""
    await queue_birthdays(product, 1)
    product.clock.advance(timedelta(hours=20))
    return await move_birthday(product, born, zone)


@pytest.mark.parametrize(
    ("born", "zone"), [(date(1990, 3, 1), "Europe/Berlin"), (date(1991, 3, 1), "UTC")], ids=["zone", "year"]
)
async def test_what_is_overdue_is_sent_although_its_day_is_over_when_the_user_moves(
    product: Product, born: date, zone: str
) -> None:
    """The date is the same one, so no other message replaces it: it goes out late, under its own key."""
    assert await move_after_an_outage(product, born, zone) == Replanned()
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})
    assert [sent.greeting.message_id for sent in channel.sent] == [
        await product.pool.fetchval("SELECT id FROM message_logs")
    ]
    now = product.clock.now()
    assert not (await product.auditor.audit(now - timedelta(days=2), now, now)).broken
    assert await product.planner.plan_once(now) == 0


@pytest.mark.parametrize(
    ("born", "zone", "replanned"),
    [
        pytest.param(date(1990, 2, 28), "UTC", Replanned(cancelled=1), id="to another date that is over"),
        pytest.param(date(2027, 3, 1), "UTC", Replanned(cancelled=1), id="to a first birthday that is to come"),
        pytest.param(date(1990, 3, 2), "UTC", Replanned(1, 1), id="to a date that is to come"),
        pytest.param(date(1990, 3, 1), "America/Los_Angeles", Replanned(1, 1), id="to where the day is not over"),
    ],
)
async def test_what_is_overdue_is_not_sent_for_a_date_that_is_not_its_own(
    product: Product, born: date, zone: str, replanned: Replanned
) -> None:
    """A date that was over when it became known is not greeted, and what is to come has a message of its own."""
    assert await move_after_an_outage(product, born, zone) == replanned
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await eventually(lambda: queue_is_empty(product), "the queue is empty")
    assert channel.sent == []


async def test_what_may_have_arrived_is_cancelled_if_the_user_is_deleted(product: Product) -> None:
    """Nobody is left to greet twice."""
    await queue_birthdays(product, 1)
    channel = HeldChannel(product.clock)
    channel.answer = lambda _letter: LATE
    async with product.working(channel):
        await channel.wait_for(1)
        await delete_user(
            product.pool, await product.pool.fetchval("SELECT id FROM users"), product.clock.now(), TESTER
        )
        channel.release()
        await product.wait_for_statuses({"retrying": 1})
        product.clock.advance(timedelta(seconds=5))
        await product.wait_for_statuses({"cancelled": 1})
    assert len(channel.sent) == 1


async def test_what_failed_and_may_have_arrived_is_requeued_under_its_own_key_although_the_birthday_moved(
    product: Product, publish_by_hand: PublishByHand
) -> None:
    """An operator sends it once more after the last attempt: the same letter, and no other one this year."""
    [message_id] = await queue_birthdays(product, 1)
    coming: Iterator[Outcome] = iter([LATE, BUSY, BUSY, Delivered()])
    channel = RecordingChannel(product.clock, lambda _letter: next(coming))
    async with product.working(channel):
        for attempt in (1, 2):
            await wait_for_retry(product, attempt)
            product.clock.advance(timedelta(seconds=10))
        await product.wait_for_statuses({"failed": 1})
        await move_birthday(product, date(1990, 3, 2))
        await publish_by_hand(message_id)
        await product.wait_for_statuses({"delivered": 1})
    assert {sent.greeting.message_id for sent in channel.sent} == {message_id}
    assert await nothing_is_planned_for_tomorrow(product)


async def test_a_message_that_is_made_current_while_it_is_waited_for_is_not_cancelled(product: Product) -> None:
    """Whoever waits for a message looks at its user again, too."""
    [message_id] = await queue_birthdays(product, 1)
    await product.pool.execute("UPDATE users SET schedule_from = schedule_from + interval '1 second'")
    async with product.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute(
                "UPDATE message_logs SET schedule_from = (SELECT schedule_from FROM users) WHERE id = $1", message_id
            )
            cancelling = asyncio.create_task(cancel(product.pool, [message_id], product.clock.now()))
            await eventually(lambda: is_waiting_for_a_lock(product.pool), "the message is waited for")
        assert await cancelling == []
    assert await product.statuses() == {"queued": 1}


async def test_an_id_that_does_not_exist_is_dead_lettered_and_the_rest_goes_on(product: Product) -> None:
    """An unknown one in the queue is put aside; its neighbour is delivered."""
    await product.broker.publish([uuid4()])
    await queue_birthdays(product, 1)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})
        await eventually(lambda: dead_letters(product, 1), "one dead letter")
    assert len(channel.sent) == 1


async def test_a_flood_of_copies_sends_one_message(product: Product) -> None:
    """Five hundred copies of one id, and one send. A copy that met it being sent may wait for the lease to end."""
    [message_id] = await queue_birthdays(product, 1)
    await product.broker.publish([message_id] * 500)
    channel = RecordingChannel(product.clock)
    async with product.working(channel), product.working(channel):
        await product.wait_for_statuses({"delivered": 1})
        await eventually(lambda: nothing_is_ready(product), "all copies have been looked at")
    assert len(channel.sent) == 1


async def test_nothing_is_sent_before_its_instant_by_the_clock_of_the_worker(product: Product) -> None:
    """The dispatcher's host is ahead: the worker holds the message back until its own clock says so."""
    await queue_birthdays(product, 1)
    product.clock.advance(timedelta(seconds=-3))
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await eventually(lambda: delayed_or_taken(product), "the worker has seen the message")
        assert channel.sent == []
        product.clock.advance(timedelta(seconds=3))
        await product.wait_for_statuses({"delivered": 1})
    assert [sent.at for sent in channel.sent] == [parse("2027-03-01T09:00:00Z")]


async def test_what_is_published_to_a_worker_whose_clock_is_a_little_behind_is_not_taken_for_unpublished(
    product: Product,
) -> None:
    """The delivery comes before the dispatcher has committed, and is not due yet by the clock of the worker."""
    count = 300
    for _ in range(count):
        await product.create(date(1990, 3, 1))
    await product.pool.execute("ANALYZE message_logs")
    now = product.clock.now()
    channel = RecordingChannel(product.clock)
    async with product.pool.acquire() as connection, AsyncExitStack() as stack:
        async with connection.transaction():
            ids = await lock_due(connection, now, now - CATCH_UP, now + timedelta(days=1), count)
            await product.broker.publish(ids)
            product.clock.advance(timedelta(milliseconds=-50))
            await stack.enter_async_context(product.working(channel, concurrency=100))
            await eventually(lambda: is_waiting_for_a_lock(product.pool), "the worker waits for the dispatcher")
            await mark_queued(connection, ids, now)
        product.clock.advance(timedelta(milliseconds=50))
        await product.wait_for_statuses({"delivered": count})
    assert len(channel.sent) == count


async def test_what_a_dead_worker_held_is_sent_when_its_lease_has_run_out(product: Product) -> None:
    """A claim that nobody will settle is taken over, not waited for for ever."""
    await queue_birthdays(product, 1)
    await product.pool.execute(
        "UPDATE message_logs SET status = 'sending', attempts = 1, lease_until = clock_timestamp() + interval '2 s'"
    )
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})
    assert await product.pool.fetchval("SELECT attempts FROM message_logs") == 2


async def test_an_outcome_that_comes_after_a_takeover_changes_nothing(product: Product) -> None:
    """The lease ran out and another worker has claimed: the late outcome is dropped, with a warning."""
    await queue_birthdays(product, 1)
    channel = HeldChannel(product.clock)
    async with product.working(channel):
        await channel.wait_for(1)
        await product.pool.execute("UPDATE message_logs SET lease_until = lease_until + interval '1 second'")
        channel.release()
        await eventually(lambda: queue_is_empty(product), "the queue is empty")
    assert await product.statuses() == {"sending": 1}


async def test_an_open_circuit_burns_no_attempts_and_everything_is_delivered_afterwards(product: Product) -> None:
    """The service is down: a few fail, the rest waits in the queue; one probe closes the circuit."""
    await queue_birthdays(product, 60)
    channel = RecordingChannel(product.clock, lambda _letter: DOWN)
    async with product.working(channel, concurrency=5, threshold=5):
        await channel.wait_for(5)
        await product.clock.wait_for_sleepers()
        sent_while_down = len(channel.sent)
        assert sent_while_down <= 9
        channel.answer = lambda _letter: Delivered()
        product.clock.advance(timedelta(seconds=31))
        await product.wait_for_statuses({"delivered": 60})
    assert len(channel.sent) == 60 + sent_while_down
    # What was under way when the circuit opened pays nothing for it.
    assert await product.pool.fetchval("SELECT sum(attempts) FROM message_logs") == 60 + 5


async def test_a_service_that_comes_back_weak_costs_few_attempts(product: Product) -> None:
    """It takes one message and then none, again and again: a relapse costs two attempts, and nothing fails for good."""
    await queue_birthdays(product, 40)
    channel = RecordingChannel(product.clock, lambda _letter: DOWN)
    async with product.working(channel, concurrency=20, threshold=20):
        await channel.wait_for(20)
        for outage in range(1, 6):
            await product.clock.wait_for_sleepers()
            sent = len(channel.sent)
            answers = iter([Delivered()])
            channel.answer = lambda _letter, answers=answers: next(answers, DOWN)  # type: ignore[misc] # bound now
            product.clock.advance(timedelta(minutes=15))
            await channel.wait_for(sent + 3)
            assert (await product.statuses())["delivered"] == outage
        channel.answer = lambda _letter: Delivered()
        await product.clock.wait_for_sleepers()
        product.clock.advance(timedelta(minutes=15))
        await product.wait_for_statuses({"delivered": 40})
    assert await product.pool.fetchval("SELECT sum(attempts) FROM message_logs") <= 40 + 20 + 2 * 5


async def test_stopping_sends_what_has_come_and_lets_nothing_more_come(product: Product) -> None:
    """What the worker has taken from the queue it delivers before it leaves; what it has not is another one's."""
    await queue_birthdays(product, 90)
    channel = HeldChannel(product.clock)
    pipeline = product.pipeline(channel, 4, 1000)
    working = asyncio.create_task(pipeline.run())
    await channel.wait_for(4)
    await eventually(lambda: is_held(product, pipeline.prefetch), "as much has come as may come")
    pipeline.stop()
    channel.release()
    await working
    assert await product.statuses() == {"delivered": pipeline.prefetch, "queued": 90 - pipeline.prefetch}
    assert await product.pool.fetchval("SELECT max(attempts) FROM message_logs") == 1
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 90})
    assert len(channel.sent) == 90


async def is_held(product: Product, count: int) -> bool:
    """Say whether consumers hold so many messages."""
    return (await product.broker.stats()).unacked == count


async def test_probes_of_a_long_outage_do_not_use_up_the_attempts_of_a_message(product: Product) -> None:
    """One message is probed again and again while the service is down, and is delivered when it is back."""
    await queue_birthdays(product, 1)
    channel = RecordingChannel(product.clock, lambda _letter: DOWN)
    async with product.working(channel, threshold=1):
        for probes in range(1, 6):
            await channel.wait_for(probes)
            await product.wait_for_statuses({"retrying": 1})
            product.clock.advance(timedelta(seconds=31))
        channel.answer = lambda _letter: Delivered()
        product.clock.advance(timedelta(seconds=31))
        await product.wait_for_statuses({"delivered": 1})
    assert await product.pool.fetchval("SELECT attempts FROM message_logs") == 2


async def test_stopping_finishes_what_is_being_sent_and_gives_the_rest_back(product: Product) -> None:
    """A drained worker leaves no message in sending; what it had not begun is delivered by the next one."""
    await queue_birthdays(product, 30)
    channel = HeldChannel(product.clock)
    async with product.working(channel, concurrency=4) as pipeline:
        await channel.wait_for(4)
        pipeline.stop()
        pipeline.hurry()
        channel.release()
    assert (await product.statuses())["delivered"] == 4
    assert "sending" not in await product.statuses()
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 30})
    assert len(channel.sent) == 30


async def test_a_channel_that_raises_costs_an_attempt_and_not_the_worker(product: Product) -> None:
    """A bug in one letter is a failed attempt with a reason; the other messages go out."""
    [first, *_others] = await queue_birthdays(product, 10)

    def answer(letter: Greeting) -> Outcome:
        if letter.message_id == first:
            raise RuntimeError("cannot handle this one")
        return Delivered()

    channel = RecordingChannel(product.clock, answer)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 9, "retrying": 1})
    detail = await product.pool.fetchval("SELECT error_detail FROM message_logs WHERE status = 'retrying'")
    assert detail == "unexpected RuntimeError while sending"


async def wait_for_retry(product: Product, attempts: int) -> None:
    """Wait, in real time, until the one message waits for its next attempt after so many."""

    async def is_waiting() -> bool:
        row = await product.pool.fetchrow("SELECT status, attempts FROM message_logs")
        return row is not None and tuple(row) == ("retrying", attempts)

    await eventually(is_waiting, f"attempt {attempts} has failed")


async def sweep_is_due(product: Product) -> bool:
    """Say whether somebody has asked the planner for a sweep, or it has made none yet."""
    swept: bool = await product.pool.fetchval(
        "SELECT NOT EXISTS (SELECT FROM watermarks WHERE name = 'swept' AND reached_at <> '-infinity')"
    )
    return swept


async def nothing_is_planned_for_tomorrow(product: Product) -> bool:
    """Say whether the planner leaves the user alone who has moved to the next day."""
    product.clock.advance(timedelta(days=1))
    return await product.planner.plan_once(product.clock.now()) == 0


async def audited(product: Product) -> dict[str, int]:
    """Return what an audit of the last hour counts, what falls due right now included."""
    now = product.clock.now() + timedelta(seconds=1)
    audit = await product.auditor.audit(now - timedelta(hours=1), now, now)
    return {finding.value: count for finding, count in audit.counts.items()}


async def move_birthday(product: Product, born: date, zone: str = "UTC") -> Replanned:
    """Give the one user another date of birth, or zone, a second later; what happens next is another second later."""
    user_id = await product.pool.fetchval("SELECT id FROM users")
    product.clock.advance(timedelta(seconds=1))
    async with product.pool.acquire() as connection, connection.transaction():
        old = await lock_profile(connection, user_id)
        moved, now = replace(old, date_of_birth=born, zone=zone), product.clock.now()
        replanned = await replace_profile(connection, user_id, old, moved, now, product.planning, TESTER)
    product.clock.advance(timedelta(seconds=1))
    return replanned


async def queue_is_empty(product: Product) -> bool:
    """Say whether nothing is ready, with a consumer or delayed."""
    stats = await product.broker.stats()
    return (stats.ready, stats.unacked, stats.delayed) == (0, 0, 0)


async def nothing_is_ready(product: Product) -> bool:
    """Say whether nothing is ready or with a consumer; something may be delayed."""
    stats = await product.broker.stats()
    return (stats.ready, stats.unacked) == (0, 0)


async def dead_letters(product: Product, count: int) -> bool:
    """Say whether there are exactly so many dead letters."""
    return (await product.broker.stats()).dead == count


async def delayed_or_taken(product: Product) -> bool:
    """Say whether the one queue message has left the head of the queue."""
    return (await product.broker.stats()).ready == 0

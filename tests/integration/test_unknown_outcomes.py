"""RETRY_UNKNOWN: what becomes of a message that may have arrived, if no receiver can recognise a second copy."""

from datetime import date

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.channels import Delivered, Outcome, Temporary, Unable
from birthday.core.message import OUTCOME_UNKNOWN, ErrorType
from birthday.operations.dead_letters.requeue import requeue_one
from birthday.telemetry.metrics import Metrics
from tests.support.channel import HeldChannel, RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, eventually, metric, parse
from tests.support.users import TESTER

LATE = Temporary(ErrorType.TIMEOUT, "no answer")
BROKEN = Temporary(ErrorType.EXTERNAL_API_ERROR, "the connection broke", answer_lost=True)
STOOD_STILL = Unable("this process stood still meanwhile", answer_lost=True)
NOT_ARRIVED = Temporary(ErrorType.EXTERNAL_API_ERROR, "cannot connect", handed_over=False)


@pytest.fixture
async def product(pool: asyncpg.Pool) -> Product:
    """An installation at 09:00 UTC on 1 March 2027 that never repeats what may have arrived."""
    clock = ManualClock(parse("2027-03-01T09:00:00Z"))
    return Product(pool, PostgresBroker(pool), clock, Metrics(), retry_unknown="never")


async def queue_birthdays(product: Product, count: int) -> None:
    """Create users whose birthday is now, and publish their messages."""
    for _ in range(count):
        await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())


async def the_failure(product: Product) -> tuple[str, str, bool]:
    """Return what is stored about the one message."""
    row = await product.pool.fetchrow("SELECT error_type, error_detail, may_have_arrived FROM message_logs")
    assert row is not None
    return tuple(row)


async def requeue_after_which_it_is_delivered(product: Product) -> None:
    """Do what an operator does who has made sure that nothing arrived."""
    [message_id] = await product.pool.fetch("SELECT id FROM message_logs")
    await requeue_one(product.pool, product.broker, message_id["id"], product.clock.now(), TESTER)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})
    assert len(channel.sent) == 1


@pytest.mark.parametrize("outcome", [LATE, BROKEN, STOOD_STILL], ids=["late", "broken", "stood still"])
async def test_what_may_have_arrived_fails_and_can_be_requeued(product: Product, outcome: Temporary | Unable) -> None:
    """It is not sent again; its error says so, a dead letter waits, and an operator's requeue delivers it."""
    await queue_birthdays(product, 1)
    channel = RecordingChannel(product.clock, lambda _greeting: outcome)
    async with product.working(channel):
        await product.wait_for_statuses({"failed": 1})
        await eventually(lambda: one_dead_letter(product), "one dead letter")

    assert len(channel.sent) == 1
    expected = (outcome.error_type, f"{OUTCOME_UNKNOWN}: {outcome.reason}", True)
    assert await the_failure(product) == expected
    await requeue_after_which_it_is_delivered(product)


async def test_what_a_dead_worker_was_sending_fails_and_can_be_requeued(product: Product) -> None:
    """Its lease ran out: whether it sent the message is not known, so nobody sends it but by an operator's will."""
    await queue_birthdays(product, 1)
    await product.pool.execute(
        "UPDATE message_logs SET status = 'sending', attempts = 1, lease_until = clock_timestamp() + interval '1 s'"
    )
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"failed": 1})
        await eventually(lambda: one_dead_letter(product), "one dead letter")

    assert channel.sent == []
    assert metric(product.metrics, "messages_by_type_total", message_type="birthday", status="failed") == 1
    detail = f"{OUTCOME_UNKNOWN}: a worker died while sending it"
    assert await the_failure(product) == ("permanent_failure", detail, True)
    await requeue_after_which_it_is_delivered(product)


async def test_what_has_certainly_not_arrived_is_tried_again(product: Product) -> None:
    """The setting is about lost answers alone: a connection that could not be made is retried as ever."""
    await queue_birthdays(product, 1)
    answers: list[Outcome] = [NOT_ARRIVED, Delivered()]
    channel = RecordingChannel(product.clock, lambda _greeting: answers.pop(0))
    async with product.working(channel):
        await product.wait_for_statuses({"retrying": 1})
        product.clock.advance(parse("2027-03-01T09:00:10Z") - product.clock.now())
        await product.wait_for_statuses({"delivered": 1})
    assert len(channel.sent) == 2


async def test_no_message_is_claimed_that_cannot_be_sent_at_once(product: Product) -> None:
    """What waits for a slot would fail for nothing if the worker died, so it stays in the queue."""
    await queue_birthdays(product, 10)
    channel = HeldChannel(product.clock)
    async with product.working(channel, concurrency=2):
        await channel.wait_for(2)
        assert await product.statuses() == {"sending": 2, "queued": 8}
        channel.release()
        await product.wait_for_statuses({"delivered": 10})


async def one_dead_letter(product: Product) -> bool:
    """Say whether the queue has one."""
    return (await product.broker.stats()).dead == 1

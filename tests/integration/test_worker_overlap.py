"""Several claims and settlements of one worker at a time: what is certain of one is certain of all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import date, timedelta
from uuid import UUID

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.channels import Delivered, Greeting, Outcome, Temporary
from birthday.channels.breaker import CircuitState
from birthday.core.message import ErrorType
from birthday.telemetry.metrics import Metrics
from birthday.worker.pipeline import Pipeline
from tests.support.channel import HeldChannel, RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, eventually, is_waiting_for_a_lock, parse

SLOTS = 4
BATCH = 2 * SLOTS
COUNT = 80
DOWN = Temporary(ErrorType.EXTERNAL_API_ERROR, "down")


@pytest.fixture
async def product(pool: asyncpg.Pool) -> Product:
    """An installation whose queue has COUNT messages at 09:00 UTC, which a consumer gets at once and in order of id.

    The queue is in PostgreSQL: RabbitMQ may deliver a few at first, and a batch that is not full is claimed alone.
    """
    installation = Product(pool, PostgresBroker(pool), ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())
    for _ in range(COUNT):
        await installation.create(date(1990, 3, 1))
    rows = await pool.fetch("UPDATE message_logs SET status = 'queued', queued_at = scheduled_at RETURNING id")
    await installation.broker.publish(sorted(UUID(bytes=row["id"].bytes) for row in rows))
    return installation


class CountingChannel(RecordingChannel):
    """Counts by how many sends at a time the allowance of the circuit was exceeded."""

    excess = 0
    _under_way = 0

    async def send(self, greeting: Greeting) -> Outcome:
        """Give way once, so that other slots can begin."""
        self._under_way += 1
        allowance = self.breaker.allowance if self.breaker else None
        self.excess = max(self.excess, self._under_way - (allowance or SLOTS))
        try:
            await asyncio.sleep(0)
            return await super().send(greeting)
        finally:
            self._under_way -= 1


@asynccontextmanager
async def held_claim(pool: asyncpg.Pool) -> AsyncIterator[None]:
    """Let the claim of the first batch wait: lock one of its messages."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM message_logs ORDER BY id LIMIT 1 FOR UPDATE")
        yield


@asynccontextmanager
async def held_outcomes(pool: asyncpg.Pool, message_id: UUID | None = None) -> AsyncIterator[None]:
    """Let settlements wait: each, or the one with the message ``message_id``."""
    await pool.execute(
        """
        CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END $$;
        CREATE TRIGGER hold BEFORE UPDATE ON message_logs FOR EACH ROW
        WHEN (NEW.status = 'delivered' AND OLD.error_detail = 'held') EXECUTE FUNCTION hold();
        """
    )
    await pool.execute("UPDATE message_logs SET error_detail = 'held' WHERE id = coalesce($1, id)", message_id)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(4711)")
        yield


async def test_a_claim_that_waits_holds_only_its_own_batch_up(product: Product) -> None:
    """The messages of the other batches are delivered meanwhile; in the end all are, each sent once."""
    channel = RecordingChannel(product.clock)
    async with AsyncExitStack() as holding:
        await holding.enter_async_context(held_claim(product.pool))
        async with product.working(channel, SLOTS):
            await product.wait_for_statuses({"delivered": COUNT - BATCH, "queued": BATCH})
            await holding.aclose()
            await product.wait_for_statuses({"delivered": COUNT})
    assert len({sent.greeting.message_id for sent in channel.sent}) == len(channel.sent) == COUNT


async def test_a_slow_service_is_not_handed_more_than_leases_allow(product: Product) -> None:
    """At first the worker claims two batches: the last message waits for three rounds of sends."""
    channel = HeldChannel(product.clock)
    async with product.working(channel, SLOTS) as pipeline:
        await channel.wait_for(SLOTS)

        async def has_claimed() -> bool:
            return pipeline.stuck_seconds == 0

        await eventually(has_claimed, "no claim is under way")
        assert (await product.statuses())["sending"] == 2 * BATCH
        channel.release()
        await product.wait_for_statuses({"delivered": COUNT})
    assert len(channel.sent) == COUNT


async def test_a_worker_that_stops_sends_what_it_is_claiming(product: Product) -> None:
    """It stops while claims are under way, and waits for them: no message is left under a lease."""
    channel = RecordingChannel(product.clock)
    async with AsyncExitStack() as holding:
        await holding.enter_async_context(held_claim(product.pool))
        pipeline = product.pipeline(channel, SLOTS)
        running = asyncio.create_task(pipeline.run())
        await product.wait_for_statuses({"delivered": COUNT - BATCH, "queued": BATCH})
        pipeline.stop()
        await holding.aclose()
        await running
    assert await product.statuses() == {"delivered": COUNT}


async def test_what_is_not_stored_is_not_acked(product: Product) -> None:
    """The first settlement waits while others go on: when the worker dies, the queue still has its messages."""
    channel = HeldChannel(product.clock)
    pipeline = product.pipeline(channel, SLOTS)
    running = asyncio.create_task(pipeline.run())
    await channel.wait_for(SLOTS)

    async def has_claimed() -> bool:
        return (await product.statuses())["sending"] >= BATCH and pipeline.stuck_seconds == 0

    await eventually(has_claimed, "a full batch is claimed")
    async with held_outcomes(product.pool, channel.sent[0].greeting.message_id):
        channel.release()
        await channel.wait_for(COUNT)

        async def is_held() -> bool:
            return await is_waiting_for_a_lock(product.pool) and "queued" not in await product.statuses()

        await eventually(is_held, "one settlement waits")
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

        async def is_undone() -> bool:
            return not await is_waiting_for_a_lock(product.pool)

        await eventually(is_undone, "the settlement is undone")
    unstored = (await product.statuses())["sending"]
    assert unstored >= 1

    async def is_given_back() -> bool:
        return (await product.broker.stats()).ready >= unstored

    await eventually(is_given_back, "the queue has what is not stored")


async def test_sends_pause_while_outcomes_cannot_be_stored(product: Product) -> None:
    """What a crash would repeat is bounded: six times the messages that are sent at a time."""
    channel = RecordingChannel(product.clock)
    async with AsyncExitStack() as holding:
        await holding.enter_async_context(held_outcomes(product.pool))
        async with product.working(channel, SLOTS) as pipeline:
            await channel.wait_for(5 * SLOTS)

            async def is_stuck() -> bool:
                return pipeline.stuck_seconds > 0.5

            await eventually(is_stuck, "settlements wait")
            assert pipeline.prefetch > len(channel.sent) <= 6 * SLOTS
            await holding.aclose()
            await product.wait_for_statuses({"delivered": COUNT})
    assert len(channel.sent) == COUNT


async def test_a_circuit_that_opens_during_claims_lets_through_what_it_allows(product: Product) -> None:
    """A claim from before the opening ends while only one send at a time is allowed: its messages are given back."""
    channel = CountingChannel(product.clock)
    answers = iter([Delivered()] * (COUNT // 2))
    channel.answer = lambda _greeting: next(answers, DOWN)
    async with AsyncExitStack() as holding:
        await holding.enter_async_context(held_claim(product.pool))
        async with product.working(channel, SLOTS, threshold=SLOTS) as pipeline:
            await eventually(lambda: is_open(pipeline), "the circuit is open")
            sent = len(channel.sent)
            channel.answer = lambda _greeting: Delivered()
            product.clock.advance(timedelta(seconds=31))
            # A probe waits for the claim.
            with pytest.raises(TimeoutError):
                await channel.wait_for(sent + 1, seconds=0.3)
            await holding.aclose()

            async def is_delivered() -> bool:
                product.clock.advance(timedelta(seconds=1))
                return await product.statuses() == {"delivered": COUNT}

            await eventually(is_delivered, "all are delivered")
    assert channel.excess == 0


async def is_open(pipeline: Pipeline) -> bool:
    """Say whether the circuit is open."""
    return pipeline.circuit.state is CircuitState.OPEN

"""Opt-out on a real database: who is suppressed is sent nothing, however the person comes back."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import date, timedelta
from uuid import UUID

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.channels import Temporary
from birthday.core.audit import Finding
from birthday.core.message import ErrorType, Status
from birthday.errors import NotFoundError
from birthday.operations.dead_letters.requeue import requeue_many
from birthday.operations.suppressions import (
    suppress_addresses,
    suppress_user,
    unsubscribe,
    unsuppress_addresses,
    unsuppress_user,
)
from birthday.store.changes import Actor
from birthday.store.claims import cancel
from birthday.store.suppressions import Changed, read_links
from birthday.store.users import delete_user, lock_profile, replace_profile
from birthday.telemetry.metrics import Metrics
from tests.support.channel import HeldChannel, RecordingChannel
from tests.support.clock import ManualClock
from tests.support.dates import give_date, plan_type
from tests.support.product import PLANNING, Product, eventually, is_waiting_for_a_lock, metric, parse
from tests.support.users import TESTER

BORN = date(1990, 3, 1)
WHY = "asked by phone"
LATE = Temporary(ErrorType.TIMEOUT, "no answer")
JOINED = "work-anniversary"


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 09:00 UTC on 1 March 2027."""
    return Product(pool, PostgresBroker(pool), ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())


async def suppress(product: Product, user_id: UUID) -> Changed:
    """Suppress a user now."""
    _, changed = await suppress_user(product.pool, user_id, WHY, product.clock.now(), Actor("ada"))
    return changed


async def messages(product: Product) -> list[tuple[str, str | None]]:
    """Return status and detail of every message."""
    rows = await product.pool.fetch("SELECT status, error_detail FROM message_logs ORDER BY id")
    return [(row["status"], row["error_detail"]) for row in rows]


async def is_suppressed(product: Product, user_id: UUID) -> bool:
    """Say whether a user is marked as suppressed."""
    suppressed: bool = await product.pool.fetchval("SELECT suppressed FROM users WHERE id = $1", user_id)
    return suppressed


async def queue_is_empty(product: Product) -> bool:
    """Say whether nothing waits in the queue or is held by a worker."""
    stats = await product.broker.stats()
    return stats.ready == stats.unacked == 0


async def findings(product: Product) -> dict[Finding, int]:
    """Return what the audit of the last two days finds."""
    now = product.clock.now()
    audit = await product.auditor.audit(now - timedelta(days=2), now + timedelta(seconds=1), now + timedelta(seconds=1))
    return {finding: count for finding, count in audit.counts.items() if count}


async def test_suppression_cancels_what_is_pending_in_the_same_transaction(product: Product) -> None:
    """The queued message ends cancelled with its reason, and the copy in the queue comes to nothing."""
    user_id = await product.create(BORN)
    await product.create(BORN)
    await product.dispatcher.dispatch_once(product.clock.now())
    assert await suppress(product, user_id) == Changed(addresses=1, users=1, messages=1)
    assert sorted(await messages(product)) == [("cancelled", "suppressed"), ("queued", None)]
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await eventually(lambda: queue_is_empty(product), "the queue is empty")
    assert [sent.greeting.message_id for sent in channel.sent] == [
        await product.pool.fetchval("SELECT id FROM message_logs WHERE user_id <> $1", user_id)
    ]
    assert await findings(product) == {Finding.CANCELLED: 1, Finding.DELIVERED: 1}


async def test_a_second_suppression_changes_nothing(product: Product) -> None:
    """The first reason and date stay, because they are what the person did."""
    user_id = await product.create(BORN)
    first, _ = await suppress_user(product.pool, user_id, WHY, product.clock.now(), Actor("ada"))
    product.clock.advance(timedelta(hours=1))
    second, changed = await suppress_user(product.pool, user_id, "again", product.clock.now(), Actor("bob"))
    assert second == first
    assert (first.reason, first.created_by) == (WHY, "ada")
    assert changed == Changed()


async def test_nothing_is_sent_to_a_suppressed_user_in_later_years(product: Product) -> None:
    """The planner goes on, the claim cancels, and the audit counts the birthday as cancelled and not as missing."""
    user_id = await product.create(date(1990, 3, 10))
    await suppress(product, user_id)
    product.clock.advance(timedelta(days=8, hours=12))
    await product.planner.plan_once(product.clock.now())
    product.clock.advance(timedelta(hours=12))
    await product.dispatcher.dispatch_once(product.clock.now())
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"cancelled": 1})
    assert channel.sent == []
    assert await messages(product) == [("cancelled", "suppressed")]
    assert metric(product.metrics, "messages_suppressed_total") == 1
    assert metric(product.metrics, "messages_cancelled_total") == 1
    assert await findings(product) == {Finding.CANCELLED: 1}


@pytest.mark.parametrize("email", ["ada@example.com", "ADA@Example.com"])
async def test_the_list_outlives_the_user(product: Product, email: str) -> None:
    """Who is created again after a deletion, with the same address in any case, is suppressed at once."""
    user_id = await product.create(BORN, email="Ada@example.com")
    await suppress(product, user_id)
    await delete_user(product.pool, user_id, product.clock.now(), TESTER)
    again = await product.create(date(1990, 6, 1), email=email)
    other = await product.create(date(1990, 6, 1), email="bob@example.com")
    assert await is_suppressed(product, again)
    assert not await is_suppressed(product, other)


async def test_a_change_to_a_listed_address_suppresses(product: Product) -> None:
    """What is pending is cancelled with the change."""
    now = product.clock.now()
    await suppress_addresses(product.pool, ["out@example.com"], WHY, now, Actor("ada"), dry_run=False)
    user_id = await product.create(BORN)
    async with product.pool.acquire() as connection, connection.transaction():
        old = await lock_profile(connection, user_id)
        new = type(old)(old.first_name, old.last_name, "out@example.com", old.date_of_birth, old.zone)
        replanned = await replace_profile(connection, user_id, old, new, now, PLANNING, TESTER)
    assert replanned.cancelled == 1
    assert await is_suppressed(product, user_id)
    assert await messages(product) == [("cancelled", "suppressed")]


async def test_writing_the_column_keeps_the_list_equal(product: Product) -> None:
    """True puts the address on the list; false revives nobody who is on it. Removal from the list does."""
    user_id = await product.create(BORN, email="ada@example.com")
    await product.pool.execute("UPDATE users SET suppressed = true")
    assert await product.pool.fetchval("SELECT created_by FROM suppressions") == "user"
    await product.pool.execute("UPDATE users SET suppressed = false")
    assert await is_suppressed(product, user_id)
    await unsuppress_user(product.pool, user_id, product.clock.now(), TESTER)
    assert not await is_suppressed(product, user_id)
    assert await product.pool.fetchval("SELECT count(*) FROM suppressions") == 0


async def test_an_address_is_stored_as_a_salted_hash_only(product: Product) -> None:
    """The salt is the installation's own, so the hash of an address alone is not on the list."""
    await suppress_addresses(product.pool, ["ada@example.com"], WHY, product.clock.now(), Actor("ada"), dry_run=False)
    stored = await product.pool.fetchval("SELECT address_hash FROM suppressions")
    plain = await product.pool.fetchval("SELECT sha256('ada@example.com')")
    assert len(stored) == 32
    assert stored != plain


async def test_who_is_taken_off_the_list_is_greeted_again(product: Product) -> None:
    """The message of a day that is not over goes out, under its old key; the audit finds it delivered."""
    user_id = await product.create(BORN)
    await product.dispatcher.dispatch_once(product.clock.now())
    message_id = await product.pool.fetchval("SELECT id FROM message_logs")
    await suppress(product, user_id)
    product.clock.advance(timedelta(hours=3))
    changed = await unsuppress_user(product.pool, user_id, product.clock.now(), TESTER)
    assert changed == Changed(addresses=1, users=1, messages=1)
    await product.dispatcher.dispatch_once(product.clock.now())
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})
    assert [sent.greeting.message_id for sent in channel.sent] == [message_id]
    assert await findings(product) == {Finding.DELIVERED: 1}


async def test_a_return_means_due_now_however_short_the_catch_up_window_is(product: Product) -> None:
    """The instant was six hours ago and the window is four: it counts from the return, as for a user who is new."""
    hasty = replace(product, catch_up=timedelta(hours=4))
    await hasty.planner.plan_once(hasty.clock.now())
    user_id = await hasty.create(BORN)
    await suppress(hasty, user_id)
    hasty.clock.advance(timedelta(hours=6))
    await unsuppress_user(hasty.pool, user_id, hasty.clock.now(), TESTER)
    await hasty.janitor.recover_once(hasty.clock.now())
    await hasty.dispatcher.dispatch_once(hasty.clock.now())
    async with hasty.working(RecordingChannel(hasty.clock)):
        await hasty.wait_for_statuses({"delivered": 1})
    assert await findings(hasty) == {Finding.DELIVERED: 1}


async def test_a_message_that_may_have_arrived_is_not_sent_again_after_a_return(product: Product) -> None:
    """A send that got no answer may have greeted: taking the person off the list must not greet twice."""
    user_id = await product.create(BORN)
    await product.dispatcher.dispatch_once(product.clock.now())
    async with product.working(RecordingChannel(product.clock, lambda _: LATE)):
        await product.wait_for_statuses({"retrying": 1})
    await suppress(product, user_id)
    changed = await unsuppress_user(product.pool, user_id, product.clock.now(), TESTER)
    await product.planner.plan_once(product.clock.now())
    assert changed == Changed(addresses=1, users=1, messages=0)
    assert await product.statuses() == {"cancelled": 1}


async def suppressed_between_attempts(product: Product, user_id: UUID) -> None:
    """Suppress a user while the message waits for its second attempt."""
    async with product.working(RecordingChannel(product.clock, lambda _: LATE)):
        await product.wait_for_statuses({"retrying": 1})
    await suppress(product, user_id)


async def moved_to_a_listed_address(product: Product, user_id: UUID) -> None:
    """Give a user a listed address while the message waits for its second attempt."""
    now = product.clock.now()
    await suppress_addresses(product.pool, ["out@example.com"], WHY, now, Actor("ada"), dry_run=False)
    async with product.working(RecordingChannel(product.clock, lambda _: LATE)):
        await product.wait_for_statuses({"retrying": 1})
    await change(product, user_id, email="out@example.com")


async def suppressed_while_it_is_sent(product: Product, user_id: UUID) -> None:
    """Suppress a user while the message is being sent: the claim of the second attempt cancels it."""
    channel = HeldChannel(product.clock)
    channel.answer = lambda _: LATE
    async with product.working(channel):
        await channel.wait_for(1)
        await suppress(product, user_id)
        channel.release()
        await product.wait_for_statuses({"retrying": 1})
        product.clock.advance(timedelta(seconds=5))
        await product.wait_for_statuses({"cancelled": 1})


async def requeued_after_delivery(product: Product, user_id: UUID) -> None:
    """Have the message delivered, suppress the user, and let an operator send it again."""
    ids = [await product.pool.fetchval("SELECT id FROM message_logs")]
    async with product.working(RecordingChannel(product.clock)):
        await product.wait_for_statuses({"delivered": 1})
        await suppress(product, user_id)
        await requeue_many(
            product.pool, product.broker, ids, product.clock, TESTER, lambda _ids: None, status=Status.DELIVERED
        )
        await product.wait_for_statuses({"cancelled": 1})


async def change(product: Product, user_id: UUID, **values: object) -> None:
    """Change a user a second later."""
    product.clock.advance(timedelta(seconds=1))
    async with product.pool.acquire() as connection, connection.transaction():
        old = await lock_profile(connection, user_id)
        new = replace(old, **values)  # type: ignore[arg-type]
        await replace_profile(connection, user_id, old, new, product.clock.now(), PLANNING, TESTER)


@pytest.mark.parametrize(
    "opt_out",
    [suppressed_between_attempts, moved_to_a_listed_address, suppressed_while_it_is_sent, requeued_after_delivery],
)
@pytest.mark.parametrize("moved_first", [True, False], ids=["moved while suppressed", "moved after the return"])
async def test_what_may_have_arrived_keeps_the_year_although_the_user_opts_out_returns_and_moves(
    product: Product, opt_out: Callable[[Product, UUID], Awaitable[None]], *, moved_first: bool
) -> None:
    """A message for the new date would have another key, and could be the second greeting of the year."""
    user_id = await product.create(BORN)
    await product.dispatcher.dispatch_once(product.clock.now())
    await opt_out(product, user_id)
    if moved_first:
        await change(product, user_id, date_of_birth=date(1990, 3, 2))
    assert (await unsuppress_user(product.pool, user_id, product.clock.now(), TESTER)).messages == 0
    if not moved_first:
        await change(product, user_id, date_of_birth=date(1990, 3, 2))
    await product.planner.plan_once(product.clock.now())
    assert await messages(product) == [("cancelled", "suppressed")]
    product.clock.advance(timedelta(days=1, hours=2))
    assert await findings(product) == {Finding.CANCELLED: 1}
    product.clock.advance(timedelta(days=364))
    await product.planner.plan_once(product.clock.now())
    assert await product.statuses() == {"cancelled": 1, "scheduled": 1}


async def test_another_date_keeps_its_year_as_well(product: Product) -> None:
    """The birthday of the same year is still to come, and is planned."""
    await plan_type(product.pool, JOINED, product.clock.now() - timedelta(days=1))
    user_id = await product.create(date(1990, 3, 2))
    await give_date(product.pool, user_id, JOINED, date(2019, 3, 1))
    await product.planner.plan_once(product.clock.now())
    of_date = "SELECT status FROM message_logs WHERE message_type = $1 ORDER BY status"
    await product.pool.execute(
        "UPDATE message_logs SET status = 'retrying', may_have_arrived = true WHERE message_type = $1", JOINED
    )
    await suppress(product, user_id)
    await unsuppress_user(product.pool, user_id, product.clock.now(), TESTER)
    await change(product, user_id, zone="Europe/London")
    await product.planner.plan_once(product.clock.now())
    assert [row["status"] for row in await product.pool.fetch(of_date, JOINED)] == ["cancelled"]
    assert [row["status"] for row in await product.pool.fetch(of_date, "birthday")] == ["cancelled", "scheduled"]


async def test_a_claim_that_keeps_a_year_takes_the_user_before_the_message(product: Product) -> None:
    """As an opt-out does, so that neither waits for the other for ever."""
    await product.create(BORN)
    await product.pool.execute("UPDATE message_logs SET status = 'retrying', may_have_arrived = true")
    await product.pool.execute("UPDATE users SET suppressed = true")
    ids = [await product.pool.fetchval("SELECT id FROM message_logs")]
    async with product.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("SELECT FROM users FOR NO KEY UPDATE")
            cancelling = asyncio.create_task(cancel(product.pool, ids, product.clock.now()))
            await eventually(lambda: is_waiting_for_a_lock(product.pool), "the worker waits for the user")
            await connection.execute("SELECT FROM message_logs FOR UPDATE NOWAIT")
        assert [one.suppressed for one in await cancelling] == [True]


async def test_a_claim_that_is_cancelling_does_not_win_over_a_return(product: Product) -> None:
    """The worker has seen the user suppressed, and commits after the person was taken off the list."""
    user_id = await product.create(date(1990, 3, 10))
    await suppress(product, user_id)
    product.clock.advance(timedelta(days=9))
    await product.planner.plan_once(product.clock.now())
    await product.dispatcher.dispatch_once(product.clock.now())
    assert await product.statuses() == {"queued": 1}
    async with product.pool.acquire() as worker:
        cancelling = worker.transaction()
        await cancelling.start()
        await worker.execute("UPDATE message_logs SET status = 'cancelled', error_detail = 'suppressed'")
        returning = asyncio.create_task(unsuppress_user(product.pool, user_id, product.clock.now(), TESTER))
        await eventually(lambda: is_done_or_waits(product, returning), "the return waits for the worker")
        await cancelling.commit()
    assert (await returning).messages == 1
    assert await product.statuses() == {"scheduled": 1}


async def is_done_or_waits(product: Product, task: asyncio.Task[Changed]) -> bool:
    """Say whether a task has ended, or something waits for a lock."""
    return task.done() or await is_waiting_for_a_lock(product.pool)


async def test_a_return_after_the_day_is_over_greets_nobody_late(product: Product) -> None:
    """The birthday stays cancelled, and the audit says so although the user is not suppressed any more."""
    user_id = await product.create(BORN)
    await suppress(product, user_id)
    product.clock.advance(timedelta(days=1))
    assert (await unsuppress_user(product.pool, user_id, product.clock.now(), TESTER)).messages == 0
    assert await findings(product) == {Finding.CANCELLED: 1}


async def test_a_dead_workers_message_to_a_suppressed_user_is_given_up(product: Product) -> None:
    """It may have arrived, so it is neither sent again nor cancelled, which would free the year."""
    user_id = await product.create(BORN)
    await product.dispatcher.dispatch_once(product.clock.now())
    channel = HeldChannel(product.clock)
    pipeline = product.pipeline(channel)
    running = asyncio.create_task(pipeline.run())
    await channel.wait_for(1)
    running.cancel()
    assert (await suppress(product, user_id)).messages == 0
    await product.pool.execute("UPDATE message_logs SET lease_until = clock_timestamp() - interval '1 s'")
    product.clock.advance(timedelta(minutes=2))
    await product.janitor.recover_once(product.clock.now())
    async with product.working(RecordingChannel(product.clock)):
        await product.wait_for_statuses({"failed": 1})


async def test_a_queue_full_of_suppressed_users_drains_quickly(product: Product) -> None:
    """Two thousand queued messages of users who have opted out meanwhile are gone within seconds, unsent."""
    await product.pool.execute(
        """
        INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone,
                           schedule_from, created_at, updated_at)
        SELECT gen_random_uuid(), 'A', 'B', n || '@example.com', $1, 'UTC', $2, $2, $2
        FROM generate_series(1, 2000) AS n
        """,
        BORN,
        product.clock.now() - timedelta(days=1),
    )
    await product.planner.plan_once(product.clock.now())
    while (await product.dispatcher.dispatch_once(product.clock.now())).published:
        pass
    # The column alone: as a worker finds it that has read nothing of the change yet.
    await product.pool.execute("UPDATE users SET suppressed = true")
    channel = RecordingChannel(product.clock)
    began = time.monotonic()
    async with product.working(channel):
        await product.wait_for_statuses({"cancelled": 2000})
    assert time.monotonic() - began < 40
    assert channel.sent == []


async def test_a_link_works_for_whoever_has_the_address_now(product: Product) -> None:
    """The user was deleted and the person imported again: the person is suppressed all the same."""
    user_id = await product.create(BORN, email="ada@example.com")
    async with product.pool.acquire() as connection:
        links = await read_links(connection)
    named = links.read_token(links.make_token(user_id, "ada@example.com"))
    assert named is not None
    await delete_user(product.pool, user_id, product.clock.now(), TESTER)
    again = await product.create(BORN, email="ada@example.com")
    assert (await unsubscribe(product.pool, named, product.clock.now(), TESTER)).users == 1
    assert await is_suppressed(product, again)


async def test_a_link_works_after_its_user_was_removed(product: Product) -> None:
    """The hash in the link is that of the list: whoever is imported with the address later is suppressed."""
    async with product.pool.acquire() as connection:
        links = await read_links(connection)
    named = links.read_token(links.make_token(UUID(int=1), "Ada@example.com"))
    assert named is not None
    await unsubscribe(product.pool, named, product.clock.now(), TESTER)
    assert await is_suppressed(product, await product.create(BORN, email="ada@example.com"))


async def test_a_link_of_a_removed_user_works_for_whoever_has_the_address_now(product: Product) -> None:
    """Retention has removed the user whom the link names, and the person was imported again before."""
    async with product.pool.acquire() as connection:
        links = await read_links(connection)
    named = links.read_token(links.make_token(UUID(int=1), "ada@example.com"))
    assert named is not None
    user_id = await product.create(BORN, email="Ada@example.com")
    assert await unsubscribe(product.pool, named, product.clock.now(), TESTER) == Changed(
        addresses=1, users=1, messages=1
    )
    assert await is_suppressed(product, user_id)
    assert await unsubscribe(product.pool, named, product.clock.now(), TESTER) == Changed()


async def test_who_is_imported_while_the_list_grows_is_suppressed(product: Product) -> None:
    """The import's transaction has not seen the list, and the list's has not seen the user."""
    pool, now = product.pool, product.clock.now()
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(
            """
            INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone,
                               schedule_from, created_at, updated_at)
            VALUES (gen_random_uuid(), 'A', 'B', 'ada@example.com', $1, 'UTC', $2, $2, $2)
            """,
            BORN,
            now,
        )
        suppressing = asyncio.create_task(
            suppress_addresses(pool, ["ada@example.com"], WHY, now, Actor("ada"), dry_run=False)
        )
        await eventually(lambda: has_entries(product), "the address is listed")
    assert await suppressing == Changed(addresses=1, users=1, messages=0)
    assert await pool.fetchval("SELECT suppressed FROM users")


async def has_entries(product: Product) -> bool:
    """Say whether somebody is on the list."""
    return bool(await product.pool.fetchval("SELECT count(*) FROM suppressions"))


async def test_a_link_suppresses_the_user_whose_address_has_changed_since(product: Product) -> None:
    """The link is the person's: both the old and the present address are on the list."""
    user_id = await product.create(BORN, email="new@example.com")
    async with product.pool.acquire() as connection:
        links = await read_links(connection)
    named = links.read_token(links.make_token(user_id, "old@example.com"))
    assert named is not None
    await unsubscribe(product.pool, named, product.clock.now(), TESTER)
    assert await is_suppressed(product, user_id)
    assert await is_suppressed(product, await product.create(BORN, email="old@example.com"))


async def test_a_link_suppresses_whoever_has_the_address_that_its_user_had(product: Product) -> None:
    """The address was another person's, who got the greeting by mistake and has been created since then."""
    first = await product.create(BORN, email="alice@example.com")
    second = await product.create(BORN, email="Bob@example.com")
    other = await product.create(BORN, email="carol@example.com")
    async with product.pool.acquire() as connection:
        links = await read_links(connection)
    named = links.read_token(links.make_token(first, "bob@example.com"))
    assert named is not None
    changed = await unsubscribe(product.pool, named, product.clock.now(), TESTER)
    assert changed == Changed(addresses=2, users=2, messages=2)
    suppressed = [await is_suppressed(product, user_id) for user_id in (first, second, other)]
    assert suppressed == [True, True, False]
    assert await unsubscribe(product.pool, named, product.clock.now(), TESTER) == Changed()


async def test_links_of_two_who_have_changed_addresses_work_at_the_same_time(product: Product) -> None:
    """Each link means both users. They are held in one order, so that neither transaction ends in a deadlock."""
    async with product.pool.acquire() as connection:
        links = await read_links(connection)
    emails = ("ada@example.com", "bob@example.com")
    users = [await product.create(BORN, email=email) for email in emails]
    both = [links.read_token(links.make_token(*pair)) for pair in zip(users, emails[::-1], strict=True)]
    now = product.clock.now()
    async with product.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM users FOR NO KEY UPDATE")
        clicks = [asyncio.create_task(unsubscribe(product.pool, named, now, TESTER)) for named in both if named]
        await eventually(lambda: are_waiting(product, len(users)), "both wait for the users")
    done = await asyncio.gather(*clicks)
    assert sum(done, Changed()) == Changed(addresses=2, users=2, messages=2)


async def are_waiting(product: Product, sessions: int) -> bool:
    """Say whether so many sessions wait for a lock."""
    count: int = await product.pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return count == sessions


async def test_addresses_are_suppressed_in_bulk(product: Product) -> None:
    """Known and unknown addresses; a dry run counts the same and changes nothing; removal takes all back."""
    pool, now = product.pool, product.clock.now()
    for number in range(3):
        await product.create(BORN, email=f"{number}@example.com")
    addresses = [f"{number}@example.com" for number in range(2500)]
    expected = Changed(addresses=2500, users=3, messages=3)
    assert await suppress_addresses(pool, addresses, WHY, now, Actor("ada"), dry_run=True) == expected
    assert await pool.fetchval("SELECT count(*) FROM suppressions") == 0
    assert await suppress_addresses(pool, addresses, WHY, now, Actor("ada"), dry_run=False) == expected
    assert await unsuppress_addresses(pool, addresses, now, TESTER, dry_run=True) == expected
    assert await unsuppress_addresses(pool, addresses, now, TESTER, dry_run=False) == expected
    assert await product.statuses() == {"scheduled": 3}


async def test_only_live_users_have_a_suppression(product: Product) -> None:
    """There is nobody with this id."""
    with pytest.raises(NotFoundError):
        await suppress_user(product.pool, UUID(int=1), WHY, product.clock.now(), Actor("ada"))
    with pytest.raises(NotFoundError):
        await unsuppress_user(product.pool, UUID(int=1), product.clock.now(), TESTER)

"""Whoever is deleted and comes back within the year is not greeted twice: the guard outlives the user."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.core.audit import Finding
from birthday.core.user import Profile
from birthday.operations.transfer.importing import import_users
from birthday.operations.transfer.source import open_source
from birthday.store.connection import borrow
from birthday.store.migrations import load_migrations, migrate, rollback
from birthday.store.users import delete_user
from birthday.telemetry.metrics import Metrics
from birthday.wiring.scheduler import make_explainer
from tests.support.api import running_api
from tests.support.clock import ManualClock
from tests.support.dates import plan_type
from tests.support.product import PLANNING, Product, eventually, is_waiting_for_a_lock, parse
from tests.support.users import TESTER, write_csv

JOINED = "work-anniversary"
BORN = date(1990, 2, 28)
ADDRESS = "ada@example.com"
BODY = {"firstName": "Ada", "lastName": "Lovelace", "email": "ADA@example.com", "dateOfBirth": "1990-02-28"}

Comes = Callable[[Product, Path], Awaitable[None]]


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 10:00 UTC on 28 February 2027."""
    return Product(pool, PostgresBroker(pool), ManualClock(parse("2027-02-28T10:00:00Z")), Metrics())


async def greet_and_delete(product: Product, status: str = "delivered", born: date = BORN) -> None:
    """Create a user who has the birthday, let the message have a status, and delete the user."""
    user_id = await product.create(born, email=ADDRESS)
    await product.pool.execute(
        "UPDATE message_logs SET status = $1, delivered_at = $2, may_have_arrived = $1 IN ('retrying', 'failed')",
        status,
        product.clock.now(),
    )
    product.clock.advance(timedelta(minutes=1))
    await delete_user(product.pool, user_id, product.clock.now(), TESTER)
    product.clock.advance(timedelta(minutes=1))


async def pending(product: Product) -> list[int]:
    """Return the years of the messages that would be sent, after a plan."""
    await product.planner.plan_once(product.clock.now())
    rows = await product.pool.fetch("SELECT occasion_year FROM message_logs WHERE status = 'scheduled'")
    return [row["occasion_year"] for row in rows]


async def by_api(product: Product, _path: Path) -> None:
    """Create the person over the API, who shows the next message."""
    async with running_api(product.pool, clock=product.clock) as api:
        created = (await api.post("/users", BODY | {"timezone": "UTC"})).json
        assert created["nextMessageAt"] == "2028-02-28T09:00:00Z"
        assert created == (await api.get(f"/users/{created['id']}")).json
        assert api.metric("messages_scheduled_total", message_type="birthday") == 0


async def by_import(product: Product, path: Path) -> None:
    """Import the person."""
    file = write_csv(path / "users.csv", [Profile("Ada", "Lovelace", ADDRESS, BORN, "UTC")])
    async with borrow(product.pool) as connection:
        with open_source(str(file)) as source:
            summary = await import_users(
                source, connection, product.clock, PLANNING, TESTER, lambda _: None, lambda *_: None
            )
    assert (summary.created, summary.messages_scheduled) == (1, 0)


async def by_hand(product: Product, _path: Path) -> None:
    """Insert the person with psql."""
    await product.pool.execute(
        """
        INSERT INTO users
            (id, first_name, last_name, email, date_of_birth, timezone, schedule_from, created_at, updated_at)
        VALUES ($1, 'Ada', 'Lovelace', 'ADA@example.com', '1990-02-28', 'UTC', $2, $2, $2)
        """,
        uuid4(),
        product.clock.now(),
    )


async def by_moving(product: Product, _path: Path) -> None:
    """Give somebody else, whose message is planned, the address of the person."""
    async with running_api(product.pool, clock=product.clock) as api:
        other = (await api.post("/users", BODY | {"email": "other@example.com", "timezone": "UTC"})).json
        assert other["nextMessageAt"] == "2027-02-28T10:02:00Z"
        moved = (await api.patch(f"/users/{other['id']}", {"email": ADDRESS})).json
        assert moved["nextMessageAt"] == "2028-02-28T09:00:00Z"


@pytest.mark.parametrize("comes", [by_api, by_import, by_hand, by_moving])
async def test_who_comes_back_is_not_greeted_again(product: Product, tmp_path: Path, comes: Comes) -> None:
    """Nothing is planned, audit and explanation know why, and a year later the person is greeted."""
    await greet_and_delete(product)
    await comes(product, tmp_path)
    assert await pending(product) == []
    user_id = await product.pool.fetchval("SELECT id FROM users WHERE deleted_at IS NULL")
    now = product.clock.now()
    audit = await product.auditor.audit(now - timedelta(days=1), now + timedelta(minutes=1), now + timedelta(minutes=1))
    assert not audit.broken
    assert audit.counts[Finding.ARCHIVED] == 1
    explainer = make_explainer(product.settings(), product.pool)
    [explained] = (await explainer.explain(str(user_id), 2027, "birthday", now)).explanations
    assert explained.outcome == "greeted-before"
    assert "already under an earlier user" in explained.reason
    product.clock.advance(timedelta(days=364))
    assert await pending(product) == [2028]


async def test_who_was_deleted_before_the_guard_came_is_not_greeted_again(product: Product, tmp_path: Path) -> None:
    """The migration that brings the guard remembers those who had been greeted and deleted by then."""
    await greet_and_delete(product)
    migrations = load_migrations()
    since = next(one.version for one in migrations if one.name == "past_greetings")
    async with product.pool.acquire() as connection:
        await rollback(connection, migrations, sum(one.version >= since for one in migrations))
        await migrate(connection, migrations, product.clock.now(), contract=True)
    await by_import(product, tmp_path)
    assert await pending(product) == []


@pytest.mark.parametrize("status", ["sending", "retrying", "failed"])
async def test_what_may_have_arrived_counts(product: Product, tmp_path: Path, status: str) -> None:
    """The message was being sent, or its outcome is unknown."""
    await greet_and_delete(product, status)
    await by_import(product, tmp_path)
    assert await pending(product) == []


@pytest.mark.parametrize(
    ("status", "born"), [("scheduled", BORN), ("queued", BORN), ("expired", BORN), ("delivered", date(1991, 2, 28))]
)
async def test_whoever_was_not_greeted_is(product: Product, status: str, born: date) -> None:
    """A message that was never sent does not count, nor does that of somebody else with the same address."""
    await greet_and_delete(product, status, born)
    await product.create(BORN, email=ADDRESS)
    assert await pending(product) == [2027]


async def test_other_yearly_dates_are_not_greeted_twice(product: Product) -> None:
    """Each type counts for itself: the anniversary was greeted, the birthday was not."""
    await plan_type(product.pool, JOINED, product.clock.now() - timedelta(days=9))
    body = BODY | {"timezone": "UTC", "anniversaries": {JOINED: "2020-02-28"}}
    async with running_api(product.pool, clock=product.clock) as api:
        first = (await api.post("/users", body)).json
        await product.pool.execute("UPDATE message_logs SET status = 'delivered' WHERE message_type = $1", JOINED)
        assert (await api.delete(f"/users/{first['id']}")).status == 204
        second = (await api.post("/users", body)).json
        shown = {
            one["type"]: one["nextMessageAt"] for one in (await api.get(f"/users/{second['id']}")).json["occasions"]
        }
    assert shown == {"birthday": "2027-02-28T10:00:00Z", JOINED: "2028-02-28T09:00:00Z"}


async def test_rows_that_an_operator_removes_are_remembered(product: Product) -> None:
    """DELETE of a live user with psql, whose message retention has removed already."""
    user_id = await product.create(BORN, email=ADDRESS)
    await product.pool.execute("UPDATE message_logs SET status = 'delivered'")
    await product.pool.execute("DELETE FROM message_logs")
    await product.pool.execute("DELETE FROM users WHERE id = $1", user_id)
    await product.create(BORN, email=ADDRESS)
    assert await pending(product) == []


async def test_who_comes_back_before_the_deletion_is_committed_is_not_greeted_again(product: Product) -> None:
    """The creation waits for the address, and looks for earlier greetings only then."""
    user_id = await product.create(BORN, email=ADDRESS)
    await product.pool.execute("UPDATE message_logs SET status = 'delivered'")
    async with product.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("UPDATE users SET deleted_at = $2 WHERE id = $1", user_id, product.clock.now())
            creating = asyncio.create_task(product.create(BORN, email=ADDRESS))
            await eventually(lambda: is_waiting_for_a_lock(product.pool), "the creation waits")
        await creating
    assert await pending(product) == []


async def test_a_deletion_waits_for_a_claim_that_is_under_way(product: Product) -> None:
    """The message that is being sent by then counts as one that may have arrived."""
    user_id = await product.create(BORN, email=ADDRESS)
    async with product.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("UPDATE message_logs SET status = 'sending'")
            deleting = asyncio.create_task(delete_user(product.pool, user_id, product.clock.now(), TESTER))
            await eventually(lambda: is_waiting_for_a_lock(product.pool), "the deletion waits")
        await deleting
    await product.create(BORN, email=ADDRESS)
    assert await pending(product) == []


async def test_the_guard_ends_with_the_year(product: Product) -> None:
    """The janitor removes what is over in every zone, and nothing else."""
    await greet_and_delete(product)
    for at, kept in (("2028-01-02T00:00:00Z", 1), ("2028-01-03T00:00:01Z", 0)):
        await product.janitor.retire_once(parse(at))
        assert await product.pool.fetchval("SELECT count(*) FROM past_greetings") == kept

"""No statement that the program runs reads a large table from end to end.

The program does all that it does, on a database with many users and messages, on connections that note each statement.
PostgreSQL is then asked how it would run each of them, with the arguments that they had and without knowing those: a
statement that is prepared is planned in either way.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from benchmarks.population import populate
from benchmarks.seeds import make_users
from birthday.broker.postgres import PostgresBroker
from birthday.core.message import Status
from birthday.store.events import hold_stream, make_events
from birthday.store.exporting import read_exported
from birthday.store.failed import FailedFilter, select_failed
from birthday.store.feed import FeedFilter, find_start, read_feed
from birthday.store.history import FIRST, Selection, list_messages
from birthday.store.statistics import count_overdue
from birthday.store.templates import count_audiences, read_concerned
from birthday.telemetry.metrics import Metrics
from birthday.wiring.scheduler import make_explainer
from tests.support.api import running_api
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.dates import add_dates
from tests.support.product import Product

NOW = datetime(2026, 3, 10, 12, 1, tzinfo=UTC)
USERS = 60_000
LARGE = {"users", "anniversaries", "message_logs", "outcomes", "queue_messages"}
NAMES = LARGE | {"message_plans", "message_details", "feed_entries", "yearly_dates"}
"""The tables, and the views of them."""
INLINED = (
    "is_current(",
    "choose_template(",
    "keeps_template(",
    "template_rank(",
    "concerned_dates(",
    "is_listed(",
    "is_concerned(",
    "is_selected(",
    "http_status(",
    "plan_message",
)
"""Functions of the schema that cost nothing, because no plan has them."""
COUNTS = "AS consumers"
"""In the one statement that may read all of the queue: it counts it."""


@dataclass
class Statements:
    """Every statement that was run, with the arguments of its last time."""

    seen: dict[str, tuple[object, ...]] = field(default_factory=dict)

    async def listen(self, connection: asyncpg.Connection) -> None:
        """Note what is run on a connection."""
        connection.add_query_logger(self._note)

    def _note(self, query: Any) -> None:  # noqa: ANN401 - asyncpg's type is private
        statement: str = query.query
        counts = COUNTS in statement or statement.startswith(("LISTEN", "UNLISTEN"))
        if not counts and any(name in statement for name in NAMES):
            self.seen[statement] = tuple(query.args or ())


@pytest.fixture
def statements() -> Statements:
    """Return what notes statements."""
    return Statements()


@pytest.fixture
async def pool(database_url: str, statements: Statements) -> AsyncIterator[asyncpg.Pool]:
    """Return a pool whose statements are noted, on a database that is large enough for an index to matter."""
    connection = await asyncpg.connect(database_url)
    await populate(connection, USERS, NOW - timedelta(days=400))
    await connection.execute(
        """
        INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from, status,
                                  sent_at, delivered_at, created_at, updated_at, feed_position)
        SELECT uuid_v7(at), id, extract(year FROM at)::smallint, at::date, at, at + interval '15 hours', schedule_from,
               'delivered', at, at, at, at, row_number() OVER (ORDER BY at)
        FROM (SELECT id, schedule_from,
                     $1::timestamptz - interval '4 days' - (hashtext(id::text) & 1023) * interval '2 hours' AS at
              FROM users) history
        ORDER BY history.at
        """,
        NOW,
    )
    await connection.execute(
        """
        INSERT INTO outcomes (position, stored_at, ids)
        SELECT feed_position, updated_at, ARRAY[id] FROM message_logs WHERE feed_position IS NOT NULL
        """
    )
    await connection.execute(
        """
        INSERT INTO queue_messages (body, available_at)
        SELECT '{}', clock_timestamp() + interval '1 day' FROM generate_series(1, 100000)
        """
    )
    await add_dates(connection, ("name-day", "work-anniversary"), NOW - timedelta(days=400))
    await connection.execute("VACUUM (ANALYZE)")
    await connection.close()
    async with asyncpg.create_pool(database_url, min_size=1, max_size=10, init=statements.listen) as pool:
        yield pool


async def run_everything(pool: asyncpg.Pool) -> None:
    """Plan, dispatch, deliver, rescue, expire, audit and remove; create, read, list, change and delete users."""
    product = Product(pool, PostgresBroker(pool), ManualClock(NOW), Metrics())
    channel = RecordingChannel(product.clock)
    async with running_api(pool, clock=product.clock) as api:
        user = await api.create(dateOfBirth="1990-03-10")
        await product.planner.plan_once(NOW)
        async with product.working(channel):
            await product.dispatcher.dispatch_once(NOW)
            await channel.wait_for(1)
        product.clock.advance(timedelta(minutes=20))
        await product.janitor.recover_once(product.clock.now())
        await product.janitor.retire_once(product.clock.now())
        await product.janitor.audit_once(product.clock.now())
        await count_overdue(pool, product.clock.now())
        await make_explainer(product.settings(), pool).explain(user["email"], None, None, product.clock.now())
        await api.context.calendar.read_days([NOW.date(), NOW.date() + timedelta(days=1)])
        paths = ("/users?limit=100", f"/users/{user['id']}", f"/users/{user['id']}/messages", "/messages?limit=100")
        period = "from=2026-03-09T00:00:00Z&to=2026-03-11T00:00:00Z"
        lists = ("name=lovelace1", "birthday=03-10", "timezone=Europe/Berlin", "suppressed=true", "externalId=crm-1")
        for path in (
            *paths,
            *(f"/users?{query}" for query in lists),
            "/occasions?date=2026-03-11",
            "/console",
            *(f"/messages?status={status}" for status in Status),
            "/messages?status=scheduled&type=name-day",
            f"/messages?status=delivered&{period}",
            "/console/failures",
            "/console/failures?status=401&detail=the&type=birthday&newer=7d",
            "/console/today?state=failed&q=lovelace1",
            "/console/users",
            "/console/users?q=lovelace1&zone=Europe/Berlin",
            "/console/users?suppressed=yes&zone=Europe/Berlin",
            f"/console/users/{user['id']}",
        ):
            answer = await api.get(path)
            assert answer.status == 200, (path, answer.body)
        await api.patch(f"/users/{user['id']}", json={"dateOfBirth": "1991-03-11"})
        await api.delete(f"/users/{user['id']}")
        assert (await api.post("/messages/retry", {"errorType": "timeout"})).status == 202
        async with pool.acquire() as connection:
            await select_failed(connection, FailedFilter(), [UUID(user["id"])])
            for rare in (
                Selection(error_type="timeout"),
                Selection(user_id=UUID(user["id"])),
                Selection(message_type="name-day"),
            ):
                await list_messages(connection, rare, FIRST, 50)
            await count_audiences(connection)
            await read_exported(connection, UUID(int=0), 100)
            await read_concerned(connection, "birthday", "fr", UUID(int=0), 1000)
            for wanted in (FeedFilter(), FeedFilter(status="failed")):
                await read_feed(connection, await find_start(connection, NOW), wanted, 50)
            stream = await hold_stream(connection, UUID(int=1), "receiver", timedelta(seconds=30))
            assert stream is not None
            await make_events(connection, UUID(int=1), stream.after, NOW, 100)
        await asyncio.gather(*(api.create(email=f"{number}@example.net") for number in range(20)))


async def test_a_plan_finds_birthdays_and_other_dates_by_their_indexes(
    pool: asyncpg.Pool, statements: Statements
) -> None:
    """The rows that a plan reads are those of the occasions in its window, whatever the number of users and dates."""
    product = Product(pool, PostgresBroker(pool), ManualClock(NOW), Metrics())
    await product.planner.plan_once(NOW)
    [statement] = [text for text in statements.seen if "INSERT INTO message_plans" in text]
    async with pool.acquire() as connection:
        text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *statements.seen[statement])
    reads = {node["Index Name"]: node for node in nodes(json.loads(text)[0]["Plan"]) if "Index Name" in node}
    assert {"users_birthdays", "anniversaries_occasions"} <= set(reads)
    read = sum(node["Actual Rows"] * node["Actual Loops"] for node in reads.values())
    assert 100 < read < 3 * USERS * 4 / 365, reads


async def test_no_statement_reads_a_large_table_to_its_end(pool: asyncpg.Pool, statements: Statements) -> None:
    """Whatever is run while the program does its work finds its rows by an index, and no call hides a rule."""
    await run_everything(pool)
    noted = dict(statements.seen)
    assert len(noted) > 20, list(noted)
    complaints = []
    async with pool.acquire() as connection:
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute("SELECT set_config('plan_cache_mode', $1, false)", mode)
            for statement, arguments in noted.items():
                text = await connection.fetchval(f"EXPLAIN (FORMAT JSON, VERBOSE) {statement}", *arguments)
                plan = json.loads(text)
                complaints += [f"{mode}: {name}: {statement}" for name in INLINED if name in text]
                complaints += [f"{mode}: {table}: {statement}" for table in read_to_the_end(plan[0]["Plan"])]
    assert not complaints, "\n".join(complaints)


async def test_a_new_user_who_gets_a_message_costs_no_look_at_the_others(database_url: str) -> None:
    """Users with a birthday today and other dates read no row of ``users``, although there are few enough to read all.

    A plan that reads them all would stay prepared while their number grows.
    """
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            await make_users(connection, 1000, NOW - timedelta(days=400), "example.org")
            await connection.execute("ANALYZE users")
        async with running_api(pool, clock=ManualClock(NOW)) as api:
            before = await rows_read(pool)
            await api.create(dateOfBirth="1990-03-10", anniversaries={"work-anniversary": "2019-03-10"})
        assert await pool.fetchval("SELECT count(*) FROM message_logs") == 1
        assert await rows_read(pool) == before


async def rows_read(pool: asyncpg.Pool) -> int:
    """Return how many rows of ``users`` have been read from its beginning on, by the one connection of a pool."""
    await pool.execute("SELECT pg_stat_force_next_flush()")
    count: int = await pool.fetchval("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'users'")
    return count


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each node of a plan."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def read_to_the_end(plan: dict[str, Any]) -> Iterator[str]:
    """Yield the large tables that a plan reads row after row."""
    if plan["Node Type"] == "Seq Scan" and plan["Relation Name"] in LARGE:
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from read_to_the_end(part)

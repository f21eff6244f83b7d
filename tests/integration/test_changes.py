"""Who changed what: each change is recorded in its own transaction, and nobody rewrites the record."""

from datetime import date, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.content import Template
from birthday.core.template import Source, TemplateKey
from birthday.operations.dead_letters.requeue import requeue_many
from birthday.operations.suppressions import suppress_addresses, unsuppress_addresses
from birthday.operations.templates.publishing import Author, activate_version, publish_template
from birthday.operations.templates.values import Site
from birthday.operations.transfer.importing import import_users
from birthday.operations.transfer.source import open_source
from birthday.store.changes import Actor, Change, ChangeFilter, Recorded, list_changes, record_changes
from birthday.store.connection import borrow
from birthday.store.pauses import set_paused
from birthday.telemetry.metrics import Metrics
from tests.support.api import api_keys, running_api
from tests.support.clock import ManualClock
from tests.support.product import PLANNING, Product
from tests.support.users import TESTER, make_profiles, write_csv

BY_KEY = {"Authorization": "Bearer key-of-walter", "X-Request-ID": "r-1"}
EVERYTHING = ChangeFilter()


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """Return an installation."""
    return Product(pool, PostgresBroker(pool), ManualClock(), Metrics())


async def read_changes(pool: asyncpg.Pool, wanted: ChangeFilter = EVERYTHING) -> list[Recorded]:
    """Return all changes that are wanted, the oldest first."""
    async with borrow(pool) as connection:
        return (await list_changes(connection, wanted, None, 1000))[::-1]


async def test_what_the_api_does_to_a_user_is_recorded(pool: asyncpg.Pool) -> None:
    """A change has key and request, and the values before and after; what stays the same is not in it."""
    async with running_api(pool, api_keys=api_keys(walter="write")) as api:
        body = {"firstName": "Ada", "email": "ada@example.com", "dateOfBirth": "1990-01-01", "timezoneOffset": 0}
        user = (await api.post("/users", body, headers=BY_KEY)).json
        path = f"/users/{user['id']}"
        for _ in range(2):
            api.clock.advance(timedelta(seconds=1))
            patch = {"firstName": "Ada", "email": "ada@example.org", "attributes": {"team": "blue"}}
            assert (await api.patch(path, patch, headers=BY_KEY)).status == 200
        api.clock.advance(timedelta(seconds=1))
        assert (await api.put(f"{path}/suppression", {"reason": "by phone"}, headers=BY_KEY)).status == 200
        api.clock.advance(timedelta(seconds=1))
        assert (await api.delete(path, headers=BY_KEY)).status == 204
        suppressed = [one.change for one in await read_changes(pool) if one.change.entity == "suppression"]
        assert [(one.action, one.after) for one in suppressed] == [("added", {"reason": "by phone"})]
        own = await read_changes(pool, ChangeFilter(entity_id=user["id"]))

    def change(action: str, before: object = None, after: object = None) -> tuple[object, ...]:
        return ("api:walter", action, "user", user["id"], before, after, "r-1")

    assert [tuple(getattr(one.change, name) for name in Change.__slots__) for one in own] == [
        change("created"),
        change(
            "changed",
            {"email": "ada@example.com", "attributes": None},
            {"email": "ada@example.org", "attributes": {"team": "blue"}},
        ),
        change("deleted"),
    ]


async def test_what_is_refused_is_not_recorded(pool: asyncpg.Pool) -> None:
    """A user who is not created leaves no change: both are in one transaction."""
    async with running_api(pool) as api:
        user = await api.create()
        assert (await api.post("/users", {**user, "id": None})).status == 422
        assert (await api.patch(f"/users/{user['id']}", {"timezone": "Nowhere"})).status == 422
        other = await api.create(email="other@example.com")
        assert (await api.patch(f"/users/{other['id']}", {"email": "test@example.com"})).status == 409
        assert [one.change.action for one in await read_changes(pool)] == ["created", "created"]


async def test_an_import_is_one_change_of_a_batch(pool: asyncpg.Pool, tmp_path: Path) -> None:
    """Its users are those that were created at its instant; a batch that creates nobody is none."""
    path, clock = write_csv(tmp_path / "users.csv", make_profiles(7)), ManualClock()
    for _ in range(2):
        async with borrow(pool) as connection:
            with open_source(str(path)) as source:
                await import_users(source, connection, clock, PLANNING, TESTER, lambda _: None, lambda *_: None)
    [one] = await read_changes(pool)
    assert (one.change.actor, one.change.action, one.change.after) == ("tester", "imported", {"users": 7})
    assert await pool.fetchval("SELECT count(*) FROM users WHERE created_at = $1", one.at) == 7


async def test_operators_and_their_commands_are_recorded(product: Product) -> None:
    """Pauses, suppressions and templates: what changes nothing is not recorded."""
    pool, now, by = product.pool, product.clock.now(), Actor("cli:ada@host")
    async with borrow(pool) as connection:
        for paused in (True, True, False):
            await set_paused(connection, ["birthday"], paused=paused, now=now, by=by)
    for _ in range(2):
        await suppress_addresses(pool, ["Ada@example.com"], "by phone", now, by, dry_run=False)
    for _ in range(2):
        await unsuppress_addresses(pool, ["ada@example.com"], now, by, dry_run=False)
    template = Template(Source("Hi"), "default")
    for _ in range(2):
        await publish_template(pool, ("birthday", "default"), template, Author(by, now), Site())
    await activate_version(pool, TemplateKey("birthday", "default", 0), Author(by, now))
    found = {(one.change.entity, one.change.action): one.change for one in await read_changes(pool)}
    assert {key: (one.before, one.after) for key, one in found.items()} == {
        ("pause", "paused"): (None, None),
        ("pause", "resumed"): (None, None),
        ("suppression", "added"): (None, {"reason": "by phone"}),
        ("suppression", "removed"): ({"reason": "by phone"}, None),
        ("template", "published"): (None, {"version": 1}),
        ("template", "activated"): ({"version": 1}, {"version": 0}),
    }
    assert found["template", "published"].entity_id == "birthday"
    assert len(await read_changes(pool)) == len(found)
    assert {one.actor for one in found.values()} == {"cli:ada@host"}


async def test_a_retry_is_recorded_with_its_message(product: Product) -> None:
    """Only the messages that are queued again have a change."""
    clock = product.clock
    await product.create(clock.now().date().replace(year=1990))
    [message_id] = [
        row["id"] for row in await product.pool.fetch("UPDATE message_logs SET status = 'failed' RETURNING id")
    ]
    for _ in range(2):
        await requeue_many(product.pool, product.broker, [message_id, UUID(int=1)], clock, TESTER, lambda _ids: None)
    [one] = await read_changes(product.pool, ChangeFilter(entity="message"))
    assert one.change == TESTER.change("retried", "message", message_id, {"status": "failed"})


async def test_a_change_is_found_by_what_it_is_about_by_whom_and_when(pool: asyncpg.Pool) -> None:
    """Each condition counts, and pages neither skip nor repeat one of the same instant."""
    start = ManualClock().now()
    async with borrow(pool) as connection:
        for number in range(6):
            at = start + timedelta(minutes=number)
            changes = [Actor(f"cli:{number % 2}").change("rotated", "key", one) for one in range(3)]
            await record_changes(connection, [*changes, TESTER.change("changed", "user", UUID(int=number))], at)
        selected = ChangeFilter("key", "1", "cli:1", start + timedelta(minutes=1), start + timedelta(minutes=5))
        found = await list_changes(connection, selected, None, 10)
        assert [(one.at, one.change.entity_id) for one in found] == [
            (start + timedelta(minutes=number), "1") for number in (3, 1)
        ]
        seen, after = list[Recorded](), None
        while page := await list_changes(connection, EVERYTHING, after, 5):
            seen += page
            after = page[-1].id
        assert len({one.id for one in seen}) == len(seen) == 24
        first = [one.change.entity_id for one in seen if one.at == start][::-1]
        assert first == ["0", "1", "2", str(UUID(int=0))]


@pytest.mark.parametrize(
    "wanted",
    [
        EVERYTHING,
        ChangeFilter(entity="template"),
        ChangeFilter(entity="user"),
        ChangeFilter(entity_id=str(UUID(int=7))),
        ChangeFilter(entity="user", entity_id=str(UUID(int=7))),
        ChangeFilter(actor="cli:ada"),
        ChangeFilter(from_at=ManualClock().now(), to_at=ManualClock().now() + timedelta(minutes=1)),
    ],
)
async def test_each_condition_has_its_index(pool: asyncpg.Pool, wanted: ChangeFilter) -> None:
    """The record is never read to its end, whatever is asked for."""
    async with pool.acquire() as connection:
        await connection.execute(
            """
            INSERT INTO changes (id, at, actor, action, entity, entity_id)
            SELECT uuid_v7($1::timestamptz + number * interval '1 s'), $1 + number * interval '1 s', 'api', 'changed',
                   'user', lpad(to_hex(number), 32, '0')::uuid
            FROM generate_series(1, 20000) AS number
            """,
            ManualClock().now(),
        )
        await connection.execute("ANALYZE changes")
        seen = list[tuple[str, tuple[object, ...]]]()
        connection.add_query_logger(lambda query: seen.append((query.query, query.args)))
        assert len(await list_changes(connection, wanted, None, 50)) in {0, 1, 50, 59}
        [(statement, values)] = [(text, values) for text, values in seen if "FROM changes" in text]
        plan = await connection.fetch(f"EXPLAIN {statement}", *values)
    assert "Seq Scan" not in str(plan)


@pytest.mark.parametrize("statement", ["UPDATE changes SET actor = ''", "DELETE FROM changes", "TRUNCATE changes"])
async def test_nobody_rewrites_the_record(pool: asyncpg.Pool, statement: str) -> None:
    """The table refuses every statement but an insertion."""
    with pytest.raises(asyncpg.RaiseError, match="changes are only added"):
        await pool.execute(statement)


async def test_changes_are_kept_as_long_as_messages(product: Product) -> None:
    """Retention removes those that are older, and no younger one."""
    user_id = await product.create(date(1990, 5, 1))
    product.clock.advance(timedelta(days=89))
    async with borrow(product.pool) as connection:
        await record_changes(connection, [TESTER.change("changed", "user", user_id)], product.clock.now())
    await product.janitor.retire_once(product.clock.now())
    assert len(await read_changes(product.pool)) == 2
    product.clock.advance(timedelta(days=2))
    await product.janitor.retire_once(product.clock.now())
    assert [one.change.action for one in await read_changes(product.pool)] == ["changed"]

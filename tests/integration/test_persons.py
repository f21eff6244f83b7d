"""What is held on a person is shown as a whole, and erased for good, wherever it is."""

import asyncio
import re
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import structlog

from birthday.broker.postgres import PostgresBroker
from birthday.channels import Delivered, Permanent
from birthday.core.message import ErrorType
from birthday.store.users import delete_user
from birthday.telemetry.metrics import Metrics
from tests.support.api import Api, running_api
from tests.support.channel import HeldChannel, RecordingChannel
from tests.support.clock import ManualClock
from tests.support.postgres import postgres_programs
from tests.support.product import Product, eventually, parse
from tests.support.users import TESTER

UNKNOWN = "01234567-89ab-7def-8123-456789abcdef"
BODY: Mapping[str, Any] = {
    "firstName": "Grace",
    "lastName": "Brewster-Murray",
    "email": "hopper@navy.example",
    "dateOfBirth": "1906-02-28",
    "timezone": "UTC",
    "externalId": "crm-4711",
    "locale": "cy",
    "attributes": {"ship": "USS Hopper"},
    "anniversaries": {"work-anniversary": "1943-12-17"},
}
PERSONAL = re.compile(
    r"Grace|Brewster|hopper|navy\.example|1906-02|1943-12-17|crm-4711|USS|rear-admiral", re.IGNORECASE
)


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 10:00 UTC on 28 February 2027."""
    return Product(pool, PostgresBroker(pool), ManualClock(parse("2027-02-28T10:00:00Z")), Metrics())


def dump(url: str) -> str:
    """Return all that the database holds, as pg_dump writes it."""
    command = [str(postgres_programs() / "pg_dump"), "--no-owner", "--inserts", url]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def live_through(api: Api) -> str:
    """Create a person under a key, change and suppress it, take that back, and return the id of the user."""
    key = {"Idempotency-Key": "a key"}
    user = (await api.request("POST", "/users", json=dict(BODY), headers=key)).json
    path = f"/users/{user['id']}"
    for method, place, body in (
        ("PATCH", path, {"email": "rear-admiral@navy.example"}),
        ("PUT", f"{path}/suppression", {"reason": "Grace asked"}),
        ("DELETE", f"{path}/suppression", None),
        ("PATCH", path, {"email": BODY["email"]}),
        ("PUT", f"{path}/suppression", {"reason": "Hopper asked"}),
    ):
        api.clock.advance(timedelta(seconds=1))
        assert (await api.request(method, place, json=body)).status < 300
    api.clock.advance(timedelta(seconds=1))
    await api.context.pool.execute(
        "UPDATE message_logs SET status = 'failed', error_detail = '550 <hopper@navy.example>: no such user'"
    )
    return str(user["id"])


@pytest.mark.parametrize("deleted", [False, True])
async def test_nothing_personal_is_left_in_a_dump_or_a_log(
    product: Product, pool: asyncpg.Pool, database_url: str, *, deleted: bool
) -> None:
    """Profile, old addresses, reasons, texts of errors, stored answers and changes: also of a deleted user."""
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as events:
        async with running_api(pool, clock=product.clock) as api:
            user_id = await live_through(api)
            assert PERSONAL.search(dump(database_url))
            if deleted:
                assert (await api.delete(f"/users/{user_id}")).status == 204
                api.clock.advance(timedelta(seconds=1))
            done = (await api.post(f"/users/{user_id}/erase")).json
            assert {name: count for name, count in done.items() if name not in {"changes", "userId"}} == {
                "profile": 1,
                "anniversaries": 1,
                "messages": 1,
                "answers": 1,
                "suppressions": 1,
                "cancelled": 0,
                "givenUp": 0,
            }
            assert done["changes"] >= 5
            again = (await api.post(f"/users/{user_id}/erase")).json
            assert set(again.values()) == {user_id, 0}
            assert (await api.get(f"/users/{user_id}/data")).status == 404
            repeated = await api.request("POST", "/users", json=dict(BODY), headers={"Idempotency-Key": "a key"})
            assert repeated.status == 410
            [message] = (await api.get(f"/users/{user_id}/messages")).json["messages"]
            assert (await api.get(f"/messages/{message['id']}")).json == message
            changes = (await api.get(f"/changes?entityId={user_id}")).json["changes"]
            assert changes[0]["action"] == "erased"
            assert all(one["before"] is one["after"] is None for one in changes)
    left = PERSONAL.findall(dump(database_url))
    assert left == []
    assert not PERSONAL.search(str(events))


async def test_an_erased_person_is_greeted_once_and_stays_suppressed(product: Product) -> None:
    """Who comes back finds the year taken, and an opt-out in force."""
    async with running_api(product.pool, clock=product.clock) as api:
        first = (await api.post("/users", dict(BODY))).json
        await product.pool.execute("UPDATE message_logs SET status = 'delivered'")
        assert (await api.post(f"/users/{first['id']}/erase")).status == 200
        second = (await api.post("/users", dict(BODY))).json
        assert second["nextMessageAt"] == "2028-02-28T09:00:00Z"
        assert (await api.put(f"/users/{second['id']}/suppression", {})).status == 200
        assert (await api.post(f"/users/{second['id']}/erase")).status == 200
        third = (await api.post("/users", dict(BODY))).json
        assert (third["suppressed"], third["nextMessageAt"]) == (True, None)


async def test_a_queued_message_of_an_erased_person_is_not_sent(product: Product) -> None:
    """It is cancelled, and the worker that takes its id from the queue sends nothing."""
    channel = RecordingChannel(product.clock)
    async with running_api(product.pool, clock=product.clock, broker=product.broker) as api:
        user = (await api.post("/users", dict(BODY))).json
        await product.dispatcher.dispatch_once(product.clock.now())
        assert (await api.post(f"/users/{user['id']}/erase")).json["cancelled"] == 1
    await product.create(parse("1990-02-28T00:00:00Z").date())
    async with product.working(channel):
        await product.dispatcher.dispatch_once(product.clock.now())
        await product.wait_for_statuses({"cancelled": 1, "delivered": 1})
    assert len(channel.sent) == 1


@pytest.mark.parametrize(
    "outcome", [Delivered(), Permanent(ErrorType.PERMANENT_FAILURE, "550 <hopper@navy.example>: no such user")]
)
async def test_a_message_that_is_being_sent_brings_nothing_back(
    product: Product, database_url: str, outcome: Delivered | Permanent
) -> None:
    """It may arrive, so it has failed and the year is taken; the outcome is not stored any more."""
    channel = HeldChannel(product.clock)
    channel.answer = lambda _greeting: outcome
    with structlog.testing.capture_logs() as events:
        async with running_api(product.pool, clock=product.clock) as api:
            user = (await api.post("/users", dict(BODY))).json
            async with product.working(channel):
                await product.dispatcher.dispatch_once(product.clock.now())
                await channel.wait_for(1)
                assert (await api.post(f"/users/{user['id']}/erase")).json["givenUp"] == 1
                product.clock.advance(timedelta(seconds=1))
                channel.release()
                await asyncio.wait_for(product.wait_for_statuses({"failed": 1}), 30)
            [message] = (await api.get(f"/users/{user['id']}/messages")).json["messages"]
            assert message["errorDetail"] == "the person was erased while it was being sent: it may have arrived"
            second = (await api.post("/users", dict(BODY))).json
            assert second["nextMessageAt"] == "2028-02-28T09:00:00Z"
            assert (await api.post(f"/users/{second['id']}/erase")).status == 200
    assert [event["event"] for event in events].count("message.taken_over") == 1
    assert not PERSONAL.search(str(events))
    assert PERSONAL.findall(dump(database_url)) == []


async def test_everything_that_is_held_is_shown(product: Product) -> None:
    """Also on a deleted user; whoever is not known is 404."""
    async with running_api(product.pool, clock=product.clock) as api:
        user_id = await live_through(api)
        for is_deleted in (False, True):
            if is_deleted:
                product.clock.advance(timedelta(minutes=1))
                await delete_user(product.pool, UUID(user_id), product.clock.now(), TESTER)
            data = (await api.get(f"/users/{user_id}/data")).json
            assert {name: data["user"][name] for name in BODY} == BODY
            assert data["deletedAt"] == ("2027-02-28T10:01:06Z" if is_deleted else None)
            assert [one["status"] for one in data["messages"]] == ["failed"]
            assert data["suppression"]["reason"] == "Hopper asked"
            assert [one["status"] for one in data["answers"]] == [201]
            assert BODY["email"] in data["answers"][0]["body"]
            found = [(one["entity"], one["action"]) for one in data["changes"]]
            assert found[:2] == [("user", "created"), ("user", "changed")]
            assert found.count(("suppression", "added")) == 2
            assert (("user", "deleted") in found) is is_deleted
        for path in (f"/users/{UNKNOWN}/data", f"/users/{UNKNOWN}/messages"):
            assert (await api.get(path)).status == 404
        assert (await api.post(f"/users/{UNKNOWN}/erase")).status == 404


async def test_an_erasure_waits_for_an_answer_about_the_person(product: Product) -> None:
    """A preview that is being made when the person is erased is erased with its user: a repeat is answered 410."""
    key = {"Idempotency-Key": "1"}
    async with running_api(product.pool) as api, product.pool.acquire() as other:
        user_id = (await api.create())["id"]
        previewing = partial(api.post, "/templates/birthday/default/preview", {"userId": user_id}, key)
        async with other.transaction(), asyncio.TaskGroup() as group:
            await other.execute("LOCK TABLE active_templates")
            preview = group.create_task(previewing())
            await eventually(partial(_waiting, other, 1), "the preview waits")
            erasing = group.create_task(api.post(f"/users/{user_id}/erase"))
            await eventually(partial(_waiting, other, 2), "the erasure waits")
            await other.execute("ROLLBACK AND CHAIN")
        assert (preview.result().status, erasing.result().json["answers"]) == (200, 1)
        assert (await previewing()).status == 410
        assert await product.pool.fetchval("SELECT count(*) FROM idempotency_keys WHERE body IS NOT NULL") == 0


async def _waiting(connection: asyncpg.pool.PoolConnectionProxy, count: int) -> bool:
    """Say whether so many sessions wait for a lock."""
    found = await connection.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")
    return bool(found == count)


async def test_what_a_deletion_leaves_is_removed_by_retention(product: Product, database_url: str) -> None:
    """The profile of a deleted user is there for RETENTION_DAYS, for those who may see it, and no day longer."""
    async with running_api(product.pool, clock=product.clock) as api:
        user = (await api.post("/users", dict(BODY))).json
        assert (await api.delete(f"/users/{user['id']}")).status == 204
        assert (await api.get(f"/users/{user['id']}")).status == 404
        [message] = (await api.get(f"/users/{user['id']}/messages")).json["messages"]
        assert message["status"] == "cancelled"
        product.clock.advance(timedelta(days=89))
        await product.janitor.retire_once(product.clock.now())
        assert (await api.get(f"/users/{user['id']}/data")).json["user"]["email"] == BODY["email"]
        product.clock.advance(timedelta(days=2))
        await product.janitor.retire_once(product.clock.now())
        for path in ("data", "messages"):
            assert (await api.get(f"/users/{user['id']}/{path}")).status == 404
    assert PERSONAL.findall(dump(database_url)) == []


async def test_the_list_of_changes_has_pages_and_filters(product: Product) -> None:
    """Each condition counts; what is not accepted is named."""
    async with running_api(product.pool, clock=product.clock) as api:
        users = [await api.create(email=f"{number}@example.com") for number in range(3)]
        api.clock.advance(timedelta(seconds=1))
        await api.patch(f"/users/{users[0]['id']}", {"firstName": "Eve"})
        seen, path = list[str](), "/changes?limit=1"
        while path:
            answer = await api.get(path)
            seen += [one["id"] for one in answer.json["changes"]]
            path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert len(set(seen)) == len(seen) == 4
        [change] = (await api.get(f"/changes?entity=user&entityId={users[0]['id']}&actor=api&limit=1")).json["changes"]
        assert (change["before"], change["after"]) == ({"firstName": "Test"}, {"firstName": "Eve"})
        assert change["requestId"]
        for query in ("entity=template", "actor=cli:ada", "to=2027-02-27", "from=2027-03-01"):
            assert (await api.get(f"/changes?{query}")).json["changes"] == [], query
        for query in ("from=0001-01-01", "to=9999-12-31", "to=9999-12-31T23:59:59.999Z"):
            assert len((await api.get(f"/changes?{query}")).json["changes"]) == 4, query
        refused = await api.get("/changes?entity=nothing")
        assert refused.status == 422
        assert "one of user, message" in refused.json["errors"][0]["detail"]

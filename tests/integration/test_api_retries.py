"""Retries over HTTP: of one failed message, and of all that a body selects; their dead letters go as well."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from birthday.broker import Broker
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.core.message import ErrorType
from tests.support.api import Api, api_keys, running_api
from tests.support.clock import NINE_O_CLOCK
from tests.support.dead import bury, dead_ids, store_failed, take_all

HOUR = timedelta(hours=1)


@pytest.fixture
async def api(pool: asyncpg.Pool, either_broker: Broker) -> AsyncIterator[Api]:
    """The API on either broker; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool, broker=either_broker) as api:
        yield api


async def statuses(pool: asyncpg.Pool) -> dict[str, int]:
    """Return how many messages there are in each status."""
    rows = await pool.fetch("SELECT status, count(*) AS messages FROM message_logs GROUP BY status")
    return {row["status"]: row["messages"] for row in rows}


async def test_a_retry_removes_the_dead_letter(api: Api, pool: asyncpg.Pool) -> None:
    """One after the other, each message that is queued again leaves the dead-letter queue, and the others stay."""
    ids = await store_failed(pool, 5, NINE_O_CLOCK)
    await bury(api.context.broker, ids)
    for message_id in ids[:4]:
        assert (await api.post(f"/messages/{message_id}/retry")).status == 202
    assert await dead_ids(api.context.broker) == ids[4:]
    assert set(await take_all(api.context.broker, 4)) == set(ids[:4])


async def test_many_at_once(api: Api, pool: asyncpg.Pool) -> None:
    """More retries at the same time than the pool has connections end, and leave no dead letter."""
    ids = await store_failed(pool, 40, NINE_O_CLOCK)
    await bury(api.context.broker, ids)
    answers = await asyncio.gather(*(api.post(f"/messages/{message_id}/retry") for message_id in ids))
    assert {answer.status for answer in answers} == {202}
    assert await dead_ids(api.context.broker) == []
    assert set(await take_all(api.context.broker, 40)) == set(ids)


async def test_all_that_failed_are_retried(api: Api, pool: asyncpg.Pool) -> None:
    """An empty body means all: each is queued once, and no dead letter of a message that is not failed is left."""
    ids = await store_failed(pool, 1200, NINE_O_CLOCK)
    stranger = uuid4()
    await bury(api.context.broker, [*ids, stranger])
    answer = await api.post("/messages/retry", {})
    assert (answer.status, answer.json) == (202, {"requeued": 1200, "remaining": 0})
    assert await dead_ids(api.context.broker) == [stranger]
    assert sorted(await take_all(api.context.broker, 1200), key=str) == sorted(ids, key=str)
    assert api.metric("messages_queued_total") == 1200
    assert (await api.post("/messages/retry", {})).json == {"requeued": 0, "remaining": 0}


async def test_conditions_select(api: Api, pool: asyncpg.Pool) -> None:
    """Error, user and age select; what is not selected stays failed with its dead letter."""
    user_id = uuid4()
    old = await store_failed(pool, 2, NINE_O_CLOCK - 3 * HOUR, ErrorType.TIMEOUT)
    new = await store_failed(pool, 3, NINE_O_CLOCK - HOUR, ErrorType.TIMEOUT)
    own = await store_failed(pool, 1, NINE_O_CLOCK - HOUR, ErrorType.VALIDATION_ERROR, user_id)
    await bury(api.context.broker, [*old, *new, *own])
    for body, requeued in (
        ({"userId": str(user_id), "errorType": "timeout"}, 0),
        ({"userId": str(user_id).upper()}, 1),
        ({"olderThan": "2h", "newerThan": "150m"}, 0),
        ({"olderThan": "7200"}, 2),
        ({"errorType": "validation_error"}, 0),
        ({"errorDetail": "outcome unknown"}, 0),
        ({"newerThan": "2h", "errorType": "timeout", "errorDetail": "refuse"}, 3),
    ):
        assert (await api.post("/messages/retry", body)).json == {"requeued": requeued, "remaining": 0}
    assert await statuses(pool) == {"queued": 6}
    assert await dead_ids(api.context.broker) == []


async def test_a_limit(api: Api, pool: asyncpg.Pool) -> None:
    """No more than the limit are queued, and the answer says how many are left for another call."""
    await store_failed(pool, 5, NINE_O_CLOCK)
    answer = await api.post("/messages/retry", {"limit": 3})
    assert answer.json == {"requeued": 3, "remaining": 2}
    assert await statuses(pool) == {"queued": 3, "failed": 2}
    assert (await api.post("/messages/retry", {"limit": 3})).json == {"requeued": 2, "remaining": 0}


@pytest.mark.parametrize(
    ("body", "pointer", "accepted"),
    [
        ([], "", "a JSON object"),
        ({"error_type": "timeout"}, "/error_type", "errorType, errorDetail, type, userId, olderThan"),
        ({"errorType": "boredom"}, "/errorType", "validation_error, external_api_error, timeout, permanent_failure"),
        ({"errorType": ["timeout"]}, "/errorType", "validation_error"),
        ({"errorDetail": ""}, "/errorDetail", "1 to 200 characters"),
        ({"errorDetail": "a\0"}, "/errorDetail", "one line of text"),
        ({"userId": "1"}, "/userId", "a UUID"),
        ({"userId": None}, "/userId", "a UUID"),
        ({"olderThan": "a week"}, "/olderThan", "30s, 10m, 48h, 7d"),
        ({"olderThan": 60}, "/olderThan", "in text"),
        ({"newerThan": "9999d"}, "/newerThan", "30s, 10m, 48h, 7d"),
        ({"newerThan": "1h\n"}, "/newerThan", "30s, 10m, 48h, 7d"),
        ({"limit": 0}, "/limit", "1 to 10000"),
        ({"limit": 10_001}, "/limit", "1 to 10000"),
        ({"limit": True}, "/limit", "1 to 10000"),
        ({"limit": 1.5}, "/limit", "1 to 10000"),
    ],
)
async def test_a_body_that_is_not_accepted(pool: asyncpg.Pool, body: object, pointer: str, accepted: str) -> None:
    """A wrong member is named with what is accepted, and nothing is queued."""
    await store_failed(pool, 1, NINE_O_CLOCK)
    async with running_api(pool) as api:
        answer = await api.post("/messages/retry", body)
    assert (answer.status, answer.pointers) == (422, [pointer])
    assert accepted in answer.json["errors"][0]["detail"]
    assert await statuses(pool) == {"failed": 1}


async def test_a_body_is_needed(pool: asyncpg.Pool) -> None:
    """Everything is retried only if somebody says so: a request without a body is refused."""
    await store_failed(pool, 1, NINE_O_CLOCK)
    async with running_api(pool) as api:
        assert (await api.post("/messages/retry")).status == 415
    assert await statuses(pool) == {"failed": 1}


async def test_the_scope(pool: asyncpg.Pool) -> None:
    """Only a key of the scope admin retries messages; a path that is only POSTed to says so."""
    await store_failed(pool, 1, NINE_O_CLOCK)
    async with running_api(pool, api_keys=api_keys(walter="write", ada="admin")) as api:
        for name, status in (("nobody", 401), ("walter", 403), ("ada", 202)):
            answer = await api.post("/messages/retry", {}, {"X-API-Key": f"key-of-{name}"})
            assert answer.status == status
        wrong = await api.get("/messages/retry", {"X-API-Key": "key-of-ada"})
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")


async def test_without_the_queue(pool: asyncpg.Pool) -> None:
    """While the queue is away the answer is 503, and everything stays failed."""
    await store_failed(pool, 2, NINE_O_CLOCK)
    broker = RabbitMQBroker("amqp://127.0.0.1:1")
    async with running_api(pool, broker=broker) as api:
        assert (await api.post("/messages/retry", {})).status == 503
    await broker.close()
    assert await statuses(pool) == {"failed": 2}


@pytest.mark.slow
async def test_a_dead_letter_that_cannot_be_removed(pool: asyncpg.Pool) -> None:
    """A retry waits a few seconds for its dead letter to go, and does without; the next retry clears up."""
    first, second = await store_failed(pool, 2, NINE_O_CLOCK)
    async with running_api(pool) as api:
        await bury(api.context.broker, [first, second])
        async with pool.acquire() as other, other.transaction():
            await other.execute("SELECT FROM queue_messages WHERE dead_at IS NOT NULL FOR UPDATE")
            answer = await api.post(f"/messages/{first}/retry")
            assert (answer.status, answer.json["status"]) == (202, "queued")
        assert len(await dead_ids(api.context.broker)) == 2
        assert (await api.post("/messages/retry", {})).json == {"requeued": 1, "remaining": 0}
        assert await dead_ids(api.context.broker) == []

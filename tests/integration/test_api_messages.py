"""Messages over HTTP: lists, one by id, and the retry of a failed one."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.broker.protocol import decode_payload
from birthday.core.ident import uuid7
from tests.support.api import Api, running_api
from tests.support.outcomes import finish, store_queued

MEMBERS = [
    "id",
    "userId",
    "type",
    "status",
    "scheduledAt",
    "occasionOn",
    "attempts",
    "nextAttemptAt",
    "queuedAt",
    "sentAt",
    "deliveredAt",
    "late",
    "errorType",
    "errorDetail",
    "template",
    "locale",
    "version",
    "createdAt",
    "updatedAt",
]
UNKNOWN = "01234567-89ab-7def-8123-456789abcdef"


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


@pytest.fixture
async def failed(api: Api, pool: asyncpg.Pool) -> dict[str, Any]:
    """A message that failed for good after its fifth attempt."""
    user = await api.create(dateOfBirth="1990-03-01")
    await pool.execute(
        """
        UPDATE message_logs SET status = 'failed', attempts = 5, sent_at = scheduled_at, queued_at = scheduled_at,
                                error_type = 'external_api_error', error_detail = '503 Service Unavailable'
        """
    )
    message: dict[str, Any] = (await api.get(f"/users/{user['id']}/messages")).json["messages"][0]
    return message


async def store_messages(pool: asyncpg.Pool, *messages: tuple[str, datetime]) -> list[str]:
    """Store messages of these states and instants, each of a user who is gone; return their ids."""
    ids = [uuid7(datetime(2026, 3, 1, tzinfo=UTC)) for _ in messages]
    await pool.executemany(
        """
        INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from, status,
                                  created_at, updated_at)
        VALUES ($1, gen_random_uuid(), 2026, '2026-03-01', $2, $2, $2, $3, $2, $2)
        """,
        [(message_id, due_at, status) for message_id, (status, due_at) in zip(ids, messages, strict=True)],
    )
    return [str(message_id) for message_id in ids]


async def test_a_message_is_shown_with_everything_that_is_known_of_it(api: Api) -> None:
    """The planned message of a user has the members of the contract and is found by its own id and the user's."""
    user = await api.create(dateOfBirth="1990-03-02", timezoneOffset=60)
    [message] = (await api.get(f"/users/{user['id']}/messages")).json["messages"]
    assert list(message) == MEMBERS
    assert message == {
        "id": message["id"],
        "userId": user["id"],
        "type": "birthday",
        "status": "scheduled",
        "scheduledAt": "2026-03-02T08:00:00Z",
        "occasionOn": "2026-03-02",
        "attempts": 0,
        "nextAttemptAt": None,
        "queuedAt": None,
        "sentAt": None,
        "deliveredAt": None,
        "late": False,
        "errorType": None,
        "errorDetail": None,
        "template": None,
        "locale": None,
        "version": None,
        "createdAt": "2026-03-01T09:00:00Z",
        "updatedAt": "2026-03-01T09:00:00Z",
    }
    assert (await api.get(f"/messages/{message['id']}")).json == message
    assert (await api.get("/messages")).json == {"messages": [message], "nextCursor": None}


async def test_fractions_of_a_second_are_shown_only_if_there_are_any(api: Api) -> None:
    """Instants have microseconds if they are not zero."""
    api.clock.advance(timedelta(microseconds=1500))
    user = await api.create(dateOfBirth="1990-03-01")
    assert user["nextMessageAt"] == "2026-03-01T09:00:00.001500Z"


@pytest.mark.parametrize(("seconds", "late"), [(60, False), (61, True)])
async def test_a_message_that_was_delivered_more_than_a_minute_after_it_was_due_is_late(
    api: Api, pool: asyncpg.Pool, seconds: int, *, late: bool
) -> None:
    """Sixty seconds are on time; one more is not."""
    await api.create(dateOfBirth="1990-03-01")
    await pool.execute(
        "UPDATE message_logs SET status = 'delivered', delivered_at = scheduled_at + $1::interval",
        timedelta(seconds=seconds),
    )
    [message] = (await api.get("/messages")).json["messages"]
    assert message["late"] is late


async def test_messages_of_a_user_include_cancelled_ones(api: Api) -> None:
    """The history of a user shows what was cancelled, newest first."""
    user = await api.create(dateOfBirth="1990-03-02")
    api.clock.advance(timedelta(minutes=1))
    await api.patch(f"/users/{user['id']}", json={"dateOfBirth": "1990-03-03"})
    messages = (await api.get(f"/users/{user['id']}/messages")).json["messages"]
    assert [(message["scheduledAt"], message["status"]) for message in messages] == [
        ("2026-03-03T09:00:00Z", "scheduled"),
        ("2026-03-02T09:00:00Z", "cancelled"),
    ]


async def test_messages_outlive_their_user(api: Api) -> None:
    """The messages of a deleted user are found by the user, by their ids, and among all messages."""
    user = await api.create(dateOfBirth="1990-03-02")
    [message] = (await api.get(f"/users/{user['id']}/messages")).json["messages"]
    await api.delete(f"/users/{user['id']}")
    message |= {"status": "cancelled"}
    assert (await api.get(f"/users/{user['id']}/messages")).json["messages"] == [message]
    assert (await api.get(f"/messages/{message['id']}")).json == message
    assert len((await api.get("/messages?status=cancelled")).json["messages"]) == 1


async def test_a_user_without_messages_has_an_empty_list(api: Api) -> None:
    """A user whose birthday is far away has no messages, which is not the same as no user."""
    user = await api.create()
    assert (await api.get(f"/users/{user['id']}/messages")).json == {"messages": [], "nextCursor": None}
    assert (await api.get(f"/users/{UNKNOWN}/messages")).status == 404


async def test_messages_are_listed_newest_first_in_pages(api: Api, pool: asyncpg.Pool) -> None:
    """Following nextCursor gives every message once, newest first, even where many are due at one instant."""
    start = datetime(2026, 1, 1, 9, tzinfo=UTC)
    due = [start + timedelta(hours=number // 4) for number in range(22)]
    ids = await store_messages(pool, *(("delivered", due_at) for due_at in due))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = (await api.get("/messages?limit=4" + (f"&cursor={cursor}" if cursor else ""))).json
        seen += [message["id"] for message in page["messages"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
        # What comes later in time stands before the pages that follow, and must not shift them.
        await store_messages(pool, ("delivered", start + timedelta(days=30)))
    ordered = [message_id for _, message_id in sorted(zip(due, ids, strict=True), reverse=True)]
    assert seen == ordered


async def test_messages_of_a_user_come_in_pages(api: Api) -> None:
    """A user's history is paged like every list."""
    user = await api.create(dateOfBirth="1990-03-01")
    for day in (2, 3, 1):
        api.clock.advance(timedelta(minutes=1))
        await api.patch(f"/users/{user['id']}", json={"dateOfBirth": f"1990-03-{day:02}"})
    path = f"/users/{user['id']}/messages"
    whole = (await api.get(path)).json["messages"]
    first = (await api.get(f"{path}?limit=3")).json
    second = (await api.get(f"{path}?limit=3&cursor={first['nextCursor']}")).json
    assert len(whole) == 4
    assert first["messages"] + second["messages"] == whole
    assert second["nextCursor"] is None


async def test_messages_are_selected_by_status(api: Api, pool: asyncpg.Pool) -> None:
    """``status`` selects one state."""
    due_at = datetime(2026, 3, 1, 9, tzinfo=UTC)
    ids = await store_messages(pool, ("delivered", due_at), ("failed", due_at), ("expired", due_at))
    found = (await api.get("/messages?status=failed")).json["messages"]
    assert [message["id"] for message in found] == [ids[1]]
    assert len((await api.get("/messages")).json["messages"]) == 3


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        ("from=2026-03-02", [2, 3]),
        ("to=2026-03-01", [0, 1]),
        ("from=2026-03-01&to=2026-03-02", [0, 1, 2]),
        ("from=2026-03-02&to=2026-03-02", [2]),
        ("from=2026-03-01T23:59:59.5Z", [1, 2, 3]),
        ("from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z", [2]),
        ("from=2026-03-02t00:00:00z", [2, 3]),
        ("from=2026-03-02T07:00:00%2B07:00", [2, 3]),
        ("from=2026-03-02T07:00:00+07:00", [2, 3]),
        ("from=2026-03-01T19:00:00-05:00", [2, 3]),
        ("from=2026-03-03&to=2026-03-01", []),
        ("to=9999-12-31", [0, 1, 2, 3]),
        ("from=0001-01-01T00:00:00%2B01:00", [0, 1, 2, 3]),
    ],
)
async def test_messages_are_selected_by_time(api: Api, pool: asyncpg.Pool, period: str, expected: list[int]) -> None:
    """``from`` is included and ``to`` is not; a date means all of it; a '+' may be encoded or not."""
    ids = await store_messages(
        pool,
        ("delivered", datetime(2026, 3, 1, 9, tzinfo=UTC)),
        ("delivered", datetime(2026, 3, 1, 23, 59, 59, 500_000, tzinfo=UTC)),
        ("delivered", datetime(2026, 3, 2, tzinfo=UTC)),
        ("delivered", datetime(2026, 3, 3, tzinfo=UTC)),
    )
    found = (await api.get(f"/messages?{period}")).json["messages"]
    assert [message["id"] for message in reversed(found)] == [ids[number] for number in expected]


@pytest.mark.parametrize(
    ("query", "parameter", "accepted"),
    [
        ("status=lost", "status", "scheduled, queued, sending"),
        ("from=yesterday", "from", "2026-03-01"),
        ("from=2026-02-30", "from", "2026-03-01"),
        ("to=2026-03-01T25:00:00Z", "to", "2026-03-01"),
        ("to=2026-03-01T09:00:00", "to", "2026-03-01"),
        ("limit=1000", "limit", "1 to 500"),
        ("cursor=AAAA", "cursor", "nextCursor"),
        ("state=failed", "state", "status, type, errorType, userId, from, to, updatedAfter, limit, cursor"),
    ],
)
async def test_parameters_that_are_not_accepted_are_named(api: Api, query: str, parameter: str, accepted: str) -> None:
    """A wrong parameter is 422 with its name and what is accepted."""
    answer = await api.get(f"/messages?{query}")
    assert (answer.status, answer.pointers) == (422, [parameter])
    assert accepted in answer.json["errors"][0]["detail"]


async def test_an_unknown_message_is_not_found(api: Api) -> None:
    """No such id, or an id that is none, is 404."""
    for path in (f"/messages/{UNKNOWN}", "/messages/1", f"/messages/{{{UNKNOWN}}}"):
        assert (await api.get(path)).status == 404
        assert (await api.post(f"{path}/retry")).status == 404


async def test_a_failed_message_is_queued_again(api: Api, failed: dict[str, Any], pool: asyncpg.Pool) -> None:
    """Retry gives a failed message all its attempts back, publishes it once, and forgets the error."""
    api.clock.advance(timedelta(hours=1))
    answer = await api.post(f"/messages/{failed['id']}/retry")
    assert answer.status == 202
    assert answer.json == failed | {
        "status": "queued",
        "attempts": 0,
        "queuedAt": "2026-03-01T10:00:00Z",
        "updatedAt": "2026-03-01T10:00:00Z",
        "errorType": None,
        "errorDetail": None,
    }
    assert await pool.fetchval("SELECT requeued_at FROM message_logs") == api.clock.now()
    assert [decode_payload(row["body"].encode()) for row in await pool.fetch("SELECT body FROM queue_messages")] == [
        UUID(failed["id"])
    ]
    assert api.metric("messages_queued_total") == 1


async def test_a_message_of_a_deleted_user_can_be_queued_again(api: Api, failed: dict[str, Any]) -> None:
    """Whether a message still makes sense is for the worker to decide when it claims it."""
    await api.delete(f"/users/{failed['userId']}")
    assert (await api.post(f"/messages/{failed['id']}/retry")).status == 202


async def test_only_a_failed_message_can_be_queued_again(api: Api, failed: dict[str, Any], pool: asyncpg.Pool) -> None:
    """Retry of any other state is a conflict that names the state, and publishes nothing."""
    await api.post(f"/messages/{failed['id']}/retry")
    again = await api.post(f"/messages/{failed['id']}/retry")
    assert again.status == 409
    assert "queued" in again.json["detail"]
    assert await pool.fetchval("SELECT count(*) FROM queue_messages") == 1


async def test_without_the_queue_a_message_stays_failed(
    api: Api, failed: dict[str, Any], pool: asyncpg.Pool, database_url: str
) -> None:
    """Retry while the broker is away is 503, and the message is as it was: it can be retried later."""
    closed = await asyncpg.create_pool(database_url, min_size=0, max_size=1)
    await closed.close()
    async with running_api(pool, broker=PostgresBroker(closed), clock=api.clock) as without_queue:
        answer = await without_queue.post(f"/messages/{failed['id']}/retry")
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "queue" in answer.json["detail"]
    assert (await api.get(f"/messages/{failed['id']}")).json == failed
    assert (await api.post(f"/messages/{failed['id']}/retry")).status == 202


@pytest.mark.slow
async def test_a_queue_that_does_not_answer_is_given_up(api: Api, failed: dict[str, Any], pool: asyncpg.Pool) -> None:
    """Retry waits a few seconds for the confirm and no longer; the message stays failed."""
    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE queue_messages")
        answer = await api.post(f"/messages/{failed['id']}/retry")
    assert answer.status == 503
    assert (await api.get(f"/messages/{failed['id']}")).json == failed
    assert await pool.fetchval("SELECT count(*) FROM queue_messages") == 0


async def follow(api: Api, query: str = "") -> AsyncIterator[list[str]]:
    """Yield, for each time that the feed is polled, the ids of the messages that are new."""
    start = "0"
    while True:
        answer = await api.get(f"/messages?updatedAfter={start}&limit=2{query}")
        assert answer.status == 200, answer.body
        start = answer.json["nextCursor"]
        yield [message["id"] for message in answer.json["messages"]]


async def test_the_feed_is_followed_by_its_cursor(api: Api, pool: asyncpg.Pool) -> None:
    """Each outcome comes once, in order of commit; a page always has a cursor, and a Link only if more is there."""
    ids = await store_queued(pool, 5)
    for number, message_id in enumerate(ids):
        status = "failed" if number % 2 else "delivered"
        await finish(pool, [message_id], status, error_type="timeout" if number % 2 else None)
    texts = [str(message_id) for message_id in ids]
    polls = follow(api)
    assert [await anext(polls) for _ in range(4)] == [texts[:2], texts[2:4], texts[4:], []]
    await finish(pool, ids[1:2], "queued")
    await finish(pool, ids[1:2])
    assert [await anext(polls) for _ in range(2)] == [[texts[1]], []]
    first = await api.get("/messages?updatedAfter=&limit=2")
    cursor = first.json["nextCursor"]
    assert first.headers["Link"] == f'</messages?updatedAfter={cursor}&limit=2>; rel="next"'
    last = await api.get("/messages?updatedAfter=0")
    assert "Link" not in last.headers
    for query, expected in {
        "&status=failed": [texts[3]],
        "&errorType=timeout": [texts[3]],
        "&type=work-anniversary": [],
        f"&userId={last.json['messages'][0]['userId']}": [texts[0]],
        "&from=2026-03-02": [],
        "&status=queued": [],
    }.items():
        assert await anext(follow(api, query)) == expected, query


async def test_the_feed_starts_at_a_time(api: Api, pool: asyncpg.Pool) -> None:
    """What was stored at that instant or later, and in the hour before; a date begins at 00:00 UTC."""
    ids = await store_queued(pool, 3)
    for number, message_id in enumerate(ids):
        await finish(pool, [message_id], at=datetime(2026, 3, 1 + number, 9, tzinfo=UTC))
    for start, expected in {"2026-03-02": ids[1:], "2026-03-02T10:00:01Z": ids[2:], "0001-01-01": ids}.items():
        page = (await api.get(f"/messages?updatedAfter={start}")).json
        assert [message["id"] for message in page["messages"]] == [str(one) for one in expected], start
        assert (await api.get(f"/messages?updatedAfter={page['nextCursor']}")).json["messages"] == []


@pytest.mark.parametrize(
    ("query", "parameter", "named"),
    [
        ("updatedAfter=yesterday", "updatedAfter", "nextCursor"),
        ("updatedAfter=0&cursor=" + "A" * 31, "cursor", "updatedAfter"),
        ("errorType=bad", "errorType", "timeout"),
        ("userId=1", "userId", "UUID"),
    ],
)
async def test_a_start_or_filter_that_is_none_is_refused(api: Api, query: str, parameter: str, named: str) -> None:
    """The parameter is named, and what is accepted."""
    answer = await api.get(f"/messages?{query}")
    assert answer.status == 422
    [error] = answer.json["errors"]
    assert error["parameter"] == parameter
    assert named in error["detail"]


async def test_messages_are_listed_by_error_and_by_user(api: Api, pool: asyncpg.Pool) -> None:
    """Newest first, as without; a user need not exist any more."""
    ids = await store_queued(pool, 3)
    await finish(pool, ids[:1], "failed", error_type="timeout")
    await finish(pool, ids[1:2], "failed", error_type="validation_error")
    [timed_out] = (await api.get("/messages?errorType=timeout")).json["messages"]
    assert timed_out["id"] == str(ids[0])
    assert (await api.get(f"/messages?userId={timed_out['userId']}")).json["messages"] == [timed_out]
    assert (await api.get(f"/messages?userId={timed_out['userId']}&status=delivered")).json["messages"] == []

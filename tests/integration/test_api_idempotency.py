"""POST with an Idempotency-Key: carried out once, and answered with the same bytes each time, for a day."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import cast
from uuid import UUID

import asyncpg
import pytest

from birthday.store.idempotency import forget_answers
from tests.support.api import RUNBOOK_USER, Answer, Api, api_keys, running_api
from tests.support.channel import RecordingChannel
from tests.support.clock import NINE_O_CLOCK
from tests.support.dead import bury, store_failed, take_all
from tests.support.product import eventually, is_waiting_for_a_lock

KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
TEMPLATE = "/templates/birthday/default"


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


def alike(answers: list[Answer]) -> Answer:
    """Return the one answer that all are, in status, body, tag and place."""
    kinds = {(one.status, one.body, one.headers.get("ETag"), one.headers.get("Location")) for one in answers}
    assert len(kinds) == 1, kinds
    return answers[0]


def replayed(answers: list[Answer]) -> int:
    """Return how many answers say that they were given before."""
    return sum(answer.headers.get("Idempotent-Replayed") == "true" for answer in answers)


async def test_a_repeat_has_the_first_answer_and_no_effect(api: Api, pool: asyncpg.Pool) -> None:
    """Status, body, tag and place are the same, even after the user has changed; only one user was created."""
    answers = [await api.post("/users", RUNBOOK_USER, KEY)]
    path = alike(answers).headers["Location"]
    assert (await api.patch(path, {"firstName": "Ada"})).status == 200
    answers += [await api.post("/users", RUNBOOK_USER, {"Idempotency-Key": f'"{KEY["Idempotency-Key"]}"'})]
    assert (await api.delete(path)).status == 204
    answers += [await api.post("/users", RUNBOOK_USER, KEY)]
    assert (alike(answers).status, replayed(answers)) == (201, 2)
    assert answers[2].headers["Content-Type"] == answers[0].headers["Content-Type"]
    assert await pool.fetchval("SELECT count(*) FROM users") == 1
    assert api.metric("users_created_total") == 1


async def test_a_hundred_at_a_time_are_one(api: Api, pool: asyncpg.Pool) -> None:
    """All get the answer of the one that was carried out, in two processes, with other requests among them."""
    async with running_api(pool) as other:
        same = [one.post("/users", RUNBOOK_USER, KEY) for one in (api, other) for _ in range(50)]
        others = [
            one.post("/users", RUNBOOK_USER | {"email": f"{number}@{host}"}, {"Idempotency-Key": f"{number}@{host}"})
            for host, one in (("example.com", api), ("example.org", other))
            for number in range(20)
        ]
        answers = await asyncio.gather(*same, *others)
    assert (alike(answers[:100]).status, replayed(answers[:100])) == (201, 99)
    assert Counter(answer.status for answer in answers[100:]) == {201: 40}
    assert await pool.fetchval("SELECT count(*) FROM users") == 41


async def test_a_key_is_for_one_request(api: Api, pool: asyncpg.Pool) -> None:
    """With another body or path it is refused, also if both come at the same time, in two processes."""
    other_body = RUNBOOK_USER | {"email": "other@example.com"}
    async with running_api(pool) as other:
        answers = await asyncio.gather(api.post("/users", RUNBOOK_USER, KEY), other.post("/users", other_body, KEY))
    assert Counter(answer.status for answer in answers) == {201: 1, 422: 1}
    assert (await api.post("/messages/retry", {}, KEY)).status == 422
    assert await pool.fetchval("SELECT count(*) FROM users") == 1


@pytest.mark.parametrize("key", ["", "a" * 256, "schlüssel", '""', "tab\there"])
async def test_a_key_that_is_not_accepted(api: Api, pool: asyncpg.Pool, key: str) -> None:
    """It is refused with what is accepted, and nothing is done."""
    answer = await api.post("/users", RUNBOOK_USER, {"Idempotency-Key": key})
    assert (answer.status, "1 to 255 printable ASCII" in answer.json["detail"]) == (400, True)
    assert await pool.fetchval("SELECT count(*) FROM users") == 0


async def test_a_refusal_is_judged_anew(api: Api) -> None:
    """It had no effect, so the same key may be used again: with a body that is right, or when the address is free."""
    assert (await api.post("/users", RUNBOOK_USER | {"email": "nowhere"}, KEY)).status == 422
    holder = await api.create()
    assert (await api.post("/users", RUNBOOK_USER, KEY)).status == 409
    await api.delete(f"/users/{holder['id']}")
    answer = await api.post("/users", RUNBOOK_USER, KEY)
    assert (answer.status, "Idempotent-Replayed" in answer.headers) == (201, False)


async def test_a_key_lasts_a_day(api: Api) -> None:
    """Up to then a repeat is answered as before, after that it is a new request."""
    first = await api.post("/users", RUNBOOK_USER, KEY)
    await api.delete(first.headers["Location"])
    api.clock.advance(timedelta(hours=24, microseconds=-1))
    assert alike([first, await api.post("/users", RUNBOOK_USER, KEY)]).status == 201
    api.clock.advance(timedelta(microseconds=1))
    again = await api.post("/users", RUNBOOK_USER, KEY)
    assert (again.status, again.json["id"] == first.json["id"]) == (201, False)
    assert alike([again, await api.post("/users", RUNBOOK_USER, KEY)]).status == 201


async def test_clients_do_not_share_keys(pool: asyncpg.Pool) -> None:
    """The same key of another client is another key; a client without the scope gets no stored answer."""
    async with running_api(pool, api_keys=api_keys(ada="write", grace="write", rita="read")) as api:
        answers = {}
        for name in ("ada", "grace", "rita"):
            body = RUNBOOK_USER | {"email": f"{name}@example.com"}
            answers[name] = await api.post("/users", body, KEY | {"X-API-Key": f"key-of-{name}"})
    assert {name: answer.status for name, answer in answers.items()} == {"ada": 201, "grace": 201, "rita": 403}
    assert answers["grace"].json["email"] == "grace@example.com"


async def test_what_is_erased_is_gone_and_not_made_again(api: Api, pool: asyncpg.Pool) -> None:
    """Nothing of the person stays in the stored answer, and a late repeat of the request creates nobody."""
    created = await api.post("/users", RUNBOOK_USER, KEY)
    kept = await api.post("/users", RUNBOOK_USER | {"email": "kept@example.com"}, {"Idempotency-Key": "kept"})
    await api.delete(created.headers["Location"])
    assert await forget_answers(cast("asyncpg.Connection", pool), [UUID(created.json["id"])]) == 1
    [left] = await pool.fetch("SELECT fingerprint, headers, body FROM idempotency_keys WHERE subject_id IS NULL")
    assert tuple(left) == (None, None, None)
    assert (await api.post("/users", RUNBOOK_USER, KEY)).status == 410
    assert (await api.get("/users")).json["users"] == [kept.json]


async def test_what_the_database_decides_is_in_the_stored_answer(api: Api) -> None:
    """A user whose address is on the list of suppressed ones is created suppressed, and so is the repeated answer."""
    first = await api.create(suppressed=True)
    await api.delete(f"/users/{first['id']}")
    answers = [await api.post("/users", RUNBOOK_USER | {"locale": "pt"}, KEY) for _ in range(2)]
    assert (alike(answers).status, answers[0].json["suppressed"], answers[0].json["nextMessageAt"]) == (201, True, None)
    assert (await api.get(answers[0].headers["Location"])).body == answers[0].body


async def test_while_the_first_is_carried_out_a_repeat_waits_and_is_put_off(api: Api, pool: asyncpg.Pool) -> None:
    """After a few seconds it is told to come again, in the same process as in another one; then it gets the answer."""
    [message_id] = await store_failed(pool, 1, NINE_O_CLOCK)
    path = f"/messages/{message_id}/retry"
    async with running_api(pool) as other, pool.acquire() as holder:
        async with holder.transaction():
            await holder.execute("SELECT FROM message_logs FOR UPDATE")
            first = asyncio.create_task(api.post(path, headers=KEY))
            await eventually(lambda: is_waiting_for_a_lock(pool), "the first one waits", 8)
            early = await asyncio.gather(*(one.post(path, headers=KEY) for one in (api, other)))
            assert [(one.status, one.headers["Retry-After"]) for one in early] == [(409, "1")] * 2
        answers = [await first, *[await one.post(path, headers=KEY) for one in (api, other)]]
    assert (alike(answers).status, replayed(answers)) == (202, 2)


async def test_a_message_is_queued_again_once(api: Api, pool: asyncpg.Pool) -> None:
    """A repeated retry, of one message or of many, queues nothing more, though the message may have failed again."""
    ids = await store_failed(pool, 3, NINE_O_CLOCK)
    await bury(api.context.broker, ids)
    async with running_api(pool, broker=api.context.broker) as other:
        for path, body, status in ((f"/messages/{ids[0]}/retry", None, 202), ("/messages/retry", {}, 202)):
            headers = {"Idempotency-Key": path}
            asked = [one.post(path, body, headers) for one in (api, other) for _ in range(5)]
            answers = await asyncio.gather(*asked)
            assert (alike(answers).status, replayed(answers)) == (status, 9)
            await pool.execute("UPDATE message_logs SET status = 'failed' WHERE status = 'queued'")
            answers += [await other.post(path, body, headers)]
            assert (alike(answers).status, replayed(answers)) == (status, 10)
            assert await pool.fetchval("SELECT count(*) FROM message_logs WHERE status = 'queued'") == 0
    # One by itself, then all three.
    assert Counter(await take_all(api.context.broker, 4)) == Counter([*ids, ids[0]])


async def test_a_template_is_activated_once(api: Api) -> None:
    """A late repeat does not undo what somebody has activated since; a failure leaves the key free."""
    for text in ("One", "Two"):
        assert (await api.put(TEMPLATE, {"message": text})).status == 201
    assert (await api.post(f"{TEMPLATE}/activate", {"version": 3}, KEY)).status == 404
    answers = [await api.post(f"{TEMPLATE}/activate", {"version": 1}, KEY)]
    assert (await api.get(TEMPLATE)).json["version"] == 1
    assert (await api.post(f"{TEMPLATE}/activate", {"version": 2})).status == 200
    answers += [await api.post(f"{TEMPLATE}/activate", {"version": 1}, KEY)]
    assert (alike(answers).status, replayed(answers)) == (200, 1)
    assert (await api.get(TEMPLATE)).json["version"] == 2


async def test_a_test_is_sent_once(api: Api, pool: asyncpg.Pool) -> None:
    """Many repeats at the same time, in two processes, send one message; a preview may be repeated as well."""
    async with running_api(pool) as other:
        for path, body in ((f"{TEMPLATE}/test", {"to": "dev@example.com"}), (f"{TEMPLATE}/preview", {})):
            key = {"Idempotency-Key": path}
            answers = await asyncio.gather(*(one.post(path, body, key) for one in (api, other) for _ in range(10)))
            assert (alike(answers).status, replayed(answers)) == (200, 19)
        sent = [cast("RecordingChannel", one.context.channel).sent for one in (api, other)]
    assert sum(map(len, sent)) == 1


async def test_without_a_key_nothing_is_stored(api: Api, pool: asyncpg.Pool) -> None:
    """Requests without the header cost what they did, and are carried out each time."""
    await api.create()
    assert (await api.post("/users", RUNBOOK_USER)).status == 409
    assert await pool.fetchval("SELECT count(*) FROM idempotency_keys") == 0

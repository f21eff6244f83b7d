"""Opt-out over HTTP: suppressions by id, the list, and the pages behind unsubscribe links."""

import re
from datetime import date, timedelta
from uuid import UUID

import asyncpg
import pytest
import structlog

from birthday.store.suppressions import read_links
from birthday.telemetry.metrics import Metrics
from tests.support.api import Api, api_keys, message_rows, running_api
from tests.support.channel import RecordingChannel
from tests.support.product import Product, eventually

RUNBOOK = {"firstName": "A", "email": "test@example.com", "dateOfBirth": "1990-01-01", "timezoneOffset": 0}
BY_KEY = {"Authorization": "Bearer key-of-walter"}
UNKNOWN = "01234567-89ab-7def-8123-456789abcdef"
ONE_CLICK = {"Content-Type": "application/x-www-form-urlencoded"}


async def make_link(pool: asyncpg.Pool, user: dict[str, str]) -> str:
    """Return the path of the link that a greeting to a user would have."""
    async with pool.acquire() as connection:
        links = await read_links(connection)
    return f"/unsubscribe/{links.make_token(UUID(user['id']), user['email'])}"


async def test_a_user_is_suppressed_and_taken_off_the_list(pool: asyncpg.Pool) -> None:
    """PUT cancels what is pending and tells the entry; DELETE schedules it again; both may be repeated."""
    async with running_api(pool, api_keys=api_keys(walter="write")) as api:
        user = (await api.post("/users", RUNBOOK | {"dateOfBirth": "1990-03-01"}, headers=BY_KEY)).json
        path = f"/users/{user['id']}/suppression"
        put = await api.put(path, {"reason": "asked by phone"}, headers=BY_KEY)
        assert put.status == 200
        assert put.json["reason"] == "asked by phone"
        assert put.json["createdBy"] == "api:walter"
        assert (await api.put(path, {}, headers=BY_KEY)).json == put.json
        listed = (await api.get("/suppressions", headers=BY_KEY)).json
        assert listed == {"suppressions": [put.json], "nextCursor": None}
        assert [status for status, _ in await message_rows(pool, user["id"])] == ["cancelled"]
        message = (await api.get(f"/users/{user['id']}/messages", headers=BY_KEY)).json["messages"][0]
        assert (message["status"], message["errorDetail"]) == ("cancelled", "suppressed")
        assert api.metric("suppressions_total", source="api") == 1
        assert api.metric("messages_suppressed_total") == 1
        for _ in range(2):
            assert (await api.delete(path, headers=BY_KEY)).status == 204
        assert [status for status, _ in await message_rows(pool, user["id"])] == ["scheduled"]
        assert (await api.get("/suppressions", headers=BY_KEY)).json["suppressions"] == []


async def test_a_second_reason_is_not_kept_and_the_answer_says_so(pool: asyncpg.Pool) -> None:
    """Whoever is suppressed already keeps the first reason: the answer has it, and X-Unchanged."""
    async with running_api(pool) as api:
        path = f"/users/{(await api.create())['id']}/suppression"
        first = await api.put(path, {"reason": "asked by phone"})
        second = await api.put(path, {"reason": "asked again"})
        assert (second.json, second.headers["X-Unchanged"]) == (first.json, "true")
        assert "X-Unchanged" not in first.headers


async def test_the_list_has_pages(pool: asyncpg.Pool) -> None:
    """Each entry is on one page, newest first, also those of the same instant."""
    async with running_api(pool) as api:
        for number in range(5):
            user = await api.create(email=f"{number}@example.com")
            await api.put(f"/users/{user['id']}/suppression", {"reason": str(number)})
            api.clock.advance(timedelta(seconds=number % 2))
        seen: list[str] = []
        cursor = ""
        while True:
            page = (await api.get(f"/suppressions?limit=2{cursor}")).json
            seen += [entry["reason"] for entry in page["suppressions"]]
            if page["nextCursor"] is None:
                break
            cursor = f"&cursor={page['nextCursor']}"
        assert sorted(seen) == ["0", "1", "2", "3", "4"]
        assert seen[0] == "4"


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ([], [""]),
        ({"reason": 1}, ["/reason"]),
        ({"reason": " "}, ["/reason"]),
        ({"reason": "a\nb"}, ["/reason"]),
        ({"reason": "x" * 201}, ["/reason"]),
        ({"why": "x", "reason": ""}, ["/why", "/reason"]),
    ],
)
async def test_a_wrong_reason_is_refused(pool: asyncpg.Pool, body: object, pointers: list[str]) -> None:
    """One line of text is accepted."""
    async with running_api(pool) as api:
        user = await api.create()
        answer = await api.put(f"/users/{user['id']}/suppression", body)
        assert (answer.status, answer.pointers) == (422, pointers)


async def test_nobody_is_suppressed_by_an_unknown_id(pool: asyncpg.Pool) -> None:
    """404 for both methods."""
    async with running_api(pool) as api:
        assert (await api.put(f"/users/{UNKNOWN}/suppression", {})).status == 404
        assert (await api.delete(f"/users/{UNKNOWN}/suppression")).status == 404


async def test_a_link_asks_and_one_post_unsubscribes(pool: asyncpg.Pool) -> None:
    """GET and HEAD change nothing, POST does it at once and may be repeated; the log has no address and no token."""
    with structlog.testing.capture_logs() as events:
        async with running_api(pool) as api:
            user = await api.create(dateOfBirth="1990-03-01")
            link = await make_link(pool, user)
            page = await api.get(link)
            assert page.status == (await api.request("HEAD", link)).status == 200
            assert b"<form" in page.body
            assert [status for status, _ in await message_rows(pool, user["id"])] == ["scheduled"]
            for _ in range(2):
                done = await api.request("POST", link, data=b"List-Unsubscribe=One-Click", headers=ONE_CLICK)
                assert done.status == 200
                assert b"You are unsubscribed" in done.body
            assert [status for status, _ in await message_rows(pool, user["id"])] == ["cancelled"]
            assert api.metric("suppressions_total", source="link") == 1
            assert api.metric("messages_suppressed_total") == 1
            [entry] = (await api.get("/suppressions")).json["suppressions"]
            assert (entry["createdBy"], entry["reason"]) == ("link", "unsubscribed by a link")
    told = repr(events)
    assert "user.unsubscribed" in told
    assert link.rpartition("/")[2] not in told
    assert "@" not in told


async def test_a_page_runs_nothing_and_is_framed_by_nobody(pool: asyncpg.Pool) -> None:
    """The policy allows the style that is there and a form to ourselves; the address of the page goes nowhere."""
    async with running_api(pool) as api:
        page = await api.get(await make_link(pool, await api.create()))
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script" not in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    text = page.body.decode()
    assert not re.search(r"<script|\son\w+=|https?://|@", text)
    assert 'name="viewport"' in text


@pytest.mark.parametrize("host", ["mail.example.com", "localhost"])
async def test_neither_keys_nor_rate_nor_origin_stand_in_the_way(pool: asyncpg.Pool, host: str) -> None:
    """A mail provider has no key and another origin, and posts as often as it likes."""
    async with running_api(pool, api_keys=api_keys(walter="write"), rate_limit="1/s") as api:
        user = (await api.post("/users", RUNBOOK, headers=BY_KEY)).json
        link = await make_link(pool, user)
        headers = {"Host": host, "Origin": "https://mail.example.com", "Sec-Fetch-Site": "cross-site"}
        for _ in range(5):
            answer = await api.request("POST", link, data=b"List-Unsubscribe=One-Click", headers=ONE_CLICK | headers)
            assert answer.status == 200
            assert "Set-Cookie" not in answer.headers
    assert await pool.fetchval("SELECT suppressed FROM users")


async def test_without_keys_links_are_answered_under_any_name(pool: asyncpg.Pool) -> None:
    """The resources answer to this machine only; the pages are for the world."""
    async with running_api(pool) as api:
        link = await make_link(pool, await api.create())
        assert (await api.get("/users", headers={"Host": "api.example.com"})).status == 403
        assert (await api.get(link, headers={"Host": "api.example.com"})).status == 200


async def test_a_multipart_body_is_one_click_as_well(pool: asyncpg.Pool) -> None:
    """RFC 8058 allows both forms."""
    async with running_api(pool) as api:
        link = await make_link(pool, await api.create())
        body = b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        assert (await api.request("POST", link, data=body, headers=headers)).status == 200
    assert await pool.fetchval("SELECT suppressed FROM users")


async def tokens_of_others(api: Api, pool: asyncpg.Pool) -> list[str]:
    """Return links that this installation must refuse: another's, a changed one, a cut one."""
    user = await api.create()
    link = await make_link(pool, user)
    await pool.execute("UPDATE secrets SET value = sha256('another') WHERE name = 'unsubscribe_key'")
    return [
        link,
        f"{link[:-1]}{'A' if link[-1] != 'A' else 'B'}",
        link[:-1],
        f"/unsubscribe/{'z' * 80}",
        "/unsubscribe/%3Cb%3E",
    ]


async def test_a_wrong_token_is_a_page_that_does_nothing(pool: asyncpg.Pool) -> None:
    """Nothing of the token is repeated, and nobody is suppressed."""
    async with running_api(pool) as api:
        for link in await tokens_of_others(api, pool):
            for method in ("GET", "POST"):
                answer = await api.request(method, link)
                assert answer.status == 404
                assert answer.headers["Content-Type"].startswith("text/html")
                assert link.rpartition("/")[2].encode() not in answer.body
    assert await pool.fetchval("SELECT count(*) FROM suppressions") == 0


async def test_other_methods_are_refused(pool: asyncpg.Pool) -> None:
    """A link can be read and posted to."""
    async with running_api(pool) as api:
        assert (await api.put(await make_link(pool, await api.create()), {})).status == 405


async def test_the_link_of_a_delivered_greeting_stops_what_is_queued(pool: asyncpg.Pool) -> None:
    """Send, take the link out of the greeting, post it: nothing more goes out, and what was queued ends cancelled."""
    async with running_api(pool) as api, pool.acquire() as connection:
        links = await read_links(connection)
        product = Product(pool, api.context.broker, api.clock, Metrics(), links=links)
        user_id = await product.create(date(1990, 3, 1))
        await product.dispatcher.dispatch_once(api.clock.now())
        channel = RecordingChannel(api.clock)
        async with product.working(channel):
            await product.wait_for_statuses({"delivered": 1})
        url = channel.sent[0].greeting.unsubscribe_url
        assert url is not None
        assert url.startswith("https://example.com/greetings/unsubscribe/")
        # A year later the next one is queued when the link of the first is used.
        api.clock.advance(timedelta(days=365))
        await product.planner.plan_once(api.clock.now())
        await product.dispatcher.dispatch_once(api.clock.now())
        assert await product.statuses() == {"delivered": 1, "queued": 1}
        path = url.removeprefix("https://example.com/greetings")
        answer = await api.request("POST", path, data=b"List-Unsubscribe=One-Click", headers=ONE_CLICK)
        assert answer.status == 200
        async with product.working(channel):
            await eventually(lambda: queue_is_empty(product), "the queue is empty")
        assert len(channel.sent) == 1
        assert await product.statuses() == {"delivered": 1, "cancelled": 1}
        message = (await api.get(f"/users/{user_id}/messages?limit=1")).json["messages"][0]
        assert message["errorDetail"] == "suppressed"


async def queue_is_empty(product: Product) -> bool:
    """Say whether nothing waits in the queue or is held by a worker."""
    stats = await product.broker.stats()
    return stats.ready == stats.unacked == 0

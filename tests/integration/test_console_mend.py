"""What mends in the console: failures and dead letters, by whom, and what becomes of them."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from birthday.config import Scope
from birthday.core.message import ErrorType
from birthday.http.console.charts import Bar, bar_chart
from birthday.operations.keys import create_key
from birthday.store.changes import Actor, ChangeFilter, Recorded, list_changes, record_changes
from birthday.store.processes import Process, report
from tests.support.api import RUNBOOK_USER, Api, api_keys, running_api
from tests.support.clock import NINE_O_CLOCK
from tests.support.console import Browser, browsing
from tests.support.dead import bury, dead_ids, store_failed

KEYS = api_keys(rita="read", walter="write", ada="admin", grace="admin")
EVIL = "<script>alert(1)</script>"
FAILURES = "/console/failures"
ACTIVITY = "/console/activity"
AUDIT = "/console/audit"
SETTINGS = "/console/settings"
KEY_PAGE = "/console/settings/keys"
TYPES = r'<code class="id" title="(type-[0-9]+)"'
"""Finds what was changed in the list of changes."""


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """A console with a key of each scope, and two of admins."""
    async with running_api(pool, api_keys=KEYS) as api:
        yield api


@pytest.fixture
async def browser(api: Api) -> AsyncIterator[Browser]:
    """An admin's browser."""
    async with browsing(api, "key-of-ada") as browser:
        yield browser


async def store(
    api: Api,
    count: int,
    detail: str,
    *,
    error_type: ErrorType = ErrorType.PERMANENT_FAILURE,
    ago: timedelta = timedelta(hours=1),
) -> list[UUID]:
    """Store messages that failed for one reason, with their dead letters."""
    pool = api.context.pool
    ids = await store_failed(pool, count, api.clock.now() - ago, error_type)
    await pool.execute("UPDATE message_logs SET error_detail = $2 WHERE id = ANY($1::uuid[])", ids, detail)
    await bury(api.context.broker, ids)
    return ids


async def recorded(api: Api, action: str) -> list[Recorded]:
    """Return the changes with an action, newest first."""
    async with api.context.pool.acquire() as connection:
        found = await list_changes(connection, ChangeFilter(), None, 500)
    return [one for one in found if one.change.action == action]


async def statuses(api: Api) -> dict[str, int]:
    """Count the messages by status."""
    rows = await api.context.pool.fetch("SELECT status, count(*) AS number FROM message_logs GROUP BY status")
    return {row["status"]: row["number"] for row in rows}


async def test_failures_are_counted_by_cause_and_narrowed_by_the_address(api: Api, browser: Browser) -> None:
    """Each cause has its number, what was answered, since when, and a link to its messages only."""
    assert "Nothing has failed" in (await browser.get(FAILURES)).text
    await store(api, 3, "the message service answered 401 Unauthorized")
    await store(api, 2, "the message service did not answer within 10 s", error_type=ErrorType.TIMEOUT)
    shown = await browser.get(FAILURES)
    assert (shown.status, "5 messages failed" in shown.text) == (200, True)
    numbers = re.findall(r'<td class="n">([\d,]+)</td>\n<td><a href="([^"]+)">([^<]+)</a>', shown.text)
    assert [(number, text) for number, _, text in numbers] == [
        ("3", "the message service answered 401 Unauthorized"),
        ("2", "the message service did not answer within 10 s"),
    ]
    narrowed = await browser.get(numbers[0][1].replace("&amp;", "&"))
    assert "3 messages match" in narrowed.text
    assert "did not answer" not in narrowed.text
    for query, expected in (("status=401", 3), ("error=timeout", 2), ("type=birthday&newer=2h", 5), ("older=2h", 0)):
        text = (await browser.get(f"{FAILURES}?{query}")).text
        assert (f"{expected} messages match" in text) == (expected > 0), query
    assert re.search(r'role="img" aria-label="2026-03-01 08:00 UTC: 5 failed"', shown.text)


async def test_each_failure_names_its_user(api: Api, browser: Browser) -> None:
    """To who may write in full, which is recorded; to readers by initials. Of a deleted user there is no name."""
    await store(api, 1, "refused")
    assert ">Ada Lovelace</a>" in (await browser.get(FAILURES)).text
    assert len(await recorded(api, "viewed")) == 1
    async with browsing(api, "key-of-rita") as reader:
        page = (await reader.get(FAILURES)).text
    assert ">A… L…</a>" in page
    assert "Lovelace" not in page
    await api.context.pool.execute("UPDATE users SET deleted_at = now()")
    assert ">deleted user</a>" in (await browser.get(FAILURES)).text


async def test_pages_follow_one_another(api: Api, browser: Browser) -> None:
    """More than a page of messages: each is on one page."""
    await store(api, 60, "refused")
    first = await browser.get(FAILURES)
    following = re.search(r'href="([^"]+)" rel="next"', first.text)
    assert following
    second = await browser.get(following[1].replace("&amp;", "&"))
    ids = re.findall(r'title="([0-9a-f-]{36})"', first.text + second.text)
    assert (len(ids), len(set(ids))) == (60, 60)


@pytest.mark.parametrize(
    "query", ["status=abc", "error=nonsense", "user=1", "newer=soon", "detail=%00", "after=x", "until=x"]
)
async def test_a_field_that_is_not_accepted_is_named(browser: Browser, query: str) -> None:
    """The page says which field, and what is accepted."""
    shown = await browser.get(f"{FAILURES}?{query}")
    assert (shown.status, "accepted" in shown.text or "next page" in shown.text) == (422, True)
    assert f"{query.partition('=')[0].capitalize()}: " in shown.text


@pytest.mark.parametrize("name", ["rita", "walter"])
async def test_who_is_no_admin_sees_no_button_and_changes_nothing(api: Api, name: str) -> None:
    """Reading is allowed; each change and the archive are refused."""
    [failed] = await store(api, 1, "refused")
    async with browsing(api, f"key-of-{name}") as browser:
        shown = await browser.get(FAILURES)
        letters = await browser.get(f"{FAILURES}/letters")
        for text in (shown.text, letters.text):
            assert re.findall(r"<button[^>]*>([^<]*)", text) in (["Sign out", "Show", "Close"], ["Sign out", "Close"])
        for change in ("requeue", "drop"):
            assert (await browser.post(f"{FAILURES}/{change}", {"confirmed": "yes"})).status == 403
        for path in ("archive", "archive.ndjson"):
            assert (await browser.get(f"{FAILURES}/{path}")).status == 403
    assert await statuses(api) == {"failed": 1}
    assert await dead_ids(api.context.broker) == [failed]


async def test_all_that_match_are_sent_again(api: Api, browser: Browser) -> None:
    """The number comes first; afterwards the list tells the result, and the record who did it. Others stay."""
    ids = await store(api, 3, "the message service answered 401 Unauthorized")
    await store(api, 1, "refused")
    asked = await browser.post(f"{FAILURES}/requeue", {"status": "401"})
    assert "Send 3 failed messages again?" in asked.text
    assert await statuses(api) == {"failed": 4}
    api.clock.advance(timedelta(minutes=5))
    done = await browser.post(f"{FAILURES}/requeue", {**hidden(asked.text), "confirmed": "yes"})
    assert "3 of 3 messages queued again." in done.text
    assert await statuses(api) == {"failed": 1, "queued": 3}
    assert {one.change.entity_id for one in await recorded(api, "retried")} == set(map(str, ids))
    assert {one.change.actor for one in await recorded(api, "retried")} == {"console:ada"}
    assert len(await dead_ids(api.context.broker)) == 1
    [to] = re.findall(r'<a href="([^"]+done=[^"]+)">', done.text)
    assert "3 of 3 messages queued again." in (await browser.get(to.replace("&amp;", "&"))).text
    assert api.metric("messages_queued_total") == 3


async def test_what_fails_after_the_question_is_not_concerned(api: Api, browser: Browser) -> None:
    """The visitor has confirmed a number, and no more than that is sent."""
    await store(api, 1, "refused")
    asked = await browser.post(f"{FAILURES}/requeue")
    api.clock.advance(timedelta(minutes=5))
    await store(api, 5, "refused", ago=timedelta(minutes=1))
    done = await browser.post(f"{FAILURES}/requeue", {**hidden(asked.text), "confirmed": "yes"})
    assert "1 of 1 message queued again." in done.text
    assert await statuses(api) == {"failed": 5, "queued": 1}


async def test_one_message_is_sent_again(api: Api, browser: Browser) -> None:
    """By the button of its row: it and its dead letter only. If somebody was faster, the page says what it is now."""
    [one, other] = await store(api, 2, "refused")
    [path] = re.findall(rf'action="([^"]*{one}[^"]*)"', (await browser.get(FAILURES)).text)
    done = await browser.confirm(path)
    assert (done.status, "in the queue again" in done.text) == (200, True)
    assert await dead_ids(api.context.broker) == [other]
    late = await browser.post(path, {"confirmed": "yes"})
    assert (late.status, f"Message {one} is queued" in late.text) == (409, True)
    asked = await browser.post(f"{FAILURES}/requeue", {"id": str(one)})
    assert "somebody has sent them again" in asked.text


async def test_one_drops_what_another_has_sent_again(api: Api, browser: Browser) -> None:
    """Two operators have the same list open: each is told what has become of it, and nothing is lost."""
    ids = await store(api, 3, "refused")
    async with browsing(api, "key-of-grace") as other:
        asked = await other.post(f"{FAILURES}/drop")
        assert "Drop the dead letters of 3 failed messages?" in asked.text
        await browser.confirm(f"{FAILURES}/requeue", {"id": str(ids[0])})
        await api.context.pool.execute("UPDATE message_logs SET status = 'queued' WHERE id = $1", ids[1])
        done = await other.post(f"{FAILURES}/drop", {**hidden(asked.text), "confirmed": "yes"})
        assert "1 dead letter dropped, 1 of messages, which stay failed." in done.text
        assert "1 more are gone" in done.text
        again = await other.post(f"{FAILURES}/requeue")
        assert "Send 1 failed message again?" in again.text
        await browser.confirm(f"{FAILURES}/requeue")
        late = await other.post(f"{FAILURES}/requeue", {**hidden(again.text), "confirmed": "yes"})
        assert "0 of 0 messages queued again." in late.text
    [dropped] = await recorded(api, "dropped")
    assert (dropped.change.actor, dropped.change.entity_id) == ("console:grace", str(ids[2]))
    assert await statuses(api) == {"queued": 3}


async def test_an_archive_is_downloaded_and_then_dropped(api: Api, browser: Browser) -> None:
    """The file has each letter with the row of its message; what is not meant by the page stays in the queue."""
    await store(api, 2, "refused")
    other = await store(api, 1, "did not answer", error_type=ErrorType.TIMEOUT)
    shown = await browser.get(f"{FAILURES}/archive?detail=refused")
    [download] = re.findall(r'href="([^"]+archive.ndjson[^"]+)"', shown.text)
    file = await browser.get(download.replace("&amp;", "&"))
    assert file.headers["Content-Disposition"].endswith('.ndjson"')
    assert [orjson.loads(line)["row"]["error_detail"] for line in file.text.splitlines()] == ["refused"] * 2
    assert len(await dead_ids(api.context.broker)) == 3
    await browser.confirm(f"{FAILURES}/drop", hidden(shown.text))
    assert await dead_ids(api.context.broker) == other


async def test_scripts_in_errors_and_dead_letters_never_run(api: Api, browser: Browser) -> None:
    """Whatever somebody publishes by hand or a service answers is shown as text; a read key does not see payloads."""
    await store(api, 1, EVIL)
    await api.context.pool.execute(
        "INSERT INTO queue_messages (body, dead_at) VALUES ($1, $2)", EVIL, api.clock.now() - timedelta(hours=1)
    )
    query = "detail=%3Cscript%3E&type=%22%3E%3Cscript%3E&user="
    for path in (FAILURES, f"{FAILURES}?{query}", f"{FAILURES}/letters", f"{FAILURES}/archive?{query}"):
        shown = await browser.get(path)
        assert (shown.status, "<script>" in shown.text.replace("<script src=", "")) == (200, False), path
    assert "<script>" not in (await browser.post(f"{FAILURES}/requeue", {"detail": "<script>"})).text
    assert "&lt;script&gt;alert(1)" in (await browser.get(f"{FAILURES}/letters")).text
    async with browsing(api, "key-of-rita") as reader:
        assert "alert(1)" not in (await reader.get(f"{FAILURES}/letters")).text


async def test_a_change_is_shown_with_who_when_from_where_and_what_it_was(api: Api, browser: Browser) -> None:
    """Values before and after are text, whatever they are; that the admin has seen them is recorded, without them."""
    by_key = {"Authorization": "Bearer key-of-walter"}
    made = await api.post("/users", RUNBOOK_USER | {"lastName": EVIL}, by_key)
    user_id = made.json["id"]
    api.clock.advance(timedelta(seconds=1))
    await api.patch(f"/users/{user_id}", {"lastName": "King", "attributes": {"team": "<b>"}}, by_key)
    shown = await browser.get(f"{ACTIVITY}?id={user_id}")
    assert shown.text.count("changed user") == 1
    for part in ("walter", "API", "<del>&lt;script&gt;alert(1)&lt;/script&gt;</del> <ins>King</ins>", "team"):
        assert part in shown.text, part
    assert "<script>" not in shown.text.replace("<script src=", "")
    assert shown.text.index("changed user") < shown.text.index("created user")
    [viewed] = await recorded(api, "viewed")
    assert (viewed.change.actor, viewed.change.entity_id, viewed.change.after) == ("console:ada", user_id, None)
    assert "viewed user" not in (await browser.get(ACTIVITY)).text
    assert "viewed user" in (await browser.get(f"{ACTIVITY}?views=yes")).text


async def test_changes_are_found_by_kind_actor_and_day(api: Api, browser: Browser) -> None:
    """All filters stand in the address, and what they exclude is not shown."""
    async with api.context.pool.acquire() as connection:
        for number, actor in enumerate(("cli:root@db1", "console:ada", "api:shop", "link")):
            change = Actor(actor).change("paused", "pause", f"type-{number}", {"paused": False}, {"paused": True})
            await record_changes(connection, [change], NINE_O_CLOCK - timedelta(days=number))
    everything = await browser.get(ACTIVITY)
    assert re.findall(TYPES, everything.text) == [
        "type-0",
        "type-1",
        "type-2",
        "type-3",
    ]
    for part in ("root", "command line on db1", "shop", "link in a message"):
        assert part in everything.text, part
    for query, expected in (
        ("actor=console:ada", ["type-1"]),
        ("id=type-2", ["type-2"]),
        ("entity=pause&from=2026-02-28", ["type-0", "type-1"]),
        ("to=2026-02-27", ["type-2", "type-3"]),
        ("entity=key", []),
    ):
        text = (await browser.get(f"{ACTIVITY}?{query}")).text
        assert re.findall(TYPES, text) == expected, query
    for query in ("entity=nothing", "from=soon", "before=x", "actor=%00"):
        assert (await browser.get(f"{ACTIVITY}?{query}")).status == 422


async def test_changes_come_in_pages(api: Api, browser: Browser) -> None:
    """Each change is on one page, the newest on the first."""
    changes = [Actor("tester").change("paused", "pause", f"type-{number}") for number in range(70)]
    async with api.context.pool.acquire() as connection:
        await record_changes(connection, changes, NINE_O_CLOCK)
    first = await browser.get(f"{ACTIVITY}?actor=tester")
    following = re.search(r'href="([^"]+)" rel="next"', first.text)
    assert following
    second = await browser.get(following[1].replace("&amp;", "&"))
    names = re.findall(TYPES, first.text + second.text)
    assert names == [f"type-{number}" for number in reversed(range(70))]


@pytest.mark.parametrize("name", ["rita", "walter"])
async def test_only_admins_see_who_changed_what(api: Api, name: str) -> None:
    """The record has personal data, and who works here."""
    async with browsing(api, f"key-of-{name}") as browser:
        assert (await browser.get(ACTIVITY)).status == 403


async def test_an_audit_shows_a_planted_loss_in_red_with_its_user(api: Api, browser: Browser) -> None:
    """By day, with a word beside the colour; without a loss it says that all is well."""
    api.clock.advance(timedelta(days=-5))
    person = RUNBOOK_USER | {"dateOfBirth": "1990-02-25"}
    user = (await api.post("/users", person, {"Authorization": "Bearer key-of-walter"})).json
    api.clock.advance(timedelta(days=5))
    pool = api.context.pool
    await pool.execute(
        "UPDATE message_logs SET status = 'delivered', delivered_at = scheduled_at, sent_at = scheduled_at"
    )
    asked = await browser.get(AUDIT)
    assert re.findall(r'name="(?:from|to)" value="([^"]+)"', asked.text) == ["2026-02-23", "2026-03-01"]
    assert "By day" not in asked.text
    well = await browser.get(f"{AUDIT}?from=2026-02-23&to=2026-03-01")
    assert "Nobody was lost" in well.text
    assert '<th scope="row">2026-02-25</th><td class="n">1</td><td class="n">1</td>' in well.text
    await pool.execute("DELETE FROM message_logs")
    await pool.execute("UPDATE users SET greeted_year = 0")
    lost = await browser.get(f"{AUDIT}?from=2026-02-23&to=2026-03-01")
    assert '<span class="state bad">1 missing</span>' in lost.text
    assert f'<a href="/console/users/{user["id"]}"' in lost.text
    assert "1 missing, 0 duplicate, 0 at the wrong time" in lost.text
    async with browsing(api, "key-of-rita") as reader:
        assert "1 missing" in (await reader.get(f"{AUDIT}?from=2026-02-25")).text


@pytest.mark.parametrize("query", ["from=soon", "from=2026-03-02&to=2026-03-01", "from=2025-01-01&to=2026-03-01"])
async def test_days_that_cannot_be_audited_are_refused(browser: Browser, query: str) -> None:
    """With what is accepted; a long range is for the command."""
    assert (await browser.get(f"{AUDIT}?{query}")).status == 422


async def test_settings_show_what_differs_and_no_secret(pool: asyncpg.Pool) -> None:
    """Each setting with its default and meaning, for every scope; secrets and hashes of keys are masked."""
    running = running_api(
        pool,
        api_keys=KEYS,
        message_service_url="https://example.com",
        message_service_api_key="sk-verysecret",
        http_proxy="http://proxy:topsecret@example.com:3128",
        send_at="08:30",
        retention_days="90",
    )
    async with running as api, browsing(api, "key-of-rita") as browser:
        shown = await browser.get(SETTINGS)
        for secret in ("topsecret", "sk-verysecret", *re.findall("[0-9a-f]{64}", KEYS)):
            assert secret not in shown.text
        differs, others = shown.text.split("Settings at their default")
        for variable, part in (("SEND_AT", differs), ("API_KEYS", differs), ("RETENTION_DAYS", others)):
            assert f"<code>{variable}</code></th>" in part, variable
        assert f"PostgreSQL {(await pool.fetchval('SHOW server_version')).split('.')[0]}." in shown.text
        applied = await pool.fetchval("SELECT count(*) FROM schema_migrations")
        assert f"{applied} of {applied} applied" in shown.text
        assert "API keys" not in shown.text
        assert (await browser.get(KEY_PAGE)).status == 403


async def test_processes_are_compared(api: Api, browser: Browser) -> None:
    """Who runs with which version, time-zone data and settings, and where they differ; names are text."""
    async with api.context.pool.acquire() as connection:
        for number, send_at in enumerate(("09:00", "10:00")):
            process = Process(
                *(uuid4(), EVIL, number, "worker", f"1.{number}", "abc", f"2026{'ab'[number]}", {"SEND_AT": send_at}),
                NINE_O_CLOCK,
                "open",
                EVIL,
            )
            await report(connection, process)
    text = (await browser.get(SETTINGS)).text
    for part in ("Versions differ", "1.0 (abc), 1.1 (abc)", "Time-zone data differ", "SEND_AT differs", "09:00, 10:00"):
        assert part in text, part
    assert "<script>" not in text.replace("<script src=", "")


async def test_a_key_is_made_and_shown_once(api: Api, browser: Browser) -> None:
    """After a question; a reload makes no second one, and no other page has it."""
    fields = {"name": "shop", "scope": "write", "expires": "2026-12-31"}
    made = await browser.confirm(KEY_PAGE, fields)
    [secret] = re.findall(r"bday_[0-9a-f]{8}_[0-9a-f]{64}", made.text)
    assert made.headers["Cache-Control"] == "no-store"
    again = await browser.post(KEY_PAGE, {**fields, "confirmed": "yes"})
    assert (again.status, "rotate it" in again.text) == (409, True)
    await api.context.keys.refresh()
    found = api.context.keys.find(secret)
    assert found is not None
    assert (found.name, found.scope, found.stored and found.stored.created_by) == ("shop", "write", "console:ada")
    for path in (KEY_PAGE, ACTIVITY, SETTINGS):
        shown = await browser.get(path)
        assert secret not in shown.text, path
        assert secret.rpartition("_")[2] not in shown.text, path
    assert "2027-01-01 00:00:00 UTC" in (await browser.get(KEY_PAGE)).text
    [change] = await recorded(api, "created")
    assert change.change.actor == "console:ada"


async def test_a_key_is_rotated_once_and_revoked(api: Api, browser: Browser) -> None:
    """The older one works until the overlap is over; a reload does not rotate the new one away."""
    new = await create_key(api.context.pool, "shop", Scope.READ, api.clock.now(), Actor("tester"))
    path = f"{KEY_PAGE}/{new.stored.id}"
    assert "works for 2h more" in (await browser.post(f"{path}/rotate", {"overlap": "2h"})).text
    assert (await browser.post(f"{path}/rotate", {"overlap": "91d"})).status == 422
    rotated = await browser.confirm(f"{path}/rotate", {"overlap": "2h"})
    [later] = re.findall(r"bday_([0-9a-f]{8})_[0-9a-f]{64}", rotated.text)
    again = await browser.post(f"{path}/rotate", {"overlap": "2h", "confirmed": "yes"})
    assert (again.status, "rotated already" in again.text) == (409, True)
    await api.context.keys.refresh()
    old = api.context.keys.find(new.secret)
    assert old is not None
    assert [old.works(api.clock.now() + timedelta(hours=hours)) for hours in (1, 3)] == [True, False]
    done = await browser.confirm(f"{KEY_PAGE}/{later}/revoke")
    assert f"The key {later} of shop is revoked" in done.text
    for gone in (later, "nonsense", "%3Cscript%3E"):
        shown = await browser.post(f"{KEY_PAGE}/{gone}/revoke", {"confirmed": "yes"})
        assert (shown.status, "<script>" in shown.text) == (404, False), gone


@pytest.mark.parametrize(
    "fields",
    [
        {"name": EVIL, "scope": "read", "confirmed": "yes"},
        {"name": "shop", "scope": "root"},
        {"name": "shop"},
        {"scope": "read"},
        {"name": "shop", "scope": "read", "expires": "soon"},
        {"name": "shop", "scope": "read", "expires": "2020-01-01", "confirmed": "yes"},
    ],
)
async def test_a_key_that_is_not_accepted_is_not_made(api: Api, browser: Browser, fields: dict[str, str]) -> None:
    """The page says what is accepted."""
    shown = await browser.post(KEY_PAGE, fields)
    assert (shown.status, "<script>" in shown.text.replace("<script src=", "")) == (422, False)
    assert await api.context.pool.fetchval("SELECT count(*) FROM api_keys") == 0


@pytest.mark.parametrize("name", ["rita", "walter"])
async def test_only_admins_manage_keys(api: Api, name: str) -> None:
    """Neither by a page nor by a request."""
    async with browsing(api, f"key-of-{name}") as browser:
        assert (await browser.get(KEY_PAGE)).status == 403
        for path in (KEY_PAGE, f"{KEY_PAGE}/00000000/rotate", f"{KEY_PAGE}/00000000/revoke"):
            assert (await browser.post(path, {"name": "x", "scope": "admin", "confirmed": "yes"})).status == 403
    assert await api.context.pool.fetchval("SELECT count(*) FROM api_keys") == 0


async def test_without_a_key_none_can_be_made(pool: asyncpg.Pool) -> None:
    """Whoever merely reaches the port must not keep others out: the command makes the first one."""
    async with running_api(pool) as api, browsing(api) as browser:
        assert "birthday keys create" in (await browser.get(KEY_PAGE)).text
        shown = await browser.post(KEY_PAGE, {"name": "shop", "scope": "admin", "confirmed": "yes"})
        assert (shown.status, "birthday keys create" in shown.text) == (403, True)


def test_bars_stand_side_by_side_and_the_smallest_is_seen() -> None:
    """One of a million still has a height, none has none, and each tells its number."""
    chart = bar_chart("numbers", [Bar(1_000_000, "a"), Bar(1, "b"), Bar(0, "c")])
    assert [bar.height >= 1 for bar in chart.bars] == [True, True, False]
    assert all(left.x + left.width <= right.x for left, right in zip(chart.bars, chart.bars[1:], strict=False))
    assert all(bar.y + bar.height == chart.ground for bar in chart.bars)


def hidden(text: str) -> dict[str, str]:
    """Return the hidden fields of the only form in the content of a page."""
    content = text[text.index("<main") : text.index("</main>")]
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', content))

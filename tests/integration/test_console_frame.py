"""The frame of the console: who may see it, what protects it, and how it tells errors and results."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from birthday.config import Scope
from birthday.operations.keys import create_key, revoke_key
from birthday.store.changes import Actor
from tests.support.api import Api, api_keys, running_api
from tests.support.console import Browser, add_ada, browsing

KEYS = api_keys(rita="read", walter="write", ada="admin")
US = Actor("cli:test")


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """A console with a key of each scope."""
    async with running_api(pool, api_keys=KEYS) as api:
        yield api


@pytest.fixture
async def browser(api: Api) -> AsyncIterator[Browser]:
    """A browser that has not signed in."""
    async with browsing(api) as browser:
        yield browser


async def test_without_any_key_the_console_opens_at_once_on_this_machine_only(pool: asyncpg.Pool) -> None:
    """A page that has its name lead to this machine (DNS rebinding) gets nothing."""
    async with running_api(pool) as api, browsing(api) as browser:
        shown = await browser.get("/")
        assert (shown.status, shown.path) == (200, "/console")
        assert "No key needed here" in shown.text
        foreign = await browser.get("/console", {"Host": "evil.example.com"})
        assert (foreign.status, "localhost only" in foreign.text) == (403, True)
        assert "Processes" not in foreign.text


async def test_who_signs_in_comes_back_to_the_page_that_asked(browser: Browser) -> None:
    """With the name and scope of the key on each page, and never the key."""
    asked = await browser.get("/console/nowhere?x=1")
    assert asked.path == "/console/sign-in?next=/console/nowhere?x%3D1"
    to = re.findall(r'name="next" value="([^"]+)"', asked.text)
    assert to == ["/console/nowhere?x=1"]
    answer = await browser.post("/console/sign-in", {"key": "key-of-rita", "next": to[0]}, follow=False)
    assert (answer.status, answer.headers["Location"]) == (303, to[0])
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/console" in cookie
    assert "Secure" not in cookie
    assert "key-of-rita" not in cookie
    shown = await browser.get("/console")
    assert "rita · read" in shown.text
    assert "key-of-rita" not in shown.text


async def test_the_cookie_is_secure_where_the_browser_came_by_https(browser: Browser) -> None:
    """A browser says so itself, so a proxy on the way needs no setting; the renewed cookie is as secure."""
    secure = {"Origin": browser.api.url.replace("http:", "https:"), "Sec-Fetch-Site": "same-origin"}
    answer = await browser.post("/console/sign-in", {"key": "key-of-rita"}, secure, follow=False)
    assert "Secure" in answer.headers["Set-Cookie"]
    browser.api.clock.advance(timedelta(minutes=2))
    session = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
    assert "Secure" in (await browser.get("/console", session)).headers["Set-Cookie"]


@pytest.mark.parametrize(
    "path",
    [
        "users?q=a%00",
        "today?q=a%00@example.com",
        "activity?to=9999-12-31",
        "failures?until=0001-01-01&older=1d",
        "audit?to=0001-01-01",
        "audit?from=9999-12-31&to=9999-12-31",
    ],
)
async def test_values_that_nothing_can_have_are_not_accepted(api: Api, path: str) -> None:
    """NUL characters and the ends of the calendar are no failures of ours."""
    async with browsing(api, "key-of-ada") as browser:
        shown = await browser.get(f"/console/{path}")
        assert (shown.status, "accepted" in shown.text) == (422, True), shown.text
        posted = await browser.post("/console/templates/birthday/default", {"message": "Hi", "who": "a\0"})
        assert (posted.status, ": has a NUL character" in posted.text) == (422, True)


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example.com",
        "//evil.example.com",
        "/console\\@evil",
        "/consoles",
        "/users",
        "/console/..//evil",
        "/console/%2E./users",
    ],
)
async def test_signing_in_leads_to_no_other_place(browser: Browser, to: str) -> None:
    """A link to the sign-in page may come from anybody."""
    answer = await browser.post("/console/sign-in", {"key": "key-of-rita", "next": to}, follow=False)
    assert answer.headers["Location"] == "/console"


async def test_wrong_keys_are_refused_and_slowed_down(browser: Browser) -> None:
    """By the same count as those of the API: after ten in a minute, the address waits."""
    for _ in range(10):
        refused = await browser.sign_in("wrong")
        assert (refused.status, "This key is not known." in refused.text) == (401, True)
    slowed = await browser.sign_in("wrong")
    assert (slowed.status, int(slowed.headers["Retry-After"]) > 0) == (429, True)
    assert browser.api.metric("auth_failures_total", reason="unknown_key") == 11
    assert browser.cookie() is None


async def test_a_session_ends_with_its_key_in_every_process(pool: asyncpg.Pool) -> None:
    """Each process accepts it, and none does as soon as it has read that the key is revoked or has expired."""
    async with running_api(pool) as first, running_api(pool) as second:
        now = first.clock.now()
        keys = {
            name: await create_key(pool, name, Scope.ADMIN, now, US, expires_at=expires_at)
            for name, expires_at in (("ada", None), ("eve", now + timedelta(minutes=5)))
        }
        for one in (first, second):
            await one.context.keys.refresh()
        async with browsing(first, keys["ada"].secret) as ada, browsing(first, keys["eve"].secret) as eve:
            for browser in (ada, eve):
                browser.api = second
                assert (await browser.get("/console")).path == "/console"
            await revoke_key(pool, "ada", now, US)
            await second.context.keys.refresh()
            second.clock.advance(timedelta(minutes=5))
            for browser in (ada, eve):
                assert (await browser.get("/console")).path.startswith("/console/sign-in")
                refused = await browser.sign_in(keys["ada"].secret)
                assert (refused.status, "was revoked, or has expired" in refused.text) == (401, True)


async def test_an_idle_session_ends(api: Api) -> None:
    """Half an hour after the last page; the refreshing of an open page is nobody's doing."""
    async with browsing(api, "key-of-ada") as browser:
        api.clock.advance(timedelta(minutes=29))
        assert (await browser.get("/console")).path == "/console"
        api.clock.advance(timedelta(minutes=29))
        assert (await browser.get("/console", {"X-Refresh": "live"})).path == "/console"
        api.clock.advance(timedelta(minutes=2))
        assert (await browser.get("/console")).path.startswith("/console/sign-in")


async def test_no_session_lasts_longer_than_twelve_hours(api: Api) -> None:
    """However busy it is."""
    async with browsing(api, "key-of-ada") as browser:
        for _ in range(35):
            api.clock.advance(timedelta(minutes=20))
            assert (await browser.get("/console")).path == "/console"
        api.clock.advance(timedelta(minutes=20))
        assert (await browser.get("/console")).path.startswith("/console/sign-in")


async def test_a_changed_cookie_is_none(api: Api) -> None:
    """Nor is a signed text of another purpose, such as a notice."""
    async with browsing(api, "key-of-rita") as browser:
        genuine = browser.cookie() or ""
        tokens = (genuine[:-2], f"x{genuine}", genuine.replace(".", "", 1), "", "a.b.c")
        for token in tokens:
            browser.set_cookie(token)
            assert (await browser.get("/console")).path.startswith("/console/sign-in")
        browser.set_cookie(genuine)
        assert (await browser.get("/console")).path == "/console"


async def test_signing_out_forgets_the_session(api: Api) -> None:
    """The browser has no cookie any more."""
    async with browsing(api, "key-of-rita") as browser:
        assert (await browser.post("/console/sign-out")).path == "/console/sign-in"
        assert browser.cookie() is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://other.example.com"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_a_form_of_another_site_is_refused(api: Api, headers: dict[str, str]) -> None:
    """Nor may another site sign anybody in or out."""
    async with browsing(api, "key-of-ada") as browser:
        for path in ("/console/sign-out", "/console/sign-in", "/console/anything"):
            refused = await browser.post(path, {"key": "key-of-rita"}, headers)
            assert (refused.status, "Nothing was changed" in refused.text) == (403, True)
        assert "ada · admin" in (await browser.get("/console")).text
    assert api.metric("forbidden_accesses_total", reason="origin") == 3


async def test_on_plain_http_the_origin_counts_and_by_https_its_scheme_too(pool: asyncpg.Pool) -> None:
    """Browsers send no Sec-Fetch-Site on plain HTTP. A page that was changed on its way must not act by HTTPS."""
    public = "https://birthdays.example.com"
    async with running_api(pool, api_keys=KEYS, public_url=public) as api, browsing(api, "key-of-ada") as browser:
        for origin, status in ((api.url, 303), (public, 303), (public.replace("https", "http"), 403)):
            answer = await browser.post("/console/sign-in", {"key": "key-of-ada"}, {"Origin": origin}, follow=False)
            assert (origin, answer.status) == (origin, status)


async def test_pages_carry_what_protects_them(browser: Browser) -> None:
    """No other origin, no inline script or style, no frame, nothing kept by caches."""
    for path in ("/console", "/console/sign-in", "/console/nowhere"):
        headers = (await browser.get(path)).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"


async def test_assets_are_kept_for_a_year_under_the_name_of_their_content(browser: Browser) -> None:
    """An old page may still ask a new process for the name of its own release."""
    shown = await browser.get("/console")
    found = re.findall(r'(?:href|src)="(/console/static/([\w.]+))"', shown.text)
    assert {name.split(".")[0] for _, name in found} == {"style", "console", "icon"}
    for path, _ in found:
        kept = await browser.get(path)
        assert (kept.status, kept.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")
    old = await browser.get("/console/static/style.0123456789ab.css")
    assert (old.status, old.headers["Cache-Control"]) == (200, "no-store")
    assert old.headers["Content-Type"].startswith("text/css")
    assert (await browser.get("/console/static/other.0123456789ab.css")).status == 404


async def test_unknown_pages_are_told_within_the_frame(api: Api) -> None:
    """Whatever the address says, it is text."""
    async with browsing(api, "key-of-rita") as browser:
        shown = await browser.get("/console/<script>alert(1)</script>")
        assert (shown.status, "There is no page at this address" in shown.text) == (404, True)
        assert "<script>" not in shown.text
        assert (await browser.post("/console/nowhere")).status == 404


async def test_the_console_can_be_removed(pool: asyncpg.Pool) -> None:
    """With CONSOLE=off nothing is under /console, and / leads to the documentation of the API."""
    async with running_api(pool, console="off") as api, browsing(api) as browser:
        assert (await browser.get("/console")).status == 404
        assert (await browser.get("/")).path == "/docs"


async def test_rate_limit_counts_pages(pool: asyncpg.Pool) -> None:
    """By key, as for the API."""
    async with running_api(pool, api_keys=KEYS, rate_limit="3/s") as api, browsing(api, "key-of-rita") as browser:
        answers = [await browser.get("/console") for _ in range(8)]
        assert [answer for answer in answers if answer.status == 429]


async def test_a_database_that_is_away_is_told(api: Api) -> None:
    """With what to do, and without its address."""
    async with browsing(api, "key-of-ada") as browser:
        await api.context.pool.close()
        shown = await browser.get("/console")
        assert (shown.status, "Reload this page in a moment" in shown.text) == (503, True)
        assert "ada · admin" in shown.text
        assert int(shown.headers["Retry-After"]) > 0


async def test_a_change_asks_first_and_is_told_once(api: Api, pool: asyncpg.Pool) -> None:
    """With the numbers concerned; it is recorded under the name of the key, and a reload repeats nothing."""
    async with browsing(api, "key-of-ada") as browser:
        pause = {"action": "pause", "type": "birthday"}
        asked = await browser.post("/console/pauses", pause)
        assert "Pause messages of the type birthday?" in asked.text
        assert "Due in the next 24 hours" in asked.text
        assert await pool.fetchval("SELECT count(*) FROM pauses") == 0
        answer = await browser.post("/console/pauses", {**pause, "confirmed": "yes"}, follow=False)
        assert (answer.status, answer.headers["Location"]) == (303, "/console")
        # The refreshing of another page does not take the notice.
        assert "are paused" not in (await browser.get("/console", {"X-Refresh": "live"})).text
        assert "Messages of the type birthday are paused." in (await browser.get("/console")).text
        shown = await browser.get("/console")
        assert "are paused." not in shown.text
        assert "birthday is paused" in shown.text
        change = await pool.fetchrow("SELECT actor, action, entity, entity_id FROM changes")
        assert change is not None
        assert tuple(change) == ("console:ada", "paused", "pause", "birthday")
        await browser.confirm("/console/pauses", {"action": "resume"})
        assert "is paused" not in (await browser.get("/console")).text


async def test_a_forged_notice_is_not_shown(api: Api) -> None:
    """Nobody can make a page say something by a cookie or a link."""
    async with browsing(api, "key-of-ada") as browser:
        browser.set_cookie("Call this number", "birthday_notice")
        shown = await browser.get("/console?done=Call+this+number")
        assert "Call this number" not in shown.text


@pytest.mark.parametrize(
    ("name", "left_out"), [("rita", {"Import", "Activity"}), ("walter", {"Activity"}), ("ada", set())]
)
async def test_the_navigation_leads_to_no_page_that_is_refused(api: Api, name: str, left_out: set[str]) -> None:
    """A key sees the pages of its scope."""
    async with browsing(api, f"key-of-{name}") as browser:
        shown = await browser.get("/console")
        missing = {page for page in ("Users", "Import", "Activity", "Settings") if f">{page}</a>" not in shown.text}
        assert missing == left_out


@pytest.mark.parametrize("name", ["rita", "walter"])
async def test_a_key_of_a_small_scope_sees_no_button_and_changes_nothing(
    api: Api, pool: asyncpg.Pool, name: str
) -> None:
    """Whatever request it sends."""
    async with browsing(api, f"key-of-{name}") as browser:
        shown = await browser.get("/console")
        assert shown.text.count("<button") == 2, "signing out, and closing the list of keys"
        refused = await browser.post("/console/pauses", {"action": "pause", "confirmed": "yes"})
        assert (refused.status, "This needs a key with the scope admin" in refused.text) == (403, True)
        assert await pool.fetchval("SELECT count(*) FROM pauses") == 0


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"action": "destroy"}, 422, "pause and resume are accepted"),
        ({"action": "pause", "type": "<script>", "confirmed": "yes"}, 422, "&lt;script&gt;&#39; is no message type"),
        ({"action": "pause", "type": "x" * 600_000}, 413, "Request Entity Too Large"),
    ],
)
async def test_what_is_wrong_with_a_form_is_told(api: Api, fields: dict[str, str], status: int, text: str) -> None:
    """On a page, with all that was sent as text."""
    async with browsing(api, "key-of-ada") as browser:
        shown = await browser.post("/console/pauses", fields)
        assert (shown.status, text in shown.text) == (status, True), shown.text
        assert "Nothing was changed" in shown.text


async def test_while_the_clock_is_wrong_nothing_is_changed(api: Api, pool: asyncpg.Pool) -> None:
    """Pages are shown."""
    async with browsing(api, "key-of-ada") as browser:
        await api.clock.judge("12 s ahead")
        refused = await browser.post("/console/pauses", {"action": "pause", "confirmed": "yes"})
        assert (refused.status, "The clock of this server is wrong" in refused.text) == (503, True)
        assert (await browser.get("/console")).status == 200
        assert await pool.fetchval("SELECT count(*) FROM pauses") == 0


async def test_a_view_of_persons_is_recorded_once_for_a_page_that_stays_open(api: Api, pool: asyncpg.Pool) -> None:
    """Each visit is one record; the refreshing of the same page is another one after ten minutes only."""
    await add_ada(api)

    async def count() -> int:
        found: int = await pool.fetchval("SELECT count(*) FROM changes WHERE action = 'viewed'")
        return found

    async with browsing(api, "key-of-walter") as browser:
        for _ in range(2):
            assert "a@example.com" in (await browser.get("/console/users")).text
        assert await count() == 2
        await browser.get("/console/users", {"X-Refresh": "live"})
        assert await count() == 2
        api.clock.advance(timedelta(minutes=10))
        await browser.get("/console/users", {"X-Refresh": "live"})
        assert await count() == 3

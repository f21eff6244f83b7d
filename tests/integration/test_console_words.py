"""The console's pages of templates and of files: what is said is written, tried, published and taken back there."""

import asyncio
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from functools import partial
from html import unescape
from io import BytesIO

import aiohttp
import asyncpg
import pytest

from birthday.channels import Permanent, Temporary
from birthday.core.message import ErrorType
from birthday.http.console.views import imports
from tests.support.api import Api, api_keys, running_api
from tests.support.channel import RecordingChannel
from tests.support.console import Browser, Shown, browsing
from tests.support.product import eventually, is_waiting_for_a_lock
from tests.support.users import CSV_HEADER, csv_line, make_profiles

PT = "/console/templates/birthday/pt"
DEFAULT = "/console/templates/birthday/default"
EVIL = "<script>alert(1)</script>{{ 7 * 7 }}"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """A console without keys, as it opens on the machine of whoever starts the program."""
    async with running_api(pool) as api:
        yield api


@pytest.fixture
async def browser(api: Api) -> AsyncIterator[Browser]:
    """A browser that looks at it."""
    async with browsing(api) as browser:
        yield browser


async def add(api: Api, count: int, locale: str | None = None, **changes: object) -> list[str]:
    """Create users, and return their ids."""
    users = [
        await api.create(email=f"{locale}-{number}@example.com", locale=locale, **changes) for number in range(count)
    ]
    return [user["id"] for user in users]


def draft_of(shown: Shown, **changes: str) -> dict[str, str]:
    """Return the fields of the form of a page, with what somebody has typed."""
    fields = dict(re.findall(r'<input (?:[^>]* )?name="(\w+)" value="([^"]*)"', shown.text))
    fields |= dict(re.findall(r'<textarea [^>]*name="(\w+)"[^>]*>\n(.*?)</textarea>', shown.text, re.DOTALL))
    kept = {name: unescape(value) for name, value in fields.items() if name not in {"version", "q"}}
    return kept | changes


def hidden_of(shown: Shown, action: str) -> dict[str, str]:
    """Return the hidden fields of the form that leads to ``action``."""
    forms = [
        form
        for to, form in re.findall(r'<form method="post" action="([^"]*)">(.*?)</form>', shown.text, re.DOTALL)
        if to == action
    ]
    return {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', forms[-1])}


async def upload(browser: Browser, content: bytes, name: str = "users.csv", **fields: str) -> Shown:
    """Send a file by the form."""
    form = aiohttp.FormData()
    for field, value in fields.items():
        form.add_field(field, value)
    form.add_field("file", BytesIO(content), filename=name)
    headers = {"Origin": browser.api.url, "Sec-Fetch-Site": "same-origin"}
    async with browser.client.post(f"{browser.api.url}/console/import", data=form, headers=headers) as answer:
        return Shown(answer.status, await answer.text(), answer.url.path_qs, answer.headers)


def figures(shown: Shown) -> dict[str, str]:
    """Return the figures of a page."""
    return dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", shown.text))


def saved(shown: Shown, name: str) -> str:
    """Return the content of a link that saves a file."""
    [content] = re.findall(rf'download="{re.escape(name)}" href="data:[^,]+,([^"]*)"', shown.text)
    return b64decode(unescape(content)).decode()


@pytest.mark.parametrize(
    ("who", "path", "status"),
    [
        ("rita", "/console/templates", 200),
        ("rita", DEFAULT, 403),
        ("walter", DEFAULT, 403),
        ("ada", DEFAULT, 200),
        ("ada", "/console/templates/Birthday/default", 404),
        ("ada", "/console/templates/birthday/portuguese", 404),
        ("ada", f"{DEFAULT}?version=7", 404),
        ("rita", "/console/import", 403),
        ("rita", "/console/export", 403),
        ("walter", "/console/import", 200),
    ],
)
async def test_each_scope_sees_what_it_may_use(pool: asyncpg.Pool, who: str, path: str, status: int) -> None:
    """Templates need the scope that they need in the API, but for their list; a read key takes no file of users."""
    async with (
        running_api(pool, api_keys=api_keys(rita="read", walter="write", ada="admin")) as api,
        browsing(api, f"key-of-{who}") as browser,
    ):
        assert (await browser.get(path)).status == status


async def test_a_read_key_changes_nothing(pool: asyncpg.Pool) -> None:
    """No form is accepted from it, and its pages lead to none."""
    async with (
        running_api(pool, api_keys=api_keys(rita="read")) as api,
        browsing(api, "key-of-rita") as browser,
    ):
        for path in (PT, f"{PT}/html", f"{PT}/check", f"{PT}/publish", f"{PT}/test", f"{PT}/activate"):
            answer = await browser.post(path, {"message": "x", "version": "1", "confirmed": "yes"})
            assert answer.status == 403, path
        assert (await upload(browser, b"", do="import")).status == 403
        assert f'href="{DEFAULT}"' not in (await browser.get("/console/templates")).text
        assert await pool.fetchval("SELECT count(*) FROM templates") == 0


async def test_a_text_is_written_tried_published_and_taken_back(api: Api, browser: Browser, pool: asyncpg.Pool) -> None:
    """The form begins with what users get now; each change asks first and is recorded; back takes two clicks."""
    await add(api, 3, "pt-BR")
    await add(api, 1)
    begun = await browser.get("/console/templates/new?type=birthday&locale=pt")
    assert begun.path == PT
    assert "not published" in begun.text
    draft = draft_of(begun, message="Parabéns, {{ first_name }}!\r\nBem-vindo")
    assert draft["began"] == "0"
    previewed = await browser.post(PT, draft)
    assert "Parabéns, Ada!\nBem-vindo</pre>" in previewed.text
    asked = await browser.post(f"{PT}/publish", draft)
    assert '<span class="added">+ Parabéns, {{ first_name }}!' in asked.text
    assert await pool.fetchval("SELECT count(*) FROM templates") == 0
    published = await browser.post(f"{PT}/publish", hidden_of(asked, f"{PT}/publish"))
    assert "Version 1 of birthday.pt is active, tried for 3 users." in published.text
    shown = await browser.get(re.findall(r'<a href="([^"]+done=[^"]+)">', published.text)[0].replace("&amp;", "&"))
    assert (shown.status, "version 1 is active" in shown.text) == (200, True)
    assert "3 users (pt-BR 3)" in shown.text
    assert await pool.fetchval("SELECT message FROM templates") == "Parabéns, {{ first_name }}!\nBem-vindo"
    again = await browser.post(f"{PT}/publish", draft_of(shown))
    assert (again.status, "there is nothing to publish" in again.text) == (422, True)
    await browser.post(f"{PT}/publish", draft_of(shown, message="Oi {{ first_name }}", confirmed="yes"))
    back = await browser.confirm(f"{PT}/activate", {"version": "1"})
    assert (back.path, "Version 1 of birthday.pt is active" in back.text) == (PT, True)
    assert "Parabéns" in draft_of(back)["message"]
    withdrawn = await browser.confirm(f"{PT}/activate", {"version": "0"})
    assert "birthday.pt is withdrawn" in withdrawn.text
    assert f'Users of pt get <a href="{DEFAULT}">default</a> now.' in withdrawn.text
    assert (await browser.post(f"{PT}/activate", {"version": "9", "confirmed": "yes"})).status == 404
    changes = await pool.fetch("SELECT actor, action, entity_id FROM changes WHERE entity = 'template'")
    assert sorted(tuple(row) for row in changes) == [
        ("console", action, "birthday.pt") for action in ("activated", "activated", "published", "published")
    ]


async def test_the_list_tells_who_gets_what(api: Api, browser: Browser) -> None:
    """Also for whom there is no text in their own language, and for which dates nothing is said."""
    await add(api, 2, "pt-BR", anniversaries={"name-day": "2020-06-24"})
    await browser.post(f"{PT}/publish", {"message": "Oi", "began": "0", "confirmed": "yes"})
    shown = await browser.get("/console/templates")
    assert re.search(r">pt</a></th>.*?version 1.*?<td>console</td>\s*<td class=\"n\">2</td>", shown.text, re.DOTALL)
    assert re.search(r'pt-BR</a></td><td>pt</td><td class="n">2</td>', shown.text)
    assert "Nothing is sent for name-day to 2 users" in shown.text
    wrong = await browser.get("/console/templates/new?type=birthday&locale=Portuguese<script>")
    assert (wrong.status, "is not a locale" in wrong.text, "<script>" in wrong.text.partition("<main")[2]) == (
        422,
        True,
        False,
    )


async def test_a_new_type_begins_with_its_default(api: Api, browser: Browser) -> None:
    """Another locale before that is refused, with the text kept."""
    path = "/console/templates/name-day"
    refused = await browser.post(f"{path}/pt/publish", {"message": "Parabéns", "began": "0", "confirmed": "yes"})
    assert "publish default first" in refused.text
    assert hidden_of(refused, f"{path}/pt")["message"] == "Parabéns"
    await browser.post(f"{path}/default/publish", {"message": "Hi", "began": "0", "confirmed": "yes"})
    assert (await api.get("/templates/name-day/default")).json["message"] == "Hi"


async def test_a_template_that_fails_for_some_is_refused_with_their_number_and_forced(
    api: Api, browser: Browser, pool: asyncpg.Pool
) -> None:
    """The first of them are linked with the reason; trying it for everybody tells the same, and publishes nothing."""
    await add(api, 97, "en", attributes={"team": "Red"})
    failing = await add(api, 3, "de")
    draft = {"message": "Go {{ attributes.team }}", "began": "0"}
    tried = await browser.post(f"{DEFAULT}/check", draft)
    refused = await browser.post(f"{DEFAULT}/publish", draft | {"confirmed": "yes"})
    for shown in (tried, refused):
        assert "It fails for 3 of the 100 users whom it concerns" in shown.text
        assert {one for one in failing if f'<a href="/console/users/{one}">' in shown.text} == set(failing)
        assert "message, line 1: there is no attribute &#39;team&#39;" in shown.text
        assert hidden_of(shown, DEFAULT)["message"] == draft["message"]
    assert await pool.fetchval("SELECT count(*) FROM templates") == 0
    forced = await browser.post(f"{DEFAULT}/publish", hidden_of(refused, f"{DEFAULT}/publish"))
    assert "tried for 100 users. It fails for 3 of them." in forced.text
    assert await pool.fetchval("SELECT count(*) FROM templates") == 1
    whole = await browser.post(f"{DEFAULT}/check", {"message": "Hi {{ attributes.team | default('you') }}"})
    assert "It works for all 100 users" in whole.text


async def test_of_two_editors_the_second_is_told_and_keeps_the_text(api: Api, browser: Browser) -> None:
    """At each step: when asking, when pressing yes, and on the page of the text, which then shows the differences."""
    begun = draft_of(await browser.get(DEFAULT), message="Mine")
    asked = await browser.post(f"{DEFAULT}/publish", begun)
    await api.put("/templates/birthday/default", {"message": "Theirs"})
    late = await browser.post(f"{DEFAULT}/publish", hidden_of(asked, f"{DEFAULT}/publish"))
    tried = await browser.post(DEFAULT, begun)
    for told in (late, await browser.post(f"{DEFAULT}/publish", begun), tried):
        assert (told.status, "Somebody published meanwhile" in told.text) == (409, True)
        assert "api made version 1" in told.text
        assert draft_of(told)["message"] == "Mine"
        assert re.search(r'class="removed">- Theirs\s*</span><span class="added">\+ Mine', told.text)
    assert (await api.get("/templates/birthday/default")).json["message"] == "Theirs"
    mine = await browser.post(f"{DEFAULT}/publish", draft_of(tried, confirmed="yes"))
    assert "Version 2 of birthday is active" in mine.text


async def test_what_is_wrong_is_shown_with_its_line(browser: Browser) -> None:
    """The text is kept, and nothing of it is run or taken for HTML."""
    evil = f"Hi\n{EVIL}{{{{ oops }}}}"
    for path in (DEFAULT, f"{DEFAULT}/check", f"{DEFAULT}/publish", f"{DEFAULT}/test"):
        shown = await browser.post(path, {"message": evil, "began": "0", "to": "x@example.com", "confirmed": "yes"})
        main = shown.text.partition("<main")[2]
        assert shown.status == 422, path
        assert "<b>message, line 2</b>" in main
        assert f"{ESCAPED}{{{{ 7 * 7 }}}}{{{{ oops }}}}</pre>" in main
        assert "<script>" not in main
        assert draft_of(shown)["message"] == evil
    missing = await browser.post(DEFAULT, {"message": " "})
    assert (missing.status, "message: is required" in missing.text) == (422, True)
    long = await browser.post(DEFAULT, {"message": "x" * 20_000})
    assert (long.status, "is too long: at most 16384 characters" in long.text) == (422, True)


async def test_names_are_escaped_and_never_rendered_twice(api: Api, browser: Browser, pool: asyncpg.Pool) -> None:
    """A preview as a user, found by address or id, is recorded; what the user is called is text."""
    user = await api.create(firstName=EVIL, lastName="{{ email }}", locale="pt")
    draft = {
        "message": "Hi {{ full_name }}",
        "subject": "{{ first_name }}",
        "payload": '{"a": {{ first_name | tojson }}}',
    }
    sending = await browser.post(f"{DEFAULT}/test", draft | {"who": user["id"], "to": "ada@example.com"})
    assert (sending.status, f"Hi {ESCAPED}" in sending.text) == (200, True)
    assert await pool.fetchval("SELECT count(*) FROM changes WHERE action = 'viewed'") == 1
    for who in (user["email"], user["id"]):
        shown = await browser.post(DEFAULT, draft | {"who": who})
        main = shown.text.partition("<main")[2]
        assert (shown.status, f"Hi {ESCAPED}{{{{ 7 * 7 }}}} {{{{ email }}}}</pre>" in main) == (200, True)
        assert "<script>" not in main
    viewed = await pool.fetch("SELECT actor, entity_id FROM changes WHERE action = 'viewed'")
    assert {tuple(row) for row in viewed} == {("console", user["id"])}
    nobody = await browser.post(DEFAULT, draft | {"who": "nobody@example.com"})
    assert (nobody.status, "nobody" in nobody.text) == (422, True)
    assert EVIL in draft_of(await browser.post(DEFAULT, {"message": EVIL}))["message"]


async def test_values_of_somebody_made_up_are_taken(browser: Browser) -> None:
    """A wrong one is named."""
    draft = {"message": "{{ first_name }}, {{ years }}, {{ attributes.team }}", "firstName": "Grace", "years": "41"}
    shown = await browser.post(DEFAULT, draft | {"attributes": '{"team": "Blue"}'})
    assert "Grace, 41, Blue</pre>" in shown.text
    for wrong, named in ((draft | {"attributes": "{"}, "attributes: is not JSON"), (draft | {"years": "old"}, "years")):
        refused = await browser.post(DEFAULT, wrong)
        assert (refused.status, named in refused.text) == (422, True)


async def test_html_is_shown_in_a_frame_that_cannot_reach_the_console(browser: Browser) -> None:
    """It is an answer of its own, whose policy allows no script, form or link; only the console may frame it."""
    draft = {"message": "Hi", "html": "<script>alert(1)</script><b>{{ first_name }}</b>"}
    shown = await browser.post(DEFAULT, draft)
    assert '<iframe name="letter" class="letter" sandbox ' in shown.text
    letter = await browser.post(f"{DEFAULT}/html", draft)
    policy = letter.headers["Content-Security-Policy"]
    assert (letter.text, policy.startswith("sandbox; default-src 'none'; ")) == (
        "<script>alert(1)</script><b>Ada</b>",
        True,
    )
    assert "frame-ancestors 'self'" in policy
    assert "allow-" not in policy


async def test_a_test_goes_through_the_channel(api: Api, browser: Browser, pool: asyncpg.Pool) -> None:
    """It asks first, is marked, is recorded without the address, and a failure is told."""
    channel = api.context.channel
    assert isinstance(channel, RecordingChannel)
    draft = {"message": "Hi {{ first_name }}", "to": "dev@example.com"}
    sent = await browser.confirm(f"{DEFAULT}/test", draft)
    assert (sent.path, "A test was sent to dev@example.com." in sent.text) == (DEFAULT, True)
    assert [(one.greeting.email, one.greeting.text) for one in channel.sent] == [("dev@example.com", "[Test] Hi Ada")]
    await browser.get(DEFAULT)
    assert len(channel.sent) == 1
    changes = await pool.fetch("SELECT * FROM changes WHERE action = 'tested'")
    assert len(changes) == 1
    assert "dev@" not in str(changes)
    refused = await browser.post(f"{DEFAULT}/test", draft | {"to": "nowhere"})
    assert (refused.status, "the address of the test" in refused.text) == (422, True)
    channel.answer = lambda _greeting: Temporary(ErrorType.EXTERNAL_API_ERROR, "no route")
    failed = await browser.confirm(f"{DEFAULT}/test", draft)
    assert (failed.status, "The channel did not take it: no route." in failed.text) == (502, True)
    channel.answer = lambda _greeting: Permanent(ErrorType.PERMANENT_FAILURE, "answered 401", 401, refused=True)
    refused = await browser.confirm(f"{DEFAULT}/test", draft)
    assert "The channel did not take it: answered 401. Nobody got anything." in refused.text
    assert "a wrong URL or key" in refused.text
    channel.answer = lambda _greeting: Temporary(ErrorType.TIMEOUT, "no answer within 10 s")
    unknown = await browser.confirm(f"{DEFAULT}/test", draft)
    assert (unknown.status, "It may have arrived" in unknown.text, "Nobody got" in unknown.text) == (502, True, False)


def csv_file(count: int, *wrong: str) -> bytes:
    """Return a CSV file with so many users, and some rows that are wrong after them."""
    return "\n".join([CSV_HEADER, *map(csv_line, make_profiles(count)), *wrong]).encode()


async def test_a_file_is_checked_then_imported(api: Api, browser: Browser, pool: asyncpg.Pool) -> None:
    """Checking changes nothing; both tell the numbers; good rows are kept, and wrong ones come back to be mended."""
    wrong = [f'"{EVIL}",,not-an-address,1990-01-01,UTC,', "Ada,Lovelace,ada@example.com,1990-13-01,,0", "Eve"]
    content = csv_file(5000, *wrong)
    checked = await upload(browser, content, mode="create", do="check")
    assert "Checked: nothing was changed" in checked.text
    assert await pool.fetchval("SELECT count(*) FROM users") == 0
    done = await upload(browser, content, mode="create", do="import")
    assert figures(checked)["Would be created"] == figures(done)["Created"] == "5,000"
    assert figures(checked)["Rejected"] == figures(done)["Rejected"] == "3"
    assert await pool.fetchval("SELECT count(*) FROM users") == api.metric("users_created_total") == 5000
    assert await pool.fetchval("SELECT DISTINCT actor FROM changes WHERE action = 'imported'") == "console"
    assert saved(done, "rejected-rows.csv") == "\n".join([CSV_HEADER, *wrong, ""])
    assert saved(done, "rejected-errors.csv").startswith("line,field,problem\n5002,email,")
    main = done.text.partition("<main")[2]
    assert re.search(r'<td class="n">5,004</td><td>the row</td><td>has 1 cells; 6 are accepted', main)
    assert "<script>" not in main
    assert "<code>dateOfBirth</code></td><td>dateOfBirth</td>" in main
    again = await upload(browser, content, do="import")
    assert (figures(again)["Created"], figures(again)["Unchanged"]) == ("0", "5,000")


async def test_users_who_are_there_stay_or_are_changed(browser: Browser, pool: asyncpg.Pool) -> None:
    """As the form says; an unknown column is named among those that are read."""
    row = CSV_HEADER + "\nAda,,ada@example.com,1990-01-01,,0\n"
    await upload(browser, row.encode(), do="import")
    changed = row.replace("Ada", "Grace").encode()
    kept = await upload(browser, changed, do="import")
    assert (figures(kept)["Rejected"], "an import creates users and changes none" in kept.text) == ("1", True)
    assert figures(await upload(browser, changed, do="check", mode="upsert"))["Would be changed"] == "1"
    assert await pool.fetchval("SELECT first_name FROM users") == "Ada"
    assert figures(await upload(browser, changed, do="import", mode="upsert"))["Changed"] == "1"
    assert await pool.fetchval("SELECT first_name FROM users") == "Grace"
    unknown = await upload(browser, row.replace("lastName", EVIL).encode(), do="import")
    assert "the file has an unknown column" in unknown.text.lower()
    assert f'<code>{ESCAPED}{{{{ 7 * 7 }}}}</code></td><td><span class="state bad">unknown' in unknown.text


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (b"", 422, "The file is empty, or none was chosen"),
        (b"PK\x03\x04\x00\x00", 422, "The file is no text: CSV in UTF-8, or NDJSON, is accepted"),
        (b"[{}]", 200, "The file is a JSON array"),
        (b"\n\n", 200, "The file has no rows"),
        (CSV_HEADER.encode(), 200, "The file has no rows"),
        (b"x" * 2_000_000, 200, "is longer than the 1,048,576 bytes"),
    ],
)
async def test_a_file_that_cannot_be_imported_says_why(
    browser: Browser, pool: asyncpg.Pool, content: bytes, status: int, told: str
) -> None:
    """Nothing is imported."""
    shown = await upload(browser, content, do="import")
    assert (shown.status, told in shown.text) == (status, True), shown.text.partition("<main")[2]
    assert await pool.fetchval("SELECT count(*) FROM users") == 0


async def test_a_file_that_is_too_large_is_refused(browser: Browser) -> None:
    """Before it is read to its end, whatever it says of its length."""
    blank = b"\n" * 1024 * 1024

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(imports.MAX_FILE_BYTES // len(blank) + 1):
            yield blank

    headers = {
        "Origin": browser.api.url,
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "multipart/form-data; boundary=b",
    }
    async with browser.client.post(f"{browser.api.url}/console/import", data=body(), headers=headers) as answer:
        assert (answer.status, "at most 128 MiB" in await answer.text()) == (413, True)


async def test_a_form_without_a_file_or_of_another_kind_is_refused(browser: Browser) -> None:
    """It is told what is wrong."""
    assert (await browser.post("/console/import", {"do": "import"})).status == 415
    headers: Mapping[str, str] = {"Origin": browser.api.url, "Content-Type": "multipart/form-data; boundary=b"}
    async with browser.client.post(f"{browser.api.url}/console/import", data=b"nonsense", headers=headers) as answer:
        assert answer.status in {400, 422}


def part(head: str, content: str = "x") -> str:
    """Return one part of a form whose boundary is b."""
    return f"--b\r\n{head}\r\n\r\n{content}\r\n"


@pytest.mark.parametrize(
    "form",
    [
        part('Content-Disposition: form-data; name="do"') * 2,
        part('Content-Disposition: form-data; name="other"'),
        part("Content-Type: multipart/mixed; boundary=c", "--c--"),
        part("no header"),
        part(f"X-Long: {'x' * 100_000}"),
        part('Content-Disposition: form-data; name="_charset_"', "x" * 100),
    ],
    ids=["twice", "unknown", "nested", "no header", "long header", "charset"],
)
async def test_a_malformed_form_is_refused_at_its_first_fault(browser: Browser, form: str) -> None:
    """It is no failure of ours, and the parts of a form are few, however long it is."""
    headers: Mapping[str, str] = {"Origin": browser.api.url, "Content-Type": "multipart/form-data; boundary=b"}
    async with browser.client.post(f"{browser.api.url}/console/import", data=form, headers=headers) as answer:
        assert answer.status == 400, await answer.text()


async def test_closing_the_page_leaves_whole_users(browser: Browser, pool: asyncpg.Pool) -> None:
    """What was stored until then stays; the next import may begin."""
    async with pool.acquire() as blocking, blocking.transaction():
        await blocking.execute("LOCK TABLE users IN SHARE MODE")
        leaving = asyncio.create_task(upload(browser, csv_file(3000), do="import"))
        await eventually(partial(is_waiting_for_a_lock, pool), "the import waits for the table")
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    done = await upload(browser, csv_file(3000), do="import")
    assert int(figures(done)["Created"].replace(",", "")) + int(figures(done)["Unchanged"].replace(",", "")) == 3000
    assert await pool.fetchval("SELECT count(*) FROM users") == 3000


async def test_an_export_can_be_imported_and_is_recorded(api: Api, browser: Browser, pool: asyncpg.Pool) -> None:
    """It is saved under the name of the day."""
    await add(api, 2, "pt")
    for kind, lines in (("csv", 3), ("ndjson", 2)):
        shown = await browser.get(f"/console/export?format={kind}")
        assert len(shown.text.splitlines()) == lines
        assert shown.headers["Content-Disposition"] == f'attachment; filename="users-2026-03-01.{kind}"'
        assert figures(await upload(browser, shown.text.encode(), do="check"))["Unchanged"] == "2"
    assert await pool.fetchval("SELECT count(*) FROM changes WHERE action = 'exported'") == 2
    assert (await browser.get("/console/export?format=xml")).status == 400

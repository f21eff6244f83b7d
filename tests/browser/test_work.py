"""What operators do in a browser: with keys only, without scripts, two at once, and while the database goes away."""

import re
from contextlib import suppress

import pytest
from playwright.async_api import Error, Page

from birthday.config import Scope
from birthday.http.console.frame import VIEWS
from birthday.store.changes import Change, record_changes
from birthday.store.processes import Process, report
from tests.browser.conftest import Console
from tests.support.browser import Tab
from tests.support.postgres import PostgresServer
from tests.support.product import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUEUED = "SELECT count(*) FROM changes WHERE action = 'retried' AND actor = 'console:ada'"
PAYLOAD = (
    """"'><script>window.ran = 1</script><img src="/gone" onerror="window.ran = 1"><svg onload="window.ran = 1">{{"""
)


async def test_the_main_tasks_need_only_keys(workshop: Console) -> None:
    """Find somebody, look at what became of the message, send it again, and close the list of keys."""
    async with workshop.tab(Scope.ADMIN) as opened:
        page = opened.page
        await opened.go("/console")
        await page.keyboard.press("?")
        assert await page.locator("dialog#keys").is_visible()
        await page.keyboard.press("Escape")
        assert not await page.locator("dialog#keys").is_visible()
        await page.keyboard.press("/")
        [user_id] = workshop.examples["users"]
        await page.keyboard.type(user_id)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/users/{user_id}")
        [message_id] = workshop.examples["messages"]
        await tab_to(page, f"a[href$='/messages/{message_id}']")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/messages/{message_id}")
        await tab_to(page, "button.main")
        await page.keyboard.press("Enter")
        # The button that says yes has the focus already.
        await page.locator("button[autofocus]").wait_for()
        await page.keyboard.press("Enter")
        await page.locator(".notice.good").wait_for()
        assert opened.faults == []
    assert await workshop.pool.fetchval("SELECT status FROM message_logs WHERE id::text = $1", message_id) == "queued"


async def test_everything_works_without_scripts(workshop: Console) -> None:
    """A user is added and found, and all that failed for one reason is sent again, with its progress."""
    async with workshop.tab(Scope.ADMIN, java_script_enabled=False) as opened:
        page = opened.page
        await opened.go("/console/users/new")
        for label, value in (("First name", "Ada"), ("E-mail", "ada@scripts.example"), ("Date of birth", "1990-12-31")):
            await page.get_by_label(label).fill(value)
        await page.get_by_label("Time zone").fill("Europe/Berlin")
        await page.get_by_role("button", name="Add").click()
        await page.get_by_role("button", name="Yes").click()
        await page.locator(".notice.good").wait_for()
        await page.get_by_label("Find somebody").fill("ada@scripts.example")
        await page.keyboard.press("Enter")
        await page.get_by_role("link", name="Ada").click()
        await page.get_by_role("heading", name="Ada").wait_for()
        await opened.go("/console/failures?status=422")
        await page.get_by_role("button", name=re.compile("Send (it|all) again…")).click()
        await page.get_by_role("button", name="Yes").click()
        await page.get_by_text("queued again").first.wait_for()
        assert opened.faults == []
    left = "SELECT count(*) FROM message_logs WHERE status = 'failed' AND error_detail LIKE '%422%'"
    assert await workshop.pool.fetchval(left) == 0


async def test_back_and_reload_repeat_nothing(workshop: Console) -> None:
    """The notice shows once, and neither reload nor the way back sends the form again."""
    [message_id] = workshop.examples["messages"]
    async with workshop.tab(Scope.ADMIN) as opened:
        await opened.go(f"/console/messages/{message_id}")
        await send_again(opened)
        notice = opened.page.locator(".notice.good")
        await notice.wait_for()
        await opened.page.reload()
        assert await notice.count() == 0
        # The page that asked is the answer to a form: the browser does not show it again without asking itself.
        with suppress(Error):
            await opened.page.go_back()
        assert opened.faults == []
    assert await workshop.pool.fetchval(REQUEUED) == 1


async def test_two_operators_do_not_undo_each_other(workshop: Console) -> None:
    """One sends a message again while the other is asked about the same: it is queued once, and the second is told."""
    [message_id] = workshop.examples["messages"]
    path = f"/console/messages/{message_id}"
    async with workshop.tab(Scope.ADMIN) as first, workshop.tab(Scope.ADMIN) as second:
        for one in (first, second):
            await one.go(path)
            await one.page.get_by_role("button", name="Send again").click()
        for one in (first, second):
            await one.page.get_by_role("button", name="Yes").click()
        await first.page.locator(".notice.good").wait_for()
        await second.page.locator(".notice.bad").wait_for()
        # What somebody else has sent again meanwhile is not dropped from the queue either.
        await second.go("/console/failures?status=401")
        await second.page.get_by_role("button", name="Drop from the queue").click()
        await first.go("/console/failures?status=401")
        await first.page.get_by_role("button", name=re.compile("Send (it|all) again…")).click()
        await first.page.get_by_role("button", name="Yes").click()
        await first.page.get_by_text("queued again").first.wait_for()
        await second.page.get_by_role("button", name="Yes").click()
        await second.page.get_by_text("dropped").first.wait_for()
        assert [*first.faults, *second.faults] == []
    assert (await workshop.api.context.broker.stats()).ready == await workshop.pool.fetchval(REQUEUED)


async def test_a_page_survives_that_the_database_goes_away(workshop: Console, postgres_server: PostgresServer) -> None:
    """An open page says that it is old; a new one says what is away and what to do; both recover by themselves."""
    async with workshop.tab(Scope.ADMIN) as opened:
        assert await opened.go("/console") == 200
        await postgres_server.kill()
        await opened.page.locator("html[data-stale]").wait_for(state="attached")
        await postgres_server.start()
        await opened.page.locator("html:not([data-stale])").wait_for(state="attached")
        await postgres_server.kill()
        assert await opened.go("/console/failures") == 503
        assert await opened.page.get_by_role("alert").count() == 1
        await postgres_server.start()

        async def is_back() -> bool:
            return await opened.go("/console/failures") == 200

        await eventually(is_back, "the page is back")
        assert opened.faults == []


async def test_a_stored_script_never_runs(workshop: Console) -> None:
    """Whatever users, templates, errors, dead letters, processes and operators say, a page shows it as text."""
    await poison(workshop)
    async with workshop.tab(Scope.ADMIN) as opened:
        shown = 0
        for address in [workshop.address(view.path) for view in VIEWS if view.method == "GET"]:
            if not await opened.is_file(address, 200):
                await opened.go(address)
                assert await opened.page.evaluate("window.ran") is None, address
                shown += (await opened.page.content()).count("&lt;script&gt;")
        await opened.go("/console/users?q=%3Cscript%3E")
        assert await opened.page.evaluate("window.ran") is None
        assert opened.faults == []
    assert shown > 10


async def poison(workshop: Console) -> None:
    """Put a script into every text that somebody else may have written."""
    pool, [user_id] = workshop.pool, workshop.examples["users"]
    await pool.execute(
        """
        UPDATE users SET first_name = $1, last_name = $1, external_id = $1 || id, locale = $1,
                         attributes = jsonb_build_object($1::text, $1::text), timezone = timezone
        """,
        PAYLOAD,
    )
    await pool.execute(
        "UPDATE users SET email = $1 || '@example.com' WHERE id::text = $2", PAYLOAD.replace(" ", ""), user_id
    )
    await pool.execute("UPDATE message_logs SET error_detail = $1, template = $1, locale = $1", PAYLOAD)
    await pool.execute(
        """
        INSERT INTO templates (message_type, locale, version, message, subject, created_at, created_by)
        VALUES ('birthday', 'pt', 3, $1, $1, now(), $1)
        """,
        PAYLOAD,
    )
    await pool.execute("UPDATE active_templates SET version = 3, activated_by = $1 WHERE locale = 'pt'", PAYLOAD)
    await pool.execute("INSERT INTO queue_messages (body, dead_at) VALUES ($1, now())", PAYLOAD)
    now = workshop.api.clock.now()
    async with pool.acquire() as connection:
        [process] = await connection.fetch("SELECT gen_random_uuid() AS id")
        text = PAYLOAD
        process_of = Process(process["id"], text, 1, "worker", text, text, text, {text: text}, now, "open", text)
        await report(connection, process_of)
        values = {text: text}
        await record_changes(connection, [Change(f"api:{text}", text, text, text, values, values)], now)


async def send_again(opened: Tab) -> None:
    """Send the shown message again, and say yes."""
    await opened.page.get_by_role("button", name="Send again").click()
    await opened.page.get_by_role("button", name="Yes").click()


async def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the element that ``selector`` names has the focus."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"no way to {selector} by Tab")

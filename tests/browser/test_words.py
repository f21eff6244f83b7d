"""Texts and files in a browser: what whoever writes the texts, or brings a file of users, does there."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from birthday.config import Scope
from tests.browser.conftest import Console, running_console
from tests.support.browser import NARROW, WIDE, Tab
from tests.support.postgres import PostgresServer
from tests.support.users import CSV_HEADER, make_profiles, write_csv

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOCUSED = "document.activeElement?.labels?.[0]?.innerText || document.activeElement?.innerText || ''"
EVIL = "<script>parent.document.title = 'gone'; alert(1)</script><form action=/console><button>go</button></form>"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own(browser: Browser, postgres_server: PostgresServer) -> AsyncIterator[Console]:
    """Run a console that these tests change."""
    async with running_console(browser, postgres_server, 200) as running:
        yield running


@asynccontextmanager
async def opened(console: Console, path: str) -> AsyncIterator[Tab]:
    """Open a page as somebody who may do everything."""
    async with console.tab(Scope.ADMIN) as tab:
        await tab.go(path)
        yield tab


async def reach(tab: Tab, name: str) -> None:
    """Press the tabulator until what has the focus is called ``name``."""
    for _ in range(60):
        if str(await tab.page.evaluate(FOCUSED)).strip().startswith(name):
            return
        await tab.page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not reach {name}")


async def press(tab: Tab, name: str) -> None:
    """Go to a link or button by keyboard, and use it."""
    await reach(tab, name)
    async with tab.page.expect_navigation():
        await tab.page.keyboard.press("Enter")


async def test_a_text_is_changed_tried_and_taken_back_by_keyboard(own: Console) -> None:
    """Whoever fails is named before anything is published; an older version comes back; each page is accessible."""
    async with opened(own, "/console/templates") as tab:
        page = tab.page
        await press(tab, "pt")
        await reach(tab, "Message")
        await page.keyboard.press("Control+A")
        await page.keyboard.insert_text("Parabéns, {{ first_name }}!\n{{ attributes.nowhere }}")
        await press(tab, "Try it for everybody")
        await expect(page.get_by_text(re.compile(r"It fails for \d+ of the \d+ users"))).to_be_visible()
        assert await tab.complaints("dark", NARROW) == []
        await press(tab, "Back to the text")
        await expect(page.get_by_role("alert")).to_contain_text("there is no attribute 'nowhere'")
        assert await tab.complaints("light", WIDE) == []
        await reach(tab, "Message")
        await page.keyboard.press("Control+A")
        await page.keyboard.insert_text("Oi, {{ first_name }}!")
        await press(tab, "Publish…")
        await expect(page.locator(".added")).to_have_text(["+ Oi, {{ first_name }}!"])
        await press(tab, "Yes, publish it")
        await expect(page.get_by_text("Version 3 of birthday.pt is active, tried for")).to_be_visible()
        await page.wait_for_url("**/pt?done=*")
        await page.get_by_role("button", name="Activate version 2").focus()
        await press(tab, "Activate…")
        await press(tab, "Yes, activate version 2")
        await expect(page.get_by_text("Version 2 of birthday.pt is active.")).to_be_visible()
        assert tab.faults == []


async def test_html_cannot_reach_the_page_around_it(own: Console) -> None:
    """Its script does not run and its form goes nowhere; its own styles are shown."""
    async with opened(own, "/console/templates/birthday/pt") as tab:
        await tab.page.get_by_text("HTML and payload").click()
        await tab.page.get_by_label("HTML", exact=True).fill(
            f'<b style="color: rgb(1, 2, 3)">{{{{ first_name }}}}</b>{EVIL}'
        )
        await tab.page.get_by_label("Message", exact=True).fill("Hi")
        await tab.page.get_by_role("button", name="Preview").click()
        letter = tab.page.frame_locator("iframe")
        await expect(letter.get_by_text("Ada")).to_have_css("color", "rgb(1, 2, 3)")
        await letter.get_by_role("button", name="go").click()
        await expect(letter.get_by_text("Ada")).to_be_visible()
        await expect(tab.page).to_have_title(re.compile("^birthday · pt"))
        assert all("sandboxed" in fault for fault in tab.faults), tab.faults


async def test_a_file_is_checked_and_imported_without_choosing_it_twice(own: Console, tmp_path: Path) -> None:
    """The answer comes below the form; rejected rows are saved as they were."""
    file = write_csv(tmp_path / "users.csv", make_profiles(600, seed=9))
    with file.open("a") as more:
        more.write("<img src=x onerror=alert(1)>,,nowhere,1990-01-01,,0\n")
    async with opened(own, "/console/import") as tab:
        page = tab.page
        await page.get_by_label("File", exact=True).set_input_files(file)
        await page.get_by_role("button", name="Read the file").click()
        await expect(page.get_by_text("Checked: nothing was changed")).to_be_visible()
        assert [*await tab.complaints("light", WIDE), *await tab.complaints("dark", NARROW)] == []
        async with page.expect_download() as download:
            await page.get_by_role("link", name="Save the rows").click()
        saved = await download.value
        await saved.save_as(tmp_path / "rejected.csv")
        assert (
            tmp_path / "rejected.csv"
        ).read_text() == f"{CSV_HEADER}\n<img src=x onerror=alert(1)>,,nowhere,1990-01-01,,0\n"
        await page.get_by_label("import it", exact=True).check()
        await page.get_by_role("button", name="Read the file").click()
        await expect(page.get_by_text("Imported", exact=True)).to_be_visible()
        await expect(page.locator(".figures div", has_text="Created")).to_contain_text("600")
        assert tab.faults == []

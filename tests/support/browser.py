"""A real browser: Debian's Chromium, driven by Playwright, and all that it complains of while it shows pages."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

CHROMIUM: Final = shutil.which("chromium") or "/usr/bin/chromium"
WIDE: Final = (1440, 900)
NARROW: Final = (360, 740)
"""The smallest screen that pages must fit on."""

Scheme = Literal["light", "dark"]

_OF_A_SCREEN: Final = ("color-contrast", "scrollable-region-focusable", "target-size")
"""The rules that another width or scheme may break on a page that meets all rules on one screen."""
_RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
# The parts of a long text, such as the runbook, resemble each other.
_AUDIT: Final = """
async rules => {
    const options = {runOnly: rules, resultTypes: ["violations"]};
    const {violations} = await axe.run({exclude: [[".text > :nth-child(n + 100)"]]}, options);
    return violations.filter(one => ["serious", "critical"].includes(one.impact)).map(one =>
        `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map(node => node.html.slice(0, 160)).join("; ")}`);
}
"""
_WATCH = """
addEventListener("securitypolicyviolation", event =>
    console.error(`Content-Security-Policy: ${event.violatedDirective} ${event.blockedURI}`));
window.open = window.print = () => console.error("a page opened a window");
"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run the browser without a window for the length of the context."""
    # Root may not use the browser's sandbox. What it shows here are our own pages.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        try:
            yield browser
        finally:
            await browser.close()


class Tab:
    """A page in a browser that is shared by nobody. ``faults`` is what must not happen while it shows pages of ours.

    These are scripts that run although a text holds them, errors on the console, violations of the
    Content-Security-Policy, requests to another origin, and answers with a server error.
    """

    def __init__(self, page: Page, url: str) -> None:
        """Watch a page that shows the origin ``url``."""
        self.page = page
        self.url = url
        self.faults: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        page.on("dialog", lambda dialog: self.faults.append(f"dialog: {dialog.message}"))
        page.context.on("request", self._requested)

    async def go(self, path: str) -> int:
        """Open a page of the origin, and return its status."""
        response = await self.page.goto(self.url + path)
        assert response is not None
        return response.status

    async def is_file(self, path: str, status: int) -> bool:
        """Say whether an address is a file to save instead of a page, and answers with ``status``."""
        response = await self.page.context.request.get(self.url + path)
        return response.status == status and "attachment" in response.headers.get("content-disposition", "")

    async def is_wider_than_the_screen(self) -> bool:
        """Say whether the whole page scrolls sideways."""
        wider: bool = await self.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        return wider

    async def complaints(self, scheme: Scheme, size: tuple[int, int], *, audited: bool = True) -> list[str]:
        """Return what is wrong with the page on a screen of this size: too wide, or a serious fault by axe-core.

        axe-core takes a second or more, so it is left out if ``audited`` is False. On the second screen of a page it
        checks only what depends on the screen.
        """
        await self.page.set_viewport_size({"width": size[0], "height": size[1]})
        await self.page.emulate_media(color_scheme=scheme)
        # Scripts hear of the new size before the next picture is drawn.
        await self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        where = f"{scheme}, {size[0]} px"
        found = ["scrolls sideways"] if await self.is_wider_than_the_screen() else []
        if audited:
            again = await self.page.evaluate("'axe' in window")
            if not again:
                await self.page.evaluate(_axe())
            found += await self.page.evaluate(_AUDIT, _OF_A_SCREEN if again else _RULES)
        return [f"{where}: {each}" for each in found]

    def _heard(self, message: ConsoleMessage) -> None:
        # The browser logs the status of each page that is an error. Tests check that status themselves.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(f"console: {message.text}")

    def _requested(self, request: Request) -> None:
        if not request.url.startswith((f"{self.url}/", "data:", "about:")):
            self.faults.append(f"request to another origin: {request.url}")


@asynccontextmanager
async def tab(browser: Browser, url: str, cookies: Any = (), **options: Any) -> AsyncIterator[Tab]:  # noqa: ANN401
    """Open a page with cookies of its own, as a second browser would, with Playwright's options of a context."""
    context: BrowserContext = await browser.new_context(**options)
    try:
        context.set_default_timeout(20_000)
        await context.add_cookies(list(cookies))
        await context.add_init_script(_WATCH)
        yield Tab(await context.new_page(), url)
    finally:
        await context.close()


@cache
def _axe() -> str:
    """Return the script of axe-core, which a package for Playwright carries."""
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")

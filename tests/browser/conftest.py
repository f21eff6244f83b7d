"""One browser and one invented installation for each process of the test run: to start them for each test takes long.

Tests that change something have an installation of their own.
"""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest_asyncio
from playwright.async_api import Browser

from birthday.config import Scope
from birthday.http.console.view import ROOT
from tests.support.api import Api, api_keys, running_api
from tests.support.browser import Tab, chromium, tab
from tests.support.clock import ManualClock
from tests.support.invented import NOW, invent
from tests.support.postgres import PostgresServer

KEYS = api_keys(rita="read", walter="write", ada="admin")
QUERIES = {"/templates/new": "?type=birthday&locale=fr"}
"""What pages need to be told that another page asks for."""
NAMES = {Scope.READ: "rita", Scope.WRITE: "walter", Scope.ADMIN: "ada"}


@dataclass
class Console:
    """A running console with three keys, and browsers of who has signed in with them."""

    browser: Browser
    api: Api
    examples: dict[str, tuple[str, ...]]
    pool: asyncpg.Pool
    _cookies: dict[Scope, Any]

    def address(self, path: str) -> str:
        """Return the address of a page, with examples as its parameters; a page below a new one needs a new example."""
        values = iter(self.examples.get(path.split("/")[1], ()) if path else ())
        return ROOT + re.sub(r"{[^}]*}", lambda _: next(values), path) + QUERIES.get(path, "")

    @asynccontextmanager
    async def tab(self, scope: Scope, **options: Any) -> AsyncIterator[Tab]:  # noqa: ANN401 - Playwright's
        """Open a page of somebody who has signed in with a key of ``scope``."""
        if scope not in self._cookies:
            async with tab(self.browser, self.api.url) as signing:
                await sign_in(signing, NAMES[scope])
                self._cookies[scope] = await signing.page.context.cookies()
        async with tab(self.browser, self.api.url, self._cookies[scope], **options) as opened:
            yield opened


async def sign_in(tab: Tab, name: str) -> None:
    """Sign in with the key of ``name``, as a person does."""
    await tab.go("/console")
    await tab.page.get_by_label("API key").fill(f"key-of-{name}")
    await tab.page.keyboard.press("Enter")
    await tab.page.wait_for_url("**/console")


@asynccontextmanager
async def running_console(browser: Browser, server: PostgresServer, users: int) -> AsyncIterator[Console]:
    """Run a console on a database of its own, filled with an invented installation."""
    async with AsyncExitStack() as stack:
        await server.start()
        name = await server.create_database()
        stack.push_async_callback(server.drop_database, name)
        pool = await stack.enter_async_context(asyncpg.create_pool(server.url(name), min_size=1, max_size=10))
        clock = ManualClock(NOW)
        examples = await invent(pool, clock, users)
        api = await stack.enter_async_context(
            running_api(pool, clock=clock, api_keys=KEYS, message_service_url="https://messages.example.com")
        )
        yield Console(browser, api, examples, pool, {})


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Run the browser."""
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def console(browser: Browser, postgres_server: PostgresServer) -> AsyncIterator[Console]:
    """Run a console that tests only look at."""
    async with running_console(browser, postgres_server, 2000) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def workshop(browser: Browser, postgres_server: PostgresServer) -> AsyncIterator[Console]:
    """Run a console for one test, which may change everything."""
    async with running_console(browser, postgres_server, 600) as running:
        yield running

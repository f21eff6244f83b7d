"""The page behind an unsubscribe link, in the browser of whoever got the message."""

from datetime import date

import pytest

from birthday.core.ident import uuid7
from birthday.core.user import Profile
from birthday.store.connection import borrow
from birthday.store.suppressions import read_links
from tests.browser.conftest import Console
from tests.support.browser import NARROW, WIDE, tab
from tests.support.product import PLANNING
from tests.support.users import create_user

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_unsubscribe_page_works_on_a_phone_and_without_scripts(console: Console) -> None:
    """It fits the screen, everybody can use it, in light and dark, and its button unsubscribes."""
    now = console.api.clock.now()
    user, _ = await create_user(
        console.pool, uuid7(now), Profile("Ada", "L", "ada@unsubscribe.example", date(1990, 3, 1), "UTC"), now, PLANNING
    )
    async with borrow(console.pool) as connection:
        token = (await read_links(connection)).make_token(user.id, user.profile.email)
    for scripts in (True, False):
        async with tab(console.browser, console.api.url, java_script_enabled=scripts) as opened:
            assert await opened.go(f"/unsubscribe/{token}") == 200
            if scripts:
                assert await opened.complaints("light", WIDE) == []
                assert await opened.complaints("dark", NARROW) == []
            else:
                await opened.page.get_by_role("button", name="Unsubscribe").click()
                assert await opened.page.title() == "You are unsubscribed"
            assert opened.faults == []
    assert await console.pool.fetchval("SELECT suppressed FROM users WHERE id = $1", user.id)

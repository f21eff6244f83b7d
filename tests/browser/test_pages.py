"""Every page, as each scope sees it: on a phone and a large screen, in light and dark, by axe-core and a strict policy.

The pages are those of ``VIEWS``, so that a page added later is tested without being named here.
"""

import pytest

from birthday.config import Scope
from birthday.http.console.frame import VIEWS
from birthday.http.console.view import ROOT, View
from tests.browser.conftest import Console
from tests.support.browser import NARROW, WIDE, Scheme, tab

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCREENS: dict[Scope, list[tuple[Scheme, tuple[int, int]]]] = {
    Scope.READ: [("dark", WIDE)],
    Scope.WRITE: [("light", NARROW)],
    Scope.ADMIN: [("light", WIDE), ("dark", NARROW)],
}
"""Colours and widths do not depend on the scope, so not every scope looks at each screen."""


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("view", [view for view in VIEWS if view.method == "GET"], ids=lambda view: view.path)
async def test_everybody_can_use_a_page_on_any_screen(console: Console, view: View, scope: Scope) -> None:
    """No page is wider than the screen, has a serious fault, asks another server for anything, or breaks its policy.

    A file to download is answered with the status that the scope deserves.
    """
    async with console.tab(scope) as opened:
        address = console.address(view.path)
        expected = 200 if scope.includes(view.scope) else 403
        if await opened.is_file(address, expected):
            return
        assert await opened.go(address) == expected
        # What the others see is part of what admin sees.
        audited = scope is Scope.ADMIN
        complaints = [one for screen in SCREENS[scope] for one in await opened.complaints(*screen, audited=audited)]
        assert [*complaints, *opened.faults] == []


@pytest.mark.parametrize("path", [f"{ROOT}/sign-in", f"{ROOT}/nonsense"])
async def test_everybody_can_use_the_pages_around(console: Console, path: str) -> None:
    """So it is with the page that asks for a key, and with an error."""
    signed_out = tab(console.browser, console.api.url)
    async with signed_out if path.endswith("sign-in") else console.tab(Scope.READ) as opened:
        await opened.go(path)
        complaints = [*await opened.complaints("light", WIDE), *await opened.complaints("dark", NARROW)]
        assert [*complaints, *opened.faults] == []

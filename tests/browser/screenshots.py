"""Pictures of the real pages, with invented data on an invented day: ``make screenshots`` writes docs/images/."""

import sys
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path
from typing import Final

import structlog
import uvloop
from PIL import Image

from birthday.config import Scope
from tests.browser.conftest import running_console
from tests.support.browser import NARROW, Scheme, chromium
from tests.support.postgres import PostgresServer, running_server

DIRECTORY: Final = Path(__file__).parents[2] / "docs" / "images"
USERS: Final = 120_000
DESK: Final = (1280, 860)
PICTURES: Final[tuple[tuple[str, str, Scheme, tuple[int, int]], ...]] = (
    ("overview", "", "light", DESK),
    ("overview-dark", "", "dark", DESK),
    ("calendar", "/calendar", "light", (1280, 1040)),
    ("user", "/users/{id}", "light", DESK),
    ("failures", "/failures", "light", DESK),
    ("failures-dark", "/failures", "dark", DESK),
    ("template", "/templates/{type}/{locale}", "light", DESK),
    ("phone", "", "dark", NARROW),
)
"""Name, page, scheme and size of each picture."""


async def take(server: PostgresServer) -> None:
    """Take all pictures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    DIRECTORY.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(chromium())
        console = await stack.enter_async_context(running_console(browser, server, USERS))
        while await console.api.context.calendar.read_year() is None:
            pass
        for name, path, scheme, (width, height) in PICTURES:
            viewport = {"width": width, "height": height}
            async with console.tab(Scope.ADMIN, color_scheme=scheme, viewport=viewport) as opened:
                await opened.go(console.address(path))
                picture = await opened.page.screenshot()
            file = DIRECTORY / f"console-{name}.png"
            Image.open(BytesIO(picture)).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(
                file, optimize=True
            )
            sys.stdout.write(f"{file.relative_to(DIRECTORY.parents[1])}: {file.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    with running_server() as running:
        uvloop.run(take(running))

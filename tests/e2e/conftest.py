"""What end-to-end tests have in common: a database that whoever runs the program may reach."""

import os
from collections.abc import AsyncIterator

import pytest

from tests.support.program import ACCOUNT
from tests.support.proxy import network


@pytest.fixture
async def database_url(database_url: str) -> AsyncIterator[str]:
    """Return the URL of the test's database; over TCP for another account, which may not use the server's socket."""
    if ACCOUNT not in os.environ:
        yield database_url
        return
    async with network(database_url, None, "http://127.0.0.1") as between:
        yield between.settings["DATABASE_URL"]

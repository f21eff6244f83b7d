"""The OpenAPI document, checked against the running API, and the page that shows it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.support.api import Api, api_keys, running_api


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


async def test_the_api_does_what_the_document_says(api: Api, tmp_path: Path) -> None:
    """Generated requests, good and bad, get answers that the document describes, and never a failure."""
    await api.create(dateOfBirth="1990-03-01")
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{api.url}/openapi.json",
        "--generation-deterministic",
        "--max-examples=30",
        "--continue-on-failure",
        "--no-color",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(110):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    print(output.decode())

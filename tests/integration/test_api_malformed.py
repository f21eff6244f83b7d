"""A round of requests that are wrong in every way we know: each gets a problem document that repeats nothing of it."""

import asyncio
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
import orjson
import pytest

from birthday.http.limits import Limits
from tests.support.api import Api, running_api
from tests.support.malformed import CANARY, Malformed, malformed_requests

ROUND = 940
IMPATIENT = Limits(head=2, body=2, idle=4, lingering=1)
STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d) [A-Za-z ]+")


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """The first answer on a connection."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bytes


async def ask(api: Api, request: Malformed) -> RawAnswer | None:
    """Send the pieces of a request and return the answer, None if the connection ended without any."""
    url = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        async with asyncio.timeout(60):
            for part in request.parts:
                writer.write(part)
                await asyncio.sleep(0)
            head = await reader.readuntil(b"\r\n\r\n")
            match = STATUS_LINE.match(head)
            lines = head.decode("latin-1").split("\r\n")[1:-2]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            return RawAnswer(int(match[1]) if match else 0, headers, body, head + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    finally:
        writer.close()


def fault_of(answer: RawAnswer | None) -> str | None:
    """Return what is wrong with an answer, None if nothing is."""
    if answer is None:
        return "no answer"
    if not answer.status:
        return "no status line of HTTP"
    if answer.status >= 500 and answer.status != 505:
        return "a failure of ours"
    if not re.fullmatch(r"[A-Za-z0-9._~+/=:-]{1,100}", answer.headers.get("x-request-id", "")):
        return "no X-Request-ID"
    if answer.status < 400:
        # Some are only odd, and are answered as if they were not.
        return None
    if CANARY.encode() in answer.whole:
        return "the request is echoed"
    if answer.headers.get("content-type") != "application/problem+json":
        return "no problem document"
    if orjson.loads(answer.body)["status"] != answer.status:
        return "another status in the document"
    return None


@pytest.mark.parametrize("seed", [1])
async def test_every_malformed_request_gets_a_problem_document(pool: asyncpg.Pool, seed: int) -> None:
    """Whatever is wrong: problem+json, an X-Request-ID, nothing repeated, and the process is as healthy as before."""
    found = []
    async with running_api(pool, limits=IMPATIENT) as api:
        slots = asyncio.Semaphore(50)

        async def check(request: Malformed) -> None:
            async with slots:
                answer = await ask(api, request)
            if fault := fault_of(answer):
                found.append((request.kind, fault, request.parts, answer and answer.whole))

        async with asyncio.TaskGroup() as group:
            for request in malformed_requests(seed, ROUND):
                group.create_task(check(request))
        assert found == []
        assert (await api.get("/health")).json["status"] == "healthy"
        assert (await api.get("/ready")).status == 200
        await api.create()

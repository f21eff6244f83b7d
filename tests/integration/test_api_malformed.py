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
POLICY = "default-src 'none'; frame-ancestors 'none'"
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
    document = orjson.loads(answer.body)
    if (document["status"], document["requestId"]) != (answer.status, answer.headers["x-request-id"]):
        return "another status or id in the document"
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


def post(headers: str, body: str = "") -> bytes:
    """Return a request to create a user."""
    return f"POST /users HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{body}".encode()


def get(target: str = "/users", version: str = "HTTP/1.1", headers: str = "") -> bytes:
    """Return a request to read."""
    return f"GET {target} {version}\r\nHost: localhost\r\n{headers}\r\n".encode()


JSON = "Content-Type: application/json"
LIMITS = Limits()
REFUSED = {
    "a line that is none": (400, b"c4n4ry\r\n\r\n"),
    "a header that is none": (400, get(headers="c4n4ry\r\n")),
    "no Host": (400, b"GET /users HTTP/1.1\r\nX: c4n4ry\r\n\r\n"),
    "a body that is not JSON": (400, post(f"{JSON}\r\nContent-Length: 6", CANARY)),
    "an unknown path": (404, get(f"/{CANARY}")),
    "an impossible method": (405, b"DELETE /users HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "half a head": (408, get()[:-2]),
    "half a body": (408, post(f"{JSON}\r\nContent-Length: 99", CANARY)),
    "a body that is too large": (413, post(f"{JSON}\r\nContent-Length: {2**40}")),
    "a target that is too long": (414, get("/" + CANARY * LIMITS.line_bytes)),
    "another media type": (415, post("Content-Type: text/plain\r\nContent-Length: 6", CANARY)),
    "a packed body": (415, post(f"{JSON}\r\nContent-Encoding: gzip\r\nContent-Length: 6", CANARY)),
    "an unknown expectation": (417, post(f"{JSON}\r\nExpect: {CANARY}\r\nContent-Length: 0")),
    "a header that is too long": (431, get(headers=f"X: {CANARY * LIMITS.field_bytes}\r\n")),
    "too many headers": (431, get(headers=f"X: {CANARY}\r\n" * (LIMITS.fields + 1))),
    "a head that is too large": (431, get(headers="".join(f"{n}: {CANARY * 900}\r\n" for n in range(9)))[:-2]),
    "another version of HTTP": (505, get(version="HTTP/2.0")),
}


async def test_whoever_refuses_a_request_says_so_in_the_same_way(pool: asyncpg.Pool) -> None:
    """The parser, the limits of a connection, the router and the handlers: the status, and a problem document."""
    async with running_api(pool, limits=IMPATIENT) as api:
        answers = await asyncio.gather(*(ask(api, Malformed(kind, (sent,))) for kind, (_, sent) in REFUSED.items()))
    found = {kind: answer and answer.status for kind, answer in zip(REFUSED, answers, strict=True)}
    assert found == {kind: status for kind, (status, _) in REFUSED.items()}
    assert [kind for kind, answer in zip(REFUSED, answers, strict=True) if fault_of(answer)] == []
    assert {answer.headers["content-security-policy"] for answer in answers if answer} == {POLICY}

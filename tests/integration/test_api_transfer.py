"""Import and export over HTTP: streams of lines, whatever becomes of the client."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest

from birthday.http.limits import Limits
from tests.support.api import RUNBOOK_USER, Api, running_api
from tests.support.product import eventually
from tests.support.users import CSV_HEADER, csv_line, make_profiles

NDJSON = {"Content-Type": "application/x-ndjson"}
CSV = {"Content-Type": "text/csv"}
WAIT_SECONDS = 20


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


def line(number: int, **changes: object) -> bytes:
    """Return a line of NDJSON."""
    return orjson.dumps(RUNBOOK_USER | {"email": f"{number}@example.com"} | changes) + b"\n"


async def send(api: Api, data: bytes, headers: dict[str, str] = NDJSON, query: str = "") -> list[dict[str, Any]]:
    """Import some lines, and return the lines of the answer."""
    answer = await api.request("POST", f"/users/import{query}", data=data, headers=headers)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert "X-Request-ID" in answer.headers
    return [orjson.loads(one) for one in answer.body.splitlines()]


def statuses(lines: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Return number and status of all lines but the summary."""
    return [(one["line"], one["status"]) for one in lines[:-1]]


async def test_each_line_has_a_result_and_the_end_a_summary(api: Api, pool: asyncpg.Pool) -> None:
    """Good lines create users, wrong ones are named with pointers and lose no other; blank ones have no result."""
    data = line(1, dateOfBirth="1990-03-02") + b"\n{\n" + line(2, email="x", firstName="") + line(1, firstName="Eve")
    lines = await send(api, data + line(3) + line(3))
    assert statuses(lines) == [
        (1, "created"),
        (3, "invalid"),
        (4, "invalid"),
        (5, "conflict"),
        (6, "created"),
        (7, "unchanged"),
    ]
    assert [error["pointer"] for error in lines[2]["errors"]] == ["/firstName", "/email"]
    assert [error["pointer"] for error in lines[3]["errors"]] == ["/email"]
    ids = {str(row["email"]): str(row["id"]) for row in await pool.fetch("SELECT id, email FROM users")}
    first, third = ids["1@example.com"], ids["3@example.com"]
    assert [one["id"] for one in lines[:-1]] == [first, None, None, first, third, third]
    assert lines[-1]["summary"] == {
        "lines": 6,
        "created": 2,
        "updated": 0,
        "unchanged": 1,
        "invalid": 2,
        "conflict": 1,
        "dryRun": False,
        "complete": True,
        "detail": None,
    }
    assert (api.metric("users_created_total"), api.metric("messages_scheduled_total")) == (2, 1)


async def test_what_is_wrong_with_a_line_is_told_in_few_words(api: Api) -> None:
    """However many members are wrong, in the line itself or in a member."""
    many = {f"F{member}": 1 for member in range(20_000)}
    few = {f"F{member}": 1 for member in range(90)}
    lines = await send(api, line(0, **many) + line(1, **few) + line(2, anniversaries=many))
    assert [(one["status"], len(one["errors"])) for one in lines[:-1]] == [
        ("invalid", 1),
        ("invalid", 50),
        ("invalid", 1),
    ]
    assert lines[1]["errors"][-1] == {"pointer": "", "detail": "and 41 errors more"}


async def test_an_upsert_and_a_dry_run(api: Api, pool: asyncpg.Pool) -> None:
    """A dry run tells the same as the real one, and changes nothing; who did it is recorded."""
    await api.create(email="1@example.com", externalId="crm-1")
    data = "\n".join(["externalId," + CSV_HEADER, "crm-1,Ada,,new@example.com,1990-03-02,,0"])
    before = await pool.fetch("SELECT users.*, xmin FROM users")
    rehearsed = await send(api, data.encode(), CSV, "?mode=upsert&dryRun=true")
    assert await pool.fetch("SELECT users.*, xmin FROM users") == before
    done = await send(api, data.encode(), CSV, "?mode=upsert")
    assert statuses(rehearsed) == statuses(done) == [(2, "updated")]
    assert rehearsed[-1]["summary"]["dryRun"]
    assert await pool.fetchval("SELECT email FROM users") == "new@example.com"
    assert await pool.fetchval("SELECT actor FROM changes WHERE action = 'changed'") == "api"


@pytest.mark.parametrize(
    ("headers", "data", "query", "status"),
    [
        ({"Content-Type": "application/json"}, b"{}", "", 415),
        ({"Content-Type": "text/csv; charset=latin1"}, b"", "", 415),
        (CSV, b"a,b\n1,2", "", 422),
        (NDJSON, b"[{}]", "", 422),
        (NDJSON, b"", "?mode=replace", 422),
        (NDJSON, b"", "?dryRun=1", 422),
    ],
)
async def test_what_cannot_be_imported_at_all_is_a_problem(
    api: Api, headers: dict[str, str], data: bytes, query: str, status: int
) -> None:
    """Another media type, a wrong header and wrong parameters are answered before any line."""
    answer = await api.request("POST", f"/users/import{query}", data=data, headers=headers)
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert (await api.get("/users/import")).status == 405


async def test_a_line_is_answered_while_the_next_is_not_sent_yet(api: Api) -> None:
    """Both directions stream: a client that waits for each answer gets it."""
    turn: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def body() -> AsyncGenerator[bytes, None]:
        while (piece := await turn.get()) is not None:
            yield piece

    turn.put_nowait(line(1))
    async with asyncio.timeout(WAIT_SECONDS):
        async with api.client.post(f"{api.url}/users/import", data=body(), headers=NDJSON) as response:
            assert orjson.loads(await response.content.readline())["status"] == "created"
            turn.put_nowait(line(2))
            assert orjson.loads(await response.content.readline())["line"] == 2
            turn.put_nowait(None)
            assert orjson.loads(await response.content.readline())["summary"]["lines"] == 2


async def test_a_long_import_holds_up_nobody(api: Api, pool: asyncpg.Pool) -> None:
    """Thousands of lines, many times the limit of a body, are imported while other requests are answered at once."""
    data = b"".join(line(number) for number in range(4000))
    slowest = 0.0
    importing = asyncio.create_task(send(api, data))
    while not importing.done():
        started = time.perf_counter()
        assert (await api.get("/alive")).status == 200
        slowest = max(slowest, time.perf_counter() - started)
    lines = await importing
    assert lines[-1]["summary"]["created"] == await pool.fetchval("SELECT count(*) FROM users") == 4000
    assert slowest < 1


async def test_a_client_that_leaves_has_whole_users_only(api: Api, pool: asyncpg.Pool) -> None:
    """Lines that were answered are stored; a line that was cut off is not, although it could be a user."""
    answered, cut_off, never = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop().create_future()

    async def body() -> AsyncGenerator[bytes, None]:
        yield f"{CSV_HEADER}\n{csv_line(next(make_profiles(1)))}\n".encode()
        await answered.wait()
        yield b"Ada,Lovelace,ada@example.co,1990-01-01,,0"
        cut_off.set()
        await never

    async with api.client.post(f"{api.url}/users/import", data=body(), headers=CSV) as response:
        assert orjson.loads(await response.content.readline())["status"] == "created"
        answered.set()
        await cut_off.wait()
        response.close()
    # The next import may begin only when the last one has ended.
    assert (await send(api, line(1)))[-1]["summary"]["created"] == 1
    await eventually(lambda: _is_free(api), "the import has ended", WAIT_SECONDS)
    assert await pool.fetchval("SELECT count(*) FROM users") == 2


async def _is_free(api: Api) -> bool:
    return not api.context.importing.locked()


async def test_a_body_may_take_long_while_it_comes(pool: asyncpg.Pool) -> None:
    """The limit of a body's time is one between two pieces here; after it the answer breaks off."""
    async with running_api(pool, limits=Limits(body=0.6)) as api:
        never = asyncio.get_running_loop().create_future()

        async def body() -> AsyncGenerator[bytes, None]:
            for number in range(5):
                yield line(number)
                await asyncio.wait([never], timeout=0.3)
            await never

        async with asyncio.timeout(WAIT_SECONDS):
            async with api.client.post(f"{api.url}/users/import", data=body(), headers=NDJSON) as response:
                lines = [orjson.loads(await response.content.readline()) for _ in range(5)]
                with pytest.raises(aiohttp.ClientError):
                    await response.content.read()
        assert statuses([*lines, {}]) == [(number + 1, "created") for number in range(5)]
        assert await pool.fetchval("SELECT count(*) FROM users") == 5


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/x-ndjson"),
        ("text/csv", "text/csv"),
        ("text/*;q=0.5, application/x-ndjson;q=0.1", "text/csv"),
        ("text/csv;q=0, */*", "application/x-ndjson"),
    ],
)
async def test_an_export_is_what_an_import_takes(api: Api, pool: asyncpg.Pool, accept: str, media_type: str) -> None:
    """Accept decides the format; imported again, all users are unchanged."""
    await api.create(externalId="crm-1", anniversaries={"name-day": "2019-07-29"}, attributes={"team": "blue"})
    await send(api, b"".join(line(number) for number in range(450)))
    answer = await api.get("/users/export", {"Accept": accept})
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (200, media_type)
    again = await send(api, answer.body, {"Content-Type": media_type})
    assert again[-1]["summary"]["unchanged"] == await pool.fetchval("SELECT count(*) FROM users") == 451


async def test_another_format_is_not_to_be_had(api: Api) -> None:
    """Accept of something else is 406."""
    answer = await api.get("/users/export", {"Accept": "application/json"})
    assert (answer.status, answer.json["code"]) == (406, "not_acceptable")
    assert (await api.request("HEAD", "/users/export")).status == 200


async def test_imports_have_their_places(api: Api) -> None:
    """Not more than two run at a time, so that the pool has connections for others."""
    for _ in range(2):
        await api.context.importing.acquire()
    answer = await api.request("POST", "/users/import", data=line(1), headers=NDJSON)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")

"""The main job from outside: a user is posted, and greeted at the right time, exactly once."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from tests.support.message_service import Answer, MessageService
from tests.support.product import eventually
from tests.support.program import ACCOUNT, HAS_ACCOUNTS, Program, run, running
from tests.support.proxy import network

needs_accounts = pytest.mark.skipif(not HAS_ACCOUNTS, reason="user namespaces are not allowed here")
as_anybody = pytest.mark.parametrize(
    "account", ["ourselves", pytest.param("nobody", marks=needs_accounts)], indirect=True
)
"""The rest of them is run as nobody by `make test-e2e-nobody`."""


@pytest.fixture(autouse=True)
def account(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the program as the user who runs the tests, often root, or as one without any rights or a home."""
    account = getattr(request, "param", "ourselves")
    if account != "ourselves":
        monkeypatch.setenv(ACCOUNT, account)


@pytest.fixture
async def database_url(database_url: str) -> AsyncIterator[str]:
    """Return the URL of the test's database over TCP: its server lets only the owner of its files use the socket."""
    async with network(database_url, None, "http://127.0.0.1") as between:
        yield between.settings["DATABASE_URL"]


async def post_user(program: Program, **changes: str) -> dict[str, Any]:
    """Create a user whose birthday is today, UTC, and return the answer's body."""
    today = datetime.now(UTC)
    body = {
        "firstName": "Ada",
        "lastName": "Lovelace",
        "email": f"ada-{time.monotonic_ns()}@example.com",
        "dateOfBirth": f"1992-{today:%m-%d}",
        "timezone": "UTC",
    } | changes
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{program.url}/users", json=body) as response,
    ):
        answer: dict[str, Any] = await response.json()
        assert response.status == 201, answer
        return answer


async def get(url: str) -> dict[str, Any]:
    """Return the JSON body of a GET that succeeds."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        body: dict[str, Any] = await response.json()
        return body


def in_seconds(seconds: float) -> str:
    """Return the time of day so many seconds from now, UTC, as SEND_AT takes it."""
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%H:%M:%S}"


@as_anybody
async def test_on_the_embedded_database_a_greeting_is_printed_once_though_the_program_is_killed(tmp_path: Path) -> None:
    """The first example of the README; then kill -9 and a second start: nothing is sent again."""
    settings = {"BIRTHDAY_DATA_DIR": str(tmp_path / "data"), "SEND_AT": "00:00"}
    async with running(**settings) as program:
        user = await post_user(program, email="ada@example.com")
        assert "ada@example.com  Hey, Ada Lovelace it's your birthday" in await program.wait_for_line("Ada")
        await eventually(lambda: is_delivered(program, user["id"]), "the message is delivered")
        await program.stop(signal.SIGKILL)
    async with running(**settings) as program:
        [message] = (await get(f"{program.url}/users/{user['id']}/messages"))["messages"]
        assert (message["status"], message["attempts"]) == ("delivered", 1)
        await post_user(program, firstName="Grace")
        await program.wait_for_line("Grace")
        assert len(program.printed) == 1
        assert await program.stop(signal.SIGINT) == 0


@as_anybody
async def test_with_postgresql_and_rabbitmq_the_message_service_gets_one_post_on_time(
    database_url: str, rabbitmq_url: str, message_service: MessageService
) -> None:
    """Body and headers are those of the contract; not a moment early, and soon after the instant."""
    settings = {
        "DATABASE_URL": database_url,
        "RABBITMQ_URL": rabbitmq_url,
        "MESSAGE_SERVICE_URL": message_service.url,
        "MESSAGE_SERVICE_API_KEY": "open-sesame",
        "SEND_AT": in_seconds(8),
    }
    async with running(**settings) as program:
        user = await post_user(program, email="grace@example.com", firstName="Grace", lastName="Hopper")
        due_at = datetime.fromisoformat(user["nextMessageAt"])
        assert f"{due_at:%H:%M:%S}" == settings["SEND_AT"]
        await message_service.wait_for(1, 60)
        late = time.time() - due_at.timestamp()
        await eventually(lambda: is_delivered(program, user["id"]), "the message is delivered")
        [message] = (await get(f"{program.url}/users/{user['id']}/messages"))["messages"]
    assert 0 <= late < 5
    [request] = message_service.requests
    assert (request.method, request.path) == ("POST", "/send")
    assert json.loads(request.body) == {
        "email": "grace@example.com",
        "message": "Hey, Grace Hopper it's your birthday",
    }
    assert request.headers["Authorization"] == "Bearer open-sesame"
    assert request.headers["Idempotency-Key"] == message["id"]


async def test_roles_in_processes_of_their_own_work_together(
    database_url: str, message_service: MessageService
) -> None:
    """One process for each role on one database: posted to the first, delivered by the last."""
    settings = {"DATABASE_URL": database_url, "MESSAGE_SERVICE_URL": message_service.url, "SEND_AT": "00:00"}
    async with (
        running("--role", "api", **settings) as api,
        running("--role", "scheduler", **settings) as scheduler,
        running(ROLE="worker", **settings) as worker,
    ):
        user = await post_user(api)
        await message_service.wait_for(1, 60)
        await eventually(lambda: is_delivered(api, user["id"]), "the message is delivered")
        for program in (api, scheduler, worker):
            assert (await get(f"{program.url}/ready"))["status"] == "ready"
        async with aiohttp.ClientSession() as session, session.get(f"{worker.url}/users") as response:
            assert response.status == 404
        assert "birthday_scheduler_messages_delivered_total 1.0" in await metrics(worker)
        assert "birthday_scheduler_messages_queued_total 1.0" in await metrics(scheduler)


async def test_two_processes_share_one_port(database_url: str) -> None:
    """Whichever of them answers, the answer is the same: processes are added without a proxy in front."""
    async with running("--role", "api", DATABASE_URL=database_url) as first:
        port = first.url.rpartition(":")[2]
        async with running("--role", "api", DATABASE_URL=database_url, PORT=port) as second:
            assert second.url == first.url
            user = await post_user(first)
            for _ in range(20):
                assert (await get(f"{first.url}/users/{user['id']}"))["id"] == user["id"]
            assert await first.stop() == 0
            assert (await get(f"{second.url}/alive"))["status"] == "alive"


async def test_a_stop_finishes_what_is_being_sent(database_url: str, message_service: MessageService) -> None:
    """SIGTERM while the service takes its time: the outcome is recorded, and nothing is sent again."""
    settings = {"DATABASE_URL": database_url, "MESSAGE_SERVICE_URL": message_service.url, "SEND_AT": "00:00"}
    message_service.answers.append(Answer(delay=timedelta(seconds=1.5)))
    async with running(**settings) as program:
        await post_user(program)
        await message_service.wait_for(1, 60)
        assert await program.stop() == 0
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT status, attempts FROM message_logs")
    finally:
        await connection.close()
    assert [tuple(row) for row in rows] == [("delivered", 1)]


@needs_accounts
@pytest.mark.parametrize("account", ["nobody-read-only"], indirect=True)
async def test_where_nothing_can_be_written_it_starts_works_and_stops(
    database_url: str, message_service: MessageService
) -> None:
    """As in a hardened container: no rights, a read-only root. SIGTERM drains what is being sent, with status 0."""
    settings = {"DATABASE_URL": database_url, "MESSAGE_SERVICE_URL": message_service.url, "SEND_AT": "00:00"}
    message_service.answers.append(Answer(delay=timedelta(seconds=1.5)))
    async with running(**settings) as program:
        user = await post_user(program)
        assert (await get(f"{program.url}/ready"))["status"] == "ready"
        assert "birthday_scheduler_system_load_average" in await metrics(program)
        await message_service.wait_for(1, 60)
        assert (await get(f"{program.url}/users/{user['id']}"))["id"] == user["id"]
        assert await program.stop() == 0
        assert "service.stopped" in {event["event"] for event in program.events}
    assert len(message_service.requests) == 1


async def test_import_works_beside_the_running_program_and_export_gives_it_back(tmp_path: Path) -> None:
    """Both share the embedded database; good rows go in, bad ones are named, and the exit status says so."""
    settings = {"BIRTHDAY_DATA_DIR": str(tmp_path / "data"), "SEND_AT": "00:00"}
    today = datetime.now(UTC)
    file = tmp_path / "users.csv"
    file.write_text(
        "firstName,lastName,email,dateOfBirth,timezone,timezoneOffset\n"
        f"Ada,Lovelace,ada@example.com,1992-{today:%m-%d},UTC,\n"
        "Alan,Turing,alan@example.com,1912-06-23,Mars/Base,\n"
        f"Grace,Hopper,grace@example.com,1992-{today:%m-%d},,0\n",
        encoding="utf-8",
    )
    async with running(**settings) as program:
        imported = await run("import", str(file), **settings)
        assert imported.status == 1
        assert "line 3" in imported.err
        assert "'Mars/Base' is not a time zone" in imported.err
        assert "2 users created" in imported.err
        await asyncio.gather(program.wait_for_line("Ada"), program.wait_for_line("Grace"))
        exported = await run("export", "--format", "ndjson", **settings)
    rows = [json.loads(line) for line in exported.out.splitlines()]
    assert {(row["email"], row["timezone"], row["timezoneOffset"]) for row in rows} == {
        ("ada@example.com", "UTC", None),
        ("grace@example.com", None, 0),
    }


async def is_delivered(program: Program, user_id: str) -> bool:
    """Say whether all messages of a user are delivered."""
    messages = (await get(f"{program.url}/users/{user_id}/messages"))["messages"]
    return bool(messages) and all(message["status"] == "delivered" for message in messages)


async def metrics(program: Program) -> str:
    """Return the metrics page."""
    async with aiohttp.ClientSession() as session, session.get(f"{program.url}/metrics") as response:
        return await response.text()

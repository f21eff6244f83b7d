"""The drill: an older backup is restored, and what was lost with the database is fed in again."""

import json
import os
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.message_service import MessageService, Received
from tests.support.postgres import PostgresServer, postgres_programs
from tests.support.product import eventually
from tests.support.program import Program, run, running

SCRIPT = Path(__file__).parents[2] / "scripts" / "backup-database.sh"


@pytest.fixture
async def restored_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """Return the URL of an empty database for the restore."""
    await postgres_server.start()
    name = await postgres_server.create_database(migrated=False)
    yield postgres_server.url(name)
    await postgres_server.drop_database(name)


async def post_user(program: Program, name: str) -> str:
    """Create a user whose birthday is today, UTC, and return the id."""
    body = {
        "firstName": name,
        "email": f"{name}@example.com",
        "dateOfBirth": f"1992-{datetime.now(UTC):%m-%d}",
        "timezone": "UTC",
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{program.url}/users", json=body) as response,
    ):
        assert response.status == 201, await response.text()
        user: dict[str, Any] = await response.json()
        return str(user["id"])


def sends(service: MessageService) -> list[Received]:
    """Return the requests that send something: others ask whether the service is there."""
    return [request for request in service.requests if request.method == "POST"]


async def wait_for_sends(service: MessageService, count: int) -> None:
    """Wait until so many sends have come in."""

    async def are_there() -> bool:
        return len(sends(service)) >= count

    await eventually(are_there, f"{count} sends", 60)


async def is_paused(program: Program) -> bool:
    """Say whether the program has noticed a pause."""
    async with aiohttp.ClientSession() as session, session.get(f"{program.url}/health") as response:
        return bool((await response.json())["paused"])


async def succeed(*command: str | Path, **environment: str) -> str:
    """Run a program of PostgreSQL, or a script that needs them, and return what it printed."""
    path = os.pathsep.join([str(postgres_programs()), os.environ["PATH"]])
    process = await create_subprocess_exec(*command, env=environment | {"PATH": path}, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_after_a_restore_everybody_is_greeted_under_one_key_and_nobody_deleted_comes_back(
    database_url: str, restored_url: str, message_service: MessageService, tmp_path: Path
) -> None:
    """Who waited in the backup, who was new since, who was greeted since and who was deleted since: one key each."""
    settings = {"DATABASE_URL": database_url, "MESSAGE_SERVICE_URL": message_service.url, "SEND_AT": "00:00"}
    log = tmp_path / "birthday.log"
    async with running(**settings) as program:
        await post_user(program, "greeted-before")
        await wait_for_sends(message_service, 1)
        assert (await run("pause", **settings)).status == 0
        await eventually(lambda: is_paused(program), "the pause is noticed")
        deleted = await post_user(program, "deleted-since")
        await post_user(program, "waiting")
        backup = (await succeed(SCRIPT, tmp_path, DATABASE_URL=database_url)).strip()
        kept = await post_user(program, "new-since")
        exported = await run("export", **settings)
        async with (
            aiohttp.ClientSession() as session,
            session.delete(f"{program.url}/users/{deleted}") as response,
        ):
            assert response.status == 204
        listed = await run("export", "--deleted", **settings)
        assert (await run("resume", **settings)).status == 0
        await wait_for_sends(message_service, 3)
        log.write_text("".join(f"{json.dumps(event)}\n" for event in program.events))
    (tmp_path / "users.csv").write_text(exported.out)
    assert deleted in listed.out

    await succeed("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={restored_url}", backup)
    settings["DATABASE_URL"] = restored_url
    brought = await run("import", "--with-ids", str(tmp_path / "users.csv"), **settings)
    assert (brought.status, "1 users created, 3 unchanged, 0 rejected" in brought.err) == (0, True), brought.err
    gone = await run("import", "--deleted", str(log), **settings)
    assert (gone.status, "1 deletions read: 1 users deleted" in gone.err) == (0, True), gone.err
    async with running(**settings) as program:
        assert (await run("resume", **settings)).status == 0
        await wait_for_sends(message_service, 5)
        audit = await run("audit", "--from", f"{datetime.now(UTC):%F}", "--to", f"{datetime.now(UTC):%F}", **settings)
        assert audit.status == 0, audit.out
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{program.url}/users/{kept}") as response:
                assert response.status == 200
            async with session.get(f"{program.url}/users/{deleted}") as response:
                assert response.status == 404
        assert await program.stop() == 0
    keys: dict[str, list[str | None]] = {}
    for request in sends(message_service):
        keys.setdefault(request.json["email"].partition("@")[0], []).append(request.key)
    assert {name: (len(each), len(set(each))) for name, each in keys.items()} == {
        "greeted-before": (1, 1),
        "waiting": (2, 1),
        "new-since": (2, 1),
    }
    assert {request.json["message"] for request in sends(message_service)} == {
        f"Hey, {name} it's your birthday" for name in keys
    }

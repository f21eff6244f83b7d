"""``birthday templates`` from outside."""

import signal
from pathlib import Path

import aiohttp
import asyncpg

from birthday.embedded.process import exists, read_arguments
from tests.support.message_service import MessageService
from tests.support.program import run, running


async def test_another_text_and_another_language_from_a_terminal(
    database_url: str, pool: asyncpg.Pool, message_service: MessageService, tmp_path: Path
) -> None:
    """The way of the README: pull, edit, push, preview, test; then look, and take it back."""
    settings = {"DATABASE_URL": database_url, "MESSAGE_SERVICE_URL": message_service.url}
    texts = tmp_path / "texts"

    async def templates(*arguments: str, status: int = 0) -> str:
        finished = await run("templates", *arguments, **settings)
        assert finished.status == status, finished.err
        return finished.out if status == 0 else finished.err

    await templates("pull", str(texts))
    message = texts / "birthday" / "default" / "message.txt"
    assert message.read_text() == "Hey, {{ first_name }} {{ last_name }} it's your birthday\n"
    message.write_text("Happy {{ years | ordinal }} birthday, {{ first_name }}!\n")
    (texts / "birthday" / "pt").mkdir()
    (texts / "birthday" / "pt" / "message.txt").write_text("Parabéns, {{ fist_name }}!\n")
    refused = await templates("push", str(texts), status=2)
    assert "birthday/pt" in refused
    assert "line 1: fist_name is no variable" in refused
    (texts / "birthday" / "pt" / "message.txt").write_text("Parabéns, {{ first_name }}!\n")
    pushed = await templates("push", str(texts))
    assert "birthday/default: unchanged, version 1" in pushed
    assert "birthday/pt: version 1 is active, tried for 0 users" in pushed

    (tmp_path / "ada.json").write_text('{"firstName": "Grace", "locale": "pt-BR"}')
    assert "Parabéns, Grace!" in await templates("preview", "birthday", "--with", str(tmp_path / "ada.json"))
    assert "Happy 30th birthday, Ada!" in await templates("show", "birthday") + await templates("preview", "birthday")
    assert "sent to dev@example.com" in await templates("test", "birthday", "--to", "dev@example.com", "--locale", "pt")
    [request] = message_service.requests
    assert request.json == {"email": "dev@example.com", "message": "[Test] Parabéns, Ada!"}

    await templates("activate", "birthday", "default", "0")
    listed = await templates("list")
    assert "0, built in" in listed
    assert "pt" in listed
    assert await pool.fetchval("SELECT count(*) FROM templates") == 2


def children(pid: int) -> list[int]:
    """Return the ids of the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_ctrl_c_ends_the_process_that_compiles_too(database_url: str) -> None:
    """It writes nothing and leaves nothing behind."""
    async with running("--role", "api", DATABASE_URL=database_url) as program:
        url = f"{program.url}/templates/birthday/default/preview"
        async with aiohttp.ClientSession() as client, client.post(url, json={"draft": {"message": "Hi"}}) as answer:
            assert answer.status == 200
        [child] = children(program.process.pid)
        assert b"birthday.operations.templates.compiler" in await read_arguments(child)
        assert await program.stop(signal.SIGINT) == 0
        assert not exists(child)
    assert not [event for event in program.events if event["event"] == "text"]

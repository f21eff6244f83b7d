"""Dead letters from an operator's terminal: what the commands print, do, and end with."""

import asyncio
import json
import os
import pty
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import aiohttp
import asyncpg
import pytest

from birthday.broker import Broker
from birthday.broker.postgres import PostgresBroker
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.core.message import ErrorType
from tests.support.dead import bury, dead_ids, store_failed, take_all
from tests.support.message_service import Answer, MessageService
from tests.support.product import eventually
from tests.support.program import COMMAND, Finished, run, running


@dataclass(frozen=True, slots=True)
class Site:
    """Where the program works: its settings, and the database and the queue that these name."""

    settings: dict[str, str]
    pool: asyncpg.Pool
    broker: Broker

    async def dlq(self, *arguments: str) -> Finished:
        """Run ``birthday dlq``."""
        return await run("dlq", *arguments, **self.settings)

    async def statuses(self) -> dict[str, int]:
        """Return how many messages there are in each status."""
        rows = await self.pool.fetch("SELECT status, count(*) AS messages FROM message_logs GROUP BY status")
        return {row["status"]: row["messages"] for row in rows}


@pytest.fixture
async def site(request: pytest.FixtureRequest, database_url: str, pool: asyncpg.Pool) -> AsyncIterator[Site]:
    """An installation on RabbitMQ, or on the queue that a test asks for: tests/integration/test_dlq.py tries both."""
    settings = {"DATABASE_URL": database_url}
    broker: Broker = PostgresBroker(pool)
    if getattr(request, "param", "rabbitmq") == "rabbitmq":
        settings["RABBITMQ_URL"] = request.getfixturevalue("rabbitmq_url")
        broker = RabbitMQBroker(settings["RABBITMQ_URL"])
    yield Site(settings, pool, broker)
    await broker.close()


@pytest.mark.parametrize("site", ["postgres", "rabbitmq"], indirect=True)
async def test_what_failed_is_found_requeued_and_delivered(site: Site, message_service: MessageService) -> None:
    """The whole way: refused by the service, listed, shown without personal data, requeued, delivered."""
    settings = site.settings | {"MESSAGE_SERVICE_URL": message_service.url, "SEND_AT": "00:00"}
    message_service.answer_with(Answer(422), Answer(422))
    async with running(**settings) as program:
        for name in ("ada", "grace"):
            await post_user(program.url, name)
        await eventually(lambda: has_dead(site, 2), "both have failed", 60)

        listed = json.loads((await site.dlq("list", "--json", "--error-type", "validation_error")).out)
        assert [(one["kind"], one["attempts"], one["inQueue"]) for one in listed] == [("failed", 1, True)] * 2
        shown = await site.dlq("show", listed[0]["messageId"])
        assert shown.status == 0
        assert "the message service answered 422" in shown.out
        assert "rejected" in shown.out
        assert "@example.com" not in shown.out
        assert "Lovelace" not in shown.out

        one = await site.dlq("requeue", "--id", listed[0]["messageId"])
        assert (one.status, one.out.splitlines()[0]) == (0, "1 of 1 failed message requeued")
        rest = await site.dlq("requeue", "--newer-than", "1h")
        assert rest.out.splitlines()[0] == "1 of 1 failed message requeued"
        await eventually(lambda: has_statuses(site, {"delivered": 2}), "both are delivered", 60)
    assert await dead_ids(site.broker) == []
    assert sorted(len(requests) for requests in message_service.by_key().values()) == [2, 2]


async def test_failures_are_summed_up_and_requeued_by_status(site: Site, message_service: MessageService) -> None:
    """Two were refused with 422, one with 400: by status, cause and hour; a requeue says what it leaves."""
    settings = site.settings | {"MESSAGE_SERVICE_URL": message_service.url, "SEND_AT": "00:00"}
    message_service.answer_with(Answer(422), Answer(422), Answer(400))
    async with running(**settings) as program:
        for name in ("ada", "grace", "joan"):
            await post_user(program.url, name)
        await eventually(lambda: has_dead(site, 3), "all have failed", 60)
        groups = json.loads((await site.dlq("summary", "--json")).out)
        assert sum(group["messages"] for group in groups) == 3
        assert {group["httpStatus"] for group in groups} == {400, 422}
        assert {group["errorType"] for group in groups} == {"validation_error"}
        assert all(datetime.fromisoformat(group["hour"]).minute == 0 for group in groups)
        assert len(json.loads((await site.dlq("list", "--json", "--status", "422")).out)) == 2
        requeued = await site.dlq("requeue", "--status", "422")
        assert requeued.status == 0
        assert requeued.out.splitlines()[0] == "2 of 2 failed messages requeued"
        assert requeued.out.splitlines()[-1] == "1 other failed message left: 'birthday dlq summary' shows why"
        await eventually(lambda: has_statuses(site, {"delivered": 2, "failed": 1}), "two are delivered", 60)
        screen = (await site.dlq("summary")).out.splitlines()
        assert screen[1].split()[2:] == ["validation_error", "400", "1"]
        assert screen[-1] == "1 failed message"
        assert (await site.dlq("summary", "--status", "503")).out == "no failed messages\n"
        assert (await site.dlq("summary", "--status", "99")).status == 2


async def test_a_list_for_a_person_and_for_a_program(site: Site) -> None:
    """A line for each, with what it is; JSON with the same; conditions and a limit; nothing that a terminal obeys."""
    assert (await site.dlq("list")).out == "no dead letters\n"
    assert json.loads((await site.dlq("list", "--json")).out) == []
    now = datetime.now(UTC)
    user_id, unknown = uuid4(), uuid4()
    [old] = await store_failed(site.pool, 1, now - timedelta(days=2), ErrorType.TIMEOUT, user_id)
    [new] = await store_failed(site.pool, 1, now - timedelta(minutes=5))
    await site.pool.execute("UPDATE message_logs SET error_detail = $1 WHERE id = $2", "a\x1b[31mb [red]c", new)
    await bury(site.broker, [new, unknown])

    lines = (await site.dlq("list")).out.splitlines()
    words = {line.split()[0]: line.split() for line in lines[1:]}
    assert words[str(old)][1:3] == [str(user_id), "timeout"]
    assert words[str(old)][-1] == "no"
    assert words[str(new)][-1] == "yes"
    assert "a\N{REPLACEMENT CHARACTER}[31mb [red]c" in "\n".join(lines)
    assert words[str(unknown)][1:3] == ["-", "unknown"]
    assert lines[-1] == "3 of 3"
    for form, limit, left_out in (((), 1, 2), (("--json",), 2, 1)):
        cut = await site.dlq("list", *form, "--limit", str(limit))
        assert cut.err.splitlines()[-1] == f"birthday: {left_out} more not listed: --limit 3 lists all"
        assert form or cut.out.splitlines()[-1] == "1 of 3"
    assert "not listed" not in (await site.dlq("list", "--json", "--limit", "3")).err

    for conditions, expected in (
        (("--older-than", "1d", "--newer-than", "3d"), [old]),
        (("--newer-than", "1h"), [new, unknown]),
        (("--user", str(user_id)), [old]),
        (("--id", str(unknown)), [unknown]),
        (("--error-type", "external_api_error"), [new]),
        (("--detail", "refuse"), [old]),
    ):
        found = json.loads((await site.dlq("list", "--json", *conditions)).out)
        assert [one["messageId"] for one in found] == [str(message_id) for message_id in expected]
    assert (await site.dlq("show", str(uuid4()))).status == 1


async def test_an_archive_in_a_file_and_in_a_pipe(site: Site, tmp_path: Path) -> None:
    """What was archived has left the queue and stays failed; standard output has nothing but the lines of it."""
    now = datetime.now(UTC)
    first, second = await store_failed(site.pool, 2, now)
    await bury(site.broker, [first, second])
    file = tmp_path / "archive.ndjson"
    archived = await site.dlq("archive", str(file), "--id", str(first))
    assert archived.status == 0
    assert archived.out.startswith("1 dead letter archived")
    assert json.loads(file.read_text())["messageId"] == str(first)
    again = await site.dlq("archive", str(file))
    assert again.status == 2
    assert "exists" in again.err
    piped = await site.dlq("archive", "-")
    assert [json.loads(line)["row"]["id"] for line in piped.out.splitlines()] == [str(second)]
    assert "1 dead letter archived" in piped.err
    assert await dead_ids(site.broker) == []
    assert await site.statuses() == {"failed": 2}


async def test_a_purge_asks(site: Site) -> None:
    """On a terminal it needs a yes, elsewhere --yes; it says what it did and what it left."""
    [message_id] = await store_failed(site.pool, 1, datetime.now(UTC))
    await bury(site.broker, [message_id])
    unasked = await site.dlq("purge")
    assert unasked.status == 2
    assert "--yes" in unasked.err
    refused = await on_terminal(site, "n\n", "dlq", "purge")
    assert refused.status == 1
    assert "The queue has 1 dead letter. Remove all?" in refused.out
    assert await dead_ids(site.broker) == [message_id]
    uncounted = await site.dlq("purge", "--yes", "--error-type", "timeout")
    assert uncounted.out.splitlines()[-1] == "1 left"
    accepted = await on_terminal(site, "y\n", "dlq", "purge")
    assert accepted.status == 0
    assert "1 dead letter removed: 1 of messages, which stay failed" in accepted.out
    assert await dead_ids(site.broker) == []
    assert await site.statuses() == {"failed": 1}


async def test_what_is_wrong_is_said(site: Site) -> None:
    """A wrong argument ends with status 2 and says what is accepted, a queue that is away with status 1."""
    for arguments, words in (
        (("list", "--older-than", "soon"), ("'soon'", "48h")),
        (("requeue", "--error-type", "boredom"), ("boredom", "external_api_error")),
        (("requeue", "--user", "ada"), ("ada", "UUID")),
        (("show", "1"), ("'1'", "UUID")),
        (("purge", "--limit", "0"), ("0", "--limit")),
    ):
        finished = await site.dlq(*arguments)
        assert finished.status == 2
        assert all(word in finished.err for word in words), finished.err
    away = await run("dlq", "list", **(site.settings | {"RABBITMQ_URL": "amqp://u:hidden@127.0.0.1:1/"}))
    assert away.status == 1
    assert "127.0.0.1:1" in away.err
    assert "hidden" not in away.err


@pytest.mark.slow
async def test_ctrl_c_leaves_nothing_in_between(site: Site) -> None:
    """Stopped in the middle, a requeue says how far it came; the same command does the rest, each message once."""
    ids = await store_failed(site.pool, 10_000, datetime.now(UTC))
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "dlq", "requeue", env=environment(site), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    await eventually(lambda: has_queued(site), "it has begun", 60)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert out.decode().startswith("stopped early, the same command goes on from here: ")
    statuses = await site.statuses()
    assert 0 < statuses["failed"] < 10_000
    assert f" {statuses['queued']:,} of 10,000 failed messages requeued" in out.decode()
    rest = await site.dlq("requeue")
    assert rest.out.startswith(f"{statuses['failed']:,} of ")
    copies = await take_all(site.broker, (await site.broker.stats()).ready)
    assert set(copies) == set(ids)


async def has_dead(site: Site, count: int) -> bool:
    """Say whether there are so many dead letters."""
    return (await site.broker.stats()).dead == count


async def has_statuses(site: Site, expected: dict[str, int]) -> bool:
    """Say whether there are exactly so many messages in each status."""
    return await site.statuses() == expected


async def has_queued(site: Site) -> bool:
    """Say whether a message is queued."""
    return "queued" in await site.statuses()


async def post_user(url: str, name: str) -> None:
    """Create a user whose birthday is today, UTC."""
    body = {
        "firstName": name,
        "lastName": "Lovelace",
        "email": f"{name}@example.com",
        "dateOfBirth": f"1992-{datetime.now(UTC):%m-%d}",
        "timezone": "UTC",
    }
    async with aiohttp.ClientSession() as session, session.post(f"{url}/users", json=body) as response:
        assert response.status == 201


async def on_terminal(site: Site, typed: str, *arguments: str) -> Finished:
    """Run a command on a terminal of its own, and type an answer once it has asked."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=environment(site), stdin=theirs, stdout=PIPE, stderr=PIPE
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        os.close(ours)
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


def environment(site: Site) -> dict[str, str]:
    """Return an environment for the program."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **site.settings}

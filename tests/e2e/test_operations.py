"""What operators do while the program runs, from outside: audit what came of the birthdays, pause and resume."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import aiohttp
import asyncpg
import pytest

from tests.support.message_service import MessageService
from tests.support.product import eventually
from tests.support.program import Finished, Program, run, running


async def post_user(program: Program) -> str:
    """Create a user whose birthday is today, UTC, and return the id."""
    body = {
        "firstName": "Ada",
        "lastName": "Lovelace",
        "email": f"ada-{time.monotonic_ns()}@example.com",
        "dateOfBirth": f"1992-{datetime.now(UTC):%m-%d}",
        "timezone": "UTC",
    }
    async with aiohttp.ClientSession() as session, session.post(f"{program.url}/users", json=body) as response:
        assert response.status == 201
        return str((await response.json())["id"])


async def get(url: str) -> str:
    """Return the body of a GET that succeeds."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return await response.text()


async def execute(database_url: str, statement: str, *values: object) -> None:
    """Do something to the database behind the back of the program."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


def sent(service: MessageService) -> int:
    """Return how many messages the service got; it is also asked whether it is there."""
    return sum(request.method == "POST" for request in service.requests)


async def has_been_sent(service: MessageService) -> bool:
    """Say whether the service got a message."""
    return sent(service) > 0


async def audit(settings: dict[str, str], *arguments: str) -> Finished:
    """Run ``birthday audit`` for today."""
    today = datetime.now(UTC).date().isoformat()
    return await run("audit", "--from", today, "--to", today, *arguments, **settings)


def counts(finished: Finished) -> dict[str, Any]:
    """Return the counts that are not 0."""
    answer: dict[str, Any] = json.loads(finished.out)
    return {name: count for name, count in answer.items() if isinstance(count, int) and count}


async def test_the_audit_is_clean_after_a_real_run_and_finds_a_planted_loss_and_a_planted_duplicate(
    database_url: str, message_service: MessageService
) -> None:
    """Status 0 and zeros; then status 1 and the user who was lost; then the one who was greeted twice."""
    settings = {"DATABASE_URL": database_url, "MESSAGE_SERVICE_URL": message_service.url, "SEND_AT": "00:00"}
    async with running(**settings) as program:
        lost, twice, _other = [await post_user(program) for _ in range(3)]
        await message_service.wait_for(3, 60)
        await program.stop()
        assert program.process.returncode == 0
    clean = await audit(settings, "--json")
    assert (clean.status, counts(clean)) == (0, {"expected": 3, "delivered": 3})

    await execute(database_url, "DELETE FROM message_logs WHERE user_id = $1", lost)
    missing = await audit(settings, "--json", "--list", "missing")
    assert (missing.status, counts(missing)) == (1, {"expected": 3, "delivered": 2, "missing": 1})
    assert [item["userId"] for item in json.loads(missing.out)["items"]] == [lost]
    async with running("--role", "scheduler", **settings) as scheduler:
        found = await scheduler.wait_for_event("audit.broken")
        assert (found["missing"], found["duplicate"]) == (1, 0)
        page = await get(f"{scheduler.url}/metrics")
        assert 'birthday_scheduler_audit_birthdays{finding="missing"} 1.0' in page
        assert 'birthday_scheduler_audit_birthdays{finding="duplicate"} 0.0' in page

    await execute(database_url, "DROP INDEX message_logs_occasion")
    await execute(
        database_url,
        """
        INSERT INTO message_logs
        SELECT (jsonb_populate_record(m, jsonb_build_object('id', gen_random_uuid()))).*
        FROM message_logs m WHERE user_id = $1
        """,
        twice,
    )
    duplicate = await audit(settings, "--list", "duplicate")
    assert duplicate.status == 1
    assert f"duplicate  {twice}" in duplicate.out
    assert "missing               1" in duplicate.out
    assert "duplicate             1" in duplicate.out


async def test_the_audit_finds_a_greeting_at_the_wrong_time_and_fails_on_what_it_is_told_to(
    database_url: str, message_service: MessageService
) -> None:
    """Sent hours before its instant: status 1. Late, as its own times say: status 1 if that is asked for."""
    settings = {"DATABASE_URL": database_url, "MESSAGE_SERVICE_URL": message_service.url, "SEND_AT": "00:00"}
    async with running(**settings) as program:
        late, _ = await post_user(program), await post_user(program)
        await message_service.wait_for(2, 60)
        await program.stop()
    await execute(
        database_url,
        "UPDATE message_logs SET delivered_at = delivered_at + interval '2 hours' WHERE user_id = $1",
        late,
    )
    tolerant = await audit(settings, "--json", "--list", "late")
    assert (tolerant.status, counts(tolerant)) == (0, {"expected": 2, "delivered": 2, "late": 1})
    assert [item["userId"] for item in json.loads(tolerant.out)["items"]] == [late]
    strict = await audit(settings, "--fail-on", "failed,expired,late")
    assert strict.status == 1
    assert "late                  1" in strict.out
    assert (await audit(settings, "--fail-on", "failed, expired")).status == 0

    await execute(
        database_url, "UPDATE message_logs SET sent_at = scheduled_at - interval '3 hours' WHERE user_id = $1", late
    )
    early = await audit(settings, "--list", "mistimed")
    assert early.status == 1
    assert f"mistimed   {late}" in early.out
    assert ", sent 20" in early.out


async def test_an_audit_that_cannot_be_made_is_no_finding(database_url: str) -> None:
    """Status 3 with the reason, be the database away or without a schema: nobody is woken for a lost birthday."""
    away = await audit({"DATABASE_URL": "postgresql://127.0.0.1:1/nowhere"})
    assert (away.status, away.out) == (3, "")
    assert "cannot connect to the database" in away.err
    await execute(database_url, "DROP TABLE schema_migrations")
    bare = await audit({"DATABASE_URL": database_url}, "--json", "--list", "missing")
    assert (bare.status, bare.out) == (3, "")
    assert "birthday migrate" in bare.err
    assert "3 if the database could not be asked" in " ".join((await run("audit", "--help")).out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("audit", "--from", "2027-03-01"), ("--to",)),
        (("audit", "--from", "2027-03-01", "--to", "yesterday"), ("--to", "yesterday", "YYYY-MM-DD")),
        (("audit", "--from", "2027-03-02", "--to", "2027-03-01"), ("--to", "2027-03-01", "2027-03-02")),
        (("audit", "--from", "2027-03-01", "--to", "2027-03-01", "--list", "lost"), ("lost", "missing")),
        (
            ("audit", "--from", "2027-03-01", "--to", "2027-03-01", "--fail-on", "failed,missing"),
            ("--fail-on", "'missing'", "failed, expired, late"),
        ),
    ],
)
async def test_a_wrong_argument_is_refused_with_what_is_accepted(
    arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """Status 2, before any database is opened."""
    finished = await run(*arguments, DATABASE_URL="postgresql://127.0.0.1:1/nowhere")
    assert finished.status == 2
    for word in words:
        assert word in finished.err


@pytest.mark.parametrize("command", ["pause", "resume"])
async def test_a_type_that_is_not_sent_cannot_be_paused(database_url: str, command: str) -> None:
    """Status 2, with the types that have a template."""
    finished = await run(command, "newsletter", DATABASE_URL=database_url)
    assert finished.status == 2
    assert "'newsletter'" in finished.err
    assert "accepted: birthday" in finished.err


async def test_a_pause_reaches_all_processes_in_seconds_and_survives_their_restart(
    database_url: str, rabbitmq_url: str, message_service: MessageService
) -> None:
    """API, scheduler and worker apart: shown in /health and metrics, obeyed by all, until it is resumed."""
    settings = {
        "DATABASE_URL": database_url,
        "RABBITMQ_URL": rabbitmq_url,
        "MESSAGE_SERVICE_URL": message_service.url,
        "SEND_AT": "00:00",
    }

    async def all_show(programs: list[Program], paused: list[str]) -> bool:
        pages = [json.loads(await get(f"{program.url}/health")) for program in programs]
        return all(page["paused"] == paused for page in pages)

    async with running("--role", "api", **settings) as api, running("--role", "scheduler", **settings) as scheduler:
        async with running("--role", "worker", **settings) as worker:
            programs = [api, scheduler, worker]
            assert await all_show(programs, [])
            paused = await run("pause", **settings)
            assert paused.status == 0
            assert paused.out.startswith("birthday is paused since ")
            await eventually(lambda: all_show(programs, ["birthday"]), "all are paused", seconds=5)
            for program in programs:
                assert (await program.wait_for_event("service.paused"))["message_type"] == "birthday"
                metrics = await get(f"{program.url}/metrics")
                assert 'birthday_scheduler_paused{message_type="birthday"} 1.0' in metrics
            assert json.loads(await get(f"{worker.url}/ready"))["status"] == "ready"
            await post_user(api)
        async with running("--role", "worker", **settings) as worker, running(**settings) as everything:
            programs = [api, scheduler, worker, everything]
            assert await all_show(programs, ["birthday"])
            assert [event for event in worker.events if event["event"] == "worker.consuming"] == []
            assert sent(message_service) == 0
            assert counts(await audit(settings, "--json")) == {"expected": 1, "pending": 1}
            resumed = await run("resume", "birthday", **settings)
            assert (resumed.status, resumed.out) == (0, "nothing is paused\n")
            await eventually(lambda: has_been_sent(message_service), "the message is sent", seconds=5)
            await eventually(lambda: all_show(programs, []), "all have resumed", seconds=5)
            assert 'birthday_scheduler_paused{message_type="birthday"} 0.0' in await get(f"{worker.url}/metrics")
    assert sent(message_service) == 1

"""``birthday requeue``: greetings that were only printed reach the message service after all."""

from datetime import UTC, datetime, timedelta

import aiohttp
import asyncpg

from tests.support.message_service import MessageService
from tests.support.product import eventually
from tests.support.program import Finished, run, running


async def post_user(url: str, name: str) -> str:
    """Create a user whose birthday is today, UTC, and return the id."""
    body = {
        "firstName": name,
        "lastName": "Lovelace",
        "email": f"{name}@example.com",
        "dateOfBirth": f"1992-{datetime.now(UTC):%m-%d}",
        "timezone": "UTC",
    }
    async with aiohttp.ClientSession() as session, session.post(f"{url}/users", json=body) as response:
        assert response.status == 201
        return str((await response.json())["id"])


async def requeue(database_url: str, *more: str, hours: float = 1) -> Finished:
    """Requeue what was delivered in the last hours."""
    now = datetime.now(UTC)
    first = f"{now - timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"
    return await run(
        *("requeue", "--delivered-from", first, "--delivered-to", f"{now + timedelta(seconds=1):%Y-%m-%dT%H:%M:%S}"),
        *more,
        DATABASE_URL=database_url,
    )


async def test_what_was_only_printed_is_sent_under_its_key(database_url: str, message_service: MessageService) -> None:
    """It says how many and asks, keeps the row and the key, is in the log, and the audit finds nothing amiss.

    A user who was deleted since then is left alone.
    """
    settings = {"DATABASE_URL": database_url, "SEND_AT": "00:00"}
    connection = await asyncpg.connect(database_url)

    async def have(status: str, count: int) -> bool:
        found = await connection.fetchval("SELECT count(*) FROM message_logs WHERE status = $1", status)
        return bool(found == count)

    async with running(CHANNEL="console", **settings) as program:
        for name in ("ada", "grace", "gone"):
            await post_user(program.url, name)
        await eventually(lambda: have("delivered", 3), "all are delivered, to the console", 60)
    await connection.execute("UPDATE users SET deleted_at = now() WHERE email LIKE 'gone@%'")
    ids = {
        str(row["id"])
        for row in await connection.fetch(
            "SELECT m.id FROM message_logs m JOIN users u ON u.id = m.user_id WHERE u.deleted_at IS NULL"
        )
    }

    asked = await requeue(database_url)
    assert asked.status == 2
    assert "2 messages delivered from" in asked.err
    assert "use --yes" in asked.err
    assert await have("delivered", 3)

    done = await requeue(database_url, "--yes")
    assert (done.status, done.out) == (0, "2 of 2 delivered messages requeued: they are greeted again\n"), done.err
    assert '"messages.requeuing_delivered"' in done.err
    assert await have("queued", 2)

    async with running(MESSAGE_SERVICE_URL=message_service.url, **settings):
        await eventually(lambda: have("delivered", 3), "all are delivered, to the service", 60)
    assert message_service.by_key().keys() == ids
    assert all(len(requests) == 1 for requests in message_service.by_key().values())
    assert await connection.fetchval("SELECT count(*) FROM message_logs WHERE may_have_arrived") == 2
    await connection.close()

    today = f"{datetime.now(UTC):%Y-%m-%d}"
    audited = await run("audit", "--from", today, "--to", today, **settings)
    assert audited.status == 0, audited.out


async def test_nothing_in_the_range_is_nothing_to_ask_about(database_url: str) -> None:
    """Status 0, no question; a range that ends before it begins, or is no range, is a wrong argument."""
    nothing = await requeue(database_url)
    assert nothing.status == 0
    assert "no message was delivered from" in nothing.out
    for first, last in (("2026-01-02", "2026-01-01"), ("yesterday", "2026-01-01")):
        wrong = await run("requeue", "--delivered-from", first, "--delivered-to", last, DATABASE_URL=database_url)
        assert wrong.status == 2

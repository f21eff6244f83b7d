"""E-mail while everything is killed: nobody gets two, and who may have got one is told."""

import asyncio
from pathlib import Path

from birthday.core.message import OUTCOME_UNKNOWN
from tests.support.chaos import Crowd, Receiver, fleet
from tests.support.mail_program import mail_program
from tests.support.postgres import PostgresServer

CONCURRENCY = 10


async def test_nobody_gets_two_emails_whatever_is_killed(
    crowd: Crowd, database_url: str, rabbitmq_url: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Mail server, worker and PostgreSQL die under load: each user has one e-mail, or a failure that says unknown."""
    count, receiver = 200, Receiver()
    async with (
        mail_program(tmp_path / "accepted") as server,
        fleet(
            database_url,
            rabbitmq_url,
            "",
            SMTP_URL=server.url,
            SMTP_FROM="hello@example.com",
            WORKER_CONCURRENCY=str(CONCURRENCY),
            RETRY_BASE_DELAY="200ms",
            CIRCUIT_BREAKER_RESET_TIMEOUT="500ms",
        ) as processes,
    ):
        worker, _ = await asyncio.gather(processes.start("worker"), processes.start("scheduler"))
        await crowd.gather(count)
        await crowd.wait_for_delivered(count // 6, 30)
        await processes.replace(worker)
        await crowd.wait_for_delivered(count // 3, 30)
        await server.kill()
        await server.start()
        await crowd.wait_for_delivered(count // 2, 30)
        await postgres_server.restart()
        await crowd.wait_until_settled(60)
        for recipient, message_id in server.accepted():
            receiver.accepted[recipient].append(message_id)
        audit = await crowd.audit(receiver)
    audit.verify(repeats=0, failed=2 * CONCURRENCY)
    async with crowd.connection() as connection:
        rows = await connection.fetch("SELECT error_detail, may_have_arrived FROM message_logs WHERE status = 'failed'")
    assert [row for row in rows if not row["may_have_arrived"]] == []
    assert [row for row in rows if not row["error_detail"].startswith(OUTCOME_UNKNOWN)] == []

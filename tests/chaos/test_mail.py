"""E-mail while processes end: nobody gets two, and who may have got one is told."""

import asyncio
import signal
from pathlib import Path

from birthday.core.message import OUTCOME_UNKNOWN
from tests.support.chaos import Crowd, Receiver, fleet, until
from tests.support.mail_program import mail_program
from tests.support.mail_server import MailServer
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


async def test_a_worker_that_is_stopped_finishes_its_emails(crowd: Crowd, database_url: str) -> None:
    """SIGTERM while four e-mails wait for the answer to their final dot: what was received is delivered, no more."""
    count, concurrency = 60, 4
    async with (
        MailServer() as server,
        fleet(
            database_url,
            None,
            "",
            SMTP_URL=server.url,
            SMTP_FROM="hello@example.com",
            WORKER_CONCURRENCY=str(concurrency),
        ) as processes,
    ):
        server.answering.clear()
        worker, _ = await asyncio.gather(processes.start("worker"), processes.start("scheduler"))
        await crowd.gather(count)

        async def all_wait() -> bool:
            return server.held == concurrency and (await crowd.statuses())["queued"] == count - concurrency

        await until(all_wait, "each slot waits for an answer, and the others are queued", 60)
        worker.process.send_signal(signal.SIGTERM)
        await worker.wait_for_event("service.stopping")
        server.answering.set()
        async with asyncio.timeout(60):
            assert await worker.process.wait() == 0
        statuses = await crowd.statuses()
        assert statuses.keys() == {"delivered", "queued"}
        assert statuses["delivered"] == len(server.mails) >= concurrency
        await processes.start("worker")
        await crowd.wait_for_delivered(count, 60)
    recipients = [mail.recipient for mail in server.mails]
    assert len(recipients) == len(set(recipients)) == count

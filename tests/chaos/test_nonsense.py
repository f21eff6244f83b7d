"""Nonsense in the queue, by the thousand: it is put aside, and costs nobody a greeting."""

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import aiormq
import asyncpg
import pytest

from tests.support.chaos import FULL, Crowd, Receiver, fleet, let_fault_last, until
from tests.support.message_service import MessageService

Publish = Callable[[bytes], Awaitable[None]]

POISON = [
    b"",
    b"not json",
    b"{}",
    b"[]",
    b"null",
    b'{"messageId": 7}',
    b'{"messageId": "7"}',
    b'{"messageId": null}',
    b'{"messageId": {"id": "x"}}',
    b'{"userId": "01234567-89ab-7def-8123-456789abcdef"}',
    b"\xff\xfe\x00",
    b"[" * 10_000,
    b'{"messageId": "' + b"x" * 1_000_000 + b'"}',
]


@pytest.fixture
async def publish_raw(queue_url: str | None, database_url: str) -> AsyncIterator[Publish]:
    """Put bytes into the queue as they are, past everything that is ours."""
    if queue_url is None:
        connection = await asyncpg.connect(database_url)

        async def insert(body: bytes) -> None:
            text = body.decode("utf-8", "replace").replace("\0", "?")
            await connection.execute("INSERT INTO queue_messages (body) VALUES ($1)", text)

        yield insert
        await connection.close()
        return
    amqp = await aiormq.connect(queue_url)
    channel = await amqp.channel()

    async def publish(body: bytes) -> None:
        await channel.basic_publish(body, exchange="birthday_exchange", routing_key="birthday_messages")

    yield publish
    await amqp.close()


async def test_poison_is_dead_lettered_and_the_others_are_greeted(
    crowd: Crowd, database_url: str, queue_url: str | None, publish_raw: Publish
) -> None:
    """No crash, no message lost, and no worker that spins: afterwards it hardly uses the processor."""
    receiver = Receiver()
    copies = 10_000 if FULL else 2_000
    async with MessageService(receiver) as service, fleet(database_url, queue_url, service.url) as processes:
        program = await processes.start("scheduler,worker")
        await crowd.gather(100)
        await crowd.wait_until_settled(30)
        for body in POISON:
            await publish_raw(body)
        connection = await asyncpg.connect(database_url)
        known = await connection.fetchval("SELECT id::text FROM message_logs LIMIT 1")
        for _ in range(copies):
            await publish_raw(b'{"messageId": "%s"}' % known.encode())
        for _ in range(50):
            await publish_raw(b'{"messageId": "%s"}' % str(uuid4()).encode())
        await crowd.gather(100)
        await crowd.wait_for_delivered(200, 60)

        async def put_aside() -> bool:
            unknown = sum(event["event"] in {"message.malformed", "message.unknown"} for event in program.events)
            return unknown == len(POISON) + 50

        await until(put_aside, "every stranger is put aside, once", 60)
        before = processor_seconds(program.process.pid)
        await let_fault_last(5)
        spent = processor_seconds(program.process.pid) - before
        await connection.close()
        audit = await crowd.audit(receiver)
        assert program.process.returncode is None
    audit.verify()
    assert spent < 1.5


def processor_seconds(pid: int) -> float:
    """Return how much processor time a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel's
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100

"""The runbook's commands for the dead-letter queue, to the letter, with the server's own ``rabbitmqadmin``."""

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest

from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.channels import Delivered, Permanent
from birthday.core.message import ErrorType
from birthday.operations.dead_letters.requeue import requeue_many
from birthday.store.failed import FailedFilter, find_failed
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, eventually
from tests.support.rabbitmq import RabbitMQServer
from tests.support.users import TESTER

DLQ = "birthday_messages_dlq"
PUBLISH = 'rabbitmqadmin publish exchange=birthday_exchange routing_key=birthday_messages payload="<message>"'


@dataclass(frozen=True, slots=True)
class Terminal:
    """A shell in a directory of its own, in which ``rabbitmqadmin`` talks to the server of the test."""

    home: Path

    async def type(self, command: str) -> str:
        """Run a command line, which must succeed, and return what it prints."""
        path = f"{self.home}:{Path(sys.executable).parent}:/usr/bin:/bin"
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", command, cwd=self.home, env={"HOME": str(self.home), "PATH": path}, stdout=PIPE, stderr=PIPE
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def shows(self, command: str, **counts: int) -> None:
        """Repeat a command, whose figures come a moment late, until it prints a row with these cells."""
        rows = [re.compile(rf"^\| {name} +\| {count} +\|", re.MULTILINE) for name, count in counts.items()]

        async def is_shown() -> bool:
            text = await self.type(command)
            return all(row.search(text) for row in rows)

        await eventually(is_shown, f"{command} shows {counts}", 60)


@pytest.fixture
def terminal(rabbitmq_server: RabbitMQServer, rabbitmq_url: str, tmp_path: Path) -> Terminal:
    """A terminal as an operator has it: the program on the PATH, and its configuration in the home directory."""
    program = tmp_path / "rabbitmqadmin"
    program.write_bytes(rabbitmq_server.rabbitmqadmin())
    program.chmod(0o755)
    vhost = urlsplit(rabbitmq_url).path.strip("/")
    (tmp_path / ".rabbitmqadmin.conf").write_text(
        f"[default]\nhostname = 127.0.0.1\nport = {rabbitmq_server.management_port}\nvhost = {vhost}\n"
    )
    return Terminal(tmp_path)


@pytest.fixture
async def product(pool: asyncpg.Pool, rabbitmq_url: str) -> AsyncIterator[Product]:
    """An installation on RabbitMQ."""
    broker = RabbitMQBroker(rabbitmq_url)
    yield Product(pool, broker, ManualClock(), Metrics())
    await broker.close()


@pytest.fixture
async def channel(product: Product) -> RecordingChannel:
    """A message service that has refused three messages for good, and accepts from now on."""
    for _ in range(3):
        await product.create(date(1990, 3, 1))
    await product.dispatcher.dispatch_once(product.clock.now())
    channel = RecordingChannel(product.clock, lambda _letter: Permanent(ErrorType.VALIDATION_ERROR, "refused"))
    async with product.working(channel):
        await product.wait_for_statuses({"failed": 3})
        await eventually(lambda: has_dead(product, 3), "the worker has rejected them")
    channel.answer = lambda _letter: Delivered()
    return channel


async def has_dead(product: Product, count: int) -> bool:
    """Say whether there are so many dead letters."""
    return (await product.broker.stats()).dead == count


async def requeue_all(product: Product) -> int:
    """Requeue every failed message, and return how many."""
    requeued: list[UUID] = []
    ids = [message_id async for page in find_failed(product.pool, FailedFilter()) for message_id in page]
    await requeue_many(product.pool, product.broker, ids, product.clock, TESTER, requeued.extend)
    return len(requeued)


def payloads(table: str) -> list[str]:
    """Return the payloads in a table that ``rabbitmqadmin get`` has printed."""
    return re.findall(r'\| (\{"messageId":"[^"]+"\}) +\|', table)


@pytest.mark.slow
async def test_the_depth_of_the_queue(terminal: Terminal, channel: RecordingChannel, product: Product) -> None:
    """What is in each queue, and who consumes it."""
    await terminal.shows("rabbitmqadmin list queues", birthday_messages=0, birthday_messages_dlq=3)
    await terminal.shows("rabbitmqadmin list queues name messages", birthday_messages_dlq=3)
    # Words behind the kind are columns: it prints an empty one for each queue, and nothing else.
    assert "name=birthday_messages_dlq" in await terminal.type(f"rabbitmqadmin list queues name={DLQ}")
    async with product.working(channel):
        consumers = "rabbitmqadmin list queues name messages consumers"

        async def has_consumer() -> bool:
            return re.search(r"\| birthday_messages +\| 0 +\| 1 +\|", await terminal.type(consumers)) is not None

        await eventually(has_consumer, "the worker is seen", 60)

        async def is_listed() -> bool:
            return await terminal.type("rabbitmqadmin list consumers") != "No items\n"

        await eventually(is_listed, "the worker's consumer is listed", 60)
    await terminal.type("rabbitmqadmin list policies")


async def test_samples(terminal: Terminal, channel: RecordingChannel, product: Product) -> None:
    """A look at dead letters shows their payloads and keeps them; headers say which queue, why, when, how often."""
    table = await terminal.type(f"rabbitmqadmin get queue={DLQ} count=10")
    ids = {str(sent.greeting.message_id) for sent in channel.sent}
    assert {json.loads(payload)["messageId"] for payload in payloads(table)} == ids
    await eventually(lambda: has_dead(product, 3), "they are back")
    [letter] = json.loads(await terminal.type(f"rabbitmqadmin -f raw_json get queue={DLQ} count=1"))
    [death] = letter["properties"]["headers"]["x-death"]
    assert (death["queue"], death["reason"], death["count"]) == ("birthday_messages", "rejected", 1)
    assert death["time"] > 0


async def test_samples_that_are_not_put_back(terminal: Terminal, channel: RecordingChannel, product: Product) -> None:
    """The investigation's sample removes what it shows. The messages are none the worse: a requeue finds them all."""
    table = await terminal.type(f"rabbitmqadmin get queue={DLQ} count=5 ackmode=ack_requeue_false")
    assert len(payloads(table)) == 3
    assert await has_dead(product, 0)
    async with product.working(channel):
        assert await requeue_all(product) == 3
        await product.wait_for_statuses({"delivered": 3})


async def test_option_a_requeue(terminal: Terminal, channel: RecordingChannel, product: Product) -> None:
    """A payload that is published by hand is delivered, pasted in place of <message> as it is, or quoted with care."""
    first, second, _ = payloads(await terminal.type(f"rabbitmqadmin get queue={DLQ} count=10"))
    async with product.working(channel):
        assert "Message published" in await terminal.type(PUBLISH.replace("<message>", first))
        await product.wait_for_statuses({"failed": 2, "delivered": 1})
        careful = PUBLISH.replace('"<message>"', f"'{second}'")
        assert "Message published" in await terminal.type(careful)
        await product.wait_for_statuses({"failed": 1, "delivered": 2})
        # Not a payload at all: a dead letter more, and nobody stumbles.
        await terminal.type(PUBLISH)
        await eventually(lambda: has_dead(product, 4), "it is rejected")
    delivered = [str(sent.greeting.message_id) for sent in channel.sent[3:]]
    assert delivered == [json.loads(first)["messageId"], json.loads(second)["messageId"]]


async def test_options_b_and_c_archive_and_purge(
    terminal: Terminal, channel: RecordingChannel, product: Product
) -> None:
    """A backup has all payloads and takes none away; a purge empties the queue, and messages stay failed."""
    await terminal.type(f"rabbitmqadmin get queue={DLQ} count=1000 > dlq_backup.json")
    assert len(payloads((terminal.home / "dlq_backup.json").read_text())) == 3
    await eventually(lambda: has_dead(product, 3), "they are back")
    assert "purged" in await terminal.type(f"rabbitmqadmin purge queue name={DLQ}")
    assert await has_dead(product, 0)
    assert await product.statuses() == {"failed": 3}
    async with product.working(channel):
        assert await requeue_all(product) == 3
        await product.wait_for_statuses({"delivered": 3})

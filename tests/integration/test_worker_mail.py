"""The worker with the e-mail channel: what the mail server's answers mean for messages, circuit and drain."""

import sys
from collections.abc import AsyncIterator
from datetime import date, timedelta

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.channels import Channel
from birthday.channels.breaker import CircuitState
from birthday.config import load_settings
from birthday.core.message import BIRTHDAY
from birthday.store.changes import Actor
from birthday.store.pauses import set_paused
from birthday.telemetry.metrics import Metrics
from birthday.wiring.channel import open_channel
from birthday.worker.pipeline import Pipeline
from tests.support.certificates import Certificates
from tests.support.clock import ManualClock
from tests.support.mail_server import PASSWORD, USER, MailServer
from tests.support.product import Product, eventually, metric, parse

LOGIN = f"{USER.replace('@', '%40')}:{PASSWORD.replace('/', '%2F')}@"
THRESHOLD = 3


@pytest.fixture
async def product(pool: asyncpg.Pool) -> Product:
    """An installation at 09:00 UTC on 1 March 2027 that does not repeat what may have arrived."""
    clock = ManualClock(parse("2027-03-01T09:00:00Z"))
    return Product(pool, PostgresBroker(pool), clock, Metrics(), retry_unknown="never")


@pytest.fixture
async def server(certificates: Certificates) -> AsyncIterator[MailServer]:
    """A mail server with STARTTLS by a private authority."""
    async with MailServer(certificates.server) as server:
        yield server


@pytest.fixture
async def channel(product: Product, server: MailServer, certificates: Certificates) -> AsyncIterator[Channel]:
    """The channel that these settings make."""
    settings = load_settings(
        smtp_url=server.url.replace("://", f"://{LOGIN}"),
        smtp_from="Example Ltd <hello@example.com>",
        ssl_cert_file=str(certificates.authority),
    )
    async with open_channel(settings, product.clock, sys.stdout) as channel:
        yield channel


async def queue_birthdays(product: Product, count: int) -> None:
    """Create users whose birthday is now, and publish their messages."""
    for number in range(count):
        await product.create(date(1990, 3, 1), email=f"user{number}@example.com")
    await product.dispatcher.dispatch_once(product.clock.now())


async def test_greetings_are_emails(product: Product, server: MailServer, channel: Channel) -> None:
    """Each user has one e-mail, whose id is that of the message; metrics name the mail server and its answer."""
    await queue_birthdays(product, 5)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 5})

    assert sorted(mail.recipient for mail in server.mails) == [f"user{number}@example.com" for number in range(5)]
    assert {mail.message["From"] for mail in server.mails} == {"Example Ltd <hello@example.com>"}
    assert {mail.text for mail in server.mails} == {"Hey, Ada Lovelace it's your birthday\n"}
    ids = {str(row["id"]) for row in await product.pool.fetch("SELECT id FROM message_logs")}
    assert {mail.message["Message-ID"] for mail in server.mails} == {f"<{one}@example.com>" for one in ids}
    assert metric(product.metrics, "external_api_calls_total", api_name="smtp", status="250") == 5


async def test_greylisting_delays_one_message(product: Product, server: MailServer, channel: Channel) -> None:
    """The recipient who is put off gets the e-mail later, the others at once."""
    await queue_birthdays(product, 5)
    server.answer("RCPT", "451 4.7.1 greylisted, come back later")
    async with product.working(channel, concurrency=1):
        await product.wait_for_statuses({"delivered": 4, "retrying": 1})
        product.clock.advance(timedelta(seconds=10))
        # The queue's own copy comes after five real seconds.
        waiting = await product.pool.fetchval("SELECT id FROM message_logs WHERE status = 'retrying'")
        await product.broker.publish([waiting])
        await product.wait_for_statuses({"delivered": 5})

    assert len(server.mails) == 5


async def test_a_refused_login_fails_nobody(product: Product, server: MailServer, channel: Channel) -> None:
    """As many refusals as open the circuit are an outage with its status; once it is mended, all get their e-mails."""
    await queue_birthdays(product, 10)
    server.answer("AUTH", *["535 5.7.8 the password has expired"] * THRESHOLD)
    async with product.working(channel, concurrency=1, threshold=THRESHOLD) as pipeline:
        await eventually(lambda: is_open(pipeline.circuit.cause_text), "the circuit is open")
        assert await product.pool.fetchval("SELECT count(*) FROM message_logs WHERE status = 'failed'") == 0
        product.clock.advance(timedelta(minutes=1))
        await product.wait_for_statuses({"delivered": 10})

    assert (await product.pool.fetchval("SELECT max(attempts) FROM message_logs")) == 1


async def test_one_bad_recipient_fails_alone(product: Product, server: MailServer, channel: Channel) -> None:
    """An address that does not exist is dead-lettered with the server's answer, and the rest goes out."""
    await queue_birthdays(product, 5)
    server.answer("RCPT", "550 5.1.1 no such user")
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 4, "failed": 1})

    detail = await product.pool.fetchval("SELECT error_detail FROM message_logs WHERE status = 'failed'")
    assert detail == "the mail server answered 550 5.1.1 to RCPT"


async def test_a_server_that_is_away_opens_the_circuit(product: Product, server: MailServer, channel: Channel) -> None:
    """Nobody listens: only the failures that open the circuit count; the first e-mail that is accepted closes it."""
    await queue_birthdays(product, 10)
    await server.stop()
    async with product.working(channel, concurrency=1, threshold=THRESHOLD) as pipeline:
        await eventually(lambda: has_state(pipeline, CircuitState.OPEN), "the circuit is open")
        await server.start()
        product.clock.advance(timedelta(minutes=1))
        await product.wait_for_statuses({"delivered": 10})
        assert await has_state(pipeline, CircuitState.CLOSED)

    assert (len(server.mails), metric(product.metrics, "circuit_breaker_state")) == (10, 0)
    assert (await product.pool.fetchval("SELECT sum(attempts) FROM message_logs")) <= 10 + THRESHOLD


async def test_a_pause_finishes_the_emails_that_are_under_way(
    product: Product, server: MailServer, channel: Channel
) -> None:
    """Four of twelve wait for the answer to their final dot: they are delivered, the rest is put back unsent."""
    await queue_birthdays(product, 12)
    server.answering.clear()
    async with product.working(channel, concurrency=4):
        await eventually(lambda: holds(server, 4), "four e-mails wait for their answer")
        await set_pause(product, paused=True)
        server.answering.set()
        await product.wait_for_statuses({"delivered": 4, "queued": 8})
        assert len(server.mails) == 4
        await set_pause(product, paused=False)
        await product.wait_for_statuses({"delivered": 12})

    assert len({mail.recipient for mail in server.mails}) == len(server.mails) == 12
    assert (await product.pool.fetchval("SELECT max(attempts) FROM message_logs")) == 1


async def set_pause(product: Product, *, paused: bool) -> None:
    """Pause or resume birthdays, and let the worker of the test know."""
    async with product.pool.acquire() as connection:
        await set_paused(connection, [BIRTHDAY], paused=paused, now=product.clock.now(), by=Actor("ada@host"))
    await product.pauses.refresh()


async def holds(server: MailServer, count: int) -> bool:
    """Say whether so many e-mails have no answer yet."""
    return server.held == count


async def has_state(pipeline: Pipeline, state: CircuitState) -> bool:
    """Say whether the circuit has this state."""
    return pipeline.circuit.state is state


async def is_open(cause: str) -> bool:
    """Say whether the circuit is open for the refused login."""
    return cause == "refused: 535"

"""Delivery events: a receiver is told of each outcome and opt-out, at least once, with the same id, and signed."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from uuid import UUID

import asyncpg
import pytest
import structlog
from standardwebhooks import Webhook

from birthday.broker.postgres import PostgresBroker
from birthday.channels.message_service.route import Network
from birthday.channels.webhook import WebhookReceiver, is_public
from birthday.core.events import PATIENCE, Accepted, Event, Gone, Refused
from birthday.core.ident import uuid7
from birthday.core.signing import parse_signing_secrets
from birthday.errors import UnavailableError
from birthday.operations.suppressions import suppress_user
from birthday.scheduler.events import LEASE, EventSender
from birthday.store.changes import Actor
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.message_service import Answer, Fault, MessageService
from tests.support.outcomes import finish, store_queued
from tests.support.product import Product, metric
from tests.support.tasks import background

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOUR = timedelta(hours=1)


@pytest.fixture
async def service() -> AsyncIterator[MessageService]:
    """A receiver that accepts everything."""
    async with MessageService() as service:
        yield service


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation whose clock begins with the real time, because a signature is valid for minutes."""
    return Product(pool, PostgresBroker(pool), ManualClock(datetime.now(UTC)), Metrics())


def make_sender(product: Product, service: MessageService, path: str = "/events") -> EventSender:
    """Return what sends events, as a process of its own."""
    keys = parse_signing_secrets(SECRET)
    receiver = WebhookReceiver(service.url + path, keys, Network(), product.clock, allow_private=True)
    return EventSender(product.pool, receiver, product.metrics, product.clock, Random(0))  # noqa: S311 - jitter


async def send_for(sender: EventSender, product: Product, duration: timedelta) -> None:
    """Send for so long by the clock, with the pauses that the sender asks for, or a hundredth of the whole."""
    until = product.clock.now() + duration
    while product.clock.now() < until:
        if pause := await sender.send_once(product.clock.now()):
            product.clock.advance(max(timedelta(seconds=pause), duration / 100))


def ids(service: MessageService) -> list[str]:
    """Return the ids of the events that came in."""
    return [received.headers["webhook-id"] for received in service.requests]


async def test_each_outcome_and_opt_out_is_told_of_and_nothing_personal(
    product: Product, service: MessageService
) -> None:
    """The events have ids and dates, and a signature that the library of the standard accepts."""
    sender = make_sender(product, service)
    await send_for(sender, product, timedelta(seconds=1))
    user_id = await product.create(date(1990, 3, 1), email="ada@example.com")
    messages = dict(
        zip(("delivered", "failed", "expired", "cancelled"), await store_queued(product.pool, 4), strict=True)
    )
    for status, message_id in messages.items():
        error_type = "timeout" if status in {"failed", "expired"} else None
        await finish(product.pool, [message_id], status, at=product.clock.now(), error_type=error_type)
    await suppress_user(product.pool, user_id, "told us by phone", product.clock.now(), Actor("ada"))
    await send_for(sender, product, timedelta(seconds=1))
    told = {}
    for received in service.requests:
        Webhook(SECRET).verify(received.body.decode(), dict(received.headers))
        event = json.loads(received.body)
        assert event["timestamp"].endswith("Z")
        told[event["type"]] = event["data"]
    users = {row["id"]: str(row["user_id"]) for row in await product.pool.fetch("SELECT id, user_id FROM message_logs")}
    common = {"messageType": "birthday", "occasionOn": "2026-03-01"}
    of = {
        status: {"messageId": str(message_id), "userId": users[message_id], **common}
        for status, message_id in messages.items()
    }
    assert told == {
        "message.delivered": of["delivered"],
        "message.failed": of["failed"] | {"errorType": "timeout"},
        "message.expired": of["expired"],
        "user.suppressed": {"userId": str(user_id)},
    }
    assert metric(product.metrics, "events_sent_total", type="message.delivered") == 1
    assert metric(product.metrics, "events_lag_seconds") == 0


async def test_a_receiver_that_was_down_for_an_hour_gets_everything_once(product: Product) -> None:
    """While it is down, it is asked now and then, and the feed keeps what it lacks."""
    async with MessageService() as service:
        sender = make_sender(product, service)
        await send_for(sender, product, timedelta(seconds=1))
    messages = await store_queued(product.pool, 700)
    await finish(product.pool, messages[:350], at=product.clock.now())
    await send_for(sender, product, HOUR)
    assert metric(product.metrics, "events_lag_seconds") > 3000
    await finish(product.pool, messages[350:], at=product.clock.now())
    assert await product.pool.fetchval("SELECT sum(attempts) FROM events") < 300
    async with service:
        await send_for(sender, product, timedelta(minutes=10))
        assert len(ids(service)) == len(set(ids(service))) == len(messages)
        assert _told(service) == set(messages)
    assert await product.pool.fetchval("SELECT count(*) FROM events") == 0


async def test_an_event_that_is_refused_does_not_hold_up_the_others(product: Product, service: MessageService) -> None:
    """It is tried for three days with growing pauses, under the same id, and then given up."""
    sender = make_sender(product, service)
    await send_for(sender, product, timedelta(seconds=1))
    bad, *good = await store_queued(product.pool, 5)
    service.behaviour = lambda received: Answer(500 if str(bad).encode() in received.body else 200)
    await finish(product.pool, [bad], at=product.clock.now())
    for message_id in good:
        await finish(product.pool, [message_id], at=product.clock.now())
        await send_for(sender, product, timedelta(minutes=6))
    assert sorted(_told(service) - {bad}) == sorted(good)
    service.requests.clear()
    await send_for(sender, product, PATIENCE + timedelta(hours=7))
    assert _told(service) == {bad}
    assert len(set(ids(service))) == 1
    assert 10 < len(ids(service)) < 100
    assert await product.pool.fetchval("SELECT count(*) FROM events") == 0
    assert metric(product.metrics, "events_failed_total", type="message.delivered") == 1


def _told(service: MessageService) -> set[UUID]:
    return {UUID(json.loads(received.body)["data"]["messageId"]) for received in service.requests}


async def test_410_stops_events_until_there_is_another_receiver(product: Product, service: MessageService) -> None:
    """Nothing is sent and nothing is lost meanwhile."""
    sender = make_sender(product, service)
    await send_for(sender, product, timedelta(seconds=1))
    messages = await store_queued(product.pool, 2)
    service.answer_with(Answer(410))
    await finish(product.pool, messages[:1], at=product.clock.now())
    await send_for(sender, product, HOUR)
    await finish(product.pool, messages[1:], at=product.clock.now())
    await send_for(sender, product, HOUR)
    assert len(ids(service)) == 1
    assert metric(product.metrics, "events_lag_seconds") > 3600
    other = replace(make_sender(product, service, "/other"), holder=sender.holder)
    await send_for(other, product, timedelta(seconds=10))
    assert [received.path for received in service.requests] == ["/events", "/other", "/other"]
    assert ids(service)[0] in ids(service)[1:], "the event that was refused"


async def test_an_operator_lets_a_stopped_receiver_have_events_again(product: Product, service: MessageService) -> None:
    """The statement is the runbook's."""
    sender = make_sender(product, service)
    await send_for(sender, product, timedelta(seconds=1))
    service.answer_with(Answer(410))
    await finish(product.pool, await store_queued(product.pool, 1), at=product.clock.now())
    await send_for(sender, product, timedelta(minutes=1))
    await product.pool.execute("UPDATE event_stream SET stopped_at = NULL")
    await send_for(sender, product, timedelta(minutes=1))
    assert len(ids(service)) == 2


async def test_one_process_sends_and_another_takes_over(product: Product, service: MessageService) -> None:
    """The second one waits until the first gives its lease back, or has let it run out."""
    first, second = make_sender(product, service), make_sender(product, service)
    await send_for(first, product, timedelta(seconds=1))
    await finish(product.pool, await store_queued(product.pool, 3), at=product.clock.now())
    await send_for(second, product, HOUR)
    assert ids(service) == []
    await send_for(first, product, timedelta(seconds=1))
    assert len(ids(service)) == 3
    await finish(product.pool, await store_queued(product.pool, 3), at=product.clock.now())
    await product.pool.execute("UPDATE event_stream SET lease_until = lease_until - $1::interval", LEASE)
    await send_for(second, product, timedelta(seconds=1))
    assert len(ids(service)) == 6
    await send_for(first, product, timedelta(seconds=1))
    assert len(set(ids(service))) == 6


async def test_a_database_that_refuses_events_is_reported_and_tried_again(
    product: Product, service: MessageService
) -> None:
    """An error that does not end by itself is in the log; once an operator has mended it, nothing is missing."""
    sender = make_sender(product, service)
    await sender.send_once(product.clock.now())
    await finish(product.pool, await store_queued(product.pool, 1), at=product.clock.now())
    await product.pool.execute("ALTER TABLE events ADD CONSTRAINT wrong CHECK (false)")
    with structlog.testing.capture_logs() as events:
        async with background(sender.run()):
            await product.clock.wait_for_sleepers()
            await product.pool.execute("ALTER TABLE events DROP CONSTRAINT wrong")
            product.clock.advance(timedelta(seconds=5))
            await service.wait_for(1)
    [reported] = [event for event in events if event["event"] == "events.unavailable"]
    assert (reported["log_level"], reported["error"].sqlstate) == ("error", "23514")


async def test_nothing_is_kept_for_a_receiver_that_nobody_has(product: Product, service: MessageService) -> None:
    """Without EVENTS_URL no event is written; three days after the last process that has it, they begin anew."""
    for expected in (0, 1, 1):
        user_id = await product.create(date(1990, 3, 1))
        await suppress_user(product.pool, user_id, "", product.clock.now(), Actor("ada"))
        await finish(product.pool, await store_queued(product.pool, 1), at=product.clock.now())
        assert await product.pool.fetchval("SELECT count(*) FROM events") == expected
        sender = make_sender(product, service)
        if expected:
            await product.pool.execute("UPDATE event_stream SET lease_until = lease_until - interval '4 days'")
        await send_for(sender, product, timedelta(seconds=1))
    assert {json.loads(received.body)["type"] for received in service.requests} == {"user.suppressed"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(302, {"Location": "/elsewhere"}), "it answered 302"),
        (Answer(500), "it answered 500"),
        (Answer(404), "it answered 404"),
        (Answer(fault=Fault.HANG), "no answer within 0.3 s"),
        (Answer(fault=Fault.CLOSE), "the connection broke: it was closed by the other side"),
    ],
)
async def test_anything_but_2xx_is_a_refusal(service: MessageService, answer: Answer, reason: str) -> None:
    """Redirects are not followed; who does not answer is not waited for."""
    clock = ManualClock()
    receiver = WebhookReceiver(
        service.url, (b"k" * 24,), Network(), clock, allow_private=True, timeout=timedelta(seconds=0.3)
    )
    event = Event(uuid7(clock.now()), "user.suppressed", clock.now(), "{}", 0, None)
    service.answer_with(answer, Answer(503, {"Retry-After": "120"}), Answer(410), Answer(204))
    assert await receiver.post(event) == Refused(reason)
    assert await receiver.post(event) == Refused("it answered 503", timedelta(minutes=2))
    assert await receiver.post(event) == Gone()
    assert await receiver.post(event) == Accepted()
    assert len(service.requests) == 4
    await receiver.close()


async def test_no_private_address_is_connected_to(service: MessageService) -> None:
    """The address of the connection is looked at: also that of a name."""
    clock = ManualClock()
    event = Event(uuid7(clock.now()), "user.suppressed", clock.now(), "{}", 0, None)
    for url in (service.url, service.url.replace("127.0.0.1", "localhost")):
        receiver = WebhookReceiver(url, (b"k" * 24,), Network(), clock, allow_private=False)
        reason = "its address is of a private network, which EVENTS_ALLOW_PRIVATE does not allow"
        assert await receiver.post(event) == Refused(f"cannot connect: {reason}")
        with pytest.raises(UnavailableError, match="private network"):
            await receiver.check()
        await receiver.close()
    allowed = WebhookReceiver(service.url, (b"k" * 24,), Network(), clock, allow_private=True)
    await allowed.check()
    await allowed.close()
    assert service.requests == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("64:ff9b::5db8:d822", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - not bound to
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses_are_those_of_the_internet(address: str, public: bool) -> None:  # noqa: FBT001
    """IPv4 addresses that are written inside of IPv6 ones count as themselves."""
    assert is_public(address) is public

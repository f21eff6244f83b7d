"""The worker says what the template of a message's type and its user's locale says."""

from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from uuid import UUID

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.channels import Delivered, Outcome, Temporary
from birthday.core.message import ErrorType
from birthday.core.template import TemplateKey
from birthday.operations.dead_letters.requeue import requeue_one
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, metric, parse
from tests.support.templates import activate, store
from tests.support.users import TESTER

DEFAULT, PORTUGUESE = TemplateKey("birthday", "default", 1), TemplateKey("birthday", "pt", 1)


@pytest.fixture
async def product(pool: asyncpg.Pool) -> AsyncIterator[Product]:
    """An installation at 09:00 UTC on 1 March 2027."""
    broker = PostgresBroker(pool)
    yield Product(pool, broker, ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())
    await broker.close()


async def _greet(product: Product, *locales: str | None, message_type: str = "birthday") -> list[UUID]:
    """Create users of these locales whose day it is, and publish their messages; return the ids of the users."""
    users = [await product.create(date(1990, 3, 1)) for _ in locales]
    for user_id, locale in zip(users, locales, strict=True):
        await product.pool.execute("UPDATE users SET locale = $2 WHERE id = $1", user_id, locale)
    await product.pool.execute("UPDATE message_logs SET message_type = $1", message_type)
    await product.dispatcher.dispatch_once(product.clock.now())
    return users


async def _templates(product: Product) -> list[tuple[str, str, int]]:
    rows = await product.pool.fetch("SELECT template, locale, version FROM message_logs ORDER BY template, version")
    return [tuple(row) for row in rows]


async def test_each_user_is_greeted_in_the_nearest_language(product: Product) -> None:
    """The row and the metric say which template it was; who has no locale gets what is built in."""
    await store(product.pool, PORTUGUESE, "Oi {{ first_name }}, {{ years | ordinal }} vez!")
    await _greet(product, "pt-BR", None)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 2})
    assert {sent.greeting.text for sent in channel.sent} == {
        "Oi Ada, 37º vez!",
        "Hey, Ada Lovelace it's your birthday",
    }
    assert await _templates(product) == [("birthday", "default", 0), ("birthday.pt", "pt", 1)]
    for name in ("birthday", "birthday.pt"):
        assert metric(product.metrics, "message_template_usage_total", template_name=name) == 1


async def test_every_attempt_says_the_same(product: Product) -> None:
    """The first attempt fixes the version, because the receiver may have acted on it under the same key."""
    await store(product.pool, DEFAULT, "first")
    await _greet(product, None)
    answers: Iterator[Outcome] = iter([Temporary(ErrorType.EXTERNAL_API_ERROR, "later"), Delivered()])
    channel = RecordingChannel(product.clock, lambda _greeting: next(answers))
    async with product.working(channel):
        await product.wait_for_statuses({"retrying": 1})
        await store(product.pool, DEFAULT._replace(version=2), "second")
        product.clock.advance(timedelta(seconds=5))
        await product.wait_for_statuses({"delivered": 1})
    assert [sent.greeting.text for sent in channel.sent] == ["first", "first"]


async def test_a_template_that_fails_for_somebody_holds_nobody_up(product: Product) -> None:
    """That message is dead-lettered with the reason; it was not sent, and says nothing about the message service."""
    await store(product.pool, DEFAULT, "Go {{ attributes.team }}")
    red, _ = await _greet(product, None, None)
    await product.pool.execute("""UPDATE users SET attributes = '{"team": "red"}' WHERE id = $1""", red)
    channel = RecordingChannel(product.clock)
    async with product.working(channel, threshold=1) as pipeline:
        await product.wait_for_statuses({"delivered": 1, "failed": 1})
        assert pipeline.circuit.cause is None
    assert [sent.greeting.text for sent in channel.sent] == ["Go red"]
    failed = await product.pool.fetchrow(
        "SELECT error_type, error_detail, sent_at FROM message_logs WHERE status = 'failed'"
    )
    assert failed is not None
    reason = "there is no attribute 'team': name another value with the filter default"
    assert tuple(failed) == ("validation_error", f"template birthday, version 1: message, line 1: {reason}", None)
    assert metric(product.metrics, "message_render_failures_total", template_name="birthday") == 1
    assert metric(product.metrics, "messages_sent_total", hour="09") == 1


async def test_a_version_that_this_program_does_not_accept_fails_its_messages(product: Product) -> None:
    """It may have been published by a program with other limits, or written into the table by hand."""
    await store(product.pool, PORTUGUESE, "{{ environ }}")
    await _greet(product, "pt", None)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1, "failed": 1})
    detail = await product.pool.fetchval("SELECT error_detail FROM message_logs WHERE status = 'failed'")
    assert detail.startswith("template birthday.pt, version 1: message: line 1: environ is no variable")


async def test_a_requeue_says_what_is_active_now(product: Product) -> None:
    """Once the template is repaired, an operator sends again what has failed, on the same row."""
    await store(product.pool, DEFAULT, "Go {{ attributes.team }}")
    await _greet(product, None)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"failed": 1})
        await store(product.pool, DEFAULT._replace(version=2), "Go {{ attributes.team | default('on') }}")
        message_id = await product.pool.fetchval("SELECT id FROM message_logs")
        await requeue_one(product.pool, product.broker, message_id, product.clock.now(), TESTER)
        await product.wait_for_statuses({"delivered": 1})
    assert [sent.greeting.text for sent in channel.sent] == ["Go on"]
    assert await _templates(product) == [("birthday", "default", 2)]


async def test_a_message_that_never_left_gets_what_is_active_now(product: Product) -> None:
    """A version is fixed by an attempt, not by a claim that a worker gave back."""
    await store(product.pool, DEFAULT, "first")
    await _greet(product, None)
    await product.pool.execute("UPDATE message_logs SET template = 'birthday', locale = 'default', version = 1")
    await store(product.pool, DEFAULT._replace(version=2), "second")
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 1})
    assert channel.sent[0].greeting.text == "second"


async def test_a_type_without_a_template_says_nothing(product: Product) -> None:
    """A message of another type than birthday fails if nothing is published for its user, and others are sent."""
    await activate(product.pool, TemplateKey("birthday", "el", 7))
    [user] = await _greet(product, "de", message_type="name-day")
    await product.pool.execute(
        """
        INSERT INTO anniversaries (user_id, message_type, date, timezone, schedule_from)
        SELECT id, 'name-day', date_of_birth, timezone, schedule_from FROM users WHERE id = $1
        """,
        user,
    )
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"failed": 1})
    detail = await product.pool.fetchval("SELECT error_detail FROM message_logs")
    assert detail == "there is no template of the type name-day"
    assert channel.sent == []


async def test_a_birthday_without_a_year_has_no_age(product: Product) -> None:
    """``years`` is None for somebody who gave no year: a template asks for it, and never prints it by mistake."""
    await store(product.pool, DEFAULT, "Happy {% if years is none %}day{% else %}{{ years | ordinal }}{% endif %}")
    user, _ = await _greet(product, None, None)
    await product.pool.execute("UPDATE users SET date_of_birth = '0004-03-01' WHERE id = $1", user)
    channel = RecordingChannel(product.clock)
    async with product.working(channel):
        await product.wait_for_statuses({"delivered": 2})
    assert sorted(sent.greeting.text for sent in channel.sent) == ["Happy 37th", "Happy day"]

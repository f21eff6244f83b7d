"""A whole leap year of three types of dates, day by day, through the real planner, database, brokers and worker."""

import asyncio
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from birthday.broker import Broker
from birthday.broker.postgres import PostgresBroker
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.core.ident import uuid7
from birthday.core.message import BIRTHDAY
from birthday.core.user import NO_EXTRAS, Extras, Profile
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel, Sent
from tests.support.chaos import FULL, POSTGRES, RABBITMQ
from tests.support.clock import ManualClock
from tests.support.dates import publish_type
from tests.support.product import Product, metric
from tests.support.users import create_user

SIZES = {POSTGRES: (5000, 1), RABBITMQ: (5000, 1)} if FULL else {POSTGRES: (1200, 1), RABBITMQ: (240, 5)}
"""How many users, and of how many zones one is used: a queue has nothing to do with zones."""
JOINED, NAME_DAY = "work-anniversary", "name-day"
SHARE = 10
"""One of so many users has two other dates, the second of them on the birthday."""
BEGIN = datetime(2027, 12, 31, 3, tzinfo=UTC)
END = datetime(2029, 1, 1, 22, tzinfo=UTC)
BETWEEN_PLANS = timedelta(hours=47)


def zone_names() -> list[str]:
    """Return every IANA zone, read from the package by other means than the product's."""
    lines = (files("tzdata") / "zones").read_text(encoding="utf-8").splitlines()
    return sorted(set(lines) - {"Factory"})


def expected_instant(day: date, zone: str, year: int) -> datetime:
    """Return when 09:00 local is, by the standard library alone: no zone has a clock change at that time."""
    return datetime(year, day.month, day.day, 9, tzinfo=standard_zone(zone)).astimezone(UTC)


@cache
def standard_zone(name: str) -> ZoneInfo:
    """Return a zone of the pinned data: what the host has may be older, and differ."""
    with (files("tzdata") / "zoneinfo").joinpath(*name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file)


async def populate(product: Product, users: int, zones: list[str]) -> dict[str, Profile]:
    """Create the users: each zone in turn, every day of the year in turn, 29 February among them."""
    profiles = {}
    for number in range(users):
        born = date(1988, 1, 1) + timedelta(days=number % 366)
        email = f"user-{number}@example.com"
        extras = NO_EXTRAS
        if number % SHARE == 0:
            joined = date(2016, 1, 1) + timedelta(days=7 * number % 366)
            extras = Extras(anniversaries={JOINED: joined, NAME_DAY: born.replace(year=2024)})
        profiles[email] = Profile("Ada", f"Lovelace {number}", email, born, zones[number % len(zones)], extras)
    ready = iter(profiles.values())

    async def create_some() -> None:
        for profile in ready:
            now = product.clock.now()
            await create_user(product.pool, uuid7(now), profile, now, product.planning)

    await asyncio.gather(*(create_some() for _ in range(8)))
    return profiles


@pytest.fixture
async def product(broker_name: str, request: pytest.FixtureRequest, pool: asyncpg.Pool) -> Product:
    """An installation on either broker, at the end of 2027."""
    broker: Broker = PostgresBroker(pool)
    if broker_name == RABBITMQ:
        broker = RabbitMQBroker(request.getfixturevalue("rabbitmq_url"))
    return Product(pool, broker, ManualClock(BEGIN), Metrics())


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.parametrize("broker_name", SIZES)
async def test_each_user_in_every_zone_is_greeted_once_in_2028_at_nine_local_time(
    product: Product, broker_name: str
) -> None:
    """One message a user, type and year, never early, never late, whatever the zone and day."""
    clock, channel = product.clock, RecordingChannel(product.clock)
    users, every = SIZES[broker_name]
    for message_type in (JOINED, NAME_DAY):
        await publish_type(product.pool, message_type, clock.now())
    profiles = await populate(product, users, zone_names()[::every])
    published = 0
    plan_at = clock.now()
    async with product.working(channel):
        while clock.now() < END:
            if clock.now() >= plan_at:
                await product.planner.plan_once(clock.now())
                plan_at = clock.now() + BETWEEN_PLANS
            dispatched = await product.dispatcher.dispatch_once(clock.now())
            published += dispatched.published
            await channel.wait_for(published)
            steps = [plan_at, END] + ([dispatched.next_at] if dispatched.next_at else [])
            clock.advance(min(steps) - clock.now())
    await product.broker.close()

    in_2028 = [sent for sent in channel.sent if local_year(sent, profiles) == 2028]
    expected = {
        (email, message_type): expected_instant(day, profile.zone, 2028)
        for email, profile in profiles.items()
        for message_type, day in profile.dates()
    }
    assert len(expected) == users + 2 * users // SHARE
    assert Counter(occasion(sent) for sent in in_2028) == dict.fromkeys(expected, 1)
    assert [sent for sent in in_2028 if sent.at != expected[occasion(sent)]] == []
    assert metric(product.metrics, "messages_delivered_total") == len(channel.sent)
    assert metric(product.metrics, "messages_on_time_total") == len(channel.sent)


def occasion(sent: Sent) -> tuple[str, str]:
    """Return the address and the type of a greeting."""
    said = sent.greeting.text.split(":")[0]
    return sent.greeting.email, said if said in {JOINED, NAME_DAY} else BIRTHDAY


def local_year(sent: Sent, profiles: dict[str, Profile]) -> int:
    """Return the calendar year in which a greeting arrived, where its user lives."""
    return sent.at.astimezone(standard_zone(profiles[sent.greeting.email].zone)).year

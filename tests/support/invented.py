"""An invented installation for the console: users of many zones, a week of greetings, failures, texts, changes.

The same seed makes the same installation. Nothing in it belongs to a person who exists.
"""

import unicodedata
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Final, NamedTuple
from uuid import UUID, uuid5

import asyncpg

from birthday.broker.postgres import PostgresBroker
from birthday.core.ident import uuid7
from birthday.core.message import ErrorType
from birthday.core.occasion import Rules, month_days_on, occasion_in
from birthday.store.changes import Change, record_changes
from birthday.store.connection import Connection
from birthday.store.processes import Process, report
from birthday.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.dates import add_dates
from tests.support.dead import bury
from tests.support.product import Product
from tests.support.users import make_profiles

NOW: Final = datetime(2026, 12, 1, 14, 20, 5, tzinfo=UTC)
_WEEK: Final = 7
_FAILURES: Final = (
    (ErrorType.VALIDATION_ERROR, "the message service answered 422 Unprocessable Entity", 14),
    (ErrorType.PERMANENT_FAILURE, "the message service answered 401 Unauthorized", 9),
    (ErrorType.VALIDATION_ERROR, "birthday/pt version 2: 'dict object' has no attribute 'team'", 6),
    (ErrorType.TIMEOUT, "no answer within 10 s", 3),
)
_TEXTS: Final = (
    ("birthday", "default", 1, "Happy birthday, {{ first_name }}!"),
    ("birthday", "default", 2, "Happy {{ years | ordinal }} birthday, {{ first_name }}!"),
    ("birthday", "pt", 1, "Parabéns, {{ first_name }}!"),
    ("birthday", "pt", 2, "Parabéns, {{ first_name }}! Abraços da equipa {{ attributes.team }}."),
    ("birthday", "de", 1, "Alles Gute zum Geburtstag, {{ first_name }}!"),
)
_PLAIN: Final = {"美咲": "Misaki", "山田": "Yamada"}
_LOCALES: Final = ("de", "pt-BR", "en-GB", "fr", None)


class _Row(NamedTuple):
    """A row of ``message_logs``, in the order of its columns here."""

    id: UUID
    user_id: UUID
    occasion_year: int
    occasion_on: date
    scheduled_at: datetime
    ends_at: datetime
    schedule_from: datetime
    status: str
    attempts: int
    queued_at: datetime
    sent_at: datetime
    delivered_at: datetime | None
    error_type: str | None
    error_detail: str | None
    created_at: datetime
    updated_at: datetime
    template: str
    locale: str
    version: int


class _User(NamedTuple):
    """A row of ``users``, in the order of its columns here."""

    id: UUID
    first_name: str
    last_name: str
    email: str
    date_of_birth: date
    timezone: str
    schedule_from: datetime
    created_at: datetime
    updated_at: datetime
    locale: str | None
    external_id: str


async def invent(pool: asyncpg.Pool, clock: ManualClock, users: int = 2000) -> dict[str, tuple[str, ...]]:
    """Fill an empty, migrated database with what happened until the clock's time.

    Returns an example for each parameter of the addresses below a page: of users, messages, templates, days.
    """
    now = clock.now()
    people = _people(users, now - timedelta(days=60))
    messages = _messages(people, now)
    product = Product(pool, PostgresBroker(pool), clock, Metrics())
    async with pool.acquire() as connection:
        await connection.copy_records_to_table("users", records=people, columns=_User._fields)
        await connection.copy_records_to_table("message_logs", records=messages, columns=_Row._fields)
        await add_dates(connection, ("work-anniversary",), now - timedelta(days=50))
        await _publish(connection, now)
        await _report(connection, now)
        await _change(connection, people, now)
        await connection.execute("ANALYZE")
    await product.planner.plan_once(now)
    await pool.execute(
        """
        UPDATE message_logs
        SET status = 'delivered', attempts = 1, queued_at = scheduled_at, sent_at = scheduled_at + interval '2 s',
            delivered_at = scheduled_at + interval '2.3 s', updated_at = scheduled_at + interval '2.3 s'
        WHERE status = 'scheduled' AND scheduled_at <= $1
        """,
        now,
    )
    await bury(product.broker, [one.id for one in messages if one.status == "failed"])
    failed = next(one for one in messages if one.status == "failed")
    return {
        "users": (str(failed.user_id),),
        "messages": (str(failed.id),),
        "templates": ("birthday", "pt"),
        "calendar": ("2027-01-01",),
    }


def _people(count: int, since: datetime) -> list[_User]:
    random = Random(7)  # noqa: S311 - Test data, the same in each run.
    people = []
    for number, one in enumerate(make_profiles(count, seed=7)):
        # A machine without fonts for all scripts still shows each name in a picture.
        first_name, last_name = _PLAIN.get(one.first_name, one.first_name), _PLAIN.get(one.last_name, one.last_name)
        email = f"{_ascii(first_name)}.{_ascii(last_name)}.{number}@example.com"
        people.append(
            _User(
                uuid7(since + timedelta(milliseconds=number)),
                first_name,
                last_name,
                email,
                one.date_of_birth,
                random.choice((one.zone, "Europe/Berlin")),
                since,
                since,
                since,
                random.choice(_LOCALES),
                f"crm-{10_000 + number}",
            )
        )
    return people


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.lower().replace("ø", "o"))
    return "".join(letter for letter in plain if letter.isascii() and letter.isalpha())


def _messages(people: Sequence[_User], now: datetime) -> list[_Row]:
    """Return what was due in the last week: nearly all delivered within seconds, some of the latest not."""
    random = Random(7)  # noqa: S311 - As above.
    rules = Rules()
    days = [now.date() - timedelta(days=number) for number in range(_WEEK, -2, -1)]
    by_day = {month_day: day for day in days for month_day in month_days_on(day, rules.leap_day)}
    rows = []
    for one in people:
        day = by_day.get(one.date_of_birth.month * 100 + one.date_of_birth.day)
        occasion = occasion_in(one.timezone, day, rules).occasion if day else None
        if occasion is None or occasion.due_at > now:
            continue
        sent = occasion.due_at + timedelta(seconds=random.uniform(0.2, 9))
        rows.append(
            _Row(
                uuid5(one.id, str(occasion.year)),
                one.id,
                occasion.year,
                occasion.on,
                occasion.due_at,
                occasion.ends_at,
                one.schedule_from,
                "delivered",
                1,
                occasion.due_at,
                sent,
                sent + timedelta(milliseconds=120),
                None,
                None,
                occasion.due_at - timedelta(hours=40),
                sent + timedelta(milliseconds=120),
                "birthday",
                "default",
                2,
            )
        )
    rows.sort(key=lambda row: row.scheduled_at)
    causes = [cause for *cause, times in _FAILURES for _ in range(times)]
    random.shuffle(causes)
    for cause, place in zip(causes, range(len(rows) - 1, 0, -2), strict=False):
        error_type, detail = cause
        rows[place] = rows[place]._replace(
            status="failed",
            attempts=5 if error_type is ErrorType.TIMEOUT else 1,
            delivered_at=None,
            error_type=error_type,
            error_detail=detail,
        )
    return rows


async def _publish(connection: Connection, now: datetime) -> None:
    for number, (message_type, locale, version, text) in enumerate(_TEXTS):
        at = now - timedelta(days=20 - number)
        await connection.execute(
            "INSERT INTO templates (message_type, locale, version, message, created_at, created_by) "
            "VALUES ($1, $2, $3, $4, $5, 'cli:maria@ops-1')",
            message_type,
            locale,
            version,
            text,
            at,
        )
        await connection.execute(
            "INSERT INTO active_templates VALUES ($1, $2, $3, $4, 'cli:maria@ops-1') "
            "ON CONFLICT (message_type, locale) DO UPDATE SET version = excluded.version",
            message_type,
            locale,
            version,
            at,
        )


async def _report(connection: Connection, now: datetime) -> None:
    """Report some processes. They count as running for a minute by the database's clock."""
    for number, roles in enumerate(("api", "api", "scheduler", "scheduler", "worker", "worker", "worker")):
        await report(
            connection,
            Process(
                id=uuid5(UUID(int=0), str(number)),
                host=f"{roles}-{number % 3 + 1}",
                pid=100 + number,
                roles=roles,
                version="1.4.0",
                commit="3f2a9c1",
                tzdata="2026.2",
                settings={"SEND_AT": "09:00", "LEAP_DAY": "feb28"},
                started_at=now - timedelta(days=3, hours=number),
                circuit="closed" if roles == "worker" else None,
            ),
        )


async def _change(connection: Connection, people: Sequence[_User], now: datetime) -> None:
    """Record what some operators did in the last days."""
    for hours, actor, action, entity, entity_id in (
        (70, "cli:maria@ops-1", "created", "key", "hr-tool"),
        (52, "api:hr-tool", "changed", "user", str(people[3].id)),
        (47, "console:maria", "paused", "pause", "birthday"),
        (46, "console:maria", "resumed", "pause", "birthday"),
        (20, "console:ben", "published", "template", "birthday/pt version 2"),
        (5, "api:hr-tool", "deleted", "user", str(people[5].id)),
        (1, "console:ben", "retried", "message", "3 messages"),
    ):
        await record_changes(connection, [Change(actor, action, entity, entity_id)], now - timedelta(hours=hours))

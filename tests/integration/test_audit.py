"""The audit on a real database: it finds what was lost and what was sent twice, and nothing else."""

import io
import json
import os
from collections import Counter
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.cli.audit import print_audit
from birthday.cli.render.audit import AuditPrinter, JsonAuditPrinter
from birthday.core.audit import Finding
from birthday.core.ident import uuid7
from birthday.core.occasion import LeapDay, Rules
from birthday.operations.audit import Item
from birthday.store.users import Planning, delete_user, lock_profile, replace_profile
from birthday.telemetry.metrics import Metrics
from tests.support.channel import RecordingChannel
from tests.support.clock import ManualClock
from tests.support.product import Product, metric, parse
from tests.support.users import TESTER, create_user, make_profiles

BORN = date(1990, 3, 1)
DAY = timedelta(days=1)


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 12:00 UTC on 20 February 2027."""
    return Product(pool, PostgresBroker(pool), ManualClock(parse("2027-02-20T12:00:00Z")), Metrics())


async def audited(product: Product, first: str, last: str) -> tuple[dict[str, int], list[Item]]:
    """Audit from the beginning of one day to the end of another, UTC; return the counts that are not 0, and all."""
    items: list[Item] = []
    audit = await product.auditor.audit_with_notes(
        parse(f"{first}T00:00:00Z"), parse(f"{last}T00:00:00Z") + DAY, product.clock.now(), items.append
    )
    assert Counter(item.finding for item in items) == audit.counts
    return {finding.value: count for finding, count in audit.counts.items()}, items


async def come_to(product: Product, instant: str) -> None:
    """Move the clock on; the planner plans what came within its horizon."""
    product.clock.advance(parse(instant) - product.clock.now())
    await product.planner.plan_once(product.clock.now())


async def mark(product: Product, user_id: UUID, status: str) -> None:
    """Give a user's message a status, as if it had come that far."""
    await product.pool.execute(
        """
        UPDATE message_logs
        SET status = $2, delivered_at = CASE WHEN $2 = 'delivered' THEN scheduled_at END WHERE user_id = $1
        """,
        user_id,
        status,
    )


async def delivered_crowd(product: Product, count: int) -> list[UUID]:
    """Create users who have all been greeted on 1 March; it is 12:00 on that day afterwards."""
    users = [await product.create(BORN) for _ in range(count)]
    await come_to(product, "2027-03-01T12:00:00Z")
    for user_id in users:
        await mark(product, user_id, "delivered")
    assert await audited(product, "2027-03-01", "2027-03-01") == ({"delivered": count}, [*await items_of(product)])
    return users


async def items_of(product: Product) -> list[Item]:
    """Return what an audit of 1 March finds."""
    return (await audited(product, "2027-03-01", "2027-03-01"))[1]


async def move(product: Product, user_id: UUID, born: date, zone: str = "UTC") -> None:
    """Change a user's date of birth and zone now."""
    async with product.pool.acquire() as connection, connection.transaction():
        old = await lock_profile(connection, user_id)
        new = replace(old, date_of_birth=born, zone=zone)
        await replace_profile(connection, user_id, old, new, product.clock.now(), product.planning, TESTER)


async def test_every_birthday_that_was_due_is_found_with_what_came_of_it(product: Product) -> None:
    """One user for each status; another day, another year of birth and what is not due yet do not count."""
    statuses = ["scheduled", "queued", "sending", "retrying", "delivered", "failed", "expired"]
    users = {status: await product.create(BORN) for status in statuses}
    await product.create(date(1990, 3, 2))
    await product.create(date(1990, 3, 1), "Pacific/Pago_Pago")
    await come_to(product, "2027-03-01T12:00:00Z")
    for status, user_id in users.items():
        await mark(product, user_id, status)
    counts, items = await audited(product, "2027-02-27", "2027-03-05")
    assert counts == {"pending": 4, "delivered": 1, "failed": 1, "expired": 1}
    assert {item.user_id for item in items} == set(users.values())
    [failed] = [item for item in items if item.finding is Finding.FAILED]
    assert (failed.user_id, failed.year) == (users["failed"], 2027)
    assert (failed.due_at, failed.status) == (parse("2027-03-01T09:00:00Z"), "failed")


@pytest.mark.parametrize(
    "loss",
    [
        "DELETE FROM message_logs WHERE user_id = $1",
        "UPDATE message_logs SET status = 'cancelled' WHERE user_id = $1",
        "UPDATE message_logs SET user_id = gen_random_uuid() WHERE user_id = $1",
        "UPDATE message_logs SET occasion_year = 2026 WHERE user_id = $1",
        "UPDATE message_logs SET message_type = 'other' WHERE user_id = $1",
        "UPDATE message_logs SET delivered_at = NULL WHERE user_id = $1",
        """
        UPDATE message_logs SET occasion_on = occasion_on - 59, scheduled_at = scheduled_at - interval '59 days',
                                delivered_at = delivered_at - interval '59 days' WHERE user_id = $1
        """,
    ],
)
@pytest.mark.parametrize("remembered", [True, False])
async def test_a_loss_is_found(product: Product, loss: str, *, remembered: bool) -> None:
    """However the message went, or that it was for another date, or that nobody saw it delivered: the user is named.

    Whether or not the trigger has noted its year.
    """
    lost, *_others = await delivered_crowd(product, 5)
    if not remembered:
        await product.pool.execute("ALTER TABLE message_logs DISABLE TRIGGER remember_greeted_years")
    await product.pool.execute(loss, lost)
    counts, items = await audited(product, "2027-03-01", "2027-03-01")
    assert counts == {"delivered": 4, "missing": 1}
    assert [item.user_id for item in items if item.finding is Finding.MISSING] == [lost]


@pytest.mark.parametrize(
    ("column", "value"),
    [("status", "delivered"), ("status", "queued"), ("status", "cancelled"), ("occasion_year", 2026)],
)
async def test_a_duplicate_is_found(product: Product, column: str, value: object) -> None:
    """A copy of a delivered message: delivered, on its way, hidden as cancelled, or hidden in another year."""
    greeted, *_others = await delivered_crowd(product, 5)
    await product.pool.execute("DROP INDEX message_logs_occasion")
    copy = uuid4()
    await product.pool.execute(
        """
        INSERT INTO message_logs
        SELECT (jsonb_populate_record(m, jsonb_build_object('id', $2::uuid, $3::text, $4::jsonb))).*
        FROM message_logs m WHERE user_id = $1
        """,
        greeted,
        copy,
        column,
        json.dumps(value),
    )
    counts, items = await audited(product, "2027-03-01", "2027-03-01")
    assert counts == {"delivered": 5, "duplicate": 1}
    [duplicate] = [item for item in items if item.finding is Finding.DUPLICATE]
    assert duplicate.user_id == greeted
    assert copy in {duplicate.message_id, duplicate.repeats}


@pytest.mark.parametrize(
    ("excuse", "duplicates"),
    [
        ("UPDATE message_logs SET id = id WHERE id = $1", 1),
        ("UPDATE message_logs SET scheduled_at = scheduled_at + interval '364 days' WHERE id = $1", 1),
        ("UPDATE message_logs SET delivered_at = NULL WHERE id = $1", 0),
        (
            """
            UPDATE message_logs SET scheduled_at = scheduled_at + interval '364 days',
                                    delivered_at = delivered_at + interval '364 days' WHERE id = $1
            """,
            0,
        ),
        ("UPDATE message_logs SET schedule_from = schedule_from - interval '1 day' WHERE id = $1", 0),
        ("UPDATE message_logs SET may_have_arrived = true WHERE id = $1", 0),
    ],
    ids=["same instant", "delivered before it was due", "never delivered", "a year later", "moved", "kept by a move"],
)
async def test_a_second_greeting_under_another_year_is_a_duplicate_unless_there_is_a_reason(
    product: Product, excuse: str, duplicates: int
) -> None:
    """Who does not move has no two birthdays within 300 days."""
    [greeted] = await delivered_crowd(product, 1)
    copy = uuid4()
    await product.pool.execute(
        """
        INSERT INTO message_logs
        SELECT (jsonb_populate_record(m, jsonb_build_object('id', $2::uuid, 'occasion_year', 2028,
                                                            'occasion_on', '2028-02-29'))).*
        FROM message_logs m WHERE user_id = $1
        """,
        greeted,
        copy,
    )
    await product.pool.execute(excuse, copy)
    counts, _ = await audited(product, "2027-03-01", "2027-03-01")
    assert counts == {"delivered": 1} | ({"duplicate": duplicates} if duplicates else {})


async def test_who_moves_over_new_year_may_be_greeted_on_two_days_in_a_row(product: Product) -> None:
    """One greeting for each calendar year is what is promised."""
    await come_to(product, "2027-12-30T12:00:00Z")
    user_id = await product.create(date(1990, 12, 31))
    await come_to(product, "2027-12-31T10:00:00Z")
    await mark(product, user_id, "delivered")
    await move(product, user_id, date(1990, 1, 1))
    await come_to(product, "2028-01-01T10:00:00Z")
    await product.pool.execute("UPDATE message_logs SET status = 'delivered', delivered_at = scheduled_at")
    assert await product.statuses() == {"delivered": 2}
    assert (await audited(product, "2027-12-30", "2028-01-01"))[0] == {"delivered": 1}


async def test_a_message_that_a_move_has_kept_answers_on_its_old_date(product: Product) -> None:
    """It may have arrived before the user moved; without a sign of that it is a message for a wrong date."""
    user_id = await product.create(BORN)
    await come_to(product, "2027-03-01T10:00:00Z")
    await product.pool.execute("UPDATE message_logs SET status = 'retrying', may_have_arrived = true")
    product.clock.advance(timedelta(minutes=1))
    await move(product, user_id, date(1990, 3, 20))
    await mark(product, user_id, "delivered")
    await come_to(product, "2027-03-20T12:00:00Z")
    for statement, counts in (
        ("UPDATE message_logs SET id = id", {"delivered": 1}),
        ("UPDATE message_logs SET may_have_arrived = false", {"delivered": 1}),
        ("UPDATE message_logs SET created_at = schedule_from", {"missing": 1}),
    ):
        await product.pool.execute(statement)
        assert (await audited(product, "2027-03-20", "2027-03-20"))[0] == counts


async def test_a_repeat_is_found_in_the_range_of_either_message(product: Product) -> None:
    """Two messages of one year, weeks apart: each of the two days tells of it, and a range with both tells once."""
    [greeted] = await delivered_crowd(product, 1)
    await product.pool.execute("DROP INDEX message_logs_occasion")
    await product.pool.execute(
        """
        INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from, status,
                                  created_at, updated_at)
        SELECT $1, user_id, 2027, '2027-03-21', '2027-03-21T09:00Z', '2027-03-22T00:00Z', schedule_from, 'delivered',
               created_at, updated_at
        FROM message_logs
        """,
        uuid4(),
    )
    product.clock.advance(30 * DAY)
    for first, last in (("2027-03-01", "2027-03-01"), ("2027-03-21", "2027-03-21"), ("2027-02-20", "2027-03-31")):
        counts, items = await audited(product, first, last)
        assert counts["duplicate"] == 1
        assert {item.user_id for item in items} == {greeted}


async def test_a_second_greeting_after_retention_has_removed_the_first_is_a_duplicate(product: Product) -> None:
    """The row that made the year unique is gone, and something forgot to look at greeted_year."""
    [greeted] = await delivered_crowd(product, 1)
    await come_to(product, "2027-06-10T00:00:00Z")
    assert await product.janitor.retire_once(product.clock.now()) == 1
    await product.pool.execute("UPDATE users SET date_of_birth = '1990-06-11', greeted_year = 0")
    await come_to(product, "2027-06-11T09:00:00Z")
    await mark(product, greeted, "delivered")
    assert (await audited(product, "2027-06-11", "2027-06-11"))[0] == {}
    await come_to(product, "2027-06-11T10:00:00Z")
    assert (await audited(product, "2027-06-11", "2027-06-11"))[0] == {"delivered": 1}
    await product.pool.execute("UPDATE users SET greeted_year = 2027")
    assert (await audited(product, "2027-06-11", "2027-06-11"))[0] == {"delivered": 1, "duplicate": 1}


async def test_what_is_due_and_not_planned_is_missing_from_its_instant_on(product: Product) -> None:
    """No planner runs: nobody is expected before the instant, and nobody is forgotten after it."""
    await product.create(BORN)
    for instant, counts in (
        ("2027-03-01T09:00:00Z", {}),
        ("2027-03-01T09:00:01Z", {"missing": 1}),
        ("2027-03-20T09:10:00Z", {"missing": 1}),
    ):
        product.clock.advance(parse(instant) - product.clock.now())
        assert (await audited(product, "2027-03-01", "2027-03-01"))[0] == counts


async def test_whoever_comes_on_the_birthday_is_due_then_and_whoever_comes_later_is_not(product: Product) -> None:
    """Due is the later one of 09:00 and the instant at which the user was created; the next day is too late."""
    product.clock.advance(parse("2027-03-02T03:00:00Z") - product.clock.now())
    in_time = await product.create(BORN, "America/Los_Angeles")
    await product.create(BORN, "Europe/Berlin")
    product.clock.advance(timedelta(hours=1))
    assert (await audited(product, "2027-03-01", "2027-03-01"))[0] == {}
    _, [item] = await audited(product, "2027-03-02", "2027-03-02")
    assert (item.user_id, item.finding, item.due_at) == (in_time, Finding.PENDING, parse("2027-03-02T03:00:00Z"))


async def test_a_deleted_user_is_expected_only_if_it_was_there_when_the_birthday_was_due(product: Product) -> None:
    """Deleted before: not expected. Deleted unsent: cancelled. Deleted after the greeting: delivered."""
    before, unsent, afterwards = [await product.create(BORN) for _ in range(3)]
    await come_to(product, "2027-03-01T08:00:00Z")
    await delete_user(product.pool, before, product.clock.now(), TESTER)
    await come_to(product, "2027-03-01T11:00:00Z")
    await mark(product, afterwards, "delivered")
    for user_id in (unsent, afterwards):
        await delete_user(product.pool, user_id, product.clock.now(), TESTER)
    await come_to(product, "2027-03-01T15:00:00Z")
    counts, items = await audited(product, "2027-03-01", "2027-03-01")
    assert counts == {"cancelled": 1, "delivered": 1}
    assert {item.user_id for item in items} == {unsent, afterwards}
    # That of a deleted user is looked for as well.
    await product.pool.execute("DELETE FROM message_logs WHERE user_id = $1", afterwards)
    assert (await audited(product, "2027-03-01", "2027-03-01"))[0] == {"cancelled": 1, "missing": 1}


async def test_a_user_who_moves_is_expected_on_the_new_date_unless_the_year_is_taken(product: Product) -> None:
    """Greeted, then moved: nothing more this year. Moved before: expected on the new date, and not on the old one."""
    greeted, unsent = [await product.create(BORN) for _ in range(2)]
    await come_to(product, "2027-03-01T10:00:00Z")
    await mark(product, greeted, "delivered")
    for user_id in (greeted, unsent):
        await move(product, user_id, date(1990, 3, 10))
    await come_to(product, "2027-03-09T12:00:00Z")
    assert (await audited(product, "2027-02-20", "2027-03-09"))[0] == {}
    await come_to(product, "2027-03-10T12:00:00Z")
    counts, [item] = await audited(product, "2027-02-20", "2027-03-10")
    assert (counts, item.user_id) == ({"pending": 1}, unsent)
    # Once more, with a new zone, on the day itself: still one greeting for the one, and none for the other.
    for user_id in (greeted, unsent):
        await move(product, user_id, date(1990, 3, 10), "America/Los_Angeles")
    await come_to(product, "2027-03-10T20:00:00Z")
    _, [item] = await audited(product, "2027-02-20", "2027-03-10")
    assert (item.user_id, item.due_at) == (unsent, parse("2027-03-10T17:00:00Z"))


async def test_a_message_that_a_move_lost_is_missing(product: Product) -> None:
    """The old message was cancelled, and the new one that should have replaced it is not there."""
    user_id = await product.create(BORN)
    await come_to(product, "2027-02-28T12:00:00Z")
    await move(product, user_id, date(1990, 3, 2))
    await product.pool.execute("DELETE FROM message_logs WHERE status <> 'cancelled'")
    product.clock.advance(4 * DAY)
    assert (await audited(product, "2027-03-01", "2027-03-04"))[0] == {"missing": 1}


@pytest.mark.parametrize(("leap_day", "due_on"), [(LeapDay.FEB28, "2027-02-28"), (LeapDay.MAR1, "2027-03-01")])
async def test_a_leap_day_is_expected_where_the_rules_put_it(
    pool: asyncpg.Pool, leap_day: LeapDay, due_on: str
) -> None:
    """In 2027 by the policy, in 2028 on the day itself."""
    planning = Planning(Rules(leap_day=leap_day), timedelta(hours=48))
    clock = ManualClock(parse("2027-02-20T12:00:00Z"))
    product = Product(pool, PostgresBroker(pool), clock, Metrics(), planning)
    user_id = await product.create(date(1992, 2, 29))
    for year, on in ((2027, due_on), (2028, "2028-02-29")):
        # Nothing is due in between, so the planner need not look at each day of a year.
        await product.pool.execute("DELETE FROM watermarks")
        await come_to(product, f"{on}T12:00:00Z")
        await mark(product, user_id, "delivered")
        product.clock.advance(2 * DAY)
        _, items = await audited(product, f"{year}-02-20", f"{year}-03-05")
        assert [(item.year, f"{item.due_at:%Y-%m-%d}", item.finding) for item in items] == [(year, on, "delivered")]


async def test_after_retention_the_greeted_year_answers_and_the_notes_say_so(product: Product) -> None:
    """What is removed is archived, as long as the user says that there was one; a range that is kept has no note."""
    users = await delivered_crowd(product, 3)
    await mark(product, users[2], "cancelled")
    await delete_user(product.pool, users[2], product.clock.now(), TESTER)
    await come_to(product, "2027-06-10T00:00:00Z")
    assert await product.janitor.retire_once(product.clock.now()) == 3
    now = product.clock.now()
    audit = await product.auditor.audit_with_notes(parse("2027-03-01T00:00:00Z"), parse("2027-03-08T00:00:00Z"), now)
    assert audit.counts == {Finding.ARCHIVED: 2}
    assert [note.split(":")[0] for note in audit.notes] == [
        "retention removes finished messages that were created before 2027-03-12 00"
    ]
    assert (
        await product.auditor.audit_with_notes(parse("2027-03-20T00:00:00Z"), parse("2027-03-22T00:00:00Z"), now)
    ).notes == []
    # One who moves after that has been greeted this year; one whose year nobody remembers is missing.
    await move(product, users[0], date(1990, 6, 10))
    await product.pool.execute("UPDATE users SET greeted_year = 0 WHERE id = $1", users[1])
    await come_to(product, "2027-06-10T12:00:00Z")
    assert (await audited(product, "2027-06-10", "2027-06-10"))[0] == {"archived": 1}
    assert (await audited(product, "2027-03-01", "2027-03-01"))[0] == {"missing": 1}


async def test_users_in_a_zone_that_does_not_exist_are_noted(product: Product) -> None:
    """Nobody can say when their birthday is, and the audit does not pretend to."""
    await product.create(BORN)
    await product.pool.execute("UPDATE users SET timezone = 'Mars/Base'")
    product.clock.advance(20 * DAY)
    now = product.clock.now()
    audit = await product.auditor.audit_with_notes(now - 15 * DAY, now, now)
    assert audit.expected == 0
    assert [note.split(":")[0] for note in audit.notes] == ["'Mars/Base' is not a time zone"]


async def test_two_weeks_of_real_work_leave_nothing_to_complain_of(product: Product) -> None:
    """Users in many zones, created, moved and deleted on the way: all that was due was delivered, each day."""
    channel = RecordingChannel(product.clock)
    users: list[UUID] = []
    for number, profile in enumerate(make_profiles(300)):
        born = date(1980, 2, 19) + timedelta(days=number % 18)
        user_id = uuid7(product.clock.now())
        users.append(user_id)
        placed = replace(profile, date_of_birth=born)
        await create_user(product.pool, user_id, placed, product.clock.now(), product.planning)
    changing = iter(users)
    published = 0
    async with product.working(channel):
        for _ in range(14 * 4):
            product.clock.advance(timedelta(hours=6))
            now: datetime = product.clock.now()
            await product.planner.plan_once(now)
            published += (await product.dispatcher.dispatch_once(now)).published
            await channel.wait_for(published)
            await move(product, next(changing), now.date().replace(year=1985), "Asia/Tokyo")
            await delete_user(product.pool, next(changing), now, TESTER)
    counts, items = await audited(product, "2027-02-20", "2027-03-06")
    assert counts.keys() <= {"delivered", "cancelled", "late"}
    assert counts["delivered"] > 180
    by_day = [
        await audited(product, f"{day:%Y-%m-%d}", f"{day:%Y-%m-%d}")
        for day in (parse("2027-02-20T00:00:00Z") + number * DAY for number in range(15))
    ]
    assert [item for _, found in by_day for item in found] == items


async def test_the_janitor_shows_the_last_catch_up_window_as_gauges(product: Product) -> None:
    """All findings, the good ones too; what is older than the window has left it."""
    lost, *_others = await delivered_crowd(product, 4)
    await product.janitor.audit_once(product.clock.now())
    assert {name: metric(product.metrics, "audit_birthdays", finding=name) for name in ("expected", *Finding)} == {
        "expected": 4,
        "delivered": 4,
        **dict.fromkeys(("expired", "failed", "pending", "cancelled", "archived", "missing", "duplicate"), 0),
        **dict.fromkeys(("late", "mistimed"), 0),
    }
    await product.pool.execute("DELETE FROM message_logs WHERE user_id = $1", lost)
    await product.janitor.audit_once(product.clock.now())
    assert metric(product.metrics, "audit_birthdays", finding="missing") == 1
    product.clock.advance(3 * DAY)
    await product.janitor.audit_once(product.clock.now())
    assert metric(product.metrics, "audit_birthdays", finding="missing") == 0


async def test_the_audit_is_printed_for_people_and_for_programs(product: Product) -> None:
    """The counts in both forms; a list of any kind of finding before them; ids, and nothing that names a person."""
    lost, *_others = await delivered_crowd(product, 3)
    await product.pool.execute("DELETE FROM message_logs WHERE user_id = $1", lost)
    on, now = date(2027, 3, 1), product.clock.now()

    async def printed(listed: str | None, *, as_json: bool) -> str:
        out = io.StringIO()
        printer = (JsonAuditPrinter if as_json else AuditPrinter)(out, listed)
        audit = await print_audit(product.auditor, on, on, now, printer)
        assert audit.broken
        return out.getvalue()

    text = await printed("missing", as_json=False)
    assert f"2027-03-01T09:00:00Z  missing    {lost}  2027" in text
    assert [line.split() for line in text.splitlines() if line.startswith(("expected", "delivered", "missing"))] == [
        ["expected", "3"],
        ["delivered", "2"],
        ["missing", "1"],
    ]
    assert "example.com" not in text
    counts = json.loads(await printed(None, as_json=True))
    assert (counts["from"], counts["to"], counts["asOf"]) == ("2027-03-01", "2027-03-01", "2027-03-01T12:00:00Z")
    assert (counts["expected"], counts["delivered"], counts["missing"], counts["duplicate"]) == (3, 2, 1, 0)
    listed = json.loads(await printed("expected", as_json=True))
    assert {item["finding"] for item in listed["items"]} == {"delivered", "missing"}
    assert len(listed.pop("items")) == 3
    assert listed == counts
    assert json.loads(await printed("duplicate", as_json=True))["items"] == []


async def test_a_reader_of_a_long_list_may_stop_early(product: Product) -> None:
    """As ``head`` does: the audit goes on without a reader, and says how it ended."""
    await delivered_crowd(product, 5)
    read_end, write_end = os.pipe()
    os.close(read_end)
    on, now = date(2027, 3, 1), product.clock.now()
    with os.fdopen(write_end, "w") as out:
        audit = await print_audit(product.auditor, on, on, now, AuditPrinter(out, "expected"))
    assert audit.counts == {Finding.DELIVERED: 5}


async def test_a_message_planned_for_another_instant_than_its_users_is_found(product: Product) -> None:
    """By old time-zone data, for example: its own times agree with each other.

    An audit by other rules says that it does not look at that, instead of calling every greeting mistimed.
    """
    await product.planner.plan_once(product.clock.now())
    wrong, *_others = await delivered_crowd(product, 3)
    await product.pool.execute(
        """
        UPDATE message_logs SET scheduled_at = scheduled_at + interval '1 hour',
                                delivered_at = delivered_at + interval '1 hour',
                                sent_at = scheduled_at + interval '1 hour'
        WHERE user_id = $1
        """,
        wrong,
    )
    counts, items = await audited(product, "2027-03-01", "2027-03-01")
    assert counts == {"delivered": 3, "mistimed": 1}
    [mistimed] = [item for item in items if item.finding is Finding.MISTIMED]
    assert (mistimed.user_id, mistimed.sent_at) == (wrong, parse("2027-03-01T10:00:00Z"))
    await product.janitor.audit_once(product.clock.now())
    assert metric(product.metrics, "audit_birthdays", finding="mistimed") == 1

    elsewhere = replace(product, planning=replace(product.planning, rules=Rules(send_at=time(8))))
    audit = await elsewhere.auditor.audit_with_notes(
        parse("2027-03-01T00:00:00Z"), parse("2027-03-02T00:00:00Z"), product.clock.now()
    )
    assert (audit.broken, audit.expected) == (False, 3)
    assert any("08:00:00 feb28" in note for note in audit.notes)


async def test_after_another_send_at_what_was_sent_by_the_old_one_is_not_mistimed(product: Product) -> None:
    """When the rules changed is noted: yesterday's greetings were right."""
    await product.planner.plan_once(product.clock.now())
    await delivered_crowd(product, 3)
    later = replace(product, planning=replace(product.planning, rules=Rules(send_at=time(11))))
    await later.planner.plan_once(product.clock.now())
    counts, _ = await audited(later, "2027-03-01", "2027-03-01")
    assert counts == {"delivered": 3}

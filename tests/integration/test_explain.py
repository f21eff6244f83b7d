"""Why somebody got a message, or gets none: for each rule that decides, the explanation names it."""

import io
import json
from datetime import date, timedelta
from uuid import UUID

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.cli.render.explain import print_explained, write_json
from birthday.errors import NotFoundError
from birthday.operations.explain import Explained, Explanation
from birthday.operations.suppressions import suppress_user, unsuppress_user
from birthday.store.changes import Actor
from birthday.store.pauses import set_paused
from birthday.store.users import delete_user
from birthday.telemetry.metrics import Metrics
from birthday.wiring.scheduler import make_explainer
from tests.support.clock import ManualClock
from tests.support.dates import give_date, plan_type
from tests.support.product import Product, parse
from tests.support.users import TESTER

JOINED = "work-anniversary"


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 12:00 UTC on 27 February 2027."""
    return Product(pool, PostgresBroker(pool), ManualClock(parse("2027-02-27T12:00:00Z")), Metrics())


async def explained(product: Product, who: object, year: int | None = None, of: str | None = "birthday") -> Explained:
    """Explain as the command does."""
    return await make_explainer(product.settings(), product.pool).explain(str(who), year, of, product.clock.now())


async def explain(product: Product, who: object, year: int | None = None, of: str = "birthday") -> Explanation:
    """Explain the one occasion of a type."""
    [one] = (await explained(product, who, year, of)).explanations
    return one


def says(explanation: Explanation, about: str) -> str:
    """Return what the one step about something says."""
    [text] = [step.says for step in explanation.steps if step.about == about]
    return text


async def test_a_leap_day_and_its_message_are_explained(product: Product) -> None:
    """The date, the leap-day rule, the local time, the instant and the message that is planned."""
    user_id = await product.create(date(1992, 2, 29), "Europe/Berlin")
    one = await explain(product, user_id)
    assert (one.outcome, one.year, one.reason) == ("scheduled", 2027, "planned for 2027-02-28T08:00:00Z")
    assert says(one, "date") == "1992-02-29"
    assert says(one, "leap day") == "2027 has no 29 February; LEAP_DAY=feb28 puts it on 2027-02-28"
    assert says(one, "due") == "2027-02-28 09:00 in Europe/Berlin (SEND_AT 09:00) is 2027-02-28T08:00:00Z"


async def test_a_date_that_the_zone_skipped_is_explained(product: Product) -> None:
    """30 December 2011 does not exist in Samoa."""
    user_id = await product.create(date(1990, 12, 30), "Pacific/Apia")
    one = await explain(product, user_id, 2011)
    assert says(one, "zone") == "2011-12-30 does not exist in Pacific/Apia: the next date counts"
    assert (one.outcome, one.reason) == (
        "known-too-late",
        "date and zone are known since 2027-02-27T12:00:00Z, when the day was over for the user",
    )


async def test_reasons_for_no_message(product: Product) -> None:
    """First year, too far ahead, removed by retention, no template, no date, suppressed, and a message that is lost."""
    user_id = await product.create(date(2026, 2, 28))
    assert (await explain(product, user_id, 2026)).outcome == "first-year"
    later = await explain(product, user_id, 2028)
    assert (later.outcome, later.reason[-20:]) == ("not-yet", "2028-02-26T09:00:00Z")
    await give_date(product.pool, user_id, JOINED, date(2019, 2, 28))
    assert (await explain(product, user_id, of=JOINED)).outcome == "no-template"
    assert (await explain(product, user_id, of="name-day")).outcome == "no-date"
    await plan_type(product.pool, JOINED, parse("2027-03-01T12:00:00Z"))
    assert "planned since 2027-03-01" in (await explain(product, user_id, of=JOINED)).reason
    await product.pool.execute("ALTER TABLE message_logs DISABLE TRIGGER remember_greeted_years")
    await product.pool.execute("DELETE FROM message_logs")
    product.clock.advance(timedelta(days=2))
    assert (await explain(product, user_id)).outcome == "missing"
    await product.pool.execute("UPDATE users SET suppressed = true")
    assert (await explain(product, user_id)).outcome == "suppressed"
    await product.pool.execute("UPDATE users SET greeted_year = 2027")
    assert (await explain(product, user_id)).outcome == "archived"
    await product.pool.execute("UPDATE users SET timezone = 'Mars/Olympus'")
    assert (await explain(product, user_id)).outcome == "unknown-zone"


@pytest.mark.parametrize(
    ("change", "outcome", "words"),
    [
        ("status = 'failed', error_type = 'timeout', error_detail = 'no answer'", "failed", "(timeout: no answer)"),
        ("status = 'expired'", "expired", "not sent within CATCH_UP_WINDOW"),
        ("status = 'delivered', delivered_at = scheduled_at, attempts = 2", "delivered", "by attempt 2"),
        ("status = 'cancelled', error_detail = 'suppressed'", "cancelled", "the user was suppressed"),
        ("status = 'cancelled'", "cancelled", "by hand"),
    ],
)
async def test_what_came_of_a_message_is_the_outcome(product: Product, change: str, outcome: str, words: str) -> None:
    """Its state, with the reason that is stored with it."""
    user_id = await product.create(date(1990, 2, 28))
    await product.pool.execute(f"UPDATE message_logs SET {change}")  # noqa: S608 - text of this test
    one = await explain(product, user_id)
    assert one.outcome == outcome
    assert words in one.reason


async def test_a_year_that_a_cancelled_message_keeps_is_explained(product: Product) -> None:
    """The message may have arrived before its user was suppressed, so a return changes nothing this year."""
    user_id = await product.create(date(1990, 2, 28))
    await product.pool.execute("UPDATE message_logs SET status = 'retrying', may_have_arrived = true")
    await suppress_user(product.pool, user_id, "asked", product.clock.now(), TESTER)
    await unsuppress_user(product.pool, user_id, product.clock.now(), TESTER)
    one = await explain(product, user_id)
    assert one.outcome == "cancelled"
    assert one.reason.endswith("the user was suppressed; it may have arrived, so its year is taken")


async def test_a_paused_type_is_explained(product: Product) -> None:
    """The message is planned, and an operator holds it back."""
    user_id = await product.create(date(1990, 2, 28))
    async with product.pool.acquire() as connection:
        await set_paused(connection, ["birthday"], paused=True, now=product.clock.now(), by=Actor("ada@host"))
    one = await explain(product, user_id)
    assert (one.outcome, one.reason) == ("paused", "planned for 2027-02-28T09:00:00Z; the type is paused")


async def test_a_user_is_found_by_id_address_or_external_id(product: Product) -> None:
    """Deleted users are explained too; a live one with the same address comes first."""
    user_id = await product.create(date(1990, 2, 28), email="Ada@example.com")
    await product.pool.execute("UPDATE users SET external_id = 'crm-1'")
    for who in (user_id, "ada@EXAMPLE.com", "crm-1"):
        assert (await explained(product, who)).user.id == user_id
    await delete_user(product.pool, user_id, product.clock.now(), TESTER)
    one = await explain(product, "ada@example.com")
    assert (one.outcome, one.reason) == ("deleted", "the user was deleted at 2027-02-27T12:00:00Z, before it was due")
    other = await product.create(date(1990, 2, 28), email="ada@example.com")
    assert (await explained(product, "ada@example.com")).user.id == other
    with pytest.raises(NotFoundError, match="an id, an e-mail address or an externalId"):
        await explained(product, "nobody")


async def test_the_explanation_is_printed_for_people_and_for_programs(product: Product) -> None:
    """A paragraph for each type, or one JSON object; neither names a person."""
    user_id = await product.create(date(1990, 2, 28))
    await give_date(product.pool, user_id, JOINED, date(2019, 5, 1))
    text, document = io.StringIO(), io.StringIO()
    both = await explained(product, user_id, of=None)
    print_explained(both, text)
    write_json(both, document)
    assert text.getvalue().splitlines()[:5] == [
        f"user {user_id}, UTC",
        "",
        "birthday 2027: scheduled",
        "  planned for 2027-02-28T09:00:00Z",
        "  date         1990-02-28",
    ]
    parsed = json.loads(document.getvalue())
    assert UUID(parsed["userId"]) == user_id
    assert [(one["type"], one["outcome"]) for one in parsed["occasions"]] == [
        ("birthday", "scheduled"),
        (JOINED, "no-template"),
    ]
    assert "Lovelace" not in text.getvalue() + document.getvalue()

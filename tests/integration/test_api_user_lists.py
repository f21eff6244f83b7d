"""Lists of users that are selected by filters: who is in them, in which order, and what a page costs."""

import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

import asyncpg
import pytest

from benchmarks.population import populate
from birthday.core.ident import uuid7
from birthday.core.user import Extras, Profile
from birthday.store.listing import Place, UserFilter, list_users
from tests.integration.test_query_plans import Statements, nodes, read_to_the_end
from tests.support.api import Api, running_api
from tests.support.clock import ManualClock
from tests.support.product import PLANNING
from tests.support.users import create_user

ADA = Profile("Ada", "Lovelace", "ada@example.com", date(1990, 12, 10), "Europe/London")
PEOPLE = (
    ADA,
    replace(ADA, first_name="Adam", last_name="Smith", email="adam@example.com", zone="UTC+07:00"),
    replace(ADA, first_name="Zoë", last_name="ADAMS", email="zoe@example.com", date_of_birth=date(4, 2, 29)),
    replace(ADA, first_name="Émile", last_name="", email="emile@example.com", date_of_birth=date(2000, 2, 29)),
    replace(ADA, first_name="50%_", last_name="Off", email="off@example.com", extras=Extras(suppressed=True)),
    replace(ADA, first_name="Bob", last_name="Adams", email="bob@example.com", extras=Extras(external_id="crm 1")),
)


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database with six users, each created a minute after the one before."""
    clock = ManualClock()
    for person in PEOPLE:
        await create_user(pool, uuid7(clock.now()), person, clock.now(), PLANNING)
        clock.advance(timedelta(minutes=1))
    async with running_api(pool, clock=clock) as api:
        yield api


async def pages(api: Api, query: dict[str, str], limit: int = 2) -> list[str]:
    """Return the first names of a whole list, read in pages."""
    names: list[str] = []
    path = f"/users?{urlencode(query | {'limit': limit})}"
    while path:
        answer = await api.get(path)
        assert answer.status == 200, answer.body
        assert len(answer.json["users"]) <= limit
        names += [user["firstName"] for user in answer.json["users"]]
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
    return names


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"email": "ADA@example.com"}, ["Ada"]),
        ({"email": "nobody@example.com"}, []),
        ({"externalId": "crm 1"}, ["Bob"]),
        ({"externalId": "crm 1", "email": "ada@example.com"}, []),
        ({"name": "ada"}, ["Ada", "Adam", "Bob", "Zoë"]),
        ({"name": "Ada L"}, ["Ada"]),
        ({"name": "adams"}, ["Bob", "Zoë"]),
        ({"name": "é"}, ["Émile"]),
        ({"name": "50%_ o"}, ["50%_"]),
        ({"name": "%"}, []),
        ({"timezone": "Europe/London"}, ["Zoë", "Émile", "Ada", "50%_", "Bob"]),
        ({"timezone": "UTC+07:00"}, ["Adam"]),
        ({"birthday": "02-29"}, ["Zoë", "Émile"]),
        ({"birthday": "--12-10"}, ["Ada", "50%_", "Bob", "Adam"]),
        ({"birthday": "12-10", "timezone": "UTC+07:00"}, ["Adam"]),
        ({"birthday": "01-01"}, []),
        ({"suppressed": "true"}, ["50%_"]),
        ({"suppressed": "false"}, ["Ada", "Adam", "Zoë", "Émile", "Bob"]),
        ({"updatedAfter": "2026-03-01T09:02:00Z"}, ["Émile", "50%_", "Bob"]),
        ({"updatedAfter": "2026-03-01T09:01:00Z", "name": "ada", "suppressed": "false"}, ["Zoë", "Bob"]),
        ({"name": "ada", "birthday": "12-10"}, ["Ada", "Bob", "Adam"]),
        ({"name": "a", "timezone": "Europe/London"}, ["Ada", "Bob", "Zoë"]),
    ],
)
async def test_each_filter_selects_its_users(api: Api, query: dict[str, str], names: list[str]) -> None:
    """A list has the users whom all its filters mean, in the order of the most selective one, page by page."""
    assert await pages(api, query) == names
    assert await pages(api, query, limit=1) == names


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("email=nobody", "email"),
        ("name=", "name"),
        ("name=%00", "name"),
        ("timezone=Mars/Olympus", "timezone"),
        ("birthday=02-30", "birthday"),
        ("birthday=1990-02-28", "birthday"),
        ("suppressed=yes", "suppressed"),
        ("updatedAfter=today", "updatedAfter"),
        ("name=ada&cursor=AAAA", "cursor"),
    ],
)
async def test_a_filter_that_means_nothing_is_refused(api: Api, query: str, parameter: str) -> None:
    """The answer names the parameter."""
    answer = await api.get(f"/users?{query}")
    assert answer.status == 422, answer.body
    assert [error["parameter"] for error in answer.json["errors"]] == [parameter]


async def test_pages_neither_skip_nor_repeat_while_users_change(api: Api) -> None:
    """A user who takes another place in the list, or leaves it, moves nobody else across the end of a page."""
    first = await api.get("/users?name=ada&limit=2")
    last = first.json["users"][-1]
    assert (await api.patch(f"/users/{last['id']}", {"firstName": "Zed", "lastName": "Z"})).status == 200
    assert (await api.delete(f"/users/{first.json['users'][0]['id']}")).status == 204
    await api.create(firstName="Ada", lastName="Aaa")
    rest = await api.get(f"/users?name=ada&cursor={first.json['nextCursor']}")
    assert [user["firstName"] for user in rest.json["users"]] == ["Bob", "Zoë"]


async def test_a_cursor_tells_no_name(api: Api) -> None:
    """Cursor and link hide the names of the place and of the filter; in another list it is the beginning."""
    answer = await api.get("/users?name=ada&limit=1")
    cursor = answer.json["nextCursor"]
    assert "ovelace" not in repr(urlsafe_b64decode(cursor))
    assert len((await api.get(f"/users?birthday=12-10&cursor={cursor}")).json["users"]) == 4
    link = answer.headers["Link"]
    assert "ada" not in link.lower()
    assert f"limit=1&cursor={cursor}>" in link
    for query in ("name=ada&", ""):
        rest = (await api.get(f"/users?{query}cursor={cursor}")).json["users"]
        assert [user["firstName"] for user in rest] == ["Adam", "Bob", "Zoë"]


async def test_a_cursor_that_has_lost_its_end_is_refused(api: Api) -> None:
    """Wherever it is cut, the answer is a page or says that this is not a cursor."""
    path = "/users?updatedAfter=2026-03-01&limit=1"
    cursor = (await api.get(path)).json["nextCursor"]
    statuses = {}
    for length in range(len(cursor)):
        answer = await api.get(f"{path}&cursor={cursor[:length]}")
        statuses[length] = answer.status
        if answer.status != 200:
            assert [error["parameter"] for error in answer.json["errors"]] == ["cursor"], length
    assert set(statuses.values()) == {200, 422}
    # Whole groups of characters look like a cursor.
    assert 422 in {statuses[length] for length in range(24, len(cursor), 4)}


NOW = datetime(2026, 3, 10, 12, 1, tzinfo=UTC)
FILTERS = (
    UserFilter(email="nobody@example.com"),
    UserFilter(external_id="nobody"),
    UserFilter(name="ada"),
    UserFilter(name="lovelace1"),
    UserFilter(zone="Asia/Kolkata"),
    UserFilter(month_day=101),
    UserFilter(month_day=101, zone="Asia/Kolkata", suppressed=False),
    UserFilter(suppressed=True),
    UserFilter(suppressed=False),
    UserFilter(updated_after=NOW - timedelta(days=400)),
    UserFilter(name="ada", month_day=101),
)


async def test_a_page_reads_little_more_than_it_shows(database_url: str) -> None:
    """Each filter finds its users by an index, and reads it in order: no page costs more because more users follow."""
    connection = await asyncpg.connect(database_url)
    statements = Statements()
    try:
        await populate(connection, 20_000, NOW - timedelta(days=400))
        await connection.execute("UPDATE users SET suppressed = true WHERE hashtext(email) % 500 = 0")
        await connection.execute("VACUUM (ANALYZE)")
        await statements.listen(connection)
        for wanted in FILTERS:
            statements.seen.clear()
            await list_users(connection, wanted, None, 50)
            for statement, arguments in dict(statements.seen).items():
                async with connection.transaction():
                    await connection.execute("SET LOCAL enable_bitmapscan = off")
                    text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments)
                assert "is_listed(" not in text
                plan = json.loads(text)[0]["Plan"]
                assert list(read_to_the_end(plan)) == [], (wanted, statement)
                read = sum(node["Actual Rows"] * node["Actual Loops"] for node in nodes(plan) if "Index Name" in node)
                assert read < 1500, (wanted, read, statement)
    finally:
        await connection.close()


async def test_pages_of_each_order_have_every_user_once(pool: asyncpg.Pool) -> None:
    """Pages of any size put together are the whole list."""
    async with pool.acquire() as connection:
        await populate(connection, 1_000, NOW - timedelta(days=400))
        for wanted in FILTERS:
            whole = await list_users(connection, wanted, None, 2_000)
            parts: list[Place] = []
            while page := await list_users(connection, wanted, parts[-1] if parts else None, 7):
                parts += page
            assert parts == whole, wanted
            assert len({place.id for place in whole}) == len(whole)

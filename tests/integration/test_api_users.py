"""Users over HTTP, as the contract has them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.support.api import RUNBOOK_USER, Api, instant, message_rows, running_api

MEMBERS = [
    "id",
    "firstName",
    "lastName",
    "email",
    "dateOfBirth",
    "timezone",
    "timezoneOffset",
    "externalId",
    "locale",
    "attributes",
    "anniversaries",
    "suppressed",
    "nextMessageAt",
    "occasions",
    "createdAt",
    "updatedAt",
]


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


async def test_the_body_of_the_runbook_creates_a_user(api: Api) -> None:
    """What the runbook posts is answered with 201, a Location that works, and the user in the order of the contract."""
    answer = await api.post("/users", json=RUNBOOK_USER)
    user = answer.json
    assert answer.status == 201
    assert answer.headers["Content-Type"] == "application/json"
    assert list(user) == MEMBERS
    assert UUID(user["id"]).version == 7
    assert {name: user[name] for name in MEMBERS[1:]} == {
        "firstName": "Test",
        "lastName": "User",
        "email": "test@example.com",
        "dateOfBirth": "1990-01-01",
        "timezone": None,
        "timezoneOffset": 0,
        "externalId": None,
        "locale": None,
        "attributes": {},
        "anniversaries": {},
        "suppressed": False,
        "nextMessageAt": "2027-01-01T09:00:00Z",
        "occasions": [{"type": "birthday", "date": "2027-01-01", "nextMessageAt": "2027-01-01T09:00:00Z"}],
        "createdAt": "2026-03-01T09:00:00Z",
        "updatedAt": "2026-03-01T09:00:00Z",
    }
    assert answer.headers["Location"] == f"/users/{user['id']}"
    assert (await api.get(answer.headers["Location"])).json == user


async def test_creating_is_counted(api: Api) -> None:
    """A created user and the message that is planned with it move their counters; a refused one moves neither."""
    await api.create(dateOfBirth="1990-03-02")
    await api.create(email="other@example.com")
    await api.post("/users", json=RUNBOOK_USER)
    assert api.metric("users_created_total") == 2
    assert api.metric("messages_scheduled_total") == 1


@pytest.mark.parametrize(
    ("zone", "shown", "due"),
    [
        ({"timezone": "America/New_York"}, ("America/New_York", None), "2027-01-01T14:00:00Z"),
        ({"timezone": "America/Argentina/Ushuaia"}, ("America/Argentina/Ushuaia", None), "2027-01-01T12:00:00Z"),
        ({"timezone": "UTC"}, ("UTC", None), "2027-01-01T09:00:00Z"),
        ({"timezoneOffset": 420}, (None, 420), "2027-01-01T02:00:00Z"),
        ({"timezoneOffset": -210}, (None, -210), "2027-01-01T12:30:00Z"),
        ({"timezone": None, "timezoneOffset": 0}, (None, 0), "2027-01-01T09:00:00Z"),
        ({"timezone": "Asia/Kolkata", "timezoneOffset": None}, ("Asia/Kolkata", None), "2027-01-01T03:30:00Z"),
    ],
)
async def test_a_zone_is_a_name_or_an_offset(
    api: Api, zone: dict[str, Any], shown: tuple[str | None, int | None], due: str
) -> None:
    """Either form of a zone is shown as it was given, with the other null, and 09:00 is local time there."""
    body = {name: value for name, value in RUNBOOK_USER.items() if name != "timezoneOffset"} | zone
    answer = await api.post("/users", json=body)
    assert answer.status == 201, answer.body
    assert (answer.json["timezone"], answer.json["timezoneOffset"]) == shown
    assert answer.json["nextMessageAt"] == due


async def test_whoever_is_created_on_the_birthday_is_greeted_now(api: Api, pool: asyncpg.Pool) -> None:
    """A user created on the birthday, after 09:00 local time, has a message that is due at once."""
    api.clock.advance(timedelta(hours=5))
    user = await api.create(dateOfBirth="1990-03-01")
    assert user["nextMessageAt"] == "2026-03-01T14:00:00Z"
    assert await message_rows(pool, user["id"]) == [("scheduled", api.clock.now())]


async def test_a_birthday_just_over_waits_for_next_year(api: Api, pool: asyncpg.Pool) -> None:
    """A user whose birthday has ended where they live gets no message for it."""
    user = await api.create(dateOfBirth="1990-02-28")
    assert user["nextMessageAt"] == "2027-02-28T09:00:00Z"
    assert await message_rows(pool, user["id"]) == []


async def test_names_are_kept_as_they_are_written(api: Api) -> None:
    """Letters of any script and apostrophes come back unchanged; blanks around them do not."""
    user = await api.create(firstName=" Нгуен ", lastName="O'Brien-김 🎂")
    assert (user["firstName"], user["lastName"]) == ("Нгуен", "O'Brien-김 🎂")


async def test_somebody_with_one_name_has_an_empty_last_name(api: Api) -> None:
    """A lastName that is empty, null or absent is the same; PUT without it takes it away."""
    none = {name: value for name, value in RUNBOOK_USER.items() if name != "lastName"}
    for number, body in enumerate(
        (none, none | {"lastName": ""}, none | {"lastName": "  "}, none | {"lastName": None})
    ):
        answer = await api.post("/users", json=body | {"email": f"{number}@example.com"})
        assert (answer.status, answer.json["lastName"]) == (201, "")
    user = await api.create()
    assert user["lastName"]
    assert (await api.put(f"/users/{user['id']}", json=none)).json == user | {"lastName": ""}


@pytest.mark.parametrize(
    ("first", "second", "stored"),
    [
        ("ada@münchen.de", "ADA@XN--MNCHEN-3YA.de", "ada@xn--mnchen-3ya.de"),
        ("ada@xn--mnchen-3ya.de", "ada@MU\N{COMBINING DIAERESIS}NCHEN.DE", "ada@xn--mnchen-3ya.de"),
        ("jose\N{COMBINING ACUTE ACCENT}@example.com", "josé@example.com", "josé@example.com"),
        ('"ada"@example.com', "ada@example.com", "ada@example.com"),
    ],
)
async def test_two_spellings_of_an_address_are_one(api: Api, first: str, second: str, stored: str) -> None:
    """Whichever comes first, the user has the one spelling that is sent, and POST, PUT and PATCH refuse the other."""
    user = await api.create(email=first)
    assert user["email"] == stored
    other = await api.create(email="other@example.com")
    for method, path in (("POST", "/users"), ("PUT", f"/users/{other['id']}"), ("PATCH", f"/users/{other['id']}")):
        body = {"email": second} if method == "PATCH" else RUNBOOK_USER | {"email": second}
        assert (await api.request(method, path, json=body)).status == 409
    assert (await api.patch(f"/users/{user['id']}", json={"email": second})).json["email"].lower() == stored


async def test_a_user_older_than_the_rules_can_be_changed(api: Api, pool: asyncpg.Pool) -> None:
    """PATCH judges what it is given; what was stored under older rules stays as it is until it is changed itself."""
    user = await api.create()
    await pool.execute("UPDATE users SET email = 'a..b@x_y.de', last_name = $1", "\N{HANGUL FILLER}")
    patched = await api.patch(f"/users/{user['id']}", json={"firstName": "Ada", "timezone": "UTC"})
    assert patched.status == 200
    assert patched.json | {"updatedAt": user["updatedAt"]} == user | {
        "firstName": "Ada",
        "email": "a..b@x_y.de",
        "lastName": "\N{HANGUL FILLER}",
        "timezone": "UTC",
        "timezoneOffset": None,
    }
    assert (await api.patch(f"/users/{user['id']}", json={"email": "a..b@x_y.de"})).pointers == ["/email"]


async def test_an_email_address_is_unique_without_regard_to_case(api: Api) -> None:
    """A second live user with the same address, in any case, is a conflict that names the field."""
    await api.create()
    answer = await api.post("/users", json=RUNBOOK_USER | {"email": "TEST@Example.COM"})
    assert answer.status == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.pointers == ["/email"]


async def test_an_email_address_is_free_again_after_its_user_is_deleted(api: Api) -> None:
    """Deleting a user gives the address back."""
    first = await api.create()
    await api.delete(f"/users/{first['id']}")
    second = await api.create()
    assert second["id"] != first["id"]


async def test_of_concurrent_creations_one_wins(api: Api) -> None:
    """Of many concurrent requests with one address, exactly one creates a user and the others are conflicts."""
    answers = await asyncio.gather(*(api.post("/users", json=RUNBOOK_USER) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [201] + [409] * 9


async def test_put_replaces_the_profile(api: Api) -> None:
    """PUT takes what POST takes, keeps id and creation, and moves updatedAt."""
    user = await api.create()
    api.clock.advance(timedelta(hours=1))
    answer = await api.put(
        f"/users/{user['id']}",
        json={
            "firstName": "Ada",
            "lastName": "Lovelace",
            "email": "ada@example.com",
            "dateOfBirth": "1915-12-10",
            "timezone": "Europe/London",
        },
    )
    assert answer.status == 200
    assert answer.json == user | {
        "firstName": "Ada",
        "lastName": "Lovelace",
        "email": "ada@example.com",
        "dateOfBirth": "1915-12-10",
        "timezone": "Europe/London",
        "timezoneOffset": None,
        "nextMessageAt": "2026-12-10T09:00:00Z",
        "occasions": [{"type": "birthday", "date": "2026-12-10", "nextMessageAt": "2026-12-10T09:00:00Z"}],
        "updatedAt": "2026-03-01T10:00:00Z",
    }
    assert (await api.get(f"/users/{user['id']}")).json == answer.json


async def test_put_wants_the_whole_profile(api: Api) -> None:
    """PUT without a required member is refused and changes nothing."""
    user = await api.create()
    answer = await api.put(f"/users/{user['id']}", json={"firstName": "Ada"})
    assert answer.status == 422
    assert set(answer.pointers) == {"/email", "/dateOfBirth", ""}
    assert (await api.get(f"/users/{user['id']}")).json == user


async def test_patch_changes_what_is_given(api: Api) -> None:
    """PATCH leaves alone what it does not name; an empty one changes nothing."""
    user = await api.create()
    patched = await api.patch(f"/users/{user['id']}", json={"lastName": "Lovelace"})
    assert patched.status == 200
    assert patched.json == user | {"lastName": "Lovelace"}
    assert (await api.patch(f"/users/{user['id']}", json={})).json == patched.json


async def test_patch_of_one_zone_form_replaces_the_other(api: Api) -> None:
    """A user with an offset who is given a name, or the other way round, has the new form only."""
    user = await api.create(timezoneOffset=420)
    named = await api.patch(f"/users/{user['id']}", json={"timezone": "Asia/Jakarta"})
    assert (named.json["timezone"], named.json["timezoneOffset"]) == ("Asia/Jakarta", None)
    offset = await api.patch(f"/users/{user['id']}", json={"timezone": None, "timezoneOffset": 480})
    assert (offset.json["timezone"], offset.json["timezoneOffset"]) == (None, 480)


async def test_a_user_as_read_can_be_put_back(api: Api) -> None:
    """The profile members of an answer are taken as they are, for either form of zone."""
    for zone in ({"timezoneOffset": 330}, {"timezoneOffset": None, "timezone": "Asia/Kolkata"}):
        user = await api.create(email=f"{len(zone)}@example.com", **zone)
        profile = {name: user[name] for name in MEMBERS[1:7]}
        assert (await api.put(f"/users/{user['id']}", json=profile)).json == user
        assert (await api.patch(f"/users/{user['id']}", json=profile)).json == user


async def test_a_moved_birthday_moves_the_message(api: Api, pool: asyncpg.Pool) -> None:
    """A new date of birth cancels the pending message and plans the new one, in one transaction; both are counted."""
    user = await api.create(dateOfBirth="1990-03-02")
    due_at = datetime(2026, 3, 2, 9, tzinfo=UTC)
    assert await message_rows(pool, user["id"]) == [("scheduled", due_at)]
    api.clock.advance(timedelta(minutes=1))
    moved = await api.patch(f"/users/{user['id']}", json={"dateOfBirth": "1990-03-03"})
    assert moved.json["nextMessageAt"] == "2026-03-03T09:00:00Z"
    assert await message_rows(pool, user["id"]) == [("cancelled", due_at), ("scheduled", due_at + timedelta(days=1))]
    assert api.metric("messages_cancelled_total") == 1
    assert api.metric("messages_scheduled_total") == 2


async def test_a_moved_zone_moves_the_message(api: Api, pool: asyncpg.Pool) -> None:
    """A new zone cancels the pending message and plans it for the same date at 09:00 there."""
    user = await api.create(dateOfBirth="1990-03-02")
    api.clock.advance(timedelta(minutes=1))
    moved = await api.patch(f"/users/{user['id']}", json={"timezone": "America/Los_Angeles"})
    assert moved.json["nextMessageAt"] == "2026-03-02T17:00:00Z"
    rows = await message_rows(pool, user["id"])
    assert [status for status, _ in rows] == ["cancelled", "scheduled"]
    assert rows[1][1] == instant(moved.json["nextMessageAt"])


async def test_a_birthday_moved_away_leaves_nothing_pending(api: Api, pool: asyncpg.Pool) -> None:
    """A birthday moved beyond the horizon cancels the message and plans none yet; nextMessageAt tells when."""
    user = await api.create(dateOfBirth="1990-03-02")
    api.clock.advance(timedelta(minutes=1))
    moved = await api.patch(f"/users/{user['id']}", json={"dateOfBirth": "1990-09-02"})
    assert moved.json["nextMessageAt"] == "2026-09-02T09:00:00Z"
    assert [status for status, _ in await message_rows(pool, user["id"])] == ["cancelled"]


async def test_a_new_name_leaves_the_message_alone(api: Api, pool: asyncpg.Pool) -> None:
    """What does not move the birthday does not touch the message."""
    user = await api.create(dateOfBirth="1990-03-02")
    before = await message_rows(pool, user["id"])
    await api.patch(f"/users/{user['id']}", json={"firstName": "Ada"})
    assert await message_rows(pool, user["id"]) == before
    assert api.metric("messages_cancelled_total") == 0


async def test_deleting_cancels_the_message(api: Api, pool: asyncpg.Pool) -> None:
    """DELETE answers 204 with no body, cancels what is pending, and the user is gone; a second one finds nobody."""
    user = await api.create(dateOfBirth="1990-03-02")
    answer = await api.delete(f"/users/{user['id']}")
    assert (answer.status, answer.body) == (204, b"")
    assert [status for status, _ in await message_rows(pool, user["id"])] == ["cancelled"]
    assert api.metric("messages_cancelled_total") == 1
    for again in (await api.get(f"/users/{user['id']}"), await api.delete(f"/users/{user['id']}")):
        assert again.status == 404
    assert (await api.patch(f"/users/{user['id']}", json={"firstName": "Ada"})).status == 404
    assert (await api.get("/users")).json["users"] == []


async def test_concurrent_changes_are_one_after_the_other(api: Api, pool: asyncpg.Pool) -> None:
    """Concurrent PATCHes of different members all take effect, and leave exactly one pending message."""
    user = await api.create(dateOfBirth="1990-03-02")
    days = [f"1990-03-{day:02}" for day in range(1, 4)]
    changes = [{"firstName": "Ada"}, {"lastName": "Lovelace"}, {"timezone": "UTC"}]
    changes += [{"dateOfBirth": day} for day in days * 3]
    answers = await asyncio.gather(*(api.patch(f"/users/{user['id']}", json=change) for change in changes))
    assert {answer.status for answer in answers} == {200}
    final = (await api.get(f"/users/{user['id']}")).json
    assert (final["firstName"], final["lastName"], final["timezone"]) == ("Ada", "Lovelace", "UTC")
    pending = [due_at for status, due_at in await message_rows(pool, user["id"]) if status == "scheduled"]
    assert pending == [instant(final["nextMessageAt"])]


async def test_patch_to_an_address_that_is_taken_is_a_conflict(api: Api) -> None:
    """An address of another live user is refused and nothing changes, not even what else was given."""
    await api.create()
    user = await api.create(email="ada@example.com")
    answer = await api.patch(f"/users/{user['id']}", json={"email": "Test@example.com", "firstName": "Ada"})
    assert (answer.status, answer.pointers) == (409, ["/email"])
    assert (await api.get(f"/users/{user['id']}")).json == user


async def test_patch_may_change_the_case_of_its_own_address(api: Api) -> None:
    """A user's own address is no conflict with itself."""
    user = await api.create()
    answer = await api.patch(f"/users/{user['id']}", json={"email": "Test@Example.com"})
    assert (answer.status, answer.json["email"]) == (200, "Test@Example.com")


async def test_pages_show_every_user_once_while_others_are_created(api: Api) -> None:
    """Following nextCursor gives everybody in order of creation, those included who are created meanwhile."""
    created = []
    for number in range(23):
        created.append((await api.create(email=f"{number}@example.com"))["id"])
        api.clock.advance(timedelta(seconds=1))
    seen: list[str] = []
    path = "/users?limit=5"
    while True:
        page = (await api.get(path)).json
        assert len(page["users"]) <= 5
        seen += [user["id"] for user in page["users"]]
        if page["nextCursor"] is None:
            break
        path = f"/users?limit=5&cursor={page['nextCursor']}"
        if len(created) < 30:
            created.append((await api.create(email=f"{len(created)}@example.com"))["id"])
            api.clock.advance(timedelta(seconds=1))
    assert seen == created


async def test_the_last_page_says_so(api: Api) -> None:
    """A page that holds the last user has no cursor, even if it is full; a list of nobody is empty."""
    assert (await api.get("/users")).json == {"users": [], "nextCursor": None}
    user = await api.create()
    assert (await api.get("/users?limit=1")).json == {"users": [user], "nextCursor": None}


@pytest.mark.parametrize(
    ("query", "parameter", "accepted"),
    [
        ("limit=0", "limit", "1 to 500"),
        ("limit=501", "limit", "1 to 500"),
        ("limit=ten", "limit", "1 to 500"),
        ("limit=", "limit", "1 to 500"),
        ("cursor=nonsense", "cursor", "nextCursor"),
        ("cursor=", "cursor", "nextCursor"),
        ("limit=1&limit=2", "limit", "more than once"),
        ("page=2", "page", "limit, cursor"),
    ],
)
async def test_parameters_that_are_not_accepted_are_named(api: Api, query: str, parameter: str, accepted: str) -> None:
    """A wrong parameter is 422 with its name and what is accepted."""
    answer = await api.get(f"/users?{query}")
    assert (answer.status, answer.pointers) == (422, [parameter])
    assert accepted in answer.json["errors"][0]["detail"]


async def test_head_is_get_without_the_body(api: Api) -> None:
    """HEAD has the status of GET and no body."""
    user = await api.create()
    answer = await api.request("HEAD", f"/users/{user['id']}")
    assert (answer.status, answer.body) == (200, b"")


async def test_with_a_wrong_clock_nothing_is_changed_and_everything_is_read(api: Api) -> None:
    """Whatever would be stored with that time; who asks is told to come back, and not how the inside looks."""
    user = (await api.post("/users", json=RUNBOOK_USER)).json
    other = RUNBOOK_USER | {"email": "other@example.com"}
    path, message = f"/users/{user['id']}", f"/messages/{user['id']}/retry"
    await api.clock.judge("three days ahead of db.internal")
    changes: list[tuple[str, str, object]] = [
        ("POST", "/users", other),
        ("PUT", path, other),
        ("PATCH", path, {"firstName": "Grace"}),
        ("DELETE", path, None),
        ("POST", message, None),
        ("POST", "/messages/retry", {}),
    ]
    for method, place, body in changes:
        refused = await api.request(method, place, json=body)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5"), place
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert "clock" in refused.json["detail"]
        assert "db.internal" not in refused.json["detail"]
    assert (await api.get(path)).json == user
    assert (await api.get(f"{path}/messages")).status == 200
    await api.clock.judge(None)
    assert (await api.post("/users", json=other)).status == 201

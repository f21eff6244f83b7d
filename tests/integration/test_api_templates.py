"""Templates over HTTP."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from birthday.channels import Delivered, Outcome, Temporary
from birthday.core.message import ErrorType
from tests.support.api import Api, api_keys, running_api
from tests.support.channel import RecordingChannel

DEFAULT = "/templates/birthday/default"
BUILT_IN = "Hey, {{ first_name }} {{ last_name }} it's your birthday"


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database without templates."""
    async with running_api(pool) as api:
        yield api


def channel_of(api: Api) -> RecordingChannel:
    """Return the channel that tests are sent through."""
    assert isinstance(api.context.channel, RecordingChannel)
    return api.context.channel


async def test_a_template_is_published_listed_and_taken_back(api: Api) -> None:
    """A new version answers 201, the same again 200; each shows who made it, and any is activated."""
    assert (await api.get(DEFAULT)).json["message"] == BUILT_IN
    first = await api.put(DEFAULT, {"message": "Hi", "subject": "S"})
    expected: dict[str, Any] = {
        "type": "birthday",
        "locale": "default",
        "version": 1,
        "message": "Hi",
        "subject": "S",
        "html": None,
        "payload": None,
        "active": True,
        "createdAt": "2026-03-01T09:00:00Z",
        "createdBy": "api",
    }
    assert (first.status, first.json) == (201, expected)
    again = await api.put(DEFAULT, {"message": "Hi", "subject": "S"})
    assert (again.status, again.json) == (200, expected)
    assert (await api.put("/templates/birthday/PT-br", {"message": "Oi"})).json["locale"] == "pt-BR"
    assert (await api.put(DEFAULT, {"message": "Hello"})).json["version"] == 2
    versions = (await api.get(f"{DEFAULT}/versions")).json["versions"]
    assert [(one["version"], one["active"]) for one in versions] == [(2, True), (1, False)]
    activated = await api.post(f"{DEFAULT}/activate", {"version": 1})
    assert (activated.status, activated.json["version"]) == (200, 1)
    listed = (await api.get("/templates")).json["templates"]
    assert [(one["locale"], one["version"], one["activatedBy"]) for one in listed] == [
        ("default", 1, "api"),
        ("pt-BR", 1, "api"),
    ]


async def test_templates_and_versions_have_pages(api: Api) -> None:
    """Each is on one page, templates by type with the default first, versions with the newest first."""
    for locale in ("pt-BR", "pt", "de"):
        assert (await api.put(f"/templates/birthday/{locale}", {"message": locale})).status == 201
    await api.put("/templates/anniversary/default", {"message": "x"})
    for number in range(4):
        await api.put(DEFAULT, {"message": str(number)})
    templates = await pages(api, "/templates?limit=2", "templates")
    assert [(one["type"], one["locale"]) for one in templates] == [
        ("anniversary", "default"),
        ("birthday", "default"),
        ("birthday", "de"),
        ("birthday", "pt"),
        ("birthday", "pt-BR"),
    ]
    versions = await pages(api, f"{DEFAULT}/versions?limit=3", "versions")
    assert [one["version"] for one in versions] == [4, 3, 2, 1]
    for path, cursor in (("/templates", "____"), (f"{DEFAULT}/versions", "______")):
        assert (await api.get(f"{path}?cursor={cursor}")).status == 200
        assert (await api.get(f"{path}?cursor=1")).pointers == ["cursor"]


async def pages(api: Api, path: str, name: str) -> list[dict[str, Any]]:
    """Return a list, read by its links."""
    found: list[dict[str, Any]] = []
    while path:
        answer = await api.get(path)
        found += answer.json[name]
        path = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert (answer.json["nextCursor"] is None) == (not path)
    return found


async def test_a_template_that_fails_for_somebody_is_refused(api: Api) -> None:
    """The answer has the number and the ids, unless it is forced."""
    user = await api.create()
    body = {"message": "Go {{ attributes.team }}"}
    answer = await api.put(DEFAULT, body)
    assert answer.status == 422
    summary, failure = answer.json["errors"]
    assert summary["detail"] == "it fails for 1 of the 1 users whom it concerns; nothing was published"
    assert failure["detail"].startswith(f"user {user['id']}: message, line 1: there is no attribute 'team'")
    assert (await api.put(DEFAULT, body | {"force": True})).status == 201


@pytest.mark.parametrize(
    ("path", "body", "status", "pointer"),
    [
        (DEFAULT, {"message": "{{ oops }}"}, 422, "/message"),
        (DEFAULT, {"message": "x", "html": "{% include 'x' %}"}, 422, "/html"),
        (DEFAULT, {"message": "a\0b"}, 422, "/message"),
        (DEFAULT, {"subject": "x"}, 422, "/message"),
        (DEFAULT, {"message": "x", "colour": 1}, 422, "/colour"),
        ("/templates/Birthday/default", {"message": "x"}, 422, "type"),
        ("/templates/birthday/portuguese", {"message": "x"}, 422, "locale"),
        ("/templates/name-day/pt", {"message": "x"}, 409, None),
    ],
)
async def test_what_cannot_be_published_is_named(
    api: Api, path: str, body: dict[str, Any], status: int, pointer: str | None
) -> None:
    """The pointer names the part that is wrong."""
    answer = await api.put(path, body)
    assert answer.status == status
    assert answer.pointers == ([pointer] if pointer else [])


async def test_a_preview_says_what_would_be_sent(api: Api) -> None:
    """To a user, to somebody made up, or in a draft that nobody has published."""
    user = await api.create()
    to_user = await api.post(f"{DEFAULT}/preview", {"userId": user["id"]})
    assert to_user.json["message"] == "Hey, Test User it's your birthday"
    draft = {"message": "Hi {{ full_name }}", "payload": '{"text": "{{ message }}"}'}
    answer = await api.post(f"{DEFAULT}/preview", {"values": {"firstName": 'A"', "lastName": ""}, "draft": draft})
    assert answer.json == {
        "version": None,
        "message": 'Hi A"',
        "subject": None,
        "html": None,
        "payload": '{"text": "Hi A\\""}',
    }
    assert (await api.post(f"{DEFAULT}/preview", {"version": 3})).status == 404
    wrong = await api.post(f"{DEFAULT}/preview", {"userId": user["id"], "values": {"firstName": 1}})
    assert wrong.pointers == ["/values/firstName"]


async def test_a_test_goes_through_the_channel(api: Api, pool: asyncpg.Pool) -> None:
    """It needs no user and leaves no message; what the service refuses is told."""
    channel = channel_of(api)
    outcomes: Iterator[Outcome] = iter([Delivered(), Temporary(ErrorType.TIMEOUT, "no answer")])
    channel.answer = lambda _greeting: next(outcomes)
    for expected in ({"delivered": True, "reason": None}, {"delivered": False, "reason": "no answer"}):
        assert (await api.post(f"{DEFAULT}/test", {"to": "dev@example.com"})).json == expected
    assert channel.sent[0].greeting.text == "[Test] Hey, Ada Lovelace it's your birthday"
    assert await pool.fetchval("SELECT count(*) FROM message_logs") == 0
    assert (await api.post(f"{DEFAULT}/test", {"to": "nobody"})).pointers == ["/to"]


async def test_the_reason_of_a_test_is_not_stored(api: Api, pool: asyncpg.Pool) -> None:
    """A service may name the address in its reason; a repeat tells only whether it was delivered."""
    channel_of(api).answer = lambda _greeting: Temporary(ErrorType.TIMEOUT, "no mailbox ford@example.com")
    key = {"Idempotency-Key": "1"}
    first, again = [await api.post(f"{DEFAULT}/test", {"to": "ford@example.com"}, key) for _ in range(2)]
    assert first.json == {"delivered": False, "reason": "no mailbox ford@example.com"}
    assert again.json == {"delivered": False, "reason": None}
    assert await pool.fetchval("SELECT position('ford' IN convert_from(body, 'UTF8')) FROM idempotency_keys") == 0


async def test_templates_are_for_administrators(pool: asyncpg.Pool) -> None:
    """A key that may write users may not say what they are told; the key that published is noted."""
    async with running_api(pool, api_keys=api_keys(ada="admin", eve="write")) as api:
        ada, eve = ({"Authorization": f"Bearer key-of-{name}"} for name in ("ada", "eve"))
        assert (await api.put(DEFAULT, {"message": "Hi"}, eve)).status == 403
        assert (await api.get("/templates", eve)).status == 403
        assert (await api.put(DEFAULT, {"message": "Hi"}, ada)).json["createdBy"] == "api:ada"

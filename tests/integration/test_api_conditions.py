"""Conditional requests: tags, 304 for what a client has, 412 for an outdated change; and links to next pages."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from tests.support.api import RUNBOOK_USER, Api, running_api
from tests.support.clock import NINE_O_CLOCK
from tests.support.dead import store_failed

TEMPLATE = "/templates/birthday/pt"
NOBODY = "01234567-89ab-7def-8123-456789abcdef"


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


async def test_a_change_answers_with_the_tag_that_reading_gives(api: Api) -> None:
    """Created, replaced or changed: the answer has body and tag of a GET right after it, and a new tag."""
    created = await api.post("/users", RUNBOOK_USER | {"dateOfBirth": "1990-03-02", "locale": "pt"})
    path = created.headers["Location"]
    answers = [created, *[await api.get(path) for _ in range(2)]]
    assert len({(answer.headers["ETag"], answer.body) for answer in answers}) == 1
    tags = [created.headers["ETag"]]
    for method, body in (("PATCH", {"firstName": "Ada"}), ("PUT", RUNBOOK_USER)):
        api.clock.advance(timedelta(seconds=1))
        changed = await api.request(method, path, json=body)
        read = await api.get(path)
        assert (changed.status, changed.headers["ETag"], changed.body) == (200, read.headers["ETag"], read.body)
        tags.append(changed.headers["ETag"])
    assert len(set(tags)) == 3
    assert all(tag[0] == tag[-1] == '"' for tag in tags)


async def test_what_the_client_has_is_not_sent_again(api: Api, pool: asyncpg.Pool) -> None:
    """Users, messages, templates and lists are answered with 304 and no body until they change."""
    user = await api.create()
    [message_id] = await store_failed(pool, 1, NINE_O_CLOCK)
    paths = [f"/users/{user['id']}", "/users", f"/messages/{message_id}", "/messages", "/templates"]
    paths += ["/templates/birthday/default", f"/users/{user['id']}/messages"]
    for path in paths:
        read = await api.get(path)
        tag = read.headers["ETag"]
        assert read.status == 200
        for condition in (tag, "*", f'"other", {tag}', f"W/{tag}"):
            same = await api.get(path, {"If-None-Match": condition})
            assert (same.status, same.headers["ETag"], same.body) == (304, tag, b"")
            assert same.headers["Cache-Control"] == read.headers["Cache-Control"]
        assert (await api.get(path, {"If-None-Match": '"other"'})).body == read.body
    tag = (await api.get(paths[1])).headers["ETag"]
    await api.patch(paths[0], {"firstName": "Ada"})
    assert (await api.get(paths[1], {"If-None-Match": tag})).json["users"][0]["firstName"] == "Ada"


async def test_an_outdated_change_is_refused(api: Api) -> None:
    """An old tag, a weak one or another one gives 412, and nothing changes; the current one, or * passes."""
    path = f"/users/{(await api.create())['id']}"
    old = (await api.get(path)).headers["ETag"]
    new = (await api.patch(path, {"firstName": "Ada"}, {"If-Match": old})).headers["ETag"]
    for method, body in (("PUT", RUNBOOK_USER), ("PATCH", {"firstName": "Grace"}), ("DELETE", None)):
        for condition in (old, f"W/{new}", '"other"', "nonsense"):
            refused = await api.request(method, path, json=body, headers={"If-Match": condition})
            assert (refused.status, refused.json["status"]) == (412, 412)
            assert refused.headers["Content-Type"] == "application/problem+json"
        assert (await api.request(method, path, json=body, headers={"If-None-Match": "*"})).status == 412
    assert (await api.get(path)).headers["ETag"] == new
    assert (await api.put(path, RUNBOOK_USER, {"If-Match": f"{old}, {new}"})).status == 200
    assert (await api.patch(path, {"firstName": "Grace"}, {"If-Match": "*"})).status == 200
    newest = (await api.get(path)).headers["ETag"]
    assert (await api.delete(path, {"If-Match": newest})).status == 204
    assert (await api.delete(path, {"If-Match": "*"})).status == 404


async def test_of_a_hundred_concurrent_changes_one_wins_at_a_time(api: Api) -> None:
    """All have read the same state: one is stored, the others are told. Whoever reads again may then be the next."""
    path = f"/users/{(await api.create())['id']}"
    tag = (await api.get(path)).headers["ETag"]
    for winners in range(1, 4):
        names = [f"{winners} {number}" for number in range(100)]
        answers = await asyncio.gather(*(api.patch(path, {"firstName": name}, {"If-Match": tag}) for name in names))
        assert Counter(answer.status for answer in answers) == {200: 1, 412: 99}
        [won] = [answer for answer in answers if answer.status == 200]
        read = await api.get(path)
        assert (read.json, read.json["firstName"] in names) == (won.json, True)
        tag = won.headers["ETag"]


async def test_an_outdated_template_is_not_published(api: Api) -> None:
    """Of two who edit the same version, the second is refused; 'only if there is none' is possible too."""
    first = await api.put(TEMPLATE, {"message": "Parabéns!"}, {"If-None-Match": "*"})
    assert (first.status, first.headers["ETag"]) == (201, (await api.get(TEMPLATE)).headers["ETag"])
    assert (await api.put(TEMPLATE, {"message": "Oi!"}, {"If-None-Match": "*"})).status == 412
    condition = {"If-Match": first.headers["ETag"]}
    texts = [f"Parabéns {number}!" for number in range(5)]
    answers = await asyncio.gather(*(api.put(TEMPLATE, {"message": text}, condition) for text in texts))
    assert Counter(answer.status for answer in answers) == {201: 1, 412: 4}
    assert (await api.get(TEMPLATE)).json["version"] == 2
    assert (await api.put("/templates/birthday/fr", {"message": "Salut"}, {"If-Match": "*"})).status == 412


async def test_links_lead_through_a_list(api: Api, pool: asyncpg.Pool) -> None:
    """Each page names the next one, with the same filters; the last one names none."""
    await store_failed(pool, 5, NINE_O_CLOCK)
    first = "/messages?status=failed&from=2026-02-01T00:00:00%2B01:00&limit=2"
    found, path = [], first
    while path:
        answer = await api.get(path)
        found += [message["id"] for message in answer.json["messages"]]
        link = answer.headers.get("Link", "")
        assert (answer.json["nextCursor"] is None) == (not link)
        path = link.removeprefix("<").removesuffix('>; rel="next"')
        assert path == "" or path.startswith(f"{first}&cursor=")
    assert len(set(found)) == len(found) == 5


async def test_an_outdated_opt_out_or_erasure_is_refused(api: Api) -> None:
    """The condition is that of the user: an old tag gives 412 and changes nothing; the current one, or * passes."""
    path = f"/users/{(await api.create())['id']}"
    old = (await api.get(path)).headers["ETag"]
    api.clock.advance(timedelta(seconds=1))
    for method, target, body, status in (
        ("PUT", f"{path}/suppression", {}, 200),
        ("DELETE", f"{path}/suppression", None, 204),
        ("POST", f"{path}/erase", None, 200),
    ):
        await api.patch(path, {"firstName": target})
        read = await api.get(path)
        refused = await api.request(method, target, json=body, headers={"If-Match": old})
        assert (refused.status, refused.json["code"]) == (412, "outdated"), target
        assert (await api.get(path)).body == read.body
        passed = await api.request(method, target, json=body, headers={"If-Match": read.headers["ETag"]})
        assert (passed.status, passed.headers.get("ETag")) == (status, None), target
    assert (await api.post(f"{path}/erase", headers={"If-Match": "*", "Idempotency-Key": "1"})).status == 412
    assert (await api.post(f"{path}/erase")).status == 200
    for method, target in (("DELETE", "suppression"), ("POST", "erase")):
        unknown = await api.request(method, f"/users/{NOBODY}/{target}", headers={"If-Match": old})
        assert unknown.status == 404, target


async def test_a_version_is_made_active_in_place_of_the_one_that_was_read(api: Api) -> None:
    """The condition of an activation is that of the template."""
    first = await api.put(TEMPLATE, {"message": "Parabéns!"})
    second = await api.put(TEMPLATE, {"message": "Feliz aniversário!"})
    body, path = {"version": 1}, f"{TEMPLATE}/activate"
    assert (await api.post(path, body, {"If-Match": first.headers["ETag"]})).status == 412
    assert (await api.get(TEMPLATE)).json["version"] == 2
    assert (await api.post(path, {"version": 9}, {"If-Match": first.headers["ETag"]})).status == 404
    assert (await api.post(path, body, {"If-Match": second.headers["ETag"]})).json["version"] == 1
    assert (await api.get(TEMPLATE)).json["version"] == 1


async def test_a_change_that_changes_nothing_leaves_the_user_as_it_is(api: Api) -> None:
    """An empty PATCH, or a PUT of what is stored, keeps tag and updatedAt, and is not recorded."""
    user = await api.create(attributes={"flag": 1}, locale="pt")
    path = f"/users/{user['id']}"
    read = await api.get(path)
    api.clock.advance(timedelta(seconds=1))
    for method, body in (("PATCH", {}), ("PATCH", {"locale": "pt", "suppressed": False}), ("PUT", user)):
        same = await api.request(method, path, json=body, headers={"If-Match": read.headers["ETag"]})
        assert (same.status, same.headers["X-Unchanged"], same.body) == (200, "true", read.body)
    assert (await api.get("/changes?entity=user")).json["changes"][0]["action"] == "created"
    changed = await api.patch(path, {"attributes": {"flag": True}})
    assert (changed.json["attributes"], "X-Unchanged" in changed.headers) == ({"flag": True}, False)
    assert changed.headers["ETag"] != read.headers["ETag"]


async def test_a_change_whose_condition_cannot_be_checked_is_refused(api: Api, pool: asyncpg.Pool) -> None:
    """Nobody is created, and nothing is sent, because an If-Match was overlooked."""
    path = f"/users/{(await api.create())['id']}"
    read = await api.get(path)
    condition = {"If-Match": '"outdated"'}
    for method, target, body in (
        ("POST", "/users", RUNBOOK_USER | {"email": "grace@example.com"}),
        ("POST", "/messages/retry", {}),
    ):
        refused = await api.request(method, target, json=body, headers=condition)
        assert (refused.status, refused.json["code"]) == (412, "outdated"), target
    assert (await api.get(path)).body == read.body
    assert await pool.fetchval("SELECT count(*) FROM users") == 1

"""API keys in the database: who makes them, how long they work, and what a process knows of them."""

import asyncio
import re
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from birthday.config import Scope
from birthday.errors import ConflictError, InvalidInputError, NotFoundError
from birthday.operations.keys import EVERY_SECONDS, NewKey, create_key, revoke_key, rotate_key
from birthday.store.changes import Actor, ChangeFilter, list_changes
from birthday.store.keys import StoredKey, read_keys
from tests.support.api import RUNBOOK_USER, Api, api_keys, running_api
from tests.support.clock import NINE_O_CLOCK
from tests.support.tasks import background

BY = Actor("cli:ada@host")
WRONG = {"X-API-Key": "bday_00000000_wrong"}


async def make(pool: asyncpg.Pool, name: str = "shop") -> NewKey:
    """Make a key to read, which does not expire."""
    return await create_key(pool, name, Scope.READ, NINE_O_CLOCK, BY)


def bearer(key: NewKey) -> dict[str, str]:
    """Return the header of the client that has this key."""
    return {"Authorization": f"Bearer {key.secret}"}


async def status(api: Api, key: NewKey) -> int:
    """Return how a read with this key is answered."""
    return (await api.get("/users", headers=bearer(key))).status


async def stored(pool: asyncpg.Pool) -> list[StoredKey]:
    """Return all keys."""
    async with pool.acquire() as connection:
        return await read_keys(connection)


async def test_a_key_is_shown_once_and_stored_as_a_hash(pool: asyncpg.Pool) -> None:
    """It begins with bday_ and its id, and has 32 random bytes; the database has nothing that could be sent."""
    new = await make(pool)
    assert re.fullmatch(rf"bday_{new.stored.id}_[0-9a-f]{{64}}", new.secret)
    row = await pool.fetchval("SELECT row_to_json(k)::text FROM api_keys k")
    assert new.stored.id in row
    assert new.secret.rpartition("_")[2] not in row + repr(new.stored)


async def test_a_key_of_the_database_does_what_its_scope_says(pool: asyncpg.Pool) -> None:
    """Beside those of API_KEYS; without a key nobody is served any more, also not on this machine."""
    async with running_api(pool) as api:
        assert (await api.get("/users")).status == 200
        reader = await make(pool)
        await api.context.keys.refresh()
        assert (await api.get("/users")).status == 401
        assert await status(api, reader) == 200
        refused = await api.post("/users", RUNBOOK_USER, headers=bearer(reader))
        assert refused.status == 403
        assert "shop has read" in refused.json["detail"]
    async with running_api(pool, api_keys=api_keys(ada="admin")) as api:
        await api.context.keys.refresh()
        assert await status(api, reader) == 200
        assert (await api.get("/users", headers={"X-API-Key": "key-of-ada"})).status == 200


async def test_revoking_the_last_key_opens_nothing(pool: asyncpg.Pool) -> None:
    """A revoked key is refused, and so is whoever has none, also in a process that starts later."""
    key = await make(pool)
    await revoke_key(pool, key.stored.id, NINE_O_CLOCK, BY)
    async with running_api(pool) as api:
        await api.context.keys.refresh()
        refused = await api.get("/users", headers=bearer(key))
        assert refused.status == 401
        assert refused.json["detail"] == "the API key was revoked, or has expired"
        assert (await api.get("/users")).status == 401
        assert api.metric("auth_failures_total", reason="ended_key") == 1
    with pytest.raises(asyncpg.RaiseError, match="never changed or removed"):
        await pool.execute("DELETE FROM api_keys")


async def test_a_key_that_has_expired_is_refused_without_a_look_at_the_database(pool: asyncpg.Pool) -> None:
    """The process knows when it ends."""
    async with running_api(pool) as api:
        now = api.clock.now()
        key = await create_key(pool, "shop", Scope.READ, now, BY, expires_at=now + timedelta(days=90))
        await api.context.keys.refresh()
        assert api.metric("api_keys_expiring") == 0
        api.clock.advance(timedelta(days=90, microseconds=-1))
        assert await status(api, key) == 200
        await api.context.keys.refresh()
        assert api.metric("api_keys_expiring") == 1
        api.clock.advance(timedelta(microseconds=1))
        assert await status(api, key) == 401


async def test_after_a_rotation_both_keys_work_until_the_overlap_is_over(pool: asyncpg.Pool) -> None:
    """The new one has the scope and the lifetime of the old one; a second rotation does not end the first overlap."""
    async with running_api(pool) as api:
        begin = api.clock.now()
        first = await create_key(pool, "shop", Scope.READ, begin, BY, expires_at=begin + timedelta(days=90))
        second = await rotate_key(pool, first.stored.id, begin, BY, timedelta(hours=2))
        api.clock.advance(timedelta(hours=1))
        third = await rotate_key(pool, "shop", api.clock.now(), BY, timedelta(hours=2))
        await api.context.keys.refresh()
        assert third.stored.expires_at == api.clock.now() + timedelta(days=90)
        assert [await status(api, key) for key in (first, second, third)] == [200, 200, 200]
        api.clock.advance(timedelta(hours=1))
        assert [await status(api, key) for key in (first, second, third)] == [401, 200, 200]
        api.clock.advance(timedelta(hours=1))
        assert [await status(api, key) for key in (first, second, third)] == [401, 401, 200]
        fourth = await rotate_key(pool, "shop", api.clock.now(), BY, timedelta())
        await api.context.keys.refresh()
        assert [await status(api, key) for key in (third, fourth)] == [401, 200]


async def test_a_name_revokes_every_key_of_the_client_and_an_id_only_one(pool: asyncpg.Pool) -> None:
    """What has ended cannot be revoked again, and the name is free."""
    first = await make(pool)
    second = await rotate_key(pool, "shop", NINE_O_CLOCK, BY)
    other = await make(pool, "till")
    assert [key.id for key in await revoke_key(pool, second.stored.id, NINE_O_CLOCK, BY)] == [second.stored.id]
    with pytest.raises(NotFoundError, match=second.stored.id):
        await revoke_key(pool, second.stored.id, NINE_O_CLOCK, BY)
    third = await rotate_key(pool, first.stored.id, NINE_O_CLOCK, BY)
    revoked = await revoke_key(pool, "shop", NINE_O_CLOCK, BY)
    assert {key.id for key in revoked} == {first.stored.id, third.stored.id}
    assert [key.name for key in await stored(pool) if key.works(NINE_O_CLOCK)] == [other.stored.name]
    await make(pool)


async def test_who_changed_a_key_is_recorded(pool: asyncpg.Pool) -> None:
    """Without its secret."""
    first = await make(pool)
    second = await rotate_key(pool, "shop", NINE_O_CLOCK + timedelta(seconds=1), BY)
    await revoke_key(pool, "shop", NINE_O_CLOCK + timedelta(seconds=2), BY)
    async with pool.acquire() as connection:
        changes = [one.change for one in await list_changes(connection, ChangeFilter(entity="key"), None, 10)]
    told = [(change.actor, change.action, change.entity_id) for change in reversed(changes)]
    assert told == [
        (BY.name, "created", first.stored.id),
        (BY.name, "rotated", first.stored.id),
        (BY.name, "revoked", first.stored.id),
        (BY.name, "revoked", second.stored.id),
    ]
    assert changes[2].after is not None
    assert changes[2].after["replacedBy"] == second.stored.id
    assert not any(key.secret in str(changes) for key in (first, second))


async def test_of_two_who_make_a_key_of_one_name_at_a_time_one_succeeds(pool: asyncpg.Pool) -> None:
    """A name stands for one client."""
    made = await asyncio.gather(*(make(pool) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(one, NewKey) for one in made) == 1
    assert sum(isinstance(one, ConflictError) for one in made) == 3


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "0123abcd", "shop\n", "shöp"])
async def test_a_name_that_could_be_misread_is_refused(pool: asyncpg.Pool, name: str) -> None:
    """Such as one that looks like an id; the error names field and value."""
    with pytest.raises(InvalidInputError) as raised:
        await make(pool, name)
    assert raised.value.fields[0].pointer == "/name"


async def test_a_name_of_api_keys_and_a_time_that_is_over_are_refused(pool: asyncpg.Pool) -> None:
    """Otherwise a revocation of the name would leave a key that works."""
    async with running_api(pool, api_keys=api_keys(shop="read")) as api:
        with pytest.raises(ConflictError, match="API_KEYS"):
            await create_key(pool, "shop", Scope.READ, NINE_O_CLOCK, BY, configured=api.context.settings.api_keys)
    with pytest.raises(InvalidInputError, match="expiresAt"):
        await create_key(pool, "shop", Scope.READ, NINE_O_CLOCK, BY, expires_at=NINE_O_CLOCK)


async def test_the_last_use_is_written_once_a_minute(pool: asyncpg.Pool) -> None:
    """The first use at once, later ones together; a key that is not used has none."""
    async with running_api(pool) as api:
        used, unused = await make(pool), await make(pool, "till")
        keys = api.context.keys
        await keys.refresh()

        async def tick(seconds: float) -> datetime | None:
            """Let the watch do its work once, and return the last use."""
            await api.clock.wait_for_sleepers()
            api.clock.advance(timedelta(seconds=seconds))
            await api.clock.wait_for_sleepers()
            return next(key.last_used_at for key in await stored(pool) if key.id == used.stored.id)

        begin = api.clock.now()
        async with background(keys.watch()):
            assert await tick(EVERY_SECONDS) is None
            assert await status(api, used) == 200
            first = await tick(EVERY_SECONDS)
            assert first == begin + timedelta(seconds=2 * EVERY_SECONDS)
            assert await status(api, used) == 200
            assert await tick(EVERY_SECONDS) == first
            assert await tick(60) == first + timedelta(seconds=EVERY_SECONDS)
            assert await tick(60) == first + timedelta(seconds=EVERY_SECONDS)
        assert [key.last_used_at for key in await stored(pool) if key.id == unused.stored.id] == [None]


async def test_while_the_database_is_away_the_known_keys_hold(pool: asyncpg.Pool) -> None:
    """The watch goes on, and counts that it could not look."""
    async with running_api(pool) as api:
        key = await make(pool)
        await api.context.keys.refresh()
        await pool.execute("ALTER TABLE api_keys RENAME TO away")
        async with background(api.context.keys.watch()):
            await api.clock.wait_for_sleepers()
            api.clock.advance(timedelta(seconds=EVERY_SECONDS))
            await api.clock.wait_for_sleepers()
            assert api.metric("collector_errors_total", collector="api_keys") == 1
            assert await status(api, key) == 200
            await pool.execute("ALTER TABLE away RENAME TO api_keys")
            await revoke_key(pool, "shop", api.clock.now(), BY)
            api.clock.advance(timedelta(seconds=EVERY_SECONDS))
            await api.clock.wait_for_sleepers()
            assert await status(api, key) == 401


async def test_wrong_keys_are_slowed_down_and_a_right_one_is_not(pool: asyncpg.Pool) -> None:
    """After ten in a minute from one address 429 with Retry-After; other addresses and right keys are not concerned."""
    async with running_api(pool, api_keys=api_keys(rita="read"), trusted_proxies="127.0.0.1") as api:

        async def ask(address: str, headers: dict[str, str] = WRONG) -> int:
            answer = await api.get("/users", headers={"X-Forwarded-For": address} | headers)
            if answer.status == 429:
                assert 1 <= int(answer.headers["Retry-After"]) <= 60
            return answer.status

        assert [await ask("203.0.113.9") for _ in range(12)] == [401] * 10 + [429] * 2
        assert await ask("203.0.113.9", {"X-API-Key": "key-of-rita"}) == 200
        assert await ask("203.0.113.9", {}) == 401
        assert await ask("203.0.113.8") == 401
        assert [await ask(f"2001:db8:1:2::{n}") for n in range(11)] == [401] * 10 + [429]
        assert await ask("2001:db8:1:3::1") == 401
        assert api.metric("rate_limit_hits_total") == 3
        assert api.metric("auth_failures_total", reason="unknown_key") == 25


@pytest.mark.parametrize("settings", [{"api_keys": api_keys(rita="read")}, {"role": "worker"}])
async def test_what_protect_names_needs_a_key(pool: asyncpg.Pool, settings: dict[str, Any]) -> None:
    """In every role, also where there are no keys yet; probes of orchestrators never need one."""
    async with running_api(pool, protect="metrics,health,docs", rate_limit="1/s", **settings) as api:
        key = {"X-API-Key": "key-of-rita"}
        pages = ["/metrics", "/%6detrics", "/health", "/health/detailed", "/health/db", "/health/queue"]
        if "role" not in settings:
            pages += ["/docs", "/openapi.json"]
        for page in pages:
            assert (await api.get(page)).status == 401, page
            assert (await api.get(page, headers=key)).status == (401 if "role" in settings else 200), page
        for probe in ("/alive", "/ready"):
            assert (await api.get(probe)).status == 200
    async with running_api(pool, protect="docs", **settings) as api:
        assert (await api.get("/metrics")).status == 200


async def test_a_limited_client_is_told_what_is_left(pool: asyncpg.Pool) -> None:
    """RateLimit and RateLimit-Policy are on every answer of a resource, errors too; each key has a count of its own."""
    async with running_api(pool, api_keys=api_keys(rita="read"), rate_limit="5/s") as api:
        key = {"X-API-Key": "key-of-rita"}
        answers = [await api.get(path, headers=key) for path in ("/users", "/users?limit=x", "/users/1", "/messages")]
        assert [answer.headers["RateLimit-Policy"] for answer in answers] == ['"default";q=5;w=1'] * 4
        assert answers[0].headers["RateLimit"] == '"default";r=4;t=1'
        refused = await api.get("/users", headers=WRONG)
        assert (refused.status, refused.headers["RateLimit"]) == (401, '"default";r=4;t=1')
        assert "RateLimit" not in (await api.get("/alive")).headers

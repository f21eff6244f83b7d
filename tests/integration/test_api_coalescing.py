"""Requests that come at the same time share statements, and each is answered as if it had come alone."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest

from birthday.http.coalescer import SLOTS
from birthday.operations.suppressions import suppress_addresses
from birthday.store.connection import DATABASE_ERRORS, LOAN_SECONDS
from birthday.store.replacing import ReplacingPool
from tests.support.api import RUNBOOK_USER, Answer, Api, running_api
from tests.support.postgres import PostgresServer
from tests.support.product import eventually
from tests.support.users import TESTER, make_profiles

SECONDS = 8
CROWD = 40
FEW = 8


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


def users(count: int, **changes: object) -> list[dict[str, Any]]:
    """Return bodies that create so many users."""
    return [RUNBOOK_USER | {"email": f"user{number}@example.com"} | changes for number in range(count)]


def post_all(api: Api, bodies: list[dict[str, Any]]) -> list[asyncio.Task[Answer]]:
    """Begin to create users, all at the same time."""
    return [asyncio.create_task(api.post("/users", json=body)) for body in bodies]


@asynccontextmanager
async def held_up(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Let nobody insert a user for the length of the context, so that what comes meanwhile must collect."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE users IN SHARE MODE")
            yield connection
    finally:
        await connection.close()


async def until_waiting(api: Api, requests: int) -> None:
    """Wait until so many requests are being answered, and every slot waits for a lock."""

    async def are_waiting() -> bool:
        return api.metric("api_active_requests") >= requests and await lock_waits(api) >= SLOTS

    await eventually(are_waiting, "requests wait for a lock", SECONDS)


async def test_two_who_want_an_address_that_is_held_do_not_keep_the_others_waiting(api: Api, database_url: str) -> None:
    """Each comes alone and opens a slot of its own; a transaction elsewhere decides about the address, much later."""
    connection = await asyncpg.connect(database_url)
    held, other = users(2)
    try:
        async with connection.transaction():
            await connection.execute(
                """
                INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone,
                                   schedule_from, created_at, updated_at)
                VALUES (gen_random_uuid(), 'Ada', 'Lovelace', $1, '1990-01-01', 'UTC', $2, $2, $2)
                """,
                held["email"],
                api.context.clock.now(),
            )
            waiting = post_all(api, [held])
            await until_locked(api, 1)
            waiting += post_all(api, [held])
            await until_locked(api, 2)
            async with asyncio.timeout(LOAN_SECONDS / 2):
                answer = await api.post("/users", json=other)
            assert answer.status == 201
            assert not any(task.done() for task in waiting)
        assert [answer.status for answer in await asyncio.gather(*waiting)] == [409, 409]
    finally:
        await connection.close()


async def until_locked(api: Api, sessions: int) -> None:
    """Wait until so many sessions wait for a lock."""

    async def are_locked() -> bool:
        return await lock_waits(api) >= sessions

    await eventually(are_locked, "sessions wait for a lock", SECONDS)


async def lock_waits(api: Api) -> int:
    """Count the sessions of this database that wait for a lock."""
    count: int = await api.context.pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return count


async def create_while_held_up(api: Api, url: str, bodies: list[dict[str, Any]]) -> list[Answer]:
    """Create users who come while the table is locked: first one for each slot, then all of ``bodies`` together."""
    async with held_up(url):
        first = post_all(api, [RUNBOOK_USER | {"email": "first@example.com"}])
        await until_locked(api, 1)
        first += post_all(api, [RUNBOOK_USER | {"email": "second@example.com"}])
        await until_waiting(api, SLOTS)
        rest = post_all(api, bodies)
        await until_waiting(api, SLOTS + len(bodies))
    assert [answer.status for answer in await asyncio.gather(*first)] == [201] * SLOTS
    return list(await asyncio.gather(*rest))


async def test_what_comes_together_is_stored_together(api: Api, pool: asyncpg.Pool, database_url: str) -> None:
    """Users who come while both slots are busy are stored by one more statement in each, all with an answer."""
    answers = await create_while_held_up(api, database_url, users(CROWD, dateOfBirth="1990-03-02"))
    assert [(answer.status, answer.json["email"]) for answer in answers] == [
        (201, body["email"]) for body in users(CROWD)
    ]
    for answer in answers:
        assert answer.headers["Location"] == f"/users/{answer.json['id']}"
    assert await pool.fetchval("SELECT count(DISTINCT xmin::text) FROM users") == 2 * SLOTS
    assert await pool.fetchval("SELECT count(*) FROM message_logs") == CROWD
    assert api.metric("users_created_total") == CROWD + SLOTS
    assert api.metric("messages_scheduled_total") == CROWD


async def test_of_two_with_one_address_one_is_refused(api: Api, pool: asyncpg.Pool, database_url: str) -> None:
    """In a batch, an address that is taken, by somebody else or within the batch, is a conflict for that one alone."""
    await api.create(email="holder@example.com")
    bodies = users(CROWD)
    bodies[7] |= {"email": "USER3@example.com"}
    bodies[20] |= {"email": "Holder@Example.com"}
    answers = await create_while_held_up(api, database_url, bodies)
    refused = [number for number, answer in enumerate(answers) if answer.status != 201]
    assert len(refused) == 2
    assert refused[1] == 20
    assert refused[0] in {3, 7}
    for number in refused:
        assert (answers[number].status, answers[number].pointers) == (409, ["/email"])
        assert answers[number].json["detail"] == "another user has this e-mail address"
        owner = await api.get(f"/users/{answers[number].json['existingId']}")
        assert owner.json["email"].lower() == bodies[number]["email"].lower()
    assert await pool.fetchval("SELECT count(*) FROM users") == 1 + SLOTS + CROWD - 2


async def test_a_row_that_the_database_refuses_takes_no_other_along(
    api: Api, pool: asyncpg.Pool, database_url: str
) -> None:
    """When one row makes the statement fail, each is stored by itself, and only that one fails."""
    await pool.execute("ALTER TABLE users ADD CHECK (first_name <> 'Bad')")
    # Few: each is a transaction of its own, and all of them have to end within the limit of the batch.
    bodies = users(FEW, dateOfBirth="1990-03-02")
    bodies[3] |= {"firstName": "Bad"}
    answers = await create_while_held_up(api, database_url, bodies)
    assert Counter(answer.status for answer in answers) == {201: FEW - 1, 500: 1}
    assert answers[3].status == 500
    assert await pool.fetchval("SELECT count(*) FROM message_logs") == FEW - 1


async def test_an_address_that_is_waited_for_holds_up_nobody_else(
    api: Api, pool: asyncpg.Pool, database_url: str
) -> None:
    """While somebody's open transaction has an address, whoever comes with another one is answered."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute(
                """
                INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from, created_at,
                                   updated_at)
                VALUES ($1, 'Ada', 'Lovelace', 'user5@example.com', '1990-01-01', 'UTC', $2, $2, $2)
                """,
                uuid4(),
                api.clock.now(),
            )
            posting = post_all(api, users(CROWD))
            async with asyncio.timeout(SECONDS):
                others = await asyncio.gather(*posting[:5], *posting[6:])
            assert {answer.status for answer in others} == {201}
            assert not posting[5].done()
        assert (await posting[5]).status == 409
    finally:
        await connection.close()
    assert await pool.fetchval("SELECT count(*) FROM users") == CROWD


async def test_clients_that_go_away_take_nobody_along(api: Api, pool: asyncpg.Pool, database_url: str) -> None:
    """When some clients of a batch hang up, the others are answered; nobody is stored twice, nobody in part."""
    async with held_up(database_url):
        posting = post_all(api, users(CROWD, dateOfBirth="1990-03-02"))
        await until_waiting(api, CROWD)
        for gone in posting[::4]:
            gone.cancel()
        await asyncio.wait(posting[::4])
    answers = await asyncio.gather(*posting, return_exceptions=True)
    staying = [answer for number, answer in enumerate(answers) if number % 4]
    assert all(isinstance(answer, Answer) and answer.status == 201 for answer in staying)
    async with asyncio.timeout(SECONDS):
        while api.metric("api_active_requests"):
            await asyncio.sleep(0.01)
    assert await pool.fetchval("SELECT count(*) FROM users") == await pool.fetchval("SELECT count(*) FROM message_logs")


async def test_a_database_that_dies_is_503_for_all_and_forgotten_when_it_is_back(
    api: Api, pool: asyncpg.Pool, postgres_server: PostgresServer, database_url: str
) -> None:
    """Whoever is in a batch, and whoever waits behind it, is told at once; who was told 201 is stored, nobody else."""
    with suppress(*DATABASE_ERRORS):
        # It cannot end its transaction on a server that is gone.
        async with held_up(database_url):
            posting = post_all(api, users(CROWD))
            await until_waiting(api, CROWD)
            await postgres_server.kill()
    async with asyncio.timeout(SECONDS):
        answers = await asyncio.gather(*posting)
    assert {answer.status for answer in answers} == {503}
    assert {answer.headers["Retry-After"] for answer in answers} == {"5"}
    await postgres_server.start()
    again = await asyncio.gather(*post_all(api, users(CROWD)))
    assert {answer.status for answer in again} == {201}
    assert await pool.fetchval("SELECT count(*) FROM users") == CROWD


async def test_who_was_created_but_cannot_be_read_is_not_told_that_nothing_was_done(
    api: Api, pool: asyncpg.Pool, database_url: str
) -> None:
    """The users opted out earlier, so they are read again after they are stored. Asking again finds them."""
    bodies = users(FEW)
    emails = [body["email"] for body in bodies]
    await suppress_addresses(pool, emails, "asked by phone", api.clock.now(), TESTER, dry_run=False)
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE anniversaries IN ACCESS EXCLUSIVE MODE")
            posting = post_all(api, bodies)
            while not all(task.done() for task in posting):
                await end_reads(api)
                await asyncio.wait(posting, timeout=0.01)
            answers = await asyncio.gather(*posting)
        assert await pool.fetchval("SELECT count(*) FROM users") == FEW
    finally:
        await connection.close()
    assert {(answer.status, answer.json["code"]) for answer in answers} == {(503, "outcome_unknown")}
    again = await asyncio.gather(*post_all(api, bodies))
    assert [(answer.status, answer.json["email"]) for answer in again] == [(201, email) for email in emails]


async def end_reads(api: Api) -> None:
    """End the statements of this database that wait for a table."""
    await api.context.pool.execute(
        """
        SELECT pg_cancel_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
        """
    )


async def test_requests_under_way_are_answered_while_the_server_leaves(pool: asyncpg.Pool, database_url: str) -> None:
    """A server that is stopped still answers the batch that is under way, and the one that waits behind it."""
    async with aiohttp.ClientSession() as client, held_up(database_url) as connection:
        running = running_api(pool)
        api = await running.__aenter__()

        async def post(body: dict[str, Any]) -> int:
            async with client.post(f"{api.url}/users", json=body) as response:
                return response.status

        posting = [asyncio.create_task(post(body)) for body in users(CROWD)]
        await until_waiting(api, CROWD)
        leaving = asyncio.create_task(running.__aexit__(None, None, None))
        await asyncio.sleep(0)
        await connection.execute("ROLLBACK; BEGIN")
        async with asyncio.timeout(SECONDS):
            assert set(await asyncio.gather(*posting)) == {201}
            await leaving


async def test_a_connection_that_is_not_reset_is_left_as_it_was(database_url: str) -> None:
    """What a batch sets, so that it does not wait for long, is over with it, also where nobody resets the session."""
    async with ReplacingPool(database_url, min_size=1, max_size=1) as pool:
        # A session has the settings of PL/pgSQL from the first trigger on.
        settings = "SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'plpgsql.%' ORDER BY name"
        before = await pool.fetch(settings)
        async with running_api(pool) as api:
            answers = await asyncio.gather(*post_all(api, users(CROWD)))
        assert {answer.status for answer in answers} == {201}
        assert await pool.fetchval("SELECT count(DISTINCT xmin::text) FROM users") < CROWD
        assert await pool.fetch(settings) == before


async def test_many_at_a_time_store_what_one_at_a_time_stores(api: Api, pool: asyncpg.Pool) -> None:
    """Whether users come together or one by one, the same users are stored with the same messages."""
    today = api.clock.now().date()
    bodies = []
    for number, profile in enumerate(make_profiles(150)):
        soon = today + timedelta(days=number % 5 - 1)
        body = profile.as_input()
        bodies.append(body | {"dateOfBirth": str(date(1990, soon.month, soon.day))} if number % 2 else body)
    together = await asyncio.gather(*post_all(api, bodies))
    stored_together = await stored(pool)
    for answer in together:
        assert (await api.delete(f"/users/{answer.json['id']}")).status == 204
    alone = [await api.post("/users", json=body) for body in bodies]
    stored_alone = await stored(pool)
    assert {answer.status for answer in (*together, *alone)} == {201}
    assert [without_id(answer) for answer in together] == [without_id(answer) for answer in alone]
    assert len(stored_together) == len(bodies)
    assert sum(len(messages) for _, messages in stored_together) > 30
    assert stored_together == stored_alone


async def stored(pool: asyncpg.Pool) -> list[tuple[tuple[object, ...], list[tuple[datetime, ...]]]]:
    """Return every live user without the id, with the messages planned, in order of address."""
    rows = await pool.fetch(
        """
        SELECT id, email, first_name, last_name, date_of_birth, timezone, schedule_from, created_at, updated_at
        FROM users WHERE deleted_at IS NULL ORDER BY email
        """
    )
    messages: dict[UUID, list[tuple[datetime, ...]]] = {row["id"]: [] for row in rows}
    for message in await pool.fetch(
        """
        SELECT user_id, status, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from, created_at
        FROM message_logs WHERE status <> 'cancelled' ORDER BY scheduled_at
        """
    ):
        messages[message["user_id"]].append(tuple(message.values())[1:])
    return [(tuple(row.values())[1:], messages[row["id"]]) for row in rows]


def without_id(answer: Answer) -> dict[str, Any]:
    """Return the members of a user that do not differ from one run to the next."""
    return {name: value for name, value in answer.json.items() if name != "id"}


async def test_concurrent_reads_find_each_their_own(api: Api) -> None:
    """Of ids that are read at the same time, each is answered with its user, or 404, however often it is asked for."""
    created = [(await api.create(email=f"{number}@example.com"))["id"] for number in range(12)]
    await api.delete(f"/users/{created[0]}")
    wanted = [*created, str(uuid4()), *created] * 4
    answers = await asyncio.gather(*(api.get(f"/users/{user_id}") for user_id in wanted))
    for user_id, answer in zip(wanted, answers, strict=True):
        if user_id in created[1:]:
            assert (answer.status, answer.json["id"]) == (200, user_id)
        else:
            assert answer.status == 404
            assert user_id in answer.json["detail"]


async def test_who_was_created_can_be_read_at_once(api: Api) -> None:
    """A read that begins after the answer to a creation finds the user, whatever else is read and created meanwhile."""

    async def create_and_read(body: dict[str, Any]) -> bool:
        created = await api.post("/users", json=body)
        found = await api.get(created.headers["Location"])
        return bool(found.json == created.json)

    assert all(await asyncio.gather(*(create_and_read(body) for body in users(60, dateOfBirth="1990-03-02"))))

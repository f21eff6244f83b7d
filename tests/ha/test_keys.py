"""A failover with asynchronous replication forgets deliveries: they are repeated, with the keys that they had."""

from contextlib import AsyncExitStack
from datetime import UTC, datetime

import asyncpg
import pytest

from tests.support.chaos import until
from tests.support.ha.lab import Lab, verify
from tests.support.ha.load import Deliveries
from tests.support.message_service import MessageService

pytestmark = pytest.mark.long

USERS = 40


async def test_what_a_failover_forgets_is_sent_again_under_the_same_key(lab: Lab) -> None:
    """The new primary knows the users, and none of the messages that were planned and delivered without it.

    They are planned again, with the same ids, because an id follows from user, date and schedule.
    """
    await lab.restore()
    await lab.postgres.configure(synchronous_mode=False)
    await lab.restore()
    database = await lab.postgres.create_database()
    deliveries = Deliveries()
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(MessageService(deliveries, host=lab.operator.address))
        settings = await lab.prepare(database, service) | {"CRON_PLAN": "* * * * *"}
        primary = await lab.postgres.primary()
        assert primary is not None
        async with lab.postgres.connected(database) as connection:
            await add_users(connection)
        await lab.postgres.wait_for_standbys()
        primary.silence(*(host for host in lab.postgres.hosts if host is not primary))
        await stack.enter_async_context(lab.running("worker1", settings))
        await stack.enter_async_context(lab.running("scheduler1", settings))

        async def all_are_greeted(times: int) -> bool:
            keys = deliveries.accepted
            return len(keys) == USERS and all(len(each) >= times for each in keys.values())

        await until(lambda: all_are_greeted(1), "everybody is greeted", 60)
        first = {email: keys[0] for email, keys in deliveries.accepted.items()}
        primary.kill("patroni", "postgres")
        await lab.postgres.wait_for_primary(primary)
        await until(lambda: all_are_greeted(2), "everybody is greeted again", 120)
        primary.heal()
        lab.postgres.start_again(primary)
        await verify(settings, USERS)
    assert {email: set(keys) for email, keys in deliveries.accepted.items()} == {
        email: {key} for email, key in first.items()
    }
    await lab.postgres.configure(synchronous_mode=True)


async def add_users(connection: asyncpg.Connection) -> None:
    """Add users with a birthday today, for whom nothing is planned yet."""
    now = datetime.now(UTC)
    await connection.execute(
        """
        INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from,
                           created_at, updated_at)
        SELECT uuid_v7($1), 'Ada', 'Lovelace', number || '@example.com', $2, 'UTC', $1, $1, $1
        FROM generate_series(1, $3) AS number
        """,
        now,
        now.date().replace(year=1992),
        USERS,
    )

"""A choice of the suites of queue, worker, dispatcher, import and API, behind a pooler that has no sessions.

`make chaos` runs the suites whole behind one.
"""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from birthday.broker.postgres import PostgresBroker
from birthday.telemetry.metrics import Metrics
from tests.integration import (
    test_api_transfer,
    test_api_users,
    test_broker_contract,
    test_dispatcher,
    test_transfer,
    test_worker,
)
from tests.integration.test_broker_contract import PostgresQueue, Queue
from tests.support.clock import ManualClock
from tests.support.postgres import pool_by_transaction
from tests.support.product import Product, parse

api = test_api_users.api
broker = test_broker_contract.broker
queue = test_broker_contract.queue


@pytest.fixture
async def pool(pooler_url: str) -> AsyncIterator[asyncpg.Pool]:
    """Return a pool without sessions."""
    async with pool_by_transaction(pooler_url) as pool:
        yield pool


@pytest.fixture
def empty_queue(database_url: str, pooler_url: str) -> Queue:
    """Return a queue whose consumers poll."""
    return PostgresQueue(database_url, pooler_url)


@pytest.fixture
def product(pool: asyncpg.Pool) -> Product:
    """An installation at 09:00 UTC on 1 March 2027."""
    return Product(pool, PostgresBroker(pool), ManualClock(parse("2027-03-01T09:00:00Z")), Metrics())


class TestSettling(test_broker_contract.TestSettling):
    """What ends a delivery, and what puts it back."""


test_two_workers = test_worker.test_a_thousand_messages_are_shared_by_two_workers_without_a_repeat
test_a_dead_worker = test_worker.test_what_a_dead_worker_held_is_sent_when_its_lease_has_run_out
test_dispatchers = test_dispatcher.test_dispatchers_at_the_same_time_publish_each_message_once
test_concurrent_creations = test_api_users.test_of_concurrent_creations_one_wins
test_a_moved_birthday = test_api_users.test_a_moved_birthday_moves_the_message
test_an_upsert_and_a_dry_run = test_api_transfer.test_an_upsert_and_a_dry_run
test_two_imports = test_transfer.test_two_imports_of_one_file_at_once_create_each_user_once
test_a_dry_run = test_transfer.test_a_dry_run_tells_the_same_and_changes_nothing

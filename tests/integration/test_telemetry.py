"""The figures of database, pool and queue: right while they can be asked, gone while they cannot."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import date, timedelta
from functools import partial

import asyncpg
import pytest
import structlog

from birthday.broker.postgres import PostgresBroker
from birthday.broker.rabbitmq import RabbitMQBroker
from birthday.http.probes import health as probes
from birthday.operations.figures import SELDOM_SECONDS, watch_database, watch_overdue, watch_queue
from birthday.store.pool import MeasuredPool, make_pool
from birthday.store.statistics import count_greeted, read_figures
from birthday.telemetry.metrics import Metrics
from birthday.telemetry.score import HealthScore, watch_score
from birthday.telemetry.utilization import EVERY_SECONDS as SAMPLED_SECONDS
from birthday.telemetry.utilization import LOOKS, watch_utilization
from tests.support.api import RUNBOOK_USER, Api, api_keys, running_api
from tests.support.channel import RecordingChannel
from tests.support.clock import NINE_O_CLOCK, ManualClock
from tests.support.postgres import PostgresServer
from tests.support.product import Product, eventually, metric
from tests.support.proxy import network
from tests.support.tasks import background

BORN = date(1990, NINE_O_CLOCK.month, NINE_O_CLOCK.day)


@pytest.fixture
async def measured(database_url: str) -> AsyncIterator[tuple[asyncpg.Pool, Metrics]]:
    """A pool of at most two connections, and its metrics."""
    metrics = Metrics()
    async with make_pool(database_url, metrics, min_size=1, max_size=2) as pool:
        yield pool, metrics


async def holds(condition: Callable[[], bool]) -> bool:
    """Ask a condition that needs nobody else."""
    return condition()


def shown(metrics: Metrics, name: str) -> float | None:
    """Return the value of a sample, None if there is none."""
    return metrics.registry.get_sample_value(f"birthday_scheduler_{name}")


async def test_the_pool_shows_what_is_lent_and_who_waits(measured: tuple[asyncpg.Pool, Metrics]) -> None:
    """Two of two connections lent, and one caller waits: then it has got one, and how long it waited is known."""
    pool, metrics = measured
    assert isinstance(pool, MeasuredPool)
    assert (metric(metrics, "db_connections_max"), metric(metrics, "db_connections_open")) == (2, 1)
    async with pool.acquire():
        first = await pool.acquire()
        assert (metric(metrics, "db_connections_active"), metric(metrics, "db_connections_open")) == (2, 2)
        waiting = asyncio.create_task(pool.fetchval("SELECT 42"))
        await eventually(partial(holds, lambda: metric(metrics, "db_pool_waiting_requests") == 1), "a caller waits")
        await eventually(partial(holds, lambda: metric(metrics, "connection_pool_wait_time") > 0.05), "for a while")
        await pool.release(first)
        assert await waiting == 42
    assert metric(metrics, "db_pool_waiting_requests") == 0
    assert metric(metrics, "db_connections_active") == 0
    assert metric(metrics, "connection_pool_acquisition_time_count") == 3
    assert metric(metrics, "connection_pool_acquisition_time_sum") > 0.05


async def test_who_waits_in_vain_is_counted(measured: tuple[asyncpg.Pool, Metrics]) -> None:
    """A wait that is given up was a wait: an exhausted pool must show."""
    pool, metrics = measured
    async with pool.acquire(), pool.acquire():
        with pytest.raises(TimeoutError):
            await pool.acquire(timeout=0.05)
    assert metric(metrics, "db_pool_waiting_requests") == 0
    assert metric(metrics, "connection_pool_acquisition_time_count") == 3


async def test_statements_are_timed_by_type_and_slow_ones_named(measured: tuple[asyncpg.Pool, Metrics]) -> None:
    """The log has the text of a slow statement, and not its parameters: they may be somebody's name."""
    pool, metrics = measured
    with structlog.testing.capture_logs() as events:
        await pool.fetchval("SELECT pg_sleep(0.15), $1::text", "Zebulon")
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("DELETE FROM users")

        def count(kind: str) -> float:
            return metric(metrics, "database_query_duration_count", query_type=kind)

        await eventually(partial(holds, lambda: count("transaction") == 2), "all are counted")
    assert (count("select"), count("delete")) == (1, 1)
    assert metric(metrics, "database_query_duration_sum", query_type="select") >= 0.15
    assert metric(metrics, "database_slow_queries_total", query_type="select") == 1
    [slow] = [event for event in events if event["event"] == "database.slow_query"]
    assert slow["query"] == "SELECT pg_sleep(0.15), $1::text"
    assert "Zebulon" not in str(events)


async def test_the_database_says_how_it_does(pool: asyncpg.Pool) -> None:
    """Its counters move with what happens in it, and another session's transaction is seen."""
    product = Product(pool, PostgresBroker(pool), ManualClock(), Metrics())
    await product.create(BORN)
    await product.dispatcher.dispatch_once(NINE_O_CLOCK)
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT 1")
        figures = await read_figures(pool)
    assert figures.active_transactions is not None
    assert figures.active_transactions >= 1
    assert figures.commits > 0
    assert figures.replication_lag_seconds == 0
    assert figures.oldest_queued_at == NINE_O_CLOCK
    assert figures.buffer_cache_hit_ratio is not None
    assert 0 < figures.buffer_cache_hit_ratio <= 1
    assert await count_greeted(pool, NINE_O_CLOCK - timedelta(days=1), NINE_O_CLOCK) == 0


@pytest.fixture
async def ordinary(pool: asyncpg.Pool, database_url: str) -> AsyncIterator[tuple[asyncpg.Pool, str]]:
    """A pool that works as a role which may use the tables and nothing else, and the role's name."""
    role = f"ordinary_{secrets.token_hex(4)}"
    await pool.execute(f"CREATE ROLE {role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    async with asyncpg.create_pool(database_url, min_size=1, max_size=2, server_settings={"role": role}) as theirs:
        yield theirs, role
    await pool.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_what_the_database_hides_is_a_gap_and_not_a_zero(
    pool: asyncpg.Pool, ordinary: tuple[asyncpg.Pool, str], database_url: str
) -> None:
    """An ordinary role does not see what others do, nor how far replicas are; a member of pg_monitor does."""
    theirs, role = ordinary
    replica = await asyncpg.connect(database_url, server_settings={"replication": "database"})
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT 1")
        figures = await read_figures(theirs)
        assert figures.commits > 0
        assert (figures.active_transactions, figures.active_queries) == (None, None)
        assert figures.replication_lag_seconds is None
        await pool.execute(f"GRANT pg_monitor TO {role}")
        figures = await read_figures(theirs)
        assert (figures.active_transactions, figures.replication_lag_seconds) == (1, 0)
        assert figures.active_queries == 0
    await replica.close()


async def test_the_age_of_the_oldest_message_and_the_users_of_the_day(pool: asyncpg.Pool) -> None:
    """The age grows with the clock while nobody takes the message; once it is delivered, its user has been active."""
    clock, metrics = ManualClock(), Metrics()
    product = Product(pool, PostgresBroker(pool), clock, metrics)
    await product.create(BORN)
    await product.dispatcher.dispatch_once(NINE_O_CLOCK)
    clock.advance(timedelta(seconds=90))
    watching = watch_database(pool, metrics, clock)
    async with background(watching):
        await clock.wait_for_sleepers(2)
        assert shown(metrics, "queue_oldest_message_age_seconds") == 90
        assert shown(metrics, "daily_active_users") == 0
        async with product.working(RecordingChannel(clock)):
            await product.wait_for_statuses({"delivered": 1})
        clock.advance(timedelta(seconds=SELDOM_SECONDS))
        await eventually(partial(holds, lambda: shown(metrics, "daily_active_users") == 1), "a user was greeted")
        await eventually(partial(holds, lambda: shown(metrics, "queue_oldest_message_age_seconds") == 0), "none waits")


@pytest.mark.parametrize("queue", ["postgresql", "rabbitmq"])
async def test_a_dependency_that_falls_silent_leaves_a_gap(
    database_url: str, request: pytest.FixtureRequest, queue: str
) -> None:
    """Within seconds its figures are gone and an error is counted; when it answers again, they are back."""
    queue_url = request.getfixturevalue("rabbitmq_url") if queue == "rabbitmq" else None
    clock, metrics = ManualClock(), Metrics()
    async with network(database_url, queue_url, "http://127.0.0.1:1") as between:
        dsn = between.settings["DATABASE_URL"]
        async with asyncpg.create_pool(dsn, min_size=1, max_size=4, command_timeout=2, timeout=2) as pool:
            broker = RabbitMQBroker(between.settings["RABBITMQ_URL"]) if queue_url else PostgresBroker(pool)
            databases = watch_database(pool, metrics, clock)
            async with background(databases), background(watch_queue(broker, metrics, clock)):
                await clock.wait_for_sleepers(3, 60)
                assert shown(metrics, "queue_depth") == 0
                assert shown(metrics, "database_commits_total") is not None
                between.database.silence()
                between.queue.silence()
                clock.advance(timedelta(seconds=SELDOM_SECONDS))
                names = ("queue_depth", "dlq_depth", "database_commits_total", "daily_active_users")
                gone = partial(holds, lambda: all(shown(metrics, name) is None for name in names))
                await eventually(gone, f"{names} are gaps", 60)
                assert metric(metrics, "collector_errors_total", collector="queue") >= 1
                assert metric(metrics, "collector_errors_total", collector="database") >= 2
                await between.database.heal()
                await between.queue.heal()

                async def back() -> bool:
                    clock.advance(timedelta(seconds=SELDOM_SECONDS))
                    await pool.expire_connections()
                    return all(shown(metrics, name) is not None for name in names)

                await eventually(back, "the figures are back", 60)
            await broker.close()
            pool.terminate()


async def test_what_is_due_and_not_delivered_is_overdue(pool: asyncpg.Pool) -> None:
    """Whether nobody dispatched it or nobody took it; not what is still to come, and not what was delivered."""
    clock, metrics = ManualClock(), Metrics()
    product = Product(pool, PostgresBroker(pool), clock, metrics)
    await product.create(BORN)
    await product.create(BORN + timedelta(days=1))
    clock.advance(timedelta(seconds=90))

    async def shows(messages: int, seconds: float) -> bool:
        names = ("messages_overdue", "messages_overdue_oldest_age_seconds")
        return [shown(metrics, name) for name in names] == [messages, seconds]

    async with background(watch_overdue(pool, metrics, clock)):
        await eventually(partial(shows, 1, 90), "the message that nobody dispatched is overdue")
        await product.dispatcher.dispatch_once(clock.now())
        await clock.wait_for_sleepers(1)
        clock.advance(timedelta(seconds=30))
        await eventually(partial(shows, 1, 120), "the message that nobody took is overdue")
        async with product.working(RecordingChannel(clock)):
            await product.wait_for_statuses({"delivered": 1, "scheduled": 1})
        await clock.wait_for_sleepers(1)
        clock.advance(timedelta(seconds=30))
        await eventually(partial(shows, 0, 0), "nothing is overdue")
        await clock.judge("three days ahead")
        await clock.wait_for_sleepers(1)
        clock.advance(timedelta(seconds=30))
        gone = partial(holds, lambda: shown(metrics, "messages_overdue") is None)
        await eventually(gone, "a wrong clock does not say what is due")


async def test_sessions_are_set_against_what_the_server_allows(
    pool: asyncpg.Pool, ordinary: tuple[asyncpg.Pool, str], postgres_server: PostgresServer
) -> None:
    """A role without privileges sees the sessions of other databases and roles as well."""
    theirs, _ = ordinary
    before = await read_figures(theirs)
    assert before.max_connections == int(await pool.fetchval("SHOW max_connections"))
    others = [await asyncpg.connect(postgres_server.url("postgres")) for _ in range(3)]

    async def counted() -> bool:
        return (await read_figures(theirs)).sessions >= before.sessions + 3

    await eventually(counted, "the sessions of another database count")
    for other in others:
        await other.close()


async def test_the_score_falls_with_what_it_depends_on(pool: asyncpg.Pool) -> None:
    """It is 100 for a process that does well, and 80 while the database does not answer its collector."""
    clock, metrics, score = ManualClock(), Metrics(), HealthScore()
    metrics.queue_depth.set(0)
    metrics.database_commits.set(1)
    async with background(watch_score(score, metrics, clock)):
        for commits, expected in ((1, 100), (None, 80)):
            metrics.database_commits.set(commits)
            await clock.wait_for_sleepers(1)
            clock.advance(timedelta(seconds=5))
            await clock.wait_for_sleepers(1)
            assert shown(metrics, "api_health_score") == expected
    async with running_api(pool) as api:
        await api.get("/users/1")
        await api.get("/health")
        await pool.execute("ALTER TABLE users RENAME TO people")
        await api.get("/users")
        # One of the two requests that are no probes failed.
        assert api.context.score.value(database=True, queue=True) == 50


async def test_how_busy_a_worker_is_is_sampled() -> None:
    """A worker that could take a message at every fourth look is free for a quarter of the time."""
    clock, metrics = ManualClock(), Metrics()
    looks = 0

    def could_take() -> bool:
        nonlocal looks
        looks += 1
        return looks % 4 == 0

    async with background(watch_utilization(could_take, metrics, clock)):
        for _ in range(LOOKS):
            await clock.wait_for_sleepers(1)
            clock.advance(timedelta(seconds=SAMPLED_SECONDS / LOOKS))
        await clock.wait_for_sleepers(1)
    assert shown(metrics, "queue_consumer_utilization") == pytest.approx(12 / LOOKS)


async def test_the_first_failure_of_a_route_is_the_growth_of_a_series(pool: asyncpg.Pool) -> None:
    """Each route has its two series of failures from the start: Prometheus takes a first value for no growth."""

    def failures(api: Api) -> dict[tuple[str, str, str], float]:
        [family] = [one for one in api.context.metrics.registry.collect() if one.name.endswith("_api_requests")]
        samples = [(one.labels, one.value) for one in family.samples if one.labels["status"] in {"500", "503"}]
        return {(labels["method"], labels["path"], labels["status"]): value for labels, value in samples}

    async with running_api(pool) as api:
        before = failures(api)
        assert set(before.values()) == {0}
        assert {("POST", "/users", "500"), ("PATCH", "/users/{id}", "503"), ("GET", "/ready", "503")} <= set(before)
        assert len(before) < 400
        await pool.execute("ALTER TABLE users RENAME TO people")
        await api.get("/users")
        assert failures(api) == before | {("GET", "/users", "503"): 1}
    async with running_api(pool, role="worker") as api:
        assert {path for _, path, _ in failures(api)} == probes.PATHS


async def test_security_signals_are_counted_and_logged(pool: asyncpg.Pool) -> None:
    """No key, a wrong key, a key for less, and too many requests: each is a metric and an event of its own."""
    with structlog.testing.capture_logs() as events:
        async with running_api(pool, api_keys=api_keys(rita="read"), rate_limit="4/s") as api:
            await api.get("/users")
            await api.get("/users", headers={"X-API-Key": "wrong"})
            await api.post("/users", RUNBOOK_USER, headers={"X-API-Key": "key-of-rita"})
            answers = [(await api.get("/users", headers={"X-API-Key": "key-of-rita"})).status for _ in range(30)]
            refused = answers.count(429)
            assert api.metric("auth_failures_total", reason="no_key") == 1
            assert api.metric("auth_failures_total", reason="unknown_key") == 1
            assert api.metric("forbidden_accesses_total", reason="scope") == 1
            assert api.metric("rate_limit_hits_total") == refused > 0
        async with running_api(pool) as api:
            assert (await api.get("/users", headers={"Host": "evil.example"})).status == 403
            assert api.metric("forbidden_accesses_total", reason="host") == 1
    names = [event["event"] for event in events]
    assert (names.count("auth.failed"), names.count("auth.forbidden")) == (2, 2)
    assert names.count("rate_limit.exceeded") == refused
    assert "key-of-rita" not in str(events)


async def test_a_message_moves_the_metrics_of_the_way(pool: asyncpg.Pool) -> None:
    """One delivered, one refused: birthdays, texts and calls are counted once each."""
    clock, metrics = ManualClock(), Metrics()
    product = Product(pool, PostgresBroker(pool), clock, metrics)
    await product.create(BORN)
    await product.dispatcher.dispatch_once(NINE_O_CLOCK)
    async with product.working(RecordingChannel(clock)):
        await product.wait_for_statuses({"delivered": 1})
        processed = partial(holds, lambda: metric(metrics, "birthdays_processed_total") == 1)
        await eventually(processed, "a birthday has been processed")
    assert metric(metrics, "message_template_usage_total", template_name="birthday") == 1
    assert metric(metrics, "messages_by_type_total", message_type="birthday", status="delivered") == 1
    assert metric(metrics, "external_api_calls_total", api_name="message-service", status="none") == 1

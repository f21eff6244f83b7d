"""Hosts whose clocks disagree. The programs run under libfaketime, which shifts the clock of the wall for each."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import product
from pathlib import Path

import aiohttp
import pytest

from tests.support.api import RUNBOOK_USER
from tests.support.chaos import FULL, POSTGRES, Crowd, Fleet, Receiver, brokers, fleet, let_fault_last, until
from tests.support.message_service import MessageService
from tests.support.program import Program, run

LIBRARIES = "*/faketime/libfaketime.so.1"
SHIFTS = {"+5m": 300, "-5m": -300, "+3d": 3 * 86400, "-3d": -3 * 86400}
SOME = SHIFTS if FULL else {name: SHIFTS[name] for name in ("+5m", "-3d")}
ROLES = ("scheduler", "worker")
WRONG = list(product(ROLES, SOME.values()) if FULL else zip(ROLES, SOME.values(), strict=True))
CORRECTED_SECONDS = 60
"""What was held goes out within so many seconds after the clock is right."""
WATCHED_SECONDS = 6 if FULL else 3
"""How long a fleet with a wrong clock is seen to do nothing: each of its loops would have ticked at its start."""

EVERY_MINUTE = {"CRON_PLAN": "* * * * *", "CRON_RECOVER": "* * * * *", "CRON_RETENTION": "* * * * *"}


class HostClock:
    """The clock of a host, which a test can set while processes run on that host. Timers run as ever."""

    def __init__(self, file: Path, seconds: int) -> None:
        """Be ahead by so many seconds."""
        found = sorted(Path("/usr/lib").glob(LIBRARIES))
        if not found:
            pytest.fail("libfaketime was not found; `make test` installs it (Debian package libfaketime)")
        self._file = file
        self.set(seconds)
        self.settings = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Let it be ahead by so many seconds from now on."""
        changed = self._file.with_suffix(".new")
        changed.write_text(f"{seconds:+d}s\n")
        changed.replace(self._file)


@contextmanager
def hosts(folder: Path, *seconds: int) -> Iterator[list[HostClock]]:
    """Yield hosts whose clocks are ahead by so many seconds each."""
    yield [HostClock(folder / f"clock-{number}", shift) for number, shift in enumerate(seconds)]


@brokers(POSTGRES)
async def test_hosts_whose_clocks_disagree_greet_everybody_once(
    crowd: Crowd, database_url: str, queue_url: str | None, tmp_path: Path
) -> None:
    """Schedulers and workers some seconds ahead and behind: leases are the database's, so nobody is doubled.

    Others, half an hour ahead and behind, stand by and do nothing.
    """
    count = 1000 if FULL else 400
    receiver = Receiver(fail=0.1)
    with hosts(tmp_path, 4, -4, 1800, -1800) as (early, late, ahead, behind):
        async with MessageService(receiver) as service, fleet(database_url, queue_url, service.url) as processes:
            for scheduling, working in ((early, late), (late, early), (ahead, behind)):
                await processes.start("scheduler", **scheduling.settings)
                await processes.start("worker", **working.settings)
            await crowd.gather(count)
            await processes.start("scheduler", **early.settings)
            await crowd.wait_until_settled(110)
            audit = await crowd.audit(receiver)
    audit.verify()


@pytest.mark.parametrize("seconds", SOME.values(), ids=SOME)
@brokers("postgres")
async def test_a_wrong_clock_does_nothing_until_it_is_right(
    crowd: Crowd, database_url: str, queue_url: str | None, seconds: int, tmp_path: Path
) -> None:
    """Nothing is expired, removed, or sent early; everything due goes out within a minute after the clock is right."""
    receiver = Receiver()
    with hosts(tmp_path, seconds) as (host,):
        await crowd.gather(60)
        await prepare(crowd)
        before = await rows(crowd)
        async with MessageService(receiver) as service, fleet(database_url, queue_url, service.url) as processes:
            programs = [
                await processes.start(role, **host.settings, **EVERY_MINUTE) for role in ("scheduler", "worker")
            ]
            await find_wrong(processes, programs)
            await let_fault_last(WATCHED_SECONDS)
            assert await rows(crowd) == before
            assert not receiver.accepted
            host.set(0)
            await crowd.wait_for_delivered(40, CORRECTED_SECONDS)
            await processes.wait_for_ready(200, 60)
            for program in programs:
                await program.wait_for_event("clock.right_again", 60)
        statuses = await crowd.statuses()
    assert statuses == {"delivered": 40, "scheduled": 20, "cancelled": 5}
    assert len(receiver.accepted) == 40


@pytest.mark.parametrize("seconds", SOME.values(), ids=SOME)
@brokers("rabbitmq")
async def test_a_clock_that_is_set_while_messages_go_out_holds_the_rest(
    crowd: Crowd, database_url: str, queue_url: str | None, seconds: int, tmp_path: Path
) -> None:
    """What is in flight is settled or given back at an instant that is right, so no retry waits for days."""
    count = 2000
    receiver = Receiver(fail=0.2, delay=timedelta(milliseconds=50))
    settings = {"WORKER_CONCURRENCY": "10", "RETRY_BASE_DELAY": "500ms", "RETRY_MAX_DELAY": "1s", "MAX_ATTEMPTS": "20"}
    with hosts(tmp_path, 0) as (host,):
        async with MessageService(receiver) as service, fleet(database_url, queue_url, service.url) as processes:
            programs = [await processes.start(role, **host.settings, **settings) for role in ("scheduler", "worker")]
            await crowd.gather(count)
            await crowd.wait_for_delivered(100, 60)
            host.set(seconds)
            await find_wrong(processes, programs)
            held = len(receiver.accepted)
            await let_fault_last(WATCHED_SECONDS)
            assert len(receiver.accepted) == held < count
            host.set(0)
            await crowd.wait_until_settled(CORRECTED_SECONDS)
            audit = await crowd.audit(receiver)
    audit.verify()


@pytest.mark.parametrize(("wrong", "seconds"), WRONG)
@pytest.mark.parametrize("queue_url", [POSTGRES], indirect=True)
async def test_one_process_with_a_wrong_clock_leaves_the_work_to_the_others(
    crowd: Crowd, database_url: str, queue_url: str | None, seconds: int, wrong: str, tmp_path: Path
) -> None:
    """What is due is delivered by the others meanwhile, and what is due later is not sent early."""
    receiver = Receiver()
    with hosts(tmp_path, seconds) as (host,):
        await crowd.gather(60)
        await prepare(crowd)
        async with MessageService(receiver) as service, fleet(database_url, queue_url, service.url) as processes:
            odd = await processes.start(wrong, **host.settings)
            await odd.wait_for_event("clock.wrong")
            for role in ("scheduler", "worker"):
                await processes.start(role)
            await crowd.wait_for_delivered(40, 60)
            await let_fault_last(WATCHED_SECONDS)
    assert (await crowd.statuses())["scheduled"] == 20
    assert len(receiver.accepted) == 40


@pytest.mark.parametrize("seconds", SOME.values(), ids=SOME)
@pytest.mark.parametrize("queue_url", [POSTGRES], indirect=True)
async def test_an_api_with_a_wrong_clock_refuses_changes_until_it_is_right(
    crowd: Crowd, database_url: str, queue_url: str | None, seconds: int, tmp_path: Path
) -> None:
    """A client is told to come back, reads go on, and whoever is created afterwards is greeted."""
    async with crowd.connection() as connection:
        today = await connection.fetchval("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
    user = RUNBOOK_USER | {"dateOfBirth": today.replace(year=1992).isoformat()}
    receiver = Receiver()
    with hosts(tmp_path, seconds) as (host,):
        async with MessageService(receiver) as service, fleet(database_url, queue_url, service.url) as processes:
            program = await processes.start("api,scheduler,worker", **host.settings)
            async with aiohttp.ClientSession(program.url) as client:
                async with client.post("/users", json=user) as refused:
                    problem = await refused.json(content_type="application/problem+json")
                assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
                assert "clock" in problem["detail"]
                async with client.get("/users") as listed:
                    assert (listed.status, (await listed.json())["users"]) == (200, [])
                host.set(0)
                await processes.wait_for_ready(200, 60)
                async with client.post("/users", json=user) as created:
                    assert created.status == 201
            await crowd.wait_for_delivered(1, 60)


@pytest.mark.parametrize("seconds", SOME.values(), ids=SOME)
async def test_commands_that_write_what_time_it_is_refuse_a_wrong_clock(
    crowd: Crowd, database_url: str, seconds: int, tmp_path: Path
) -> None:
    """``check`` has a line of its own for it; an audit says that it could not look, not that something is missing."""
    people = tmp_path / "people.csv"
    people.write_text("firstName,lastName,email,dateOfBirth,timezone\nAda,Lovelace,ada@example.com,1990-01-01,UTC\n")
    await crowd.gather(1)
    async with crowd.connection() as connection:
        await connection.execute("UPDATE message_logs SET status = 'delivered', delivered_at = now(), attempts = 1")
    delivered = ("--delivered-from", "2026-01-01T00:00:00Z", "--delivered-to", "9000-01-01T00:00:00Z")
    with hosts(tmp_path, seconds) as (host,):
        settings = {"DATABASE_URL": database_url, **host.settings}
        check = await run("check", **settings)
        audit = await run("audit", "--from", "2026-01-01", "--to", "2026-01-02", **settings)
        imported = await run("import", str(people), **settings)
        requeued = await run("dlq", "requeue", **settings)
        repeated = await run("requeue", *delivered, "--yes", **settings)
        paused = await run("pause", **settings)
    [line] = [line for line in check.out.splitlines() if line.startswith("clock ")]
    assert "FAILED" in line
    assert ("ahead of" if seconds > 0 else "behind") in line
    assert (check.status, audit.status, imported.status, requeued.status, repeated.status) == (1, 3, 1, 1, 1)
    assert all("that of the database" in finished.err for finished in (audit, imported, requeued, repeated))
    # Whoever stops messages must be able to, whatever the time is.
    assert paused.status == 0
    assert await crowd.statuses() == {"delivered": 1}
    async with crowd.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM users") == 1


async def prepare(crowd: Crowd) -> None:
    """Let a third of the messages fall due in four minutes only, and add some that are nearly old enough to go."""
    async with crowd.connection() as connection:
        await connection.execute(
            """
            WITH later AS (
                UPDATE users SET schedule_from = schedule_from + interval '4 minutes'
                WHERE id IN (SELECT id FROM users ORDER BY id LIMIT 20) RETURNING id, schedule_from
            )
            UPDATE message_logs m SET scheduled_at = later.schedule_from, schedule_from = later.schedule_from
            FROM later WHERE m.user_id = later.id
            """
        )
        await connection.execute(
            """
            INSERT INTO message_logs (id, user_id, occasion_year, occasion_on, scheduled_at, ends_at, schedule_from,
                                      status, created_at, updated_at)
            SELECT gen_random_uuid(), id, 2020, '2020-01-01', at, at, at, 'cancelled', at, at
            FROM (SELECT id, now() - interval '89 days 12 hours' AS at FROM users LIMIT 5) old
            """
        )


async def rows(crowd: Crowd) -> list[tuple[object, ...]]:
    """Return what is stored of all messages."""
    async with crowd.connection() as connection:
        found = await connection.fetch(
            "SELECT id, status, scheduled_at, updated_at, attempts FROM message_logs ORDER BY id"
        )
    return [tuple(row) for row in found]


async def find_wrong(processes: Fleet, programs: list[Program]) -> None:
    """Wait until each process has said once that its clock is wrong, in every way there is to say it."""
    for program in programs:
        await program.wait_for_event("clock.wrong")
    await processes.wait_for_ready(503, 60)
    async with aiohttp.ClientSession() as client:
        for program in programs:
            async with client.get(f"{program.url}/health/detailed") as answer:
                health = await answer.json()
            assert health["status"] == "degraded"
            assert "that of the database" in health["checks"]["clock"]["reason"]

            async def counted(program: Program = program) -> bool:
                async with client.get(f"{program.url}/metrics") as page:
                    return "birthday_scheduler_clock_faults_total 1.0\n" in await page.text()

            await until(counted, "the fault is counted", 60)
            assert len([event for event in program.events if event["event"] == "clock.wrong"]) == 1

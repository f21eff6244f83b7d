"""PostgreSQL with two standbys: the primary is moved, killed, or vanishes without a word."""

from time import monotonic

import pytest

from tests.support.chaos import let_fault_last
from tests.support.ha.lab import MEASURED, Lab, Record

pytestmark = pytest.mark.long

PAUSE = 5
"""A switchover takes at most so long, and so does the way to a new primary after it is elected."""
SILENT = 30
FAULT_SECONDS = 20


@pytest.mark.parametrize("way", ["hosts", "haproxy", "pgbouncer"])
async def test_a_switchover_is_a_pause_of_seconds(lab: Lab, way: str, record_property: Record) -> None:
    """Patroni makes another server the primary: API and deliveries go on within 5 s."""
    async with lab.installed(way) as installation:
        since = monotonic()
        elected = await lab.postgres.switch_over()
        recovery = await installation.recover(since)
        record_property(MEASURED, f"a primary after {elected - since:.1f} s; {recovery}")
        # What is in between notices the new primary a moment later.
        limit = PAUSE if way == "hosts" else elected - since + PAUSE
        assert recovery.api_gap < limit
        assert recovery.delivery_gap < limit
        assert recovery.ready_by < elected - since + PAUSE


@pytest.mark.parametrize("way", ["hosts", "haproxy", "pgbouncer"])
async def test_a_primary_that_is_killed_costs_seconds_after_another_is_elected(
    lab: Lab, way: str, record_property: Record
) -> None:
    """PostgreSQL and Patroni of the primary die at once; the clients go on within 5 s after there is a new primary."""
    async with lab.installed(way) as installation:
        old = await lab.postgres.primary()
        assert old is not None
        since = monotonic()
        old.kill("patroni", "postgres")
        elected = await lab.postgres.wait_for_primary(old) - since
        recovery = await installation.recover(since)
        record_property(MEASURED, f"a primary after {elected:.1f} s; {recovery}")
        lab.postgres.start_again(old)
        assert recovery.not_ready
        assert recovery.api_gap < elected + PAUSE
        assert recovery.delivery_gap < elected + PAUSE
        assert recovery.ready_by < elected + PAUSE


@pytest.mark.parametrize("way", ["hosts", "haproxy"])
async def test_a_primary_that_vanishes_without_a_word_is_left(lab: Lab, way: str, record_property: Record) -> None:
    """All its packets are dropped: connections to it stay half open. Within 30 s after the election all goes on."""
    async with lab.installed(way) as installation:
        old = await lab.postgres.primary()
        assert old is not None
        since = monotonic()
        old.silence()
        elected = await lab.postgres.wait_for_primary(old) - since
        recovery = await installation.recover(since)
        record_property(MEASURED, f"a primary after {elected:.1f} s; {recovery}")
        old.heal()
        assert recovery.not_ready
        assert recovery.api_gap < elected + SILENT
        assert recovery.delivery_gap < elected + SILENT
        assert recovery.ready_by < elected + SILENT + PAUSE


async def test_commits_wait_for_a_standby_that_vanishes_until_another_one_takes_its_place(
    lab: Lab, record_property: Record
) -> None:
    """Patroni makes the other standby the synchronous one; what waited is committed, and nothing is sent again."""
    async with lab.installed() as installation:
        victim = await lab.postgres.synchronous_standby()
        since = monotonic()
        victim.silence()
        await let_fault_last(FAULT_SECONDS)
        recovery = await installation.recover(since)
        record_property(MEASURED, recovery)
        victim.heal()
        assert recovery.api_gap < SILENT
        assert recovery.delivery_gap < SILENT


async def test_packets_of_the_primary_that_are_lost_now_and_then_cost_time_only(
    lab: Lab, record_property: Record
) -> None:
    """One in ten packets is lost in each direction. Whatever Patroni makes of it, everybody is greeted once."""
    async with lab.installed() as installation:
        victim = await lab.postgres.primary()
        assert victim is not None
        since = monotonic()
        victim.lose(10)
        await let_fault_last(FAULT_SECONDS)
        victim.heal()
        recovery = await installation.recover(since)
        record_property(MEASURED, recovery)
        assert recovery.delivery_gap < SILENT


async def test_a_process_that_is_killed_is_missed_by_nobody(lab: Lab, record_property: Record) -> None:
    """There are two of each role, and one of each dies at the same moment."""
    async with lab.installed(copies=2) as installation:
        since = monotonic()
        for name in ("api1", "scheduler1", "worker1"):
            await installation.kill(name)
        await let_fault_last(FAULT_SECONDS)
        recovery = await installation.recover(since)
        record_property(MEASURED, recovery)
        assert recovery.api_gap < PAUSE
        assert recovery.delivery_gap < PAUSE

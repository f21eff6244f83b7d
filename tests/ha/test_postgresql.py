"""PostgreSQL with two standbys: the primary is moved, killed, or vanishes without a word."""

from time import monotonic

import pytest

from tests.support.ha.lab import MEASURED, Lab, Record

pytestmark = pytest.mark.long

PAUSE = 5
"""A switchover takes at most so long, and so does the way to a new primary after it is elected."""


@pytest.mark.parametrize("way", ["hosts", "haproxy"])
async def test_a_switchover_is_a_pause_of_seconds(lab: Lab, way: str, record_property: Record) -> None:
    """Patroni makes another server the primary: API and deliveries go on within 5 s."""
    async with lab.installed(way) as installation:
        since = monotonic()
        elected = await lab.postgres.switch_over()
        recovery = await installation.recover(since)
        record_property(MEASURED, f"a primary after {elected - since:.1f} s; {recovery}")
        assert recovery.api_gap < PAUSE
        assert recovery.delivery_gap < PAUSE
        assert recovery.ready_by < elected - since + PAUSE

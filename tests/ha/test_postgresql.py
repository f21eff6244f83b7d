"""PostgreSQL with two standbys: the primary is moved, killed, or vanishes without a word."""

from collections.abc import Callable
from time import monotonic

import pytest

from tests.support.ha.lab import MEASURED, Lab

READY_SECONDS = 5

Record = Callable[[str, object], None]


@pytest.mark.parametrize("way", ["hosts", pytest.param("haproxy", marks=pytest.mark.long)])
async def test_a_switchover_is_a_pause_of_seconds(
    lab: Lab, way: str, record_property: Callable[[str, object], None]
) -> None:
    """Patroni makes another server the primary: API and deliveries go on within 5 s, and nobody is missed."""
    await lab.restore()
    async with lab.installed(way) as installation:
        old = await lab.postgres.primary()
        assert old is not None
        since = monotonic()
        await lab.postgres.switch_over(old)
        elected = await lab.postgres.wait_for_primary(old)
        recovery = await installation.recover(since, 30)
        record_property(MEASURED, f"new primary after {elected - since:.1f} s; {recovery}")
        assert recovery.api_gap < 5
        assert recovery.delivery_gap < 5
        for _, last in recovery.not_ready.values():
            assert since + last < elected + READY_SECONDS

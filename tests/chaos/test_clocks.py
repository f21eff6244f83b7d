"""Hosts whose clocks disagree. The programs run under libfaketime, which shifts the clock of the wall for each."""

from pathlib import Path

import pytest

from tests.support.chaos import FULL, Crowd, Receiver, brokers, fleet
from tests.support.message_service import MessageService

LIBRARIES = "*/faketime/libfaketime.so.1"


def shifted(seconds: int) -> dict[str, str]:
    """Return the environment of a process whose clock is ahead by so much. Timers run as ever."""
    found = sorted(Path("/usr/lib").glob(LIBRARIES))
    if not found:
        pytest.fail("libfaketime was not found; `make test` installs it (Debian package libfaketime)")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": f"{seconds:+d}s", "DONT_FAKE_MONOTONIC": "1"}


@brokers("postgres", "rabbitmq")
async def test_hosts_whose_clocks_disagree_greet_everybody_once(
    crowd: Crowd, database_url: str, queue_url: str | None
) -> None:
    """Schedulers half an hour ahead and behind, workers some seconds: leases are the database's, so nobody is doubled.

    The scheduler that is ahead takes everything under way for lost, and publishes copies.
    """
    worker_shift, count = (20, 1000) if FULL else (6, 400)
    receiver = Receiver(fail=0.1)
    async with MessageService(receiver) as service, fleet(database_url, queue_url, service.url) as processes:
        await processes.start("scheduler", **shifted(1800))
        await processes.start("scheduler", **shifted(-1800))
        await processes.start("worker", **shifted(worker_shift))
        await processes.start("worker", **shifted(-worker_shift))
        await crowd.gather(count)
        await processes.start("scheduler", **shifted(1800))
        await crowd.wait_until_settled(110)
        audit = await crowd.audit(receiver)
    audit.verify()

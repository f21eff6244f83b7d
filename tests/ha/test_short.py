"""The experiment that every run of the tests has the time for. All others are for ``make ha``."""

from time import monotonic

from tests.support.chaos import let_fault_last
from tests.support.ha.lab import MEASURED, Lab, Record

SILENT_SECONDS = 15


async def test_a_silent_node_is_not_noticed_and_a_switchover_is_a_pause(lab: Lab, record_property: Record) -> None:
    """A node of RabbitMQ vanishes without a word, and comes back; then Patroni makes another server the primary.

    Neither stops API or deliveries for 5 s. Everybody is greeted once.
    """
    leader, other, victim = lab.rabbitmq.hosts
    async with lab.installed(queue_url=await lab.queue(leader, [leader, other])) as installation:
        since = monotonic()
        victim.silence()
        await let_fault_last(SILENT_SECONDS)
        silence = await installation.recover(since)
        record_property(MEASURED, f"silent node: {silence}")
        victim.heal()
        assert silence.delivery_gap < 5

        since = monotonic()
        elected = await lab.postgres.switch_over()
        switchover = await installation.recover(since)
        record_property(MEASURED, f"switchover, a primary after {elected - since:.1f} s: {switchover}")
        # A busy machine may take its time for the switchover itself.
        assert switchover.delivery_gap < elected - since + 5
        assert switchover.ready_by < elected - since + 5

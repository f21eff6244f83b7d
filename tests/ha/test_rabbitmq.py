"""RabbitMQ as a cluster of three: a node vanishes without a word, or is killed, while messages are due."""

from time import monotonic

import pytest

from tests.support.chaos import let_fault_last
from tests.support.ha.hosts import Host
from tests.support.ha.lab import MEASURED, Lab, Record

pytestmark = pytest.mark.long

LEFT_WITHIN = 15
FAULT_SECONDS = 20
TICKED_OUT = 75
"""After so many seconds of silence the other nodes have taken a node for dead."""

faults = pytest.mark.parametrize("fault", ["silent", "killed"])


def lose(lab: Lab, host: Host, fault: str) -> float:
    """Let a node vanish, and return when."""
    since = monotonic()
    if fault == "silent":
        host.silence()
    else:
        lab.rabbitmq.kill(host)
    return since


def bring_back(lab: Lab, host: Host, fault: str) -> None:
    """Let a node that was lost come back."""
    if fault == "silent":
        host.heal()
    else:
        lab.rabbitmq.start_node(host)


async def test_a_silent_node_that_serves_nobody_is_not_noticed(lab: Lab, record_property: Record) -> None:
    """It neither leads the queue nor has a connection of ours: deliveries go on, also when the cluster gives it up."""
    leader, other, victim = lab.rabbitmq.hosts
    url = await lab.queue(leader, [leader, other])
    async with lab.installed(queue_url=url) as installation:
        since = lose(lab, victim, "silent")
        await let_fault_last(TICKED_OUT)
        recovery = await installation.recover(since)
        record_property(MEASURED, recovery)
        # As an operator does with a node that the others have given up.
        lab.rabbitmq.kill(victim)
        bring_back(lab, victim, "silent")
        bring_back(lab, victim, "killed")
        assert recovery.delivery_gap < 5


@faults
async def test_the_node_that_a_worker_uses_is_left(lab: Lab, fault: str, record_property: Record) -> None:
    """The worker goes on at another node within 15 s. The queue's leader is on a third one."""
    leader, *others = lab.rabbitmq.hosts
    url = await lab.queue(leader, others)
    async with lab.installed(queue_url=url) as installation:
        [victim] = [host for host in others if host.address == installation.node_of("worker1")]
        since = lose(lab, victim, fault)
        await let_fault_last(FAULT_SECONDS)
        recovery = await installation.recover(since)
        record_property(MEASURED, recovery)
        bring_back(lab, victim, fault)
        assert recovery.delivery_gap < LEFT_WITHIN
        assert recovery.ready_by < LEFT_WITHIN


@faults
async def test_the_leader_of_the_queue_is_waited_for(lab: Lab, fault: str, record_property: Record) -> None:
    """The cluster elects another leader; meanwhile nothing is given back, so nothing is sent again."""
    leader, *others = lab.rabbitmq.hosts
    url = await lab.queue(leader, others)
    async with lab.installed(queue_url=url) as installation:
        since = lose(lab, leader, fault)
        await let_fault_last(FAULT_SECONDS)
        recovery = await installation.recover(since)
        record_property(MEASURED, recovery)
        bring_back(lab, leader, fault)
        assert recovery.delivery_gap < LEFT_WITHIN
    assert installation.flow.deliveries.repeats == 0

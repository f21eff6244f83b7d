"""How much a worker claims at a time, before it knows how fast its slots take messages, and after that."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from birthday.worker.flow import GATHER_SECONDS, Flow
from birthday.worker.limits import Limits

SLOTS = 2


def test_two_batches_are_claimed_at_once_while_the_pace_is_unknown() -> None:
    """Their messages wait for at most three rounds of sends, as leases allow, however slow the sends are."""
    flow = Flow(Limits(SLOTS, timedelta(seconds=10)))
    batch = flow.limits.batch
    assert flow.room.is_set()
    with flow.claim(batch):
        assert flow.room.is_set()
        with flow.claim(batch):
            assert not flow.room.is_set()


async def test_more_is_claimed_at_once_when_the_slots_were_fast() -> None:
    """This holds until nothing is in flight any more: the service may be slow after that."""
    flow = Flow(Limits(SLOTS, timedelta(seconds=10)))
    batch = flow.limits.batch
    job: Any = object()  # It is only handed on.
    flow.accept([job] * batch)
    with flow.claim(batch):
        for _ in range(batch):
            await flow.begin()
    with flow.claim(batch), flow.claim(batch):
        assert flow.room.is_set()
    flow.give_up(batch)
    assert flow.idle.is_set()
    with flow.claim(batch), flow.claim(batch):
        assert not flow.room.is_set()


async def test_sends_pause_at_the_limit_until_outcomes_are_stored() -> None:
    """What is stored makes room for sends, although the queue does not know of it yet; it is in flight until then."""
    flow = Flow(Limits(SLOTS, timedelta(seconds=10)))
    most = flow.limits.unstored
    job: Any = object()  # It is only handed on.
    for _ in range(2):
        flow.accept([job] * (most + 1))
        for _ in range(most):
            await flow.begin()
        pausing = asyncio.create_task(flow.begin())
        await asyncio.sleep(0)
        assert not pausing.done()
        # A slot that pauses has its message already.
        flow.store(2)
        async with asyncio.timeout(5):
            await pausing
        assert flow.in_flight == most + 1
        flow.tell(2)
        flow.store(most - 1)
        assert not flow.idle.is_set()
        flow.tell(most - 1)
        assert flow.idle.is_set()


async def test_a_short_batch_fills_up_while_others_are_stored() -> None:
    """A full one does not wait, and a lone message does not either."""
    flow = Flow(Limits(SLOTS, timedelta(seconds=10)))
    batch = flow.limits.batch
    one: Any = object()  # It is only handed on.
    for count in (1, batch):
        flow.accept([one] * count)
        for _ in range(count):
            flow.finish(one)
        with pytest.raises(StopIteration) as ended:
            flow.gather_outcomes().send(None)
        assert ended.value.value == [one] * count
    flow.finish(one)
    with flow.storing():
        gathering = asyncio.create_task(flow.gather_outcomes())
        assert await asyncio.wait({gathering}, timeout=2 * GATHER_SECONDS) == (set(), {gathering})
        for _ in range(batch - 1):
            flow.finish(one)
        assert len(await gathering) == batch

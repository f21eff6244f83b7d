"""Concurrent questions are answered in batches, and each by itself."""

import asyncio
from collections.abc import Sequence
from itertools import chain

import pytest

from birthday.errors import NotFoundError, UnavailableError
from birthday.http.coalescer import BATCH_LIMIT, MANY, PATIENCE_SECONDS, SLOTS, Coalescer
from birthday.store.connection import LOAN_SECONDS

SECONDS = 5


class Squares:
    """Answers with squares once it is let; notes every batch and the time that it was given."""

    def __init__(self) -> None:
        """Answer at once, until ``gate`` is cleared."""
        self.batches: list[list[int]] = []
        self.given_seconds: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def answer(
        self, numbers: Sequence[int], seconds: float, _lock_seconds: float | None
    ) -> Sequence[int | BaseException]:
        """Return the squares; a negative number has none, and with a ``failure`` nothing has."""
        self.batches.append(list(numbers))
        self.given_seconds.append(seconds)
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return [number**2 if number >= 0 else NotFoundError(str(number)) for number in numbers]


async def test_a_lone_question_is_asked_in_the_next_turn_of_the_loop() -> None:
    """Nothing waits for company: one turn after a question came, it is being answered, alone."""
    squares = Squares()
    asking = asyncio.create_task(Coalescer(squares.answer).ask(3))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert squares.batches == [[3]]
    assert await asking == 9


async def test_what_comes_meanwhile_is_in_the_next_batches() -> None:
    """While every slot is taken, questions collect; each gets its own answer, and all of them are asked once."""
    squares = Squares()
    squares.gate.clear()
    coalescer = Coalescer(squares.answer)
    first = [asyncio.create_task(coalescer.ask(number)) for number in range(SLOTS)]
    await asyncio.sleep(0)
    for _ in range(SLOTS):
        await asyncio.sleep(0)
    rest = [asyncio.create_task(coalescer.ask(number)) for number in range(10, 60)]
    await asyncio.sleep(0)
    under_way = len(squares.batches)
    squares.gate.set()
    assert await asyncio.gather(*first, *rest) == [number**2 for number in [*range(SLOTS), *range(10, 60)]]
    assert under_way <= SLOTS
    assert len(squares.batches) <= 2 * SLOTS
    assert sorted(chain(*squares.batches)) == [*range(SLOTS), *range(10, 60)]


async def test_many_do_not_wait_for_the_batch_under_way() -> None:
    """As many as make a good batch are asked at once beside it; one less waits."""
    # If the machine holds a run up for longer than a few wait, they are asked as well: that run tells nothing.
    while not await _many_overtake():
        pass


async def _many_overtake() -> bool:
    loop = asyncio.get_running_loop()
    began = loop.time()
    squares = Squares()
    squares.gate.clear()
    coalescer = Coalescer(squares.answer)
    asking = [asyncio.create_task(coalescer.ask(0))]
    while not squares.batches:
        await asyncio.sleep(0)
    asking += [asyncio.create_task(coalescer.ask(number)) for number in range(1, MANY)]
    for _ in range(3):
        await asyncio.sleep(0)
    few = list(squares.batches)
    asking.append(asyncio.create_task(coalescer.ask(MANY)))
    for _ in range(3):
        await asyncio.sleep(0)
    many = list(squares.batches)
    in_time = loop.time() - began < PATIENCE_SECONDS / 4
    squares.gate.set()
    assert await asyncio.gather(*asking) == [number**2 for number in range(MANY + 1)]
    if in_time:
        assert few == [[0]]
        assert many == [[0], list(range(1, MANY + 1))]
    return in_time


async def test_a_batch_that_takes_long_does_not_hold_up_a_few() -> None:
    """What waits for somebody else's lock is overtaken, though nobody else comes."""
    begun, stuck = asyncio.Event(), asyncio.Event()

    async def answer(numbers: Sequence[int], _seconds: float, _lock_seconds: float | None) -> Sequence[int]:
        if 1 in numbers:
            begun.set()
            await stuck.wait()
        return numbers

    coalescer = Coalescer(answer)
    async with asyncio.timeout(SECONDS):
        slow = asyncio.create_task(coalescer.ask(1))
        await begun.wait()
        assert await coalescer.ask(2) == 2
        assert await coalescer.ask(3) == 3
        assert not slow.done()
        stuck.set()
        assert await slow == 1


async def test_a_batch_is_bounded() -> None:
    """Very many questions are more than one batch."""
    squares = Squares()
    coalescer = Coalescer(squares.answer)
    assert len(await asyncio.gather(*(coalescer.ask(number) for number in range(3 * BATCH_LIMIT)))) == 3 * BATCH_LIMIT
    assert max(map(len, squares.batches)) <= BATCH_LIMIT


async def test_no_batch_has_more_than_half_of_the_questions() -> None:
    """Callers who ask again at once take turns: while one half is answered, the other half can be asked."""
    squares = Squares()
    coalescer = Coalescer(squares.answer)
    callers = 3 * MANY + 1
    for _ in range(3):
        squares.batches.clear()
        squares.gate.clear()
        asking = [asyncio.create_task(coalescer.ask(number)) for number in range(callers)]
        while not squares.batches:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [len(batch) for batch in squares.batches] == [callers // 2 + 1, callers // 2]
        squares.gate.set()
        assert await asyncio.gather(*asking) == [number**2 for number in range(callers)]


async def test_an_error_of_one_question_is_not_that_of_others() -> None:
    """What is an error for one of a batch is an answer for the rest."""
    coalescer = Coalescer(Squares().answer)
    answers = await asyncio.gather(*(coalescer.ask(number) for number in (2, -1, 4)), return_exceptions=True)
    assert [answers[0], answers[2]] == [4, 16]
    assert isinstance(answers[1], NotFoundError)


async def test_a_batch_that_fails_fails_for_all_of_it_and_the_next_one_is_asked() -> None:
    """Everybody of the batch is told the error, promptly; who comes later is asked for again."""
    squares = Squares()
    squares.failure = UnavailableError("database", "gone")
    coalescer = Coalescer(squares.answer)
    async with asyncio.timeout(SECONDS):
        answers = await asyncio.gather(*(coalescer.ask(number) for number in range(5)), return_exceptions=True)
        assert answers == [squares.failure] * 5
        squares.failure = None
        assert await coalescer.ask(5) == 25


async def test_when_one_spoils_a_batch_each_is_asked_alone() -> None:
    """Another error than that everything is away is that of one: it alone gets it, and nobody waits for its turn."""
    stuck = asyncio.Event()

    async def answer(numbers: Sequence[int], _seconds: float, _lock_seconds: float | None) -> Sequence[int]:
        if len(numbers) > 1:
            raise ValueError("one of many")
        if numbers == [3]:
            await stuck.wait()
        if numbers == [2]:
            raise ValueError("bad")
        return numbers

    coalescer = Coalescer(answer)
    asking = [asyncio.create_task(coalescer.ask(number)) for number in range(5)]
    async with asyncio.timeout(SECONDS):
        others = await asyncio.gather(*asking[:3], asking[4], return_exceptions=True)
        assert [others[0], others[1], others[3]] == [0, 1, 4]
        assert isinstance(others[2], ValueError)
        assert str(others[2]) == "bad"
        assert not asking[3].done()
        stuck.set()
        assert await asking[3] == 3


async def test_who_is_cancelled_leaves_the_others_alone() -> None:
    """A caller that goes away takes nobody along, and what it asked is not asked unless it was under way."""
    squares = Squares()
    squares.gate.clear()
    coalescer = Coalescer(squares.answer)
    under_way = [asyncio.create_task(coalescer.ask(number)) for number in (1, 2)]
    while not squares.batches:
        await asyncio.sleep(0)
    while len(squares.batches) < SLOTS:
        under_way.append(asyncio.create_task(coalescer.ask(3)))
        await asyncio.sleep(0)
    waiting = [asyncio.create_task(coalescer.ask(number)) for number in (10, 11)]
    await asyncio.sleep(0)
    for gone in (under_way[0], waiting[0]):
        gone.cancel()
    squares.gate.set()
    answers = await asyncio.gather(*under_way[1:], waiting[1])
    assert (answers[0], answers[-1]) == (4, 121)
    assert 10 not in chain(*squares.batches)
    for gone in (under_way[0], waiting[0]):
        with pytest.raises(asyncio.CancelledError):
            await gone


async def test_the_time_that_was_waited_is_not_given_again() -> None:
    """A batch gets what is left of the patience of whoever has waited longest."""
    squares = Squares()
    squares.gate.clear()
    coalescer = Coalescer(squares.answer)
    loop = asyncio.get_running_loop()
    asking = [asyncio.create_task(coalescer.ask(1))]
    while len(squares.batches) < SLOTS:
        asking.append(asyncio.create_task(coalescer.ask(1)))
        await asyncio.sleep(0)
    asking.append(asyncio.create_task(coalescer.ask(2)))
    await asyncio.sleep(0)
    asked_at = loop.time()
    while loop.time() < asked_at + 0.05:
        await asyncio.sleep(0.01)
    squares.gate.set()
    await asyncio.gather(*asking)
    assert squares.batches[-1][-1] == 2
    assert 0 < squares.given_seconds[-1] < LOAN_SECONDS - 0.04
    assert all(seconds <= LOAN_SECONDS for seconds in squares.given_seconds)

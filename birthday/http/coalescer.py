"""Concurrent calls answered together, with one statement for many requests, while none waits in order to be joined."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar

from birthday.errors import UnavailableError
from birthday.store.connection import LOAN_SECONDS

Question = TypeVar("Question")
Answer = TypeVar("Answer")

AnswerAll = Callable[[Sequence[Question], float, float | None], Awaitable[Sequence[Answer | BaseException]]]
"""Answers a batch within so many seconds: for each question its answer, or the error that concerns it alone.

The third argument is for how many seconds it may wait for a lock; None for one behind which nobody waits.
"""

SLOTS: Final = 2
"""How many batches are under way at most: one that waits for a lock does not hold up the rest."""
MANY: Final = 24
"""How many questions are worth a batch of their own while another one is under way: of few, each costs more."""
PATIENCE_SECONDS: Final = 0.02
"""How long fewer wait for that one. It takes a quarter of this, unless it waits for something itself."""
LOCK_SECONDS: Final = 0.5
"""How long many wait because of one that waits for a lock."""
BATCH_LIMIT: Final = 128
"""How many questions a batch has at most."""


class _Asked(NamedTuple, Generic[Question, Answer]):
    question: Question
    answer: asyncio.Future[Answer]
    give_up_at: float


class Coalescer(Generic[Question, Answer]):
    """Collects what is asked while batches are under way into the next batch.

    Who asks while none is under way is answered at once. When a batch fails because of what one of it asked, or
    whatever it may be, all of it are asked again, each alone, so that everybody gets an own answer; unless something
    cannot be used at all, which is true of everybody. A caller that is cancelled leaves the others alone, and what it
    asked is not asked any more unless it is under way. Nobody waits longer than ``LOAN_SECONDS``.
    """

    def __init__(self, answer_all: AnswerAll[Question, Answer]) -> None:
        """Take what answers a batch. An error that it raises must mean that nothing was done."""
        self._answer_all = answer_all
        self._waiting: deque[_Asked[Question, Answer]] = deque()
        self._slots: set[asyncio.Task[None]] = set()
        self._slow: set[asyncio.Task[None]] = set()
        self._alone: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question) -> Answer:
        """Return the answer, or raise the error that stands in its place."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append(_Asked(question, answer, loop.time() + LOAN_SECONDS))
        self._open_lane()
        return await answer

    def _open_lane(self) -> None:
        worth_it = not self._slots or self._slow or len(self._waiting) >= MANY
        if self._waiting and worth_it and len(self._slots) < SLOTS:
            slot = self._start([], self._slots)
            timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._suspect, slot)
            slot.add_done_callback(lambda _: timer.cancel())

    def _suspect(self, slot: asyncio.Task[None]) -> None:
        self._slow.add(slot)
        self._open_lane()

    def _start(self, batch: list[_Asked[Question, Answer]], tasks: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        # What a statement says in the log is not said by the request that happened to open the slot.
        task = asyncio.create_task(self._answer(batch), context=Context())
        tasks.add(task)
        task.add_done_callback(partial(self._finish, batch, tasks))
        return task

    async def _answer(self, batch: list[_Asked[Question, Answer]]) -> None:
        """Answer a batch; an empty one, which is that of a slot, is first filled with what waits by now."""
        lock_seconds = None if batch else LOCK_SECONDS
        while not batch and self._waiting:
            batch += self._take()
        if not batch:
            return
        seconds = batch[0].give_up_at - asyncio.get_running_loop().time()
        answers = await self._answer_all([asked.question for asked in batch], seconds, lock_seconds)
        for asked, answer in zip(batch, answers, strict=True):
            if asked.answer.done():
                continue
            if isinstance(answer, BaseException):
                asked.answer.set_exception(answer)
            else:
                asked.answer.set_result(answer)

    def _take(self) -> list[_Asked[Question, Answer]]:
        taken = [self._waiting.popleft() for _ in range(min(BATCH_LIMIT, len(self._waiting)))]
        return [asked for asked in taken if not asked.answer.done()]

    def _finish(
        self, batch: list[_Asked[Question, Answer]], tasks: set[asyncio.Task[None]], task: asyncio.Task[None]
    ) -> None:
        """Do what is left to do for those who have no answer, and let the next batch begin."""
        tasks.remove(task)
        self._slow.discard(task)
        error = None if task.cancelled() else task.exception()
        for asked in batch:
            if asked.answer.done():
                continue
            if error is None:
                asked.answer.cancel()
            elif tasks is self._alone or isinstance(error, UnavailableError):
                asked.answer.set_exception(error)
            else:
                self._start([asked], self._alone)
        self._open_lane()

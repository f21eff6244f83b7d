"""Answers concurrent calls in batches, with one statement for many requests. A lone call waits for no others."""

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
"""Answers a batch: for each question its answer, or the error that concerns this question alone.

The second argument is the time limit in seconds. The third is for how many seconds the batch may wait for a lock; it is
None for a question that is asked alone, because nobody else waits.
"""

SLOTS: Final = 2
"""How many batches run at a time, so that one that waits for a lock does not hold up the rest."""
MANY: Final = 24
"""How many waiting questions start a second batch while one runs: in a small batch, each question costs more."""
PATIENCE_SECONDS: Final = 0.02
"""A batch that takes longer counts as slow: the next one starts beside it. A usual batch takes a quarter of this."""
LOCK_SECONDS: Final = 0.5
"""How long a batch may wait for a lock, because its other questions wait too."""
BATCH_LIMIT: Final = 128
"""How many questions a batch has at most."""


class _Asked(NamedTuple, Generic[Question, Answer]):
    question: Question
    answer: asyncio.Future[Answer]
    give_up_at: float


class Coalescer(Generic[Question, Answer]):
    """Collects questions that come while batches run into the next batches.

    While no batch runs, a question is answered at once. If a batch fails, each of its questions is asked again alone,
    so that each caller gets its own answer. The exception is ``UnavailableError``, which all callers get. If a caller
    is cancelled, its question is dropped unless its batch already runs; the others are not affected. A batch must end
    within ``LOAN_SECONDS`` after its oldest question came.

    If many callers ask again as soon as they have an answer, one batch would soon have the questions of all. Then the
    database would have nothing to do while the callers work, and the callers nothing while it works. So a batch takes
    half of the questions without an answer, but no fewer than ``MANY``.
    """

    def __init__(self, answer_all: AnswerAll[Question, Answer]) -> None:
        """Take what answers a batch.

        It may raise anything but ``UnavailableError`` only if nothing was done, because the questions are asked again.
        """
        self._answer_all = answer_all
        self._waiting: deque[_Asked[Question, Answer]] = deque()
        self._unanswered = 0
        self._slots: set[asyncio.Task[None]] = set()
        self._slow: set[asyncio.Task[None]] = set()
        self._alone: set[asyncio.Task[None]] = set()

    async def ask(self, question: Question) -> Answer:
        """Return the answer, or raise the error of this question."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append(_Asked(question, answer, loop.time() + LOAN_SECONDS))
        self._unanswered += 1
        self._open_slot()
        try:
            return await answer
        finally:
            self._unanswered -= 1

    def _open_slot(self) -> None:
        worth_it = not self._slots or self._slow or len(self._waiting) >= MANY
        if self._waiting and worth_it and len(self._slots) < SLOTS:
            slot = self._start([], self._slots)
            timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._suspect, slot)
            slot.add_done_callback(lambda _: timer.cancel())

    def _suspect(self, slot: asyncio.Task[None]) -> None:
        self._slow.add(slot)
        self._open_slot()

    def _start(self, batch: list[_Asked[Question, Answer]], tasks: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        # A new context, so that log lines of the batch do not have the id of the request that started it.
        task = asyncio.create_task(self._answer(batch), context=Context())
        tasks.add(task)
        task.add_done_callback(partial(self._finish, batch, tasks))
        return task

    async def _answer(self, batch: list[_Asked[Question, Answer]]) -> None:
        """Answer a batch. The batch of a slot is empty at first, and takes the questions that wait by now."""
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
        half = (self._unanswered + 1) // 2
        most = min(BATCH_LIMIT, max(MANY, half))
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        return [asked for asked in taken if not asked.answer.done()]

    def _finish(
        self, batch: list[_Asked[Question, Answer]], tasks: set[asyncio.Task[None]], task: asyncio.Task[None]
    ) -> None:
        """Cancel, fail or ask again the questions without an answer, and let the next batch begin."""
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
        self._open_slot()

"""The debug mode of the event loop: a thread logs every call that blocks the loop.

Every millisecond the thread looks at what the loop's thread executes, and a timer of the loop sets a mark. If the same
callback runs for some milliseconds without a mark in between, it blocks the loop.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

import structlog

log = structlog.get_logger()

BLOCKING_SECONDS: Final = 0.005
_LOOK_SECONDS: Final = 0.001
_SWITCH_SECONDS: Final = 0.0005
"""How long the loop may hold the interpreter lock. With Python's default, the thread would look too late."""
_SHOWN_FRAMES: Final = 6
_LOOP_MODULES: Final = frozenset({"asyncio.runners", "asyncio.base_events", "asyncio.events", "uvloop"})
"""Modules of the event loop itself: their frames belong to no callback."""


@contextmanager
def named_blocking(loop: asyncio.AbstractEventLoop, seconds: float = BLOCKING_SECONDS) -> Iterator[None]:
    """Within the context, log every call that blocks this thread's loop for ``seconds``: ``event_loop.blocked``.

    It costs a few per cent of a CPU.
    """
    watch = _Watch(loop, threading.get_ident(), seconds)
    thread = threading.Thread(target=watch.run, name="event-loop-debug", daemon=True)
    switch_seconds = sys.getswitchinterval()
    sys.setswitchinterval(min(switch_seconds, _SWITCH_SECONDS))
    watch.mark()
    thread.start()
    try:
        yield
    finally:
        watch.stopping = True
        thread.join()
        sys.setswitchinterval(switch_seconds)


@dataclass(slots=True)
class _Turn:
    """One run of a callback, as observed: outermost frame, begin, latest observation, and stack at that time.

    Times are in seconds, of ``perf_counter`` and (``_cpu``) of the CPU time of the loop's thread.
    """

    root: FrameType
    since: float
    since_cpu: float
    until: float
    until_cpu: float
    stack: list[str]


class _Watch:
    """Sets a mark between callbacks in the loop's thread, and observes that thread from another one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, thread_id: int, seconds: float) -> None:
        self.stopping = False
        self._loop = loop
        self._thread_id = thread_id
        self._seconds = seconds
        self._cpu_clock = time.pthread_getcpuclockid(thread_id)
        self._mark = (0.0, 0.0)
        self._looked = (0.0, 0.0)
        self._turn: _Turn | None = None

    def mark(self) -> None:
        """Note, in the loop's thread, that no callback is running, and schedule the next mark."""
        self._mark = (time.perf_counter(), time.thread_time())
        if not self.stopping:
            self._loop.call_later(_LOOK_SECONDS, self.mark)

    def run(self) -> None:
        """Look at the loop's thread every millisecond until stopped."""
        while not self.stopping:
            # Not a lock or an event: waking from one executes so much code that the blocking call may be over by then.
            time.sleep(_LOOK_SECONDS)
            self._look(sys._current_frames().get(self._thread_id))  # noqa: SLF001 - there is no other way to see it

    def _look(self, frame: FrameType | None) -> None:
        """Note what the loop's thread executes. Between two marks, no callback runs twice."""
        now, cpu = time.perf_counter(), time.clock_gettime(self._cpu_clock)
        root, mark = _root(frame), self._mark
        turn = self._turn
        if turn is not None and (mark[0] > turn.since or turn.root is not root):
            self._report(turn)
            turn = None
        if frame is not None and root is not None:
            if turn is None:
                # If the loop's thread used CPU while this thread could not look, it was in one call that did not
                # release the interpreter lock.
                begun = max(self._looked, mark)
                since, since_cpu = begun if cpu - begun[1] >= self._seconds else (now, cpu)
                turn = _Turn(root, since, since_cpu, now, cpu, [])
            turn.until, turn.until_cpu, turn.stack = now, cpu, _stack(frame)
        self._turn, self._looked = turn, (now, cpu)

    def _report(self, turn: _Turn) -> None:
        seconds = turn.until - turn.since
        if seconds >= self._seconds:
            cpu_seconds = turn.until_cpu - turn.since_cpu
            log.warning(
                "event_loop.blocked", seconds=round(seconds, 4), cpu_seconds=round(cpu_seconds, 4), frames=turn.stack
            )


def _root(frame: FrameType | None) -> FrameType | None:
    """Return the outermost frame of the callback that is running; None between callbacks."""
    root = None
    while frame is not None and frame.f_globals.get("__name__") not in _LOOP_MODULES:
        root, frame = frame, frame.f_back
    return root


def _stack(frame: FrameType) -> list[str]:
    """Return the innermost frames of a callback, the innermost first."""
    stack: list[str] = []
    while frame.f_globals.get("__name__") not in _LOOP_MODULES and len(stack) < _SHOWN_FRAMES:
        stack.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}:{frame.f_lineno}")
        if frame.f_back is None:
            break
        frame = frame.f_back
    return stack

"""The debug mode of the event loop: a thread that names whatever holds the loop up.

Every millisecond it looks at what the loop's thread executes, and a timer of the loop leaves a mark. The same callback
for some milliseconds, without a mark in between, is a call that blocks.
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
"""How long the loop may keep the interpreter to itself; by default the thread would look too late."""
_SHOWN_FRAMES: Final = 6
_LOOP_MODULES: Final = frozenset({"asyncio.runners", "asyncio.base_events", "asyncio.events", "uvloop"})
"""What is executed there is the loop's own business."""


@contextmanager
def named_blocking(loop: asyncio.AbstractEventLoop, seconds: float = BLOCKING_SECONDS) -> Iterator[None]:
    """Log ``event_loop.blocked`` within the context, for every call in the loop of this thread that takes longer.

    It costs some per cent of the processor.
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
    """One turn of a callback that has been seen to go on: its outermost frame, since when, until when, doing what."""

    root: FrameType
    since: float
    since_cpu: float
    until: float
    until_cpu: float
    stack: list[str]


class _Watch:
    """Lets the loop's thread leave its mark between callbacks, and looks at it from a thread of its own."""

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
        """Note, in the loop's thread, that no callback is under way, and do so again soon."""
        self._mark = (time.perf_counter(), time.thread_time())
        if not self.stopping:
            self._loop.call_later(_LOOK_SECONDS, self.mark)

    def run(self) -> None:
        """Look until stopped."""
        while not self.stopping:
            # Not a lock or event: who waits for one executes so much on waking that what is looked for may be over.
            time.sleep(_LOOK_SECONDS)
            self._look(sys._current_frames().get(self._thread_id))  # noqa: SLF001 - there is no other way to see it

    def _look(self, frame: FrameType | None) -> None:
        """Note what the loop's thread is at. Between two marks, no callback has a second turn."""
        now, cpu = time.perf_counter(), time.clock_gettime(self._cpu_clock)
        root, mark = _root(frame), self._mark
        turn = self._turn
        if turn is not None and (mark[0] > turn.since or turn.root is not root):
            self._report(turn)
            turn = None
        if frame is not None and root is not None:
            if turn is None:
                # Who keeps this thread from looking, and computes meanwhile, is in one call that does not let go of
                # the interpreter.
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
    """Return the outermost frame of the callback that is executed; None between callbacks."""
    root = None
    while frame is not None and frame.f_globals.get("__name__") not in _LOOP_MODULES:
        root, frame = frame, frame.f_back
    return root


def _stack(frame: FrameType) -> list[str]:
    """Return the innermost frames of a callback, the last one first."""
    stack: list[str] = []
    while frame.f_globals.get("__name__") not in _LOOP_MODULES and len(stack) < _SHOWN_FRAMES:
        stack.append(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}:{frame.f_lineno}")
        if frame.f_back is None:
            break
        frame = frame.f_back
    return stack

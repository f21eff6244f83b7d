"""Checks whether the dependencies of a process can be used now. Frequent probes share results for a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog

from birthday.errors import BirthdayError

log = structlog.get_logger()

TIME_LIMIT_SECONDS = 2.0
MAX_AGE_SECONDS = 1.0
TOLD_SECONDS = 2.0
"""A check that fails for less is not logged: some do while a process starts."""

DATABASE = "database"
MIGRATIONS = "migrations"
QUEUE = "queue"
CONSUMER = "consumer"
SCHEDULER = "scheduler"
CHANNEL = "channel"
BACKGROUND = "background"
CLOCK = "clock"
SENDING = "sending"
EVENT_LOOP = "event_loop"
LOG = "log"

Check = Callable[[], Awaitable[None]]


class Health(StrEnum):
    """How well a process works.

    HEALTHY     all dependencies can be used
    DEGRADED    users are served; messages may have to wait
    UNHEALTHY   nothing can be served
    """

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. ``reason`` says why it failed; None if it succeeded."""

    reason: str | None
    latency_seconds: float

    @property
    def ok(self) -> bool:
        """Say whether the dependency can be used."""
        return self.reason is None


class Readiness:
    """Checks dependencies. Set ``draining`` when the process is about to end."""

    def __init__(
        self,
        needed: Mapping[str, Check],
        channel: Check | None = None,
        own: Mapping[str, Check] | None = None,
        unneeded: Mapping[str, Check] | None = None,
        can_wait: Mapping[str, Check] | None = None,
        patience: float = TOLD_SECONDS,
    ) -> None:
        """Take checks by name. The process is ready if all checks of ``needed`` and ``own`` succeed.

        The other checks are only shown: ``channel`` and ``can_wait``, because messages can wait, and ``unneeded``,
        because only other roles need them. Checks of ``own`` and ``can_wait`` look at the process itself, without I/O.

        A check that has been failing for ``patience`` seconds is logged.

        A check raises if the dependency cannot be used; the text of a ``BirthdayError`` is shown as the reason.
        """
        self.draining = False
        self._own = {**(own or {}), **(can_wait or {})}
        self._needed = frozenset(needed) | (own or {}).keys()
        checks = {**needed, **(unneeded or {})}
        if channel is not None:
            checks[CHANNEL] = channel
        self._checks = {name: _SharedCheck(check) for name, check in checks.items()}
        self._failing: dict[str, float] = {}
        self._told: set[str] = set()
        self._patience = patience

    async def check_all(self) -> dict[str, CheckResult]:
        """Check every dependency."""
        return await self._check([*self._checks, *self._own])

    async def check_within(self, seconds: float) -> dict[str, CheckResult]:
        """Check every dependency; of a check that takes longer than ``seconds``, return the last result, if any."""
        results = await asyncio.gather(*(check.result_within(seconds) for check in self._checks.values()))
        known = {name: result for name, result in zip(self._checks, results, strict=True) if result is not None}
        return known | await self._check(self._own)

    async def check_needed(self) -> dict[str, CheckResult]:
        """Check what the process needs to be ready."""
        return await self._check(self._needed)

    async def check_one(self, name: str) -> CheckResult | None:
        """Check one dependency; None if this process does not use it."""
        return (await self._check([name]))[name] if name in self._checks else None

    async def _check(self, names: Collection[str]) -> dict[str, CheckResult]:
        ordered = [name for name in self._checks if name in names]
        results = await asyncio.gather(*(self._checks[name].result() for name in ordered))
        # Last, and anew each time, because the checks above may just have shown that something is broken.
        own = {name: await _SharedCheck(check).result() for name, check in self._own.items() if name in names}
        found = dict(zip(ordered, results, strict=True)) | own
        if not self.draining:
            self._tell(found)
        return found

    def _tell(self, results: Mapping[str, CheckResult]) -> None:
        """Log each check that goes on failing, once, and its next success."""
        now = asyncio.get_running_loop().time()
        for name, result in results.items():
            if result.ok:
                self._failing.pop(name, None)
                if name in self._told:
                    self._told.remove(name)
                    log.info("check.passed_again", check=name)
            elif now - self._failing.setdefault(name, now) >= self._patience and name not in self._told:
                self._told.add(name)
                log.warning("check.failed", check=name, reason=result.reason)


def health_of(results: Mapping[str, CheckResult]) -> Health:
    """Return what the results of all checks mean for the process as a whole."""
    failed = {name for name, result in results.items() if not result.ok}
    if failed & {DATABASE, MIGRATIONS}:
        return Health.UNHEALTHY
    return Health.DEGRADED if failed else Health.HEALTHY


class _SharedCheck:
    """One check. Callers share its result while it runs and for a second afterwards."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._task: asyncio.Task[CheckResult] | None = None
        self._fresh_until = 0.0
        self._last: CheckResult | None = None

    async def result_within(self, seconds: float) -> CheckResult | None:
        """Return the result or, if that takes longer, the one before, None if there is none yet."""
        try:
            async with asyncio.timeout(seconds):
                return await self.result()
        except TimeoutError:
            return self._last

    async def result(self) -> CheckResult:
        now = asyncio.get_running_loop().time()
        if self._task is None or (self._task.done() and now > self._fresh_until):
            self._task = asyncio.create_task(self._run())
        # If one caller is cancelled, the others still need the result.
        return await asyncio.shield(self._task)

    async def _run(self) -> CheckResult:
        started = time.perf_counter()
        attempt = asyncio.ensure_future(self._check())
        await asyncio.wait({attempt}, timeout=TIME_LIMIT_SECONDS)
        self._last = result = CheckResult(_reason(attempt), time.perf_counter() - started)
        if not attempt.done():
            # Do not wait for the cancellation, because it may hang like the check itself.
            attempt.add_done_callback(_forget)
            attempt.cancel()
        self._fresh_until = asyncio.get_running_loop().time() + MAX_AGE_SECONDS
        return result


def _reason(attempt: asyncio.Future[None]) -> str | None:
    if not attempt.done():
        return f"no answer within {TIME_LIMIT_SECONDS:g} s"
    if attempt.cancelled():
        return "the check was cancelled"
    error = attempt.exception()
    # The text of a foreign exception may contain an address with a password.
    return str(error) if isinstance(error, BirthdayError) else type(error).__name__ if error else None


def _forget(attempt: asyncio.Future[None]) -> None:
    """Retrieve the exception of an abandoned check, so that asyncio does not report it as never retrieved."""
    if not attempt.cancelled():
        attempt.exception()

"""The circuit breaker: when the message service seems down, sending stops until one probe has come through.

The libraries there are (pybreaker, aiobreaker, purgatory) wrap a call and raise in its place. Here a call in place of
which something is raised would be an attempt burnt: consumption itself must stop, and outcomes are values.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from typing import NewType, assert_never

import structlog

from birthday.channels.protocol import Delivered, Outcome, Permanent, Temporary
from birthday.clock import Clock

Ticket = NewType("Ticket", int)
"""Leave to send once. It tells the outcome of a probe from that of a send that began before the circuit opened."""


class CircuitState(Enum):
    """The state of a circuit; the value is what the metric ``circuit_breaker_state`` shows.

    CLOSED      everything is sent; left after ``threshold`` failures in a row. After an outage, ``allowance`` says how
                many at a time: one more with each success, and as many failures in a row as it allows open it again
    HALF_OPEN   one probe at a time is sent; its success closes the circuit, its failure opens it, and so does an answer
                that asks for patience: to probe on at once would be none
    OPEN        nothing is sent; left after ``reset_timeout``
    """

    CLOSED = 0.0
    HALF_OPEN = 0.5
    OPEN = 1.0


FULL = 128
"""So many successes after an outage, the circuit allows any number of sends at a time again."""


class CircuitBreaker:
    """Counts failures in a row and decides whether to send. For one event loop.

    For each send: ``admit``, then ``record`` or, if there is no outcome, ``give_back``.
    """

    def __init__(
        self, threshold: int, reset_timeout: timedelta, clock: Clock, on_change: Callable[[CircuitState], None]
    ) -> None:
        """Start closed. ``on_change`` is called with every new state."""
        self.state = CircuitState.CLOSED
        self._threshold = threshold
        self._reset_timeout = reset_timeout
        self._clock = clock
        self._on_change = on_change
        self._log = structlog.get_logger()
        self._ticket = Ticket(0)
        self._allowance: int | None = None
        self._failures = 0
        self._probes = 0
        self._opened_at = clock.now()
        self._admitting = asyncio.Event()
        self._admitting.set()
        self._probe_is_back = asyncio.Event()

    @property
    def allowance(self) -> int | None:
        """How many sends at a time the service is thought to stand, None for any number.

        After an outage that is one, the probe, and one more with each success: a service that has just come back may
        not stand what all lanes of all workers have in store for it. Whoever claims messages keeps to it; nothing here
        counts.
        """
        return 1 if self.state is not CircuitState.CLOSED else self._allowance

    async def wait_admitting(self) -> None:
        """Return as soon as the next ``admit`` would give a ticket."""
        while not self._admitting.is_set():
            if self.state is CircuitState.OPEN:
                await self._clock.sleep(self._open_for().total_seconds())
                self._half_open_when_due()
            else:
                await self._probe_is_back.wait()

    def admit(self) -> Ticket | None:
        """Return a ticket for one send, or None: the letter must wait, and no attempt has been made.

        Half-open, there is one ticket at a time. Every ticket must come back, recorded or not.
        """
        if self.state is CircuitState.CLOSED:
            return self._ticket
        self._half_open_when_due()
        if not self._admitting.is_set():
            return None
        self._admitting.clear()
        self._probe_is_back.clear()
        self._probes += 1
        return self._next_ticket()

    def record(self, ticket: Ticket, outcome: Outcome) -> bool:
        """Learn from an outcome, and say whether it told anything.

        What was admitted before the last change of state tells nothing about now.
        """
        if ticket != self._ticket:
            return False
        match outcome:
            case Temporary(outage=True):
                self._failed(outcome)
            case Temporary():
                if self.state is CircuitState.HALF_OPEN:
                    self._open(outcome)
            case Delivered() | Permanent():
                self._answered()
            case _:
                assert_never(outcome)
        return True

    def give_back(self, ticket: Ticket) -> None:
        """Return a ticket whose send has no outcome, because it was cancelled. Does nothing if it was recorded."""
        if ticket == self._ticket and self.state is CircuitState.HALF_OPEN:
            self._next_ticket()
            self._admitting.set()
            self._probe_is_back.set()

    def _failed(self, outcome: Temporary) -> None:
        self._failures += 1
        if self.state is CircuitState.CLOSED:
            if self._failures < min(self._threshold, self._allowance or self._threshold):
                return
            self._probes = 0
        self._open(outcome)

    def _open(self, outcome: Temporary) -> None:
        self._opened_at = self._clock.now()
        self._admitting.clear()
        self._enter(CircuitState.OPEN)
        self._log.warning(
            "circuit.opened",
            failures=self._failures,
            probes=self._probes,
            error_type=outcome.error_type.value,
            reason=outcome.reason,
            reset_seconds=self._reset_timeout.total_seconds(),
        )

    def _answered(self) -> None:
        failures, self._failures = self._failures, 0
        if self._allowance is not None:
            self._allowance = self._allowance + 1 if self._allowance < FULL else None
        if self.state is CircuitState.HALF_OPEN:
            self._allowance = 2
            self._admitting.set()
            self._enter(CircuitState.CLOSED)
            self._log.info("circuit.closed", failures=failures, probes=self._probes)

    def _half_open_when_due(self) -> None:
        if self.state is CircuitState.OPEN and self._open_for() <= timedelta():
            self._admitting.set()
            self._enter(CircuitState.HALF_OPEN)
            self._log.info("circuit.half_open", failures=self._failures, probes=self._probes)

    def _open_for(self) -> timedelta:
        """Return how much longer the circuit stays open. A clock that was set back does not prolong it."""
        elapsed = self._clock.now() - self._opened_at
        return self._reset_timeout - elapsed if elapsed >= timedelta() else timedelta()

    def _enter(self, state: CircuitState) -> None:
        self.state = state
        self._probe_is_back.set()
        self._next_ticket()
        self._on_change(state)

    def _next_ticket(self) -> Ticket:
        self._ticket = Ticket(self._ticket + 1)
        return self._ticket

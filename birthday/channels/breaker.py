"""The circuit breaker: when the message service seems down, sending stops until a probe succeeds.

Libraries (pybreaker, aiobreaker, purgatory) wrap a call, and raise instead of calling while the circuit is open. Here,
each such error would use up an attempt. Instead, the worker must stop consuming. And outcomes are values here.
"""

import asyncio
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Final, NamedTuple, NewType, assert_never
from uuid import UUID

import structlog

from birthday.channels.outcomes import Delivered, Outcome, Permanent, Temporary, Unable
from birthday.clock import Clock

Ticket = NewType("Ticket", int)
"""Permission for one send. It tells the outcome of a probe from that of a send that began before the circuit opened."""


class CircuitState(Enum):
    """The state of a circuit; the value is what the metric ``circuit_breaker_state`` shows.

    CLOSED      everything is sent; left after ``threshold`` failures in a row. After an outage, ``allowance`` limits
                the sends at a time. It grows by one with each success; as many failures in a row open the circuit again
    HALF_OPEN   one probe at a time is sent. Its success closes the circuit, its failure opens it. An answer that asks
                to wait opens it too, because otherwise the next probe would follow at once. If an answer may be about
                one greeting alone, another greeting is probed next, up to ``PROBES`` times
    OPEN        nothing is sent; left after ``reset_timeout``
    """

    CLOSED = 0.0
    HALF_OPEN = 0.5
    OPEN = 1.0


class Cause(StrEnum):
    """Why a circuit is not closed; the value is the label of the metric ``circuit_breaker_open``.

    OUTAGE      no greeting gets an answer, or every greeting gets a failure
    REFUSED     the service, or a proxy, refuses every greeting: a wrong key or URL
    POISON      the service fails over some messages, and delivers others
    """

    OUTAGE = "outage"
    REFUSED = "refused"
    POISON = "poison"


FULL: Final = 128
"""When the allowance reaches this number after an outage, any number of sends at a time is allowed again."""
PROBES: Final = 200
"""How many messages are probed at most in a row, while each answer may be about its message alone."""
BLAMED: Final = 10
"""Factor of the threshold: if so many different messages at fault fail in a row, the service is blamed instead."""
BLAMED_BY_ANSWER: Final = 100
"""The same, for answers that may be about the message alone."""


class Sending(NamedTuple):
    """A message that is sent: when, when it last failed, and whether that was its own fault (``blamed``)."""

    message_id: UUID
    sent_at: datetime
    failed_at: datetime | None = None
    blamed: bool = False


class CircuitBreaker:
    """Counts failures in a row and decides whether to send. For one event loop.

    For each send, call ``admit``, and then ``record``, or ``give_back`` if there is no outcome.
    """

    def __init__(
        self,
        threshold: int,
        reset_timeout: timedelta,
        clock: Clock,
        on_change: Callable[[CircuitState], None],
        on_cause: Callable[[Cause | None], None] = lambda _cause: None,
    ) -> None:
        """Start closed. ``on_change`` is called with every new state, ``on_cause`` with every new cause."""
        self.state = CircuitState.CLOSED
        self.cause: Cause | None = None
        self.reason = ""
        """The reason of the failure that last opened the circuit."""
        self._threshold = threshold
        self._reset_timeout = reset_timeout
        self._clock = clock
        self._on_change = on_change
        self._on_cause = on_cause
        self._log = structlog.get_logger()
        self._ticket = Ticket(0)
        self._allowance: int | None = None
        self._failures = 0
        self._blamed: set[UUID] = set()
        self._refused: set[UUID] = set()
        self._only_letters = True
        self._refusal: int | None = None
        self._delivered_at: datetime | None = None
        self._probes = 0
        self._probed = 0
        self._opened_at = clock.now()
        self._admitting = asyncio.Event()
        self._admitting.set()
        self._probe_is_back = asyncio.Event()

    @property
    def allowance(self) -> int | None:
        """How many sends at a time the service can probably cope with; None means any number.

        While the circuit is not closed, it is one, the probe. Then it is two, and grows by one with each success,
        because a service that has just come back may not cope with all slots of all workers. The worker that claims
        messages must respect it; the breaker does not count the sends under way.
        """
        return 1 if self.state is not CircuitState.CLOSED else self._allowance

    @property
    def cause_text(self) -> str:
        """The cause as logs and health show it, such as ``refused: 401``; empty while the circuit is closed."""
        if self.cause is Cause.REFUSED and self._refusal is not None:
            return f"{self.cause}: {self._refusal}"
        return self.cause.value if self.cause else ""

    async def wait_admitting(self) -> None:
        """Return as soon as the next ``admit`` would give a ticket."""
        while not self._admitting.is_set():
            if self.state is CircuitState.OPEN:
                await self._clock.sleep(self._open_for().total_seconds())
                self._half_open_when_due()
            else:
                await self._probe_is_back.wait()

    def admit(self) -> Ticket | None:
        """Return a ticket for one send, or None if the greeting must wait. No attempt has been made then.

        While half-open, only one ticket is out at a time. Every ticket must come back, by ``record`` or ``give_back``.
        """
        if self.state is CircuitState.CLOSED:
            return self._ticket
        self._half_open_when_due()
        if not self._admitting.is_set():
            return None
        self._admitting.clear()
        self._probe_is_back.clear()
        self._probes += 1
        self._probed += 1
        return self._next_ticket()

    def worked_since(self, instant: datetime) -> bool:
        """Say whether a message was delivered whose send began after ``instant``."""
        return self._delivered_at is not None and self._delivered_at > instant

    def is_own(self, sending: Sending, outcome: Outcome) -> bool:
        """Say whether a failure is its message's own fault: others have been delivered since it last failed.

        A message that was at fault once stays so while the circuit is closed, or open for ``POISON``, because there may
        be no other message left to deliver. For the same reason, a probe of a circuit that is open for ``POISON`` is at
        fault if it has failed before and the answer may be about it alone. Otherwise it would be probed for ever. A
        greeting that has not left this host is never at fault.
        """
        if isinstance(outcome, Temporary) and not outcome.handed_over:
            return False
        if sending.failed_at is not None and self.worked_since(sending.failed_at):
            return True
        if self.state is CircuitState.HALF_OPEN and self.cause is Cause.POISON and sending.failed_at is not None:
            return sending.blamed or _is_about_the_letter(outcome)
        return sending.blamed and (self.state is CircuitState.CLOSED or self.cause is Cause.POISON)

    def refuses_only(self, message_id: UUID) -> bool:
        """Say whether messages have been delivered here, and since the last one at most this one was refused."""
        return self._delivered_at is not None and self._refused <= {message_id}

    def record(self, ticket: Ticket, outcome: Outcome, sending: Sending | None = None) -> bool:
        """Learn from an outcome, and say whether it was used.

        The outcome of a send that was admitted before the last change of state says nothing about the present.
        """
        if isinstance(outcome, Delivered) and sending is not None:
            self._delivered_at = max(self._delivered_at or sending.sent_at, sending.sent_at)
            self._refused.clear()
        if ticket != self._ticket:
            if isinstance(outcome, Delivered):
                self._suspect_letters()
            return False
        match outcome:
            case Unable():
                self.give_back(ticket)
            case Temporary(outage=False):
                if self.state is CircuitState.HALF_OPEN:
                    self._open(outcome, self.cause or Cause.OUTAGE)
            case Temporary() | Permanent(refused=True):
                self._failed(outcome, sending)
            case Delivered() | Permanent():
                self._answered()
            case _:
                assert_never(outcome)
        return True

    def give_back(self, ticket: Ticket) -> None:
        """Return a ticket whose send has no outcome, because it was cancelled. Does nothing if it was recorded."""
        if ticket == self._ticket and self.state is CircuitState.HALF_OPEN:
            self._probe_on()

    def _failed(self, outcome: Temporary | Permanent, sending: Sending | None) -> None:
        if isinstance(outcome, Permanent) and sending is not None and len(self._refused) < 2:
            # Two are enough to know that it was not one alone.
            self._refused.add(sending.message_id)
        if self.state is CircuitState.CLOSED:
            if sending is None or not self.is_own(sending, outcome):
                self._failures += 1
                self._only_letters &= outcome.answers_for_the_letter
            else:
                # A failure that is the message's own fault says nothing about the service, unless too many messages
                # fail so.
                self._blamed.add(sending.message_id)
            weight = BLAMED_BY_ANSWER if outcome.answers_for_the_letter else BLAMED
            limit = self._allowance if self._allowance and not self._only_letters else self._threshold
            if self._failures >= min(limit, self._threshold) or len(self._blamed) >= weight * self._threshold:
                self._probes = 0
                poisoned = self._only_letters and (self._allowance is not None or bool(self._blamed))
                self._open(outcome, Cause.POISON if poisoned else Cause.OUTAGE)
            return
        self._failures += 1
        self._only_letters &= outcome.answers_for_the_letter
        is_fresh = sending is not None and sending.failed_at is None
        if is_fresh and outcome.answers_for_the_letter and self._probed < PROBES:
            self._probe_on()
        else:
            self._open(outcome, (not is_fresh and self.cause) or Cause.OUTAGE)

    def _open(self, outcome: Temporary | Permanent, cause: Cause) -> None:
        self._opened_at = self._clock.now()
        self._admitting.clear()
        self._enter(CircuitState.OPEN)
        self._refusal = outcome.status
        self.reason = outcome.reason
        self._set_cause(Cause.REFUSED if outcome.refused else cause)
        self._log.warning(
            "circuit.opened",
            failures=self._failures,
            probes=self._probes,
            cause=self.cause_text,
            error_type=outcome.error_type.value,
            reason=outcome.reason,
            reset_seconds=self._reset_timeout.total_seconds(),
        )

    def _answered(self) -> None:
        failures, self._failures = self._failures, 0
        self._blamed.clear()
        if self._allowance is not None:
            self._allowance = self._allowance + 1 if self._allowance < FULL else None
        if self.state is CircuitState.HALF_OPEN:
            if self._probed > 1:
                self._suspect_letters()
            self._allowance = 2
            self._admitting.set()
            self._enter(CircuitState.CLOSED)
            self._log.info("circuit.closed", failures=failures, probes=self._probes, cause=self.cause_text)
            self._set_cause(None)
        self._only_letters = True

    def _suspect_letters(self) -> None:
        """Name ``POISON`` as the cause if others are delivered, and the failures may be about their messages."""
        if self.cause is Cause.OUTAGE and self._only_letters:
            self._set_cause(Cause.POISON)
            self._log.info("circuit.poisoned", failures=self._failures, cause=self.cause_text, reason=self.reason)

    def _half_open_when_due(self) -> None:
        if self.state is CircuitState.OPEN and self._open_for() <= timedelta():
            self._probed = 0
            self._admitting.set()
            self._enter(CircuitState.HALF_OPEN)
            self._log.info("circuit.half_open", failures=self._failures, probes=self._probes, cause=self.cause_text)

    def _open_for(self) -> timedelta:
        """Return how much longer the circuit stays open. Setting the clock back does not prolong it."""
        elapsed = self._clock.now() - self._opened_at
        return self._reset_timeout - elapsed if elapsed >= timedelta() else timedelta()

    def _enter(self, state: CircuitState) -> None:
        self.state = state
        self._probe_is_back.set()
        self._next_ticket()
        self._on_change(state)

    def _set_cause(self, cause: Cause | None) -> None:
        self.cause = cause
        self._on_cause(cause)

    def _probe_on(self) -> None:
        self._next_ticket()
        self._admitting.set()
        self._probe_is_back.set()

    def _next_ticket(self) -> Ticket:
        self._ticket = Ticket(self._ticket + 1)
        return self._ticket


def never_open(clock: Clock) -> CircuitBreaker:
    """Return a circuit that nothing opens, for a channel that needs none."""
    return CircuitBreaker(sys.maxsize, timedelta(), clock, lambda _state: None)


def _is_about_the_letter(outcome: Outcome) -> bool:
    return isinstance(outcome, (Temporary, Permanent)) and outcome.answers_for_the_letter

"""The circuit breaker, with a clock that is moved by hand."""

import asyncio
import weakref
from datetime import timedelta
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from birthday.channels import Delivered, Outcome, Permanent, Temporary, Unable
from birthday.channels.breaker import FULL, PROBES, Cause, CircuitBreaker, CircuitState, Sending, Ticket
from birthday.core.message import ErrorType
from tests.support.clock import ManualClock

RESET = timedelta(seconds=30)
DOWN = Temporary(ErrorType.TIMEOUT, "no answer")
PATIENCE = Temporary(ErrorType.EXTERNAL_API_ERROR, "answered 429", outage=False)
REFUSED = Permanent(ErrorType.VALIDATION_ERROR, "answered 422")
WRONG_KEY = Permanent(ErrorType.PERMANENT_FAILURE, "answered 401", 401, refused=True)
GONE = Permanent(ErrorType.PERMANENT_FAILURE, "answered 410", 410, refused=True)
CRASHED = Temporary(ErrorType.EXTERNAL_API_ERROR, "answered 500", status=500)
UNREACHABLE = Temporary(ErrorType.EXTERNAL_API_ERROR, "cannot connect", handed_over=False)
TUNNEL_REFUSED = Temporary(ErrorType.EXTERNAL_API_ERROR, "407", status=407, refused=True, handed_over=False)


class Circuit:
    """A breaker that opens after three failures, its clock, and the states that it has told of."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.changes: list[CircuitState] = []
        self.causes: list[Cause | None] = []
        self.breaker = CircuitBreaker(3, RESET, self.clock, self.changes.append, self.causes.append)

    def send(self, *outcomes: Outcome) -> None:
        """Send once for each outcome, one after the other."""
        for outcome in outcomes:
            self.breaker.record(self.admit(), outcome)

    def send_fresh(self, *outcomes: Outcome) -> None:
        """Send a message that has not failed yet for each outcome, a second apart."""
        for outcome in outcomes:
            self.breaker.record(self.admit(), outcome, Sending(uuid4(), self.clock.now()))
            self.clock.advance(timedelta(seconds=1))

    def allowance(self) -> int | None:
        """Return how many sends at a time are allowed now."""
        return self.breaker.allowance

    def state(self) -> CircuitState:
        """Return the state as it is now."""
        return self.breaker.state

    def admit(self) -> Ticket:
        """Return a ticket that must be there."""
        ticket = self.breaker.admit()
        assert ticket is not None
        return ticket

    def half_open(self) -> None:
        """Let it open, and the reset timeout pass."""
        self.send(DOWN, DOWN, DOWN)
        self.clock.advance(RESET)


@pytest.fixture
def circuit() -> Circuit:
    """A closed circuit."""
    return Circuit()


async def still_waiting(*tasks: asyncio.Task[None]) -> bool:
    """Say whether every task, having had its turn, waits."""
    done, _ = await asyncio.wait(tasks, timeout=0)
    return not done


def test_values() -> None:
    """The states have the values of the metric."""
    assert {state.name: state.value for state in CircuitState} == {"CLOSED": 0, "HALF_OPEN": 0.5, "OPEN": 1}


class TestClosed:
    """Everything is sent."""

    async def test_admits_at_once(self, circuit: Circuit) -> None:
        """Any number of sends is admitted, and nobody waits."""
        async with asyncio.timeout(1):
            await circuit.breaker.wait_admitting()

        assert all(circuit.breaker.admit() is not None for _ in range(1000))
        assert circuit.changes == []

    def test_opens_at_threshold(self, circuit: Circuit) -> None:
        """As many failures in a row as the threshold open the circuit, and one fewer does not."""
        circuit.send(DOWN, DOWN)
        assert circuit.state() is CircuitState.CLOSED

        circuit.send(DOWN)

        assert circuit.state() is CircuitState.OPEN
        assert circuit.breaker.admit() is None
        assert circuit.changes == [CircuitState.OPEN]

    @pytest.mark.parametrize("answer", [Delivered(), REFUSED])
    def test_answer_resets(self, circuit: Circuit, answer: Outcome) -> None:
        """A service that answers, if only to refuse, is up: counting starts again."""
        circuit.send(DOWN, DOWN, answer, DOWN, DOWN)
        assert circuit.state() is CircuitState.CLOSED

        circuit.send(DOWN)

        assert circuit.state() is CircuitState.OPEN

    def test_patience_is_neutral(self, circuit: Circuit) -> None:
        """A service that asks for patience is neither a failure nor the end of a row of failures."""
        circuit.send(*[PATIENCE] * 10)
        assert circuit.state() is CircuitState.CLOSED

        circuit.send(DOWN, DOWN, PATIENCE, DOWN)

        assert circuit.state() is CircuitState.OPEN

    def test_given_back(self, circuit: Circuit) -> None:
        """A send without an outcome changes nothing, neither the count nor what others are worth that are under way."""
        tickets = [circuit.admit() for _ in range(4)]
        circuit.breaker.record(tickets[0], DOWN)
        circuit.breaker.record(tickets[1], DOWN)

        circuit.breaker.give_back(tickets[2])

        assert circuit.state() is CircuitState.CLOSED
        circuit.breaker.record(tickets[3], DOWN)
        assert circuit.state() is CircuitState.OPEN

    def test_concurrent_failures(self, circuit: Circuit) -> None:
        """Sends that were under way together count together, and those that fail after it opened do not prolong it."""
        tickets = [circuit.admit() for _ in range(10)]
        for ticket in tickets[:3]:
            circuit.breaker.record(ticket, DOWN)
        circuit.clock.advance(RESET - timedelta(seconds=1))

        for ticket in tickets[3:]:
            circuit.breaker.record(ticket, DOWN)
        circuit.clock.advance(timedelta(seconds=1))

        assert circuit.changes == [CircuitState.OPEN]
        assert circuit.breaker.admit() is not None


class TestOpen:
    """Nothing is sent."""

    def test_until_reset_timeout(self, circuit: Circuit) -> None:
        """Nothing is admitted before the reset timeout is over, to the microsecond."""
        circuit.send(DOWN, DOWN, DOWN)
        circuit.clock.advance(RESET - timedelta(microseconds=1))
        assert circuit.breaker.admit() is None

        circuit.clock.advance(timedelta(microseconds=1))

        assert circuit.breaker.admit() is not None
        assert circuit.changes == [CircuitState.OPEN, CircuitState.HALF_OPEN]

    @pytest.mark.parametrize("outcome", [Delivered(), REFUSED, DOWN, PATIENCE])
    def test_late_outcome(self, circuit: Circuit, outcome: Outcome) -> None:
        """The outcome of a send that began before it opened does not move it."""
        late = circuit.admit()
        circuit.send(DOWN, DOWN, DOWN)

        circuit.breaker.record(late, outcome)
        circuit.breaker.give_back(late)

        assert circuit.state() is CircuitState.OPEN
        assert circuit.breaker.admit() is None

    def test_clock_set_back(self, circuit: Circuit) -> None:
        """A clock that is set back does not keep it open."""
        circuit.send(DOWN, DOWN, DOWN)

        circuit.clock.advance(-timedelta(days=1))

        assert circuit.breaker.admit() is not None

    async def test_consumption_waits(self, circuit: Circuit) -> None:
        """Everybody who waits goes on when the reset timeout is over, and not before."""
        circuit.send(DOWN, DOWN, DOWN)
        waiting = [asyncio.create_task(circuit.breaker.wait_admitting()) for _ in range(2)]
        await circuit.clock.wait_for_sleepers(2)
        circuit.clock.advance(RESET - timedelta(seconds=1))
        assert await still_waiting(*waiting)

        circuit.clock.advance(timedelta(seconds=1))

        async with asyncio.timeout(5):
            await asyncio.gather(*waiting)
        assert circuit.changes == [CircuitState.OPEN, CircuitState.HALF_OPEN]

    async def test_waits_the_rest(self, circuit: Circuit) -> None:
        """Who begins to wait later waits for what is left, not for the whole timeout."""
        circuit.send(DOWN, DOWN, DOWN)
        circuit.clock.advance(RESET - timedelta(seconds=1))
        waiting = asyncio.create_task(circuit.breaker.wait_admitting())
        await circuit.clock.wait_for_sleepers()

        circuit.clock.advance(timedelta(seconds=1))

        async with asyncio.timeout(5):
            await waiting


class TestRecovery:
    """After an outage: a few sends at a time, then more."""

    def test_allowance(self, circuit: Circuit) -> None:
        """Any number before it, one while it lasts, then one more with each answer, and at last any number again."""
        assert circuit.allowance() is None
        circuit.send(DOWN, DOWN, DOWN)
        assert circuit.allowance() == 1
        circuit.clock.advance(RESET)

        circuit.send(Delivered())
        assert circuit.allowance() == 2
        circuit.send(Delivered(), REFUSED, PATIENCE)
        assert circuit.allowance() == 4

        circuit.send(*[Delivered()] * FULL)
        assert circuit.allowance() is None

    def test_relapse(self, circuit: Circuit) -> None:
        """As many failures in a row as are allowed at a time open it again: a weak service is not counted the rest."""
        circuit.half_open()

        circuit.send(Delivered(), DOWN, DOWN)

        assert circuit.state() is CircuitState.OPEN
        assert circuit.allowance() == 1

    def test_single_failures(self, circuit: Circuit) -> None:
        """A service that fails now and then, as it always has, recovers all the same."""
        circuit.half_open()

        now_and_then: list[Outcome] = [Delivered(), DOWN]
        circuit.send(*now_and_then * FULL)

        assert circuit.state() is CircuitState.CLOSED
        assert circuit.allowance() is None

    def test_threshold(self, circuit: Circuit) -> None:
        """More failures in a row than the threshold are never needed."""
        circuit.half_open()

        circuit.send(*[Delivered()] * 10, DOWN, DOWN)
        assert circuit.state() is CircuitState.CLOSED
        circuit.send(DOWN)

        assert circuit.state() is CircuitState.OPEN

    def test_stale(self, circuit: Circuit) -> None:
        """What was admitted before the circuit opened tells nothing, and whoever records it learns that."""
        before = circuit.admit()
        circuit.send(DOWN, DOWN, DOWN)

        assert not circuit.breaker.record(before, DOWN)
        circuit.clock.advance(RESET)
        assert circuit.breaker.record(circuit.admit(), Delivered())


class TestHalfOpen:
    """One probe at a time."""

    def test_one_probe(self, circuit: Circuit) -> None:
        """While a probe is under way nothing else is admitted, however long it takes."""
        circuit.half_open()
        circuit.admit()

        circuit.clock.advance(10 * RESET)

        assert circuit.breaker.admit() is None
        assert circuit.state() is CircuitState.HALF_OPEN

    @pytest.mark.parametrize("answer", [Delivered(), REFUSED])
    def test_answer_closes(self, circuit: Circuit, answer: Outcome) -> None:
        """One answer closes it, and failures are counted from zero."""
        circuit.half_open()

        circuit.send(answer, DOWN)

        assert circuit.state() is CircuitState.CLOSED
        assert circuit.changes == [CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED]

    def test_failure_opens(self, circuit: Circuit) -> None:
        """One failure opens it for a whole reset timeout more."""
        circuit.half_open()

        circuit.send(DOWN)
        circuit.clock.advance(RESET - timedelta(seconds=1))

        assert circuit.breaker.admit() is None
        circuit.clock.advance(timedelta(seconds=1))
        assert circuit.breaker.admit() is not None
        assert circuit.changes == [CircuitState.OPEN, CircuitState.HALF_OPEN] * 2

    def test_patience_opens(self, circuit: Circuit) -> None:
        """After a probe that is asked for patience nothing is sent for a whole reset timeout; it is no failure."""
        circuit.half_open()

        circuit.send(PATIENCE)
        circuit.clock.advance(RESET - timedelta(seconds=1))

        assert circuit.state() is CircuitState.OPEN
        assert circuit.breaker.admit() is None
        circuit.clock.advance(timedelta(seconds=1))
        circuit.send(Delivered())
        assert circuit.changes == [*[CircuitState.OPEN, CircuitState.HALF_OPEN] * 2, CircuitState.CLOSED]

    def test_given_back(self, circuit: Circuit) -> None:
        """A probe that was cancelled makes room for another, and its outcome does not count any more."""
        circuit.half_open()
        cancelled = circuit.admit()
        circuit.breaker.give_back(cancelled)
        circuit.breaker.record(cancelled, Delivered())
        assert circuit.state() is CircuitState.HALF_OPEN
        probe = circuit.admit()

        circuit.breaker.record(cancelled, Delivered())
        circuit.breaker.give_back(cancelled)

        assert circuit.state() is CircuitState.HALF_OPEN
        assert circuit.breaker.admit() is None
        circuit.breaker.record(probe, Delivered())
        assert circuit.state() is CircuitState.CLOSED

    @pytest.mark.parametrize("outcome", [Delivered(), DOWN, PATIENCE])
    def test_give_back_after_record(self, circuit: Circuit, outcome: Outcome) -> None:
        """To give back what has been recorded does nothing, so that it can stand in a finally clause."""
        circuit.half_open()
        ticket = circuit.admit()
        circuit.breaker.record(ticket, outcome)
        circuit.clock.advance(RESET)
        next_ticket = circuit.breaker.admit()
        state = circuit.state()

        circuit.breaker.give_back(ticket)

        assert next_ticket is not None
        assert circuit.state() is state
        assert (circuit.breaker.admit() is None) is (state is CircuitState.HALF_OPEN)

    @pytest.mark.parametrize("outcome", [Delivered(), REFUSED, DOWN, PATIENCE])
    def test_late_outcome(self, circuit: Circuit, outcome: Outcome) -> None:
        """The outcome of a send that began before it opened is not taken for that of the probe."""
        late = circuit.admit()
        circuit.half_open()
        probe = circuit.admit()

        circuit.breaker.record(late, outcome)

        assert circuit.state() is CircuitState.HALF_OPEN
        assert circuit.breaker.admit() is None
        circuit.breaker.record(probe, Delivered())
        assert circuit.state() is CircuitState.CLOSED

    @pytest.mark.parametrize("outcome", [Delivered(), REFUSED, None])
    async def test_consumption_waits_for_probe(self, circuit: Circuit, outcome: Outcome | None) -> None:
        """Consumption waits while the probe is under way, and goes on once it has an outcome or is given back."""
        circuit.half_open()
        probe = circuit.admit()
        waiting = asyncio.create_task(circuit.breaker.wait_admitting())
        assert await still_waiting(waiting)

        if outcome:
            circuit.breaker.record(probe, outcome)
        else:
            circuit.breaker.give_back(probe)

        async with asyncio.timeout(5):
            await waiting
        assert circuit.breaker.admit() is not None

    @pytest.mark.parametrize("outcome", [DOWN, PATIENCE])
    async def test_consumption_waits_out_failed_probe(self, circuit: Circuit, outcome: Outcome) -> None:
        """After a probe that failed or was asked for patience consumption waits for another reset timeout."""
        circuit.half_open()
        probe = circuit.admit()
        waiting = asyncio.create_task(circuit.breaker.wait_admitting())
        assert await still_waiting(waiting)
        circuit.breaker.record(probe, outcome)
        await circuit.clock.wait_for_sleepers()
        assert await still_waiting(waiting)

        circuit.clock.advance(RESET)

        async with asyncio.timeout(5):
            await waiting
        assert circuit.state() is CircuitState.HALF_OPEN


class TestCause:
    """Why the circuit is open: an outage, a refusal of everybody, or messages that are poison."""

    @pytest.mark.parametrize(
        ("failure", "cause", "text"),
        [
            (DOWN, Cause.OUTAGE, "outage"),
            (CRASHED, Cause.OUTAGE, "outage"),
            (WRONG_KEY, Cause.REFUSED, "refused: 401"),
            (TUNNEL_REFUSED, Cause.REFUSED, "refused: 407"),
        ],
        ids=str,
    )
    def test_of_a_row(self, circuit: Circuit, failure: Outcome, cause: Cause, text: str) -> None:
        """A row of failures has the cause of the last one, until the circuit is closed."""
        circuit.send_fresh(failure, failure, failure)
        assert circuit.state() is CircuitState.OPEN
        assert circuit.breaker.cause_text == text
        circuit.clock.advance(RESET)

        circuit.send_fresh(Delivered())

        assert circuit.breaker.cause_text == ""
        assert circuit.causes == [cause, None]

    def test_refusal_between_successes(self, circuit: Circuit) -> None:
        """Refusals that others are accepted between do not open it."""
        outcomes: list[Outcome] = [Delivered(), WRONG_KEY, WRONG_KEY]

        circuit.send_fresh(*outcomes * 5)

        assert circuit.state() is CircuitState.CLOSED

    def test_others_were_under_way(self, circuit: Circuit) -> None:
        """Others that are accepted after it has opened tell that it was the messages; silence tells nothing."""
        failures: list[tuple[Outcome, Cause]] = [(CRASHED, Cause.POISON), (DOWN, Cause.OUTAGE)]
        for failure, cause in failures:
            late = circuit.admit()
            circuit.send_fresh(failure, failure, failure)

            circuit.breaker.record(late, Delivered(), Sending(uuid4(), circuit.clock.now()))

            assert circuit.state() is CircuitState.OPEN
            assert circuit.breaker.cause is cause
            circuit.clock.advance(RESET)
            circuit.send_fresh(Delivered(), *[Delivered()] * FULL)

    def test_probes_tell(self, circuit: Circuit) -> None:
        """A probe that is accepted at once after others were not: the circuit was open for poison."""
        circuit.send_fresh(CRASHED, CRASHED, CRASHED)
        circuit.clock.advance(RESET)

        circuit.send_fresh(CRASHED, Delivered())

        assert circuit.causes == [Cause.OUTAGE, Cause.POISON, None]


class TestPoison:
    """Messages that the service fails over, while it takes others."""

    def test_probes_on(self, circuit: Circuit) -> None:
        """After an answer that may be about one message, another one is probed at once, up to a limit."""
        circuit.send_fresh(CRASHED, CRASHED, CRASHED)
        circuit.clock.advance(RESET)

        circuit.send_fresh(*[CRASHED] * (PROBES - 1))
        assert circuit.state() is CircuitState.HALF_OPEN
        circuit.send_fresh(CRASHED)

        assert circuit.state() is CircuitState.OPEN

    @pytest.mark.parametrize("failure", [DOWN, UNREACHABLE, WRONG_KEY, TUNNEL_REFUSED], ids=str)
    def test_does_not_probe_on(self, circuit: Circuit, failure: Outcome) -> None:
        """What cannot be about one message alone is not asked again before the reset timeout is over."""
        circuit.send_fresh(failure, failure, failure)
        circuit.clock.advance(RESET)

        circuit.send_fresh(failure)

        assert circuit.state() is CircuitState.OPEN

    def test_a_probe_that_has_failed_before(self, circuit: Circuit) -> None:
        """It says nothing new: the next one comes after the reset timeout."""
        circuit.half_open()

        circuit.breaker.record(
            circuit.admit(), CRASHED, Sending(uuid4(), circuit.clock.now(), failed_at=circuit.clock.now() - RESET)
        )

        assert circuit.state() is CircuitState.OPEN

    def test_own_failures(self, circuit: Circuit) -> None:
        """What fails again although others were delivered since does not open the circuit, however often."""
        failed_at = circuit.clock.now()
        circuit.clock.advance(timedelta(seconds=1))
        circuit.send_fresh(Delivered())

        for _ in range(10):
            sending = Sending(uuid4(), circuit.clock.now(), failed_at)
            assert circuit.breaker.is_own(sending, CRASHED)
            circuit.breaker.record(circuit.admit(), CRASHED, sending)

        assert circuit.state() is CircuitState.CLOSED

    def test_nobody_else_is_left(self, circuit: Circuit) -> None:
        """What failed for the first time after the last delivery is at fault as a probe, or it would never end."""
        circuit.send_fresh(CRASHED, CRASHED, CRASHED)
        circuit.clock.advance(RESET)
        circuit.send_fresh(CRASHED, Delivered())
        circuit.send_fresh(CRASHED, CRASHED, CRASHED)
        assert circuit.breaker.cause is Cause.POISON
        failed_at = circuit.clock.now()
        circuit.clock.advance(RESET)

        ticket = circuit.admit()
        sending = Sending(uuid4(), circuit.clock.now(), failed_at)

        assert circuit.breaker.is_own(sending, CRASHED)
        assert not circuit.breaker.is_own(sending, DOWN)
        assert not circuit.breaker.is_own(Sending(uuid4(), circuit.clock.now()), CRASHED)
        circuit.breaker.record(ticket, CRASHED, sending)
        assert circuit.breaker.cause is Cause.POISON

    def test_what_was_sent_earlier_is_no_witness(self, circuit: Circuit) -> None:
        """At the beginning of an outage, the last deliveries of sends that began before the failure prove nothing."""
        sent_at = circuit.clock.now()
        circuit.clock.advance(timedelta(seconds=1))
        failed_at = circuit.clock.now()
        circuit.breaker.record(circuit.admit(), Delivered(), Sending(uuid4(), sent_at))

        assert not circuit.breaker.is_own(Sending(uuid4(), failed_at, failed_at), CRASHED)

    def test_not_over_what_was_not_sent(self, circuit: Circuit) -> None:
        """A letter that has not left this host is not at fault."""
        failed_at = circuit.clock.now() - RESET
        circuit.send_fresh(Delivered())

        assert not circuit.breaker.is_own(Sending(uuid4(), circuit.clock.now(), failed_at, blamed=True), UNREACHABLE)

    def test_everybody_at_fault(self, circuit: Circuit) -> None:
        """If hundreds fail in a row that were at fault before, and none gets an answer, it is an outage."""
        for _ in range(29):
            circuit.breaker.record(circuit.admit(), DOWN, Sending(uuid4(), circuit.clock.now(), blamed=True))
        assert circuit.state() is CircuitState.CLOSED

        circuit.breaker.record(circuit.admit(), DOWN, Sending(uuid4(), circuit.clock.now(), blamed=True))

        assert circuit.state() is CircuitState.OPEN

    def test_recovery(self, circuit: Circuit) -> None:
        """After it, two answers in a row that may be about their messages do not open it again; silence does."""
        circuit.half_open()
        circuit.send_fresh(Delivered(), CRASHED, CRASHED)
        assert circuit.state() is CircuitState.CLOSED

        circuit.send_fresh(CRASHED)

        assert circuit.state() is CircuitState.OPEN
        assert circuit.breaker.cause is Cause.POISON


class TestUnable:
    """What our own host spoils says nothing about the service."""

    def test_closed(self, circuit: Circuit) -> None:
        """It is neither a failure nor the end of a row of failures."""
        circuit.send(DOWN, DOWN, *[Unable("too many open files", "files")] * 10)
        assert circuit.state() is CircuitState.CLOSED

        circuit.send(DOWN)

        assert circuit.state() is CircuitState.OPEN

    def test_half_open(self, circuit: Circuit) -> None:
        """The probe can be made again."""
        circuit.half_open()

        circuit.send(Unable("too many open files", "files"))

        assert circuit.state() is CircuitState.HALF_OPEN
        assert circuit.breaker.admit() is not None


def test_alone(circuit: Circuit) -> None:
    """One message alone is refused only if others have been accepted, and no other has been refused since."""
    first, second = uuid4(), uuid4()
    circuit.breaker.record(circuit.admit(), GONE, Sending(first, circuit.clock.now()))
    assert not circuit.breaker.refuses_only(first)
    circuit.send_fresh(Delivered())
    circuit.breaker.record(circuit.admit(), GONE, Sending(first, circuit.clock.now()))
    assert circuit.breaker.refuses_only(first)

    circuit.breaker.record(circuit.admit(), GONE, Sending(second, circuit.clock.now()))

    assert not circuit.breaker.refuses_only(first)


def test_refusals_of_days_are_not_kept(circuit: Circuit) -> None:
    """A wrong URL and a long queue: each message is refused once more, and two of them are known at most."""
    ids = [uuid4() for _ in range(100)]
    kept = weakref.WeakSet(ids)
    while ids:
        circuit.clock.advance(RESET)
        circuit.breaker.record(circuit.admit(), GONE, Sending(ids.pop(), circuit.clock.now()))

    assert len(kept) <= 2


def test_log(circuit: Circuit) -> None:
    """Each change is one event with its counts, and an outage can be followed from end to end."""
    with capture_logs() as events:
        circuit.half_open()
        circuit.send(DOWN)
        circuit.clock.advance(RESET)
        circuit.send(Delivered())

    why = {"error_type": "timeout", "reason": "no answer", "reset_seconds": 30.0, "log_level": "warning"}
    why["cause"] = "outage"
    assert events == [
        {"event": "circuit.opened", "failures": 3, "probes": 0, **why},
        {"event": "circuit.half_open", "failures": 3, "probes": 0, "cause": "outage", "log_level": "info"},
        {"event": "circuit.opened", "failures": 4, "probes": 1, **why},
        {"event": "circuit.half_open", "failures": 4, "probes": 1, "cause": "outage", "log_level": "info"},
        {"event": "circuit.closed", "failures": 4, "probes": 2, "cause": "outage", "log_level": "info"},
    ]

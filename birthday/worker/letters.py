"""What one message is while a worker has it: claimed, then sent, then decided about. Values only."""

from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import assert_never

from birthday.broker import Consumer, Delivery
from birthday.channels import Delivered, Letter, Outcome, Permanent, Temporary
from birthday.core.message import ErrorType, Status, greeting
from birthday.core.retry import RetryPolicy
from birthday.store.messages import Claim, Failure, Settlement
from birthday.store.refusals import refusal_text
from birthday.telemetry.tracing import NO_SPAN, Span


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery and the consumer that it must be acked to."""

    consumer: Consumer
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed message on its way. ``send_by`` is the loop's time after which its lease is too short for a send."""

    received: Received
    claim: Claim
    send_by: float


@dataclass(frozen=True, slots=True)
class Done:
    """A job and what came of it; an ``outcome`` of None says that it was not sent. Instants are business time.

    ``spared`` says that it was a probe, or that the circuit has opened meanwhile: what fails then fails for the outage.
    ``span`` ends once the outcome is stored.
    """

    job: Job
    outcome: Outcome | None
    sent_at: datetime
    done_at: datetime
    spared: bool = False
    span: Span = NO_SPAN


def letter_for(claim: Claim) -> Letter:
    """Render the letter for a claimed message, from the user's data as they were at the claim."""
    return Letter(claim.id, claim.email, greeting(claim.first_name, claim.last_name), claim.attempt)


def decide(done: Done, retry: RetryPolicy, random: Random) -> Settlement:
    """Turn an outcome into the settlement to store: the only place that knows when a message fails for good.

    What is spared costs its message no attempt if a later one may do better, or a long outage would fail it.
    """
    claim, at = done.job.claim, done.done_at
    may_have_arrived = isinstance(done.outcome, Temporary) and done.outcome.may_have_arrived
    match done.outcome:
        case None:
            return Settlement(claim.id, claim.lease_until, Status.RETRYING, at, None, at, counted=False)
        case Delivered():
            return Settlement(claim.id, claim.lease_until, Status.DELIVERED, at, done.sent_at, None, counted=True)
        case Permanent(error_type, reason):
            failure = Failure(error_type, reason)
        case Temporary(error_type, reason, retry_after):
            if done.spared or not retry.exhausted(claim.attempt):
                next_at = at + retry.delay(claim.attempt, retry_after, random)
                failure, counted = Failure(error_type, reason), not done.spared
                return Settlement(
                    claim.id,
                    claim.lease_until,
                    Status.RETRYING,
                    at,
                    done.sent_at,
                    next_at,
                    counted,
                    failure,
                    may_have_arrived,
                )
            failure = Failure(error_type, f"{reason}; given up after attempt {claim.attempt}")
        case _:
            assert_never(done.outcome)
    return Settlement(
        claim.id,
        claim.lease_until,
        Status.FAILED,
        at,
        done.sent_at,
        None,
        counted=True,
        failure=failure,
        may_have_arrived=may_have_arrived,
    )


def refused(settlement: Settlement, error: Exception) -> Settlement:
    """Return the failure that takes the place of an outcome which the database refuses to store.

    What was sent may have arrived: whoever requeues it sends it under the same key.
    """
    return replace(
        settlement,
        status=Status.FAILED,
        next_attempt_at=None,
        failure=Failure(ErrorType.PERMANENT_FAILURE, refusal_text(error)),
        may_have_arrived=settlement.may_have_arrived or settlement.status is Status.DELIVERED,
    )

"""What one message is while a worker has it: claimed, then sent, then decided about. Values only."""

from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import assert_never

from birthday.broker import Consumer, Delivery
from birthday.channel import Delivered, Letter, Outcome, Permanent, Temporary
from birthday.core.message import Status, greeting
from birthday.core.retry import RetryPolicy
from birthday.store.messages import Claim, Failure, Settlement


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

    ``probe`` says that the circuit was half-open.
    """

    job: Job
    outcome: Outcome | None
    sent_at: datetime
    done_at: datetime
    probe: bool = False


def letter_for(claim: Claim) -> Letter:
    """Render the letter for a claimed message, from the user's data as they were at the claim."""
    return Letter(claim.id, claim.email, greeting(claim.first_name, claim.last_name))


def decide(done: Done, retry: RetryPolicy, random: Random) -> Settlement:
    """Turn an outcome into the settlement to store: the only place that knows when a message fails for good.

    A probe that fails while the circuit is half-open costs its message no attempt, or a long outage would fail it.
    """
    claim, at = done.job.claim, done.done_at
    given_back = Settlement(claim.id, claim.lease_until, Status.RETRYING, at, None, next_attempt_at=at, counted=False)
    match done.outcome:
        case None:
            return given_back
        case Delivered():
            return replace(
                given_back, status=Status.DELIVERED, sent_at=done.sent_at, next_attempt_at=None, counted=True
            )
        case Permanent(error_type, reason):
            failure = Failure(error_type, reason)
        case Temporary(error_type, reason, retry_after):
            failure = Failure(error_type, reason)
            if done.probe or not retry.exhausted(claim.attempt):
                next_at = at + retry.delay(claim.attempt, retry_after, random)
                return replace(
                    given_back, sent_at=done.sent_at, next_attempt_at=next_at, counted=not done.probe, failure=failure
                )
            failure = Failure(error_type, f"{reason}; given up after attempt {claim.attempt}")
        case _:
            assert_never(done.outcome)
    return replace(
        given_back, status=Status.FAILED, sent_at=done.sent_at, next_attempt_at=None, counted=True, failure=failure
    )

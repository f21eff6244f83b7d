"""What one message is while a worker has it: claimed, then sent, then decided about. Values only."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import assert_never

from birthday.broker import Consumer, Delivery
from birthday.channel import Delivered, Letter, Outcome, Permanent, Temporary
from birthday.core.message import Status, greeting
from birthday.core.retry import RetryPolicy
from birthday.store.messages import Claim, Settlement


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
    """A job and what came of it; an ``outcome`` of None says that it was not sent. Instants are business time."""

    job: Job
    outcome: Outcome | None
    sent_at: datetime
    done_at: datetime


def letter_for(claim: Claim) -> Letter:
    """Render the letter for a claimed message, from the user's data as they were at the claim."""
    return Letter(claim.id, claim.email, greeting(claim.first_name, claim.last_name))


def decide(done: Done, retry: RetryPolicy, random: Random) -> Settlement:
    """Turn an outcome into the settlement to store: the only place that knows when a message fails for good."""
    claim, at = done.job.claim, done.done_at
    match done.outcome:
        case None:
            return Settlement(claim.id, claim.lease_until, Status.RETRYING, at, sent_at=None, next_attempt_at=at)
        case Delivered():
            return Settlement(claim.id, claim.lease_until, Status.DELIVERED, at, done.sent_at)
        case Permanent(error_type, reason):
            return Settlement(
                claim.id, claim.lease_until, Status.FAILED, at, done.sent_at, error_type=error_type, error_detail=reason
            )
        case Temporary(error_type, reason, retry_after):
            if retry.exhausted(claim.attempt):
                reason = f"{reason}; given up after attempt {claim.attempt}"
                return Settlement(
                    claim.id,
                    claim.lease_until,
                    Status.FAILED,
                    at,
                    done.sent_at,
                    error_type=error_type,
                    error_detail=reason,
                )
            next_at = at + max(retry.delay(claim.attempt, retry_after, random), timedelta())
            return Settlement(
                claim.id, claim.lease_until, Status.RETRYING, at, done.sent_at, next_at, error_type, reason
            )
        case _:
            assert_never(done.outcome)

"""The values that describe one message in a worker: claimed, then sent, then turned into a settlement."""

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random
from typing import Final, NamedTuple, assert_never
from uuid import UUID

from birthday.broker import Consumer, Delivery
from birthday.channels import Delivered, Greeting, Outcome, Permanent, Temporary, Unable
from birthday.core.message import OUTCOME_UNKNOWN, ErrorType, Status, greeting
from birthday.core.retry import RetryPolicy
from birthday.core.template import BUILT_IN
from birthday.store.claims import Claim
from birthday.store.refusals import refusal_text
from birthday.store.settling import Failure, Settlement
from birthday.telemetry.tracing import NO_SPAN, Span
from birthday.worker.texts import Text, say

_LONGEST_HOLD: Final = timedelta(seconds=30)
_UNABLE_PAUSE: Final = timedelta(seconds=1)


class Received(NamedTuple):
    """A delivery and the consumer that it must be acked to."""

    consumer: Consumer
    delivery: Delivery


class Job(NamedTuple):
    """A claimed message, and what it says. After ``send_by``, in the loop's time, its lease is too short for a send."""

    received: Received
    claim: Claim
    send_by: float
    text: Text | None = None


class Done(NamedTuple):
    """A job and its outcome; ``outcome`` is None if the message was not sent. Instants are by ``Clock``.

    ``uncounted`` says that the send was a probe or one of the first sends after an outage, or that the circuit has
    opened meanwhile. A failure then does not count as an attempt, unless ``own``: others have been delivered since the
    message last failed. ``alone`` says that no other message has been refused since the last delivery. ``span`` ends
    once the outcome is stored.
    """

    job: Job
    outcome: Outcome | None
    sent_at: datetime
    done_at: datetime
    uncounted: bool = False
    own: bool = False
    alone: bool = False
    span: Span = NO_SPAN


UnsubscribeUrl = Callable[[UUID, str], str | None]
"""Returns the unsubscribe link of a user and the address that a greeting goes to; None if there are no links."""


def no_url(_user_id: UUID, _email: str) -> None:
    """Return no link: PUBLIC_URL is not set."""


def greeting_for(job: Job, unsubscribe_url: UnsubscribeUrl = no_url) -> Greeting:
    """Render the greeting for a claimed message, from the user's data as they were at the claim.

    Raises:
        RenderError: if there is no template, or it says nothing for this user.
    """
    claim = job.claim
    url = unsubscribe_url(claim.user_id, claim.email)
    if claim.template == BUILT_IN:
        text = greeting(claim.first_name, claim.last_name)
        return Greeting(claim.id, claim.email, text, claim.attempt, unsubscribe_url=url)
    said = say(job.text, claim, url)
    return Greeting(
        claim.id,
        claim.email,
        said.message,
        claim.attempt,
        subject=said.subject,
        html=said.html,
        payload=said.payload,
        unsubscribe_url=url,
    )


def is_unsent(outcome: Outcome | None) -> bool:
    """Say whether there was nothing to send: no text could be rendered, or no e-mail be made of it."""
    return isinstance(outcome, Permanent) and not outcome.handed_over


def decide(done: Done, retry: RetryPolicy, random: Random) -> Settlement:
    """Turn an outcome into the settlement to store. Only this function decides when a message fails for good.

    A temporary failure during an outage is not counted, because otherwise a long outage would fail the message. A
    status that may refuse every greeting, such as 401, is final only if others are accepted. Until then it is not
    counted. A message that may have arrived fails if RETRY_UNKNOWN says so.
    """
    claim, at, counted, next_at = done.job.claim, done.done_at, True, None
    may_have_arrived = isinstance(done.outcome, Temporary) and done.outcome.may_have_arrived
    match done.outcome:
        case Temporary(error_type, reason) | Unable(reason, error_type=error_type) if _is_final(done.outcome, retry):
            failure, may_have_arrived = Failure(error_type, f"{OUTCOME_UNKNOWN}: {reason}"), True
        case None:
            return Settlement(claim.id, claim.lease_until, Status.RETRYING, at, None, at, counted=False)
        case Delivered():
            return Settlement(claim.id, claim.lease_until, Status.DELIVERED, at, done.sent_at, None, counted=True)
        case Unable():
            return _try_again(done, done.outcome)
        case Permanent(error_type, reason, refused=is_refusal):
            failure = Failure(error_type, reason)
            if is_refusal and not done.own and not (done.alone and retry.exhausted(claim.failures + 1)):
                next_at, counted = _hold(done, retry, random), False
        case Temporary(error_type, reason, refused=True):
            next_at, counted, failure = _hold(done, retry, random), False, Failure(error_type, reason)
        case Temporary(error_type, reason, retry_after):
            counted, failure = done.own or not done.uncounted, Failure(error_type, reason)
            if counted and retry.exhausted(claim.attempt):
                failure = Failure(error_type, f"{reason}; given up after attempt {claim.attempt}")
            else:
                next_at = at + retry.delay(claim.attempt, retry_after, random)
        case _:
            assert_never(done.outcome)
    return Settlement(
        claim.id,
        claim.lease_until,
        Status.RETRYING if next_at else Status.FAILED,
        at,
        None if is_unsent(done.outcome) else done.sent_at,
        next_at,
        counted,
        failure,
        may_have_arrived,
        failed=is_failure(done.outcome),
        blamed=done.own,
    )


def _is_final(outcome: Temporary | Unable, retry: RetryPolicy) -> bool:
    unknown = outcome.may_have_arrived if isinstance(outcome, Temporary) else outcome.answer_lost
    return unknown and not retry.unknown


def is_failure(outcome: Outcome) -> bool:
    """Say whether the outcome is an outage or a refusal, of this greeting or of every greeting."""
    match outcome:
        case Temporary(outage=failed) | Permanent(refused=failed):
            return failed
        case _:
            return False


def _hold(done: Done, retry: RetryPolicy, random: Random) -> datetime:
    """Return when to retry a refused send. Waits grow to 30 s at most, so that a repaired service is noticed soon."""
    return done.done_at + min(retry.delay(done.job.claim.failures + 1, None, random), _LONGEST_HOLD)


def _try_again(done: Done, outcome: Unable) -> Settlement:
    """Return the settlement of an attempt that failed because of this host."""
    was_sent = outcome.answer_lost
    return Settlement(
        done.job.claim.id,
        done.job.claim.lease_until,
        Status.RETRYING,
        done.done_at,
        done.sent_at if was_sent else None,
        done.done_at + _UNABLE_PAUSE,
        counted=False,
        failure=Failure(outcome.error_type, outcome.reason) if was_sent else None,
        may_have_arrived=was_sent,
    )


def refused(settlement: Settlement, error: Exception) -> Settlement:
    """Return the failure to store in place of an outcome that the database refuses.

    A greeting that was sent may have arrived. If the message is requeued, it is sent under the same key.
    """
    return settlement._replace(
        status=Status.FAILED,
        next_attempt_at=None,
        failure=Failure(ErrorType.PERMANENT_FAILURE, refusal_text(error)),
        may_have_arrived=settlement.may_have_arrived or settlement.status is Status.DELIVERED,
    )

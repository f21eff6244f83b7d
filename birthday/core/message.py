"""A message: its states, who moves it between them, and its text."""

from datetime import timedelta
from enum import StrEnum
from typing import Final

BIRTHDAY: Final = "birthday"
"""The type of birthday messages. All other types are anniversaries."""


class Status(StrEnum):
    """The life of a message. Every move is one guarded UPDATE in ``store/``.

    SCHEDULED   moved in by the planner or by a change of the user; out by the dispatcher, a change, the janitor
    QUEUED      moved in by the dispatcher once the broker has confirmed it, or by an operator; out by a worker's claim
    SENDING     moved in by a worker's claim, under a lease; out by the outcome, or by another claim once it ran out
    RETRYING    moved in by a temporary failure; out by the next claim
    DELIVERED   the message service accepted it; final
    FAILED      failed for good and dead-lettered; final unless an operator requeues it
    CANCELLED   the user was deleted or suppressed, or the birthday or zone moved, before it was sent; final
    EXPIRED     later than the catch-up window; final
    """

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    SENDING = "sending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


OUTCOME_UNKNOWN: Final = "outcome unknown, not sent again"
"""Begins the ``error_detail`` of a message that may have arrived, and that RETRY_UNKNOWN does not allow to repeat."""

ON_TIME: Final = timedelta(seconds=60)
"""A message that arrives later than this after its scheduled instant is late."""

PENDING: Final = frozenset({Status.SCHEDULED, Status.QUEUED, Status.RETRYING})
"""Not sent yet and not being sent: a change of the user can still cancel these."""


class ErrorType(StrEnum):
    """Why a message failed or must be repeated: the ``error_type`` of metrics, logs and rows."""

    VALIDATION_ERROR = "validation_error"
    EXTERNAL_API_ERROR = "external_api_error"
    TIMEOUT = "timeout"
    PERMANENT_FAILURE = "permanent_failure"


def greeting(first_name: str, last_name: str) -> str:
    """Return the text of a birthday message, exactly as the contract says. ``last_name`` may be empty."""
    name = f"{first_name} {last_name}" if last_name else first_name
    return f"Hey, {name} it's your birthday"

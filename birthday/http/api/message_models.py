"""What the API takes and answers about messages."""

import re
from datetime import date, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from birthday.config import parse_duration
from birthday.core.fields import TYPE_PATTERN
from birthday.core.message import ON_TIME, OUTCOME_UNKNOWN, ErrorType, Status
from birthday.core.text import CONTROL
from birthday.http.api.parameters import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    From,
    Id,
    Input,
    Instant,
    Limit,
    Output,
    To,
    Type,
    example,
    one_of,
    read_instant,
)
from birthday.http.cursors import FEED_PATTERN, MessageCursor, read_feed_cursor
from birthday.store.failed import FailedFilter
from birthday.store.feed import BEGINNING, FeedPosition

RETRY_LIMIT: Final = 10_000
AGE_PATTERN: Final = "^([0-9]{1,8}(ms|s)?|[0-9]{1,6}m|[0-9]{1,4}h|[0-9]{1,3}d)$"
"""The durations that ``parse_duration`` accepts, without fractions and without values beyond its limit."""
BEGINNING_PATTERN: Final = rf"^[^{CONTROL}]{{1,200}}$"


_Status = Annotated[Status | None, one_of(Status), WithJsonSchema({"type": "string", "enum": list(Status)})]
_ErrorType = Annotated[ErrorType | None, one_of(ErrorType), WithJsonSchema({"type": "string", "enum": list(ErrorType)})]


def _read_feed_start(text: str) -> FeedPosition | datetime:
    if text in {"", "0"}:
        return BEGINNING
    try:
        return read_feed_cursor(text) if re.fullmatch(FEED_PATTERN, text) else read_instant(timedelta(), text)
    except ValueError as error:
        raise ValueError(f"0, the nextCursor of an earlier page with updatedAfter, or {error}") from None


_FeedStart = Annotated[
    FeedPosition | datetime | None,
    PlainValidator(_read_feed_start),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^0?$"},
                {"type": "string", "pattern": FEED_PATTERN},
                {"type": "string", "format": "date"},
                {"type": "string", "format": "date-time"},
            ],
            "examples": ["0", "2026-03-01T09:00:00Z"],
        }
    ),
]


class Message(Output):
    """A message to a user, of one type and year."""

    id: UUID
    user_id: UUID
    type: str = Field(validation_alias="message_type", pattern=TYPE_PATTERN, examples=["birthday"])
    status: Status
    scheduled_at: Instant = Field(description="When it is due.")
    occasion_on: date = Field(description="The local date that is greeted.", examples=["2026-03-01"])
    attempts: int = Field(ge=0)
    next_attempt_at: Instant | None = Field(description="When a message that is retrying is tried again.")
    queued_at: Instant | None = Field(
        description="When it was last queued: by the dispatcher, a requeue or a rescue, not by a retry."
    )
    sent_at: Instant | None = Field(description="When it was first handed to the message service.")
    delivered_at: Instant | None = Field(description="When the message service accepted it.")
    late: bool = Field(description=f"Whether it was delivered more than {ON_TIME.seconds} s after it was due.")
    error_type: str | None = Field(description=f"One of {', '.join(ErrorType)}.")
    error_detail: str | None
    template: str | None = Field(
        description="The template that it was sent with, such as birthday or birthday.pt; null before it is tried."
    )
    locale: str | None = Field(description="The locale of that template, or default.")
    version: int | None = Field(description="The version of that template; 0 is what is built in.")
    created_at: Instant = Field(description="When it was planned.")
    updated_at: Instant = Field(description="When its status last changed.")


class MessagePage(Output):
    """A page of messages, newest first; with `updatedAfter`, in the order of their outcomes."""

    messages: list[Message] = Field(max_length=MAX_LIMIT)
    next_cursor: str | None = Field(
        description="The `cursor` of the next page; null on the last one. With `updatedAfter`, what that is next, "
        "never null."
    )


class MessageQuery(Input):
    """Which messages a list has."""

    status: _Status = Field(default=None, description="Only messages of this status.")
    type: Type = Field(default=None, description="Only messages of this type.")
    error_type: _ErrorType = Field(default=None, description="Only messages that failed with this.")
    user_id: Id = Field(default=None, description="Only messages of this user, deleted or not.")
    since: From = Field(
        default=None,
        alias="from",
        description="Only messages due at this instant or later; a date begins at 00:00 UTC.",
    )
    until: To = Field(
        default=None,
        alias="to",
        description="Only messages due before this instant; a date is taken up to its end, UTC.",
    )
    updated_after: _FeedStart = Field(
        default=None,
        description="The feed of final outcomes: those after a `nextCursor` of it; `0` is its beginning. A time is a "
        "start as well: what was stored since, and some of the hour before, because an outcome may be stored after its "
        "`updatedAt`. Poll with `updatedAfter=<nextCursor>`: no outcome is missed, none comes twice. A page may be "
        "short or empty although the feed goes on; then the answer has a `Link` to what is next.",
    )
    limit: Limit = DEFAULT_LIMIT
    cursor: MessageCursor = None


class UserMessagesQuery(Input):
    """Which part of a user's messages is asked for."""

    limit: Limit = DEFAULT_LIMIT
    cursor: MessageCursor = None


def _read_age(value: object) -> timedelta:
    if not isinstance(value, str) or not re.fullmatch(AGE_PATTERN, value):
        raise ValueError("a duration in text is accepted: seconds as a plain number, or 500ms, 30s, 10m, 48h, 7d")
    return parse_duration(value)


def _read_beginning(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(BEGINNING_PATTERN, value):
        raise ValueError("one line of text is accepted, of 1 to 200 characters")
    return value


def _check_count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in range(1, RETRY_LIMIT + 1):
        raise ValueError(f"a whole number from 1 to {RETRY_LIMIT} is accepted")
    return int(value)


_Age = Annotated[
    timedelta | None,
    PlainValidator(_read_age),
    WithJsonSchema({"type": "string", "pattern": AGE_PATTERN, "examples": ["24h"]}),
]
_Beginning = Annotated[
    str | None,
    PlainValidator(_read_beginning),
    WithJsonSchema({"type": "string", "pattern": BEGINNING_PATTERN, "examples": [OUTCOME_UNKNOWN]}),
]
_Count = Annotated[int, Field(ge=1, le=RETRY_LIMIT), BeforeValidator(_check_count)]


class RetryInput(Input):
    """Which failed messages to retry, and how many at most; an empty object selects all."""

    model_config = example({"errorType": "external_api_error", "newerThan": "24h"})

    error_type: _ErrorType = Field(default=None, description="Only what failed with this.")
    error_detail: _Beginning = Field(default=None, description="Only what failed with an error that begins so.")
    type: Type = Field(default=None, description="Only messages of this type.")
    user_id: Id = Field(default=None, description="Only messages of this user.")
    older_than: _Age = Field(default=None, description="Only what failed longer ago than this.")
    newer_than: _Age = Field(default=None, description="Only what failed since.")
    limit: _Count = Field(
        default=RETRY_LIMIT,
        description="At most this many; those whose local birthday ends soonest are sent first.",
    )

    def wanted(self, now: datetime) -> FailedFilter:
        """Return which messages are selected."""
        return FailedFilter(
            error_type=self.error_type,
            user_id=self.user_id,
            failed_from=None if self.newer_than is None else now - self.newer_than,
            failed_before=None if self.older_than is None else now - self.older_than,
            message_type=self.type,
            detail=self.error_detail,
        )


class Retried(Output):
    """What came of a retry of many."""

    requeued: int = Field(ge=0, description="How many messages were queued again.")
    remaining: int = Field(ge=0, description="How many more are selected.")

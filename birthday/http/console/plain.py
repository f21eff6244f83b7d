"""States, outcomes and errors in words for people who do not know how the program works."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from birthday.core.message import OUTCOME_UNKNOWN, ErrorType, Status
from birthday.operations import explain
from birthday.operations.explain import Explanation, Step


class Told(NamedTuple):
    """What came of an occasion: the ``kind`` of its colour, a heading, and what it means and what to do."""

    kind: str
    title: str
    text: str


KINDS: Final = {
    Status.SCHEDULED: "idle",
    Status.QUEUED: "idle",
    Status.SENDING: "idle",
    Status.RETRYING: "warn",
    Status.DELIVERED: "good",
    Status.FAILED: "bad",
    Status.CANCELLED: "idle",
    Status.EXPIRED: "bad",
}
"""The colour of each state."""

OUTCOMES: Final = {
    Status.SCHEDULED: Told("idle", "Will be greeted", "The message is planned, and is sent when it is due."),
    Status.QUEUED: Told("idle", "On its way", "The message is in the queue, and is sent when it is due."),
    Status.SENDING: Told("idle", "Being sent", "The message is handed over at this moment."),
    Status.RETRYING: Told("warn", "Not sent yet", "Sending failed so far. It is tried again by itself."),
    Status.DELIVERED: Told("good", "Greeted", "The message was accepted for delivery."),
    Status.FAILED: Told(
        "bad",
        "Not greeted: sending failed",
        "It is not tried again by itself. Open the message below: it says what went wrong, and can be sent again.",
    ),
    Status.CANCELLED: Told("idle", "Not greeted: cancelled", "The message was taken back before it was sent."),
    Status.EXPIRED: Told(
        "bad",
        "Not greeted: too late",
        "The message could not be sent in time, because sending was paused or not possible. So late, it is not sent.",
    ),
    explain.NO_DATE: Told("idle", "Nothing to greet", "This date is not known of the user. Edit the user to add it."),
    explain.FIRST_YEAR: Told("idle", "Not yet", "The day is celebrated from the year after the date on."),
    explain.NO_TEMPLATE: Told(
        "warn", "Not greeted: there is no text", "Publish a text for this kind of day under Templates."
    ),
    explain.TOO_LATE: Told(
        "warn", "Not greeted: known too late", "Date or time zone were entered when the day was over for the user."
    ),
    explain.DELETED: Told("idle", "Not greeted: deleted", "The user was deleted before the message was due."),
    explain.SUPPRESSED: Told(
        "warn",
        "Not greeted: opted out",
        "Nothing is sent to this address. Take the opt-out back only if the person asks for it.",
    ),
    explain.ARCHIVED: Told(
        "good", "Dealt with earlier", "The message is older than messages are kept. Only its year is remembered."
    ),
    explain.GREETED_BEFORE: Told(
        "good",
        "Greeted before",
        "An earlier user with this address and date of birth was greeted this year. Nobody is greeted twice.",
    ),
    explain.UNKNOWN_ZONE: Told(
        "bad", "Not greeted: unknown time zone", "Edit the user, and choose a time zone of the list."
    ),
    explain.NOT_YET: Told("idle", "Not yet", "The message is made a short time before the day."),
    explain.MISSING: Told(
        "bad", "Not greeted: no message", "There should be one. The page Audit looks at everybody: tell your operators."
    ),
    explain.PAUSED: Told("warn", "Waits: sending is paused", "The message is sent when an operator resumes sending."),
}
"""What came of an occasion, by the outcome of its explanation."""

_ABOUT: Final = {
    "date": "Date",
    "leap day": "29 February",
    "due": "Due",
    "zone": "Time zone",
    "day": "Entered on the day",
    "known since": "Known since",
    "type": "Kind of day",
    "opt-out": "Opt-out",
    "deleted": "Deleted",
    "pause": "Pause",
}
_ERRORS: Final = {
    ErrorType.VALIDATION_ERROR: "The message could not be made, or its data were not accepted. Correct the user or "
    "the template, then send it again.",
    ErrorType.EXTERNAL_API_ERROR: "The message service answered with an error each time. Ask its operators, then send "
    "it again.",
    ErrorType.TIMEOUT: "The message service did not answer in time. If it is well again, send it again.",
    ErrorType.PERMANENT_FAILURE: "The message service refused the message for good. Find out why before you send it "
    "again.",
}

_WORDS: Final = (
    (re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\dZ"), r"\1 \2 UTC"),
    (re.compile(r"the user (is|was) suppressed"), "the person has opted out"),
    (re.compile(r" \(SEND_AT [^)]*\)"), ""),
    (re.compile(r"; LEAP_DAY=\w+ puts it on"), "; it is celebrated on"),
    (re.compile(r"PLAN_HORIZON before"), "some time before"),
    (re.compile(r"within CATCH_UP_WINDOW \(([^,)]*)[^)]*\)"), r"within \1"),
)
"""What stands for the names of settings, and for instants as programs write them."""


def tell(explanation: Explanation) -> Told:
    """Return what came of an occasion."""
    return OUTCOMES[explanation.outcome]


def reason(explanation: Explanation) -> str:
    """Return the reason without the command that mends it, which only a terminal has."""
    return _plainly(explanation.reason)


def steps(explanation: Explanation) -> Sequence[Step]:
    """Return what led to the outcome, but for the messages, which have pages of their own."""
    return [Step(_ABOUT[one.about], _plainly(one.says)) for one in explanation.steps if one.about != "message"]


def messages(explanation: Explanation) -> Sequence[tuple[str, str]]:
    """Return id and state of each message of the occasion."""
    told = [one.says.split(": ", 1) for one in explanation.steps if one.about == "message"]
    return [(message_id, _plainly(text)) for message_id, text in told]


def describe_error(error_type: str | None, detail: str | None) -> str:
    """Return what an error means, and what to do."""
    if detail is not None and detail.startswith(OUTCOME_UNKNOWN):
        return "The message may have arrived: no answer came. Ask the person before you send it again."
    return _ERRORS[ErrorType(error_type)] if error_type in set(ErrorType) else ""


def _plainly(text: str) -> str:
    """Return a text of an explanation without commands and names of settings."""
    text = text.partition("; 'birthday ")[0]
    for pattern, words in _WORDS:
        text = pattern.sub(words, text)
    return text

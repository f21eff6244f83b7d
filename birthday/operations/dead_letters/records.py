"""Failed messages and dead letters as JSON, for ``--json`` and archives, without names and e-mail addresses."""

from base64 import b64encode
from datetime import datetime
from typing import Any, Final

import orjson

from birthday.broker import DeadLetter
from birthday.operations.dead_letters.letters import Found, Kind
from birthday.store.failed import FailedGroup
from birthday.store.history import Message

_SHOWN_BYTES: Final = 200


def summary_record(group: FailedGroup) -> dict[str, Any]:
    """Return one line of a summary as JSON members."""
    return {
        "errorType": group.error_type,
        "httpStatus": group.http_status,
        "hour": group.hour,
        "messages": group.messages,
    }


def encode(record: object) -> bytes:
    """Return a record as one line of JSON. Values of AMQP headers whose type JSON lacks become text."""
    option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(record, default=_as_text, option=option)


def listed_message(message: Message, copies: int) -> dict[str, Any]:
    """Return a failed message as ``birthday dlq list`` shows it."""
    return {
        "kind": Kind.FAILED,
        "messageId": message.id,
        "userId": message.user_id,
        "type": message.message_type,
        "errorType": message.error_type,
        "errorDetail": message.error_detail,
        "attempts": message.attempts,
        "failedAt": message.updated_at,
        "inQueue": copies > 0,
        "payload": None,
    }


def listed_unknown(found: Found) -> dict[str, Any]:
    """Return a dead letter that is no message of ours as ``birthday dlq list`` shows it."""
    return {
        "kind": found.kind,
        "messageId": found.letter.message_id,
        "userId": None,
        "errorType": None,
        "errorDetail": None,
        "attempts": None,
        "failedAt": found.letter.died_at,
        "inQueue": True,
        "payload": excerpt(found.letter.body),
    }


def archived(found: Found, archived_at: datetime) -> dict[str, Any]:
    """Return a dead letter as an archive keeps it: whole, with the row of its message."""
    return {"archivedAt": archived_at, "kind": found.kind, **letter_record(found.letter), "row": found.message}


def letter_record(letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter as JSON members. A payload that is not UTF-8 is written in base64."""
    try:
        payload = {"payload": letter.body.decode()}
    except UnicodeDecodeError:
        payload = {"payloadBase64": b64encode(letter.body).decode()}
    return {
        "messageId": letter.message_id,
        **payload,
        "reason": letter.reason,
        "diedAt": letter.died_at,
        "headers": dict(letter.headers),
    }


def excerpt(body: bytes) -> str:
    """Return a payload, or the beginning of a long one, as text; bytes that are not UTF-8 are replaced."""
    text = body[:_SHOWN_BYTES].decode(errors="replace")
    return text if len(body) <= _SHOWN_BYTES else f"{text}… ({len(body):,} bytes)"


def _as_text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes | bytearray) else str(value)

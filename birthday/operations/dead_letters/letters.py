"""Finds the messages of dead letters, and tells the kinds of dead letters apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import asyncpg

from birthday.broker import DeadLetter
from birthday.core.message import Status
from birthday.store.connection import borrow
from birthday.store.failed import FailedFilter, select_failed
from birthday.store.history import Message, read_messages


class Kind(StrEnum):
    """What a dead letter is.

    FAILED      a copy of a failed message
    SETTLED     a copy of a message that is no longer failed: it was requeued, and maybe delivered
    UNKNOWN     a message id that the database does not have
    MALFORMED   not a message id
    """

    FAILED = "failed"
    SETTLED = "settled"
    UNKNOWN = "unknown"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Found:
    """A dead letter, with its message as it was when the letter was seen."""

    letter: DeadLetter
    message: Message | None

    @property
    def kind(self) -> Kind:
        """What the dead letter is."""
        if self.message is not None:
            return Kind.FAILED if self.message.status is Status.FAILED else Kind.SETTLED
        return Kind.MALFORMED if self.letter.message_id is None else Kind.UNKNOWN


async def look_up(pool: asyncpg.Pool, letters: Sequence[DeadLetter]) -> list[Found]:
    """Return each letter with its message."""
    ids = {letter.message_id for letter in letters if letter.message_id is not None}
    async with borrow(pool) as connection:
        messages = await read_messages(connection, list(ids))
    return [Found(letter, messages.get(letter.message_id) if letter.message_id else None) for letter in letters]


async def choose(pool: asyncpg.Pool, wanted: FailedFilter, found: Sequence[Found]) -> list[Found]:
    """Return those of the dead letters that ``wanted`` selects."""
    ids = [one.message.id for one in found if one.message is not None]
    async with borrow(pool) as connection:
        failed = await select_failed(connection, wanted, ids)
    return [one for one in found if (one.message.id in failed if one.message else is_meant(one.letter, wanted))]


def is_meant(letter: DeadLetter, wanted: FailedFilter) -> bool:
    """Say whether ``wanted`` selects a dead letter without a message: by age, by id, or without any condition.

    If there is a condition on error, user, HTTP status or message type, the answer is no, because the letter has none
    of these.
    """
    of_a_message = wanted.error_type, wanted.user_id, wanted.http_status, wanted.message_type, wanted.detail
    if any(condition is not None for condition in of_a_message):
        return False
    if wanted.message_id not in {None, letter.message_id}:
        return False
    if wanted.failed_from is None and wanted.failed_before is None:
        return True
    if letter.died_at is None:
        return False
    return (wanted.failed_from is None or letter.died_at >= wanted.failed_from) and (
        wanted.failed_before is None or letter.died_at < wanted.failed_before
    )

"""What becomes of rows whose user is there already: unchanged, changed, or in conflict."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from birthday.core.user import Profile, merge_profile
from birthday.errors import ConflictError, FieldError, NotFoundError
from birthday.store.changes import Actor
from birthday.store.connection import Connection
from birthday.store.transfer import Clash
from birthday.store.users import Planning, Replanned, is_other, lock_profile, replace_profile


class Outcome(StrEnum):
    """What became of a row. An invalid one cannot be a user; one in conflict could, but for another user."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    INVALID = "invalid"
    CONFLICT = "conflict"


class Result(NamedTuple):
    """What became of the row that begins in ``line``; ``user_id`` is the user whom it is about, if that is known."""

    line: int
    outcome: Outcome
    user_id: UUID | None = None
    errors: tuple[FieldError, ...] = ()


async def change_users(
    connection: Connection,
    planning: Planning,
    by: Actor,
    given: Mapping[int, Profile],
    clashes: Sequence[Clash],
    now: datetime,
    *,
    dry_run: bool,
) -> tuple[list[Result], Replanned]:
    """Give the users of clashes what their rows ``given`` by line have, in the caller's transaction.

    A dry run takes that back.
    """
    results, planned, cancelled = [], 0, 0
    changed: set[UUID] = set()
    rehearsal = connection.transaction()
    await rehearsal.start()
    # In order of id, so that two imports do not wait for each other.
    for clash in sorted(clashes, key=lambda one: (str(one.user_id), one.line)):
        if clash.user_id not in changed and (not clash.differing or clash.deleted):
            results.append(leave(clash))
        elif clash.user_id is None:
            # A dry run: an earlier row would have created the user.
            results.append(Result(clash.line, Outcome.UPDATED))
        else:
            result, replanned = await _change_one(
                connection, planning, by, clash.line, clash.user_id, given[clash.line], now
            )
            results.append(result)
            changed.add(clash.user_id)
            planned, cancelled = planned + replanned.planned, cancelled + replanned.cancelled
    await (rehearsal.rollback() if dry_run else rehearsal.commit())
    return results, Replanned(planned, cancelled)


async def _change_one(
    connection: Connection, planning: Planning, by: Actor, line: int, user_id: UUID, given: Profile, now: datetime
) -> tuple[Result, Replanned]:
    try:
        # A savepoint: a conflict must not undo the other rows.
        async with connection.transaction():
            old = await lock_profile(connection, user_id)
            new = merge_profile(old, given)
            if old.extras.external_id not in {None, new.extras.external_id}:
                detail = "the user with this address has another externalId"
                return Result(line, Outcome.CONFLICT, user_id, (FieldError("/externalId", detail),)), Replanned()
            if not is_other(old, new):
                return Result(line, Outcome.UNCHANGED, user_id), Replanned()
            replanned = await replace_profile(connection, user_id, old, new, now, planning, by)
            return Result(line, Outcome.UPDATED, user_id), replanned
    except ConflictError as error:
        return Result(line, Outcome.CONFLICT, user_id, (FieldError(error.pointer, str(error)),)), Replanned()
    except NotFoundError:
        detail = "the user was deleted while this was read; the same line is accepted now"
        return Result(line, Outcome.CONFLICT, None, (FieldError("", detail),)), Replanned()


def leave(clash: Clash) -> Result:
    """Return the result of a row that changes nobody."""
    if clash.equal:
        return Result(clash.line, Outcome.UNCHANGED, clash.user_id)
    return Result(clash.line, Outcome.CONFLICT, clash.user_id, (_explain(clash),))


def _explain(clash: Clash) -> FieldError:
    if clash.deleted:
        return FieldError("/id", "the user with this id was deleted; deleted users do not come back")
    if clash.shared == "externalId":
        other = "another user" if clash.first_line is None else f"line {clash.first_line}"
        detail = f"{other} has this externalId too; one user for each externalId is accepted"
        return FieldError("/externalId", detail)
    if clash.shared == "id":
        detail = (
            f"the user with this id differs in {', '.join(clash.differing)}; an import creates users and changes none"
        )
        return FieldError("/id", detail)
    if not clash.differing:
        detail = "the user who had this address was deleted while this was read; the same line is accepted now"
    elif clash.first_line is not None:
        detail = (
            f"line {clash.first_line} has this address too; fields differ: {', '.join(clash.differing)}; "
            "one user for each address is accepted"
        )
    else:
        detail = (
            f"another user has this address; fields differ: {', '.join(clash.differing)}; "
            "an import creates users and changes none"
        )
    return FieldError("/email", detail)

"""Find users: what the search box and the filters in an address mean."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from birthday.core.dates import parse_month_day
from birthday.core.fields import NamePrefix
from birthday.core.zone import load_zone
from birthday.errors import InvalidInputError, NotFoundError
from birthday.http.console.formats import MOST_COUNTED
from birthday.http.console.view import ROOT
from birthday.store.connection import Connection
from birthday.store.explain import find_user
from birthday.store.history import is_known, read_messages
from birthday.store.listing import UserFilter, list_users
from birthday.store.users import list_ids

FIELDS: Final = ("q", "zone", "birthday", "suppressed")
_NAME: Final[TypeAdapter[str]] = TypeAdapter(NamePrefix)


def read_filter(given: Mapping[str, str]) -> tuple[UserFilter, dict[str, str]]:
    """Return the filter that the fields mean, and what is wrong with which field.

    Text with an @ is an address; other text is what a name begins with.
    """
    errors: dict[str, str] = {}
    text, zone, day = given["q"], given["zone"], None
    try:
        if text:
            _NAME.validate_python(text)
    except ValidationError:
        errors["q"] = "cannot be searched for; up to 200 characters in one line can"
    try:
        if zone:
            load_zone(zone)
    except InvalidInputError as error:
        errors["zone"] = error.fields[0].detail
    try:
        day = parse_month_day(given["birthday"]) if given["birthday"] else None
    except ValueError:
        errors["birthday"] = "is not a day; month and day such as 02-29 are accepted"
    suppressed = {"yes": True, "no": False}.get(given["suppressed"])
    address = text if "@" in text else None
    name = None if address else text or None
    return UserFilter(email=address, name=name, zone=zone or None, month_day=day, suppressed=suppressed), errors


async def find_place(connection: Connection, text: str) -> str | None:
    """Return the page of the message or user whose id ``text`` is; None if it is no such id."""
    try:
        given = UUID(text)
    except ValueError:
        return None
    if await read_messages(connection, [given]):
        return f"{ROOT}/messages/{given}"
    return f"{ROOT}/users/{given}" if await is_known(connection, given) else None


async def find_deleted(connection: Connection, text: str) -> str | None:
    """Return the page of the deleted user whose address or external id ``text`` was, until retention removes it."""
    try:
        return f"{ROOT}/users/{(await find_user(connection, text)).id}"
    except NotFoundError:
        return None


async def count_users(connection: Connection, wanted: UserFilter) -> int:
    """Return how many users a filter means, counting one more than ``MOST_COUNTED`` at most."""
    if wanted == UserFilter():
        return len(await list_ids(connection, None, MOST_COUNTED + 1))
    return len(await list_users(connection, wanted, None, MOST_COUNTED + 1))

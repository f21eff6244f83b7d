"""Users of whom nobody knows whether they were created: the answer of the database was lost after it was asked.

The client was told to send the same request again. If the user is there by then, the request has been carried out.
"""

from collections import OrderedDict
from typing import Final
from uuid import UUID

from birthday.core.user import Profile

_LIMIT: Final = 10_000
"""How many are remembered; the oldest are forgotten first, and a repeat of theirs is a conflict."""


class Doubts:
    """What this process has asked for and does not know the outcome of, by e-mail address."""

    def __init__(self) -> None:
        """Begin with none."""
        self._ids: OrderedDict[str, UUID] = OrderedDict()

    def note(self, profile: Profile, user_id: UUID) -> None:
        """Remember a user who may have been created."""
        self._ids[profile.email.lower()] = user_id
        while len(self._ids) > _LIMIT:
            self._ids.popitem(last=False)

    def find(self, profile: Profile) -> UUID | None:
        """Return the id of the user with this address who may have been created, if there is one."""
        return self._ids.get(profile.email.lower())

"""Users who may have been created: the statement was sent, but the answer of the database was lost.

The client was told to send the same request again. If the user exists by then, the first request was carried out.
A request with an Idempotency-Key needs no guess: its answer is stored.
"""

from collections import OrderedDict
from typing import Final
from uuid import UUID

from birthday.core.user import Profile

_LIMIT: Final = 10_000
"""How many are remembered. The oldest are forgotten first; if such a request is repeated, it is a conflict."""


class Doubts:
    """Ids of users whose creation by this process has an unknown outcome, by e-mail address."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, UUID] = OrderedDict()

    def note(self, profile: Profile, user_id: UUID) -> None:
        """Remember a user who may have been created."""
        self._ids[profile.email.lower()] = user_id
        while len(self._ids) > _LIMIT:
            self._ids.popitem(last=False)

    def find(self, profile: Profile) -> UUID | None:
        """Return the id of the user with this address who may have been created, if there is one."""
        return self._ids.get(profile.email.lower())

"""What the operators of the installation should know, although this process works: shown by ``/health/detailed``."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from birthday.store.processes import Seen
from birthday.store.statistics import Limits

log = structlog.get_logger()

SILENT_SECONDS: Final = 15.0
"""A process that has not reported for this long is told of: three reports are missing."""
FORGOTTEN_SECONDS: Final = 600.0
"""After this long it is not told of any more."""


class Notices:
    """The notices in force, by what they are about. Each is logged when it begins and when it is over."""

    def __init__(self) -> None:
        """There are none at first."""
        self._texts: Mapping[str, str] = {}

    @property
    def texts(self) -> Sequence[str]:
        """The notices."""
        return list(self._texts.values())

    def update(self, found: Mapping[str, str]) -> None:
        """Replace the notices."""
        for about in found.keys() - self._texts.keys():
            log.warning("health.notice", about=about, notice=found[about])
        for about in self._texts.keys() - found.keys():
            log.info("health.notice_over", about=about)
        self._texts = found


def silent_notices(seen: Iterable[Seen], now: datetime) -> dict[str, str]:
    """Return a notice for each process that no longer reports, unless another one was started in its place."""
    everybody = list(seen)
    return {
        f"process {one.process.id}": (
            f"a process with the role {one.process.roles} on '{one.process.host}', pid {one.process.pid}, has not "
            f"reported for {one.seconds_ago:.0f} s: it is frozen, cannot reach the database, or was killed"
        )
        for one in everybody
        if one.seconds_ago >= SILENT_SECONDS and not any(_succeeds(other, one, now) for other in everybody)
    }


def _succeeds(other: Seen, one: Seen, now: datetime) -> bool:
    same_place = (other.process.host, other.process.roles) == (one.process.host, one.process.roles)
    is_newer = other.process.started_at > now - timedelta(seconds=one.seconds_ago)
    return same_place and is_newer and other.seconds_ago < SILENT_SECONDS


def limit_notices(limits: Limits) -> dict[str, str]:
    """Return the notices that follow from the limits of the database."""
    notices = {}
    if limits.sessions >= limits.max_connections - limits.reserved:
        notices["max_connections"] = (
            f"all connections that the database allows are in use (max_connections = {limits.max_connections}, "
            f"{limits.reserved} of them for superusers): a process that needs another one is refused"
        )
    for name, value in limits.timeouts.items():
        notices[name] = f"{name} = {value} is set for the role, the database or the server; " + (
            f"statements that take longer are cancelled: remove it (ALTER ROLE ... RESET {name})"
            if name in limits.in_force
            else "sessions of this program do without it, because they have time limits of their own"
        )
    return notices

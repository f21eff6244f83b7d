"""How many files and connections this process may have open: the program raises the soft limit at the start."""

import resource
from dataclasses import dataclass
from typing import Final

_ENOUGH: Final = 65_536


@dataclass(frozen=True, slots=True)
class FileLimit:
    """The soft limit in force, the soft limit before, and the hard limit; None is no limit."""

    soft: int | None
    before: int | None
    hard: int | None

    def __str__(self) -> str:
        """Return the text that operators read."""
        raised = f"raised from {self.before}; " if self.soft != self.before else ""
        return f"{_number(self.soft)} at a time ({raised}hard limit: {_number(self.hard)})"


def raise_file_limit(enough: int = _ENOUGH) -> FileLimit:
    """Raise the soft limit to the hard one, or to ``enough`` if that is less. Child processes inherit it.

    It is never lowered. If the system refuses, it stays as it is.
    """
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
    if resource.RLIM_INFINITY != before < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            # The program runs without a higher limit, so startup does not fail.
            wanted = before
    else:
        wanted = before
    return FileLimit(_limit(wanted), _limit(before), _limit(hard))


def _limit(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def _number(value: int | None) -> str:
    return "unlimited" if value is None else str(value)

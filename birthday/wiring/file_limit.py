"""How many files and connections this process may have open: the program raises the soft limit as far as it may."""

import resource
from dataclasses import dataclass
from typing import Final

_ENOUGH: Final = 65_536


@dataclass(frozen=True, slots=True)
class FileLimit:
    """The limit in force, what it was before, and the hard limit; None stands for no limit."""

    soft: int | None
    before: int | None
    hard: int | None

    def __str__(self) -> str:
        """Return it as operators read it."""
        raised = f"raised from {self.before}; " if self.soft != self.before else ""
        return f"{_number(self.soft)} at a time ({raised}hard limit: {_number(self.hard)})"


def raise_file_limit(enough: int = _ENOUGH) -> FileLimit:
    """Raise the soft limit to the hard one, or to what is enough; never lower it. Child processes inherit it."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
    if resource.RLIM_INFINITY != before < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            # What only helps may not end the start.
            wanted = before
    else:
        wanted = before
    return FileLimit(_limit(wanted), _limit(before), _limit(hard))


def _limit(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def _number(value: int | None) -> str:
    return "unlimited" if value is None else str(value)

"""How many files and connections this process may have open: the program raises the soft limit at the start."""

import resource
from typing import Final

_ENOUGH: Final = 65_536


def raise_file_limit(enough: int = _ENOUGH) -> str:
    """Raise the soft limit to the hard one, or to ``enough`` if that is less. Child processes inherit it.

    It is never lowered. If the system refuses, it stays as it is. Return the text that operators read.
    """
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
    if before == resource.RLIM_INFINITY or before >= soft:
        soft = before
    else:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (OSError, ValueError):
            # The program runs without a higher limit, so startup does not fail.
            soft = before
    raised = f"raised from {_show(before)}; " if soft != before else ""
    return f"{_show(soft)} at a time ({raised}hard limit: {_show(hard)})"


def _show(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)

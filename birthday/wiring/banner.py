"""What a start tells on a terminal, in place of a long log line: where everything is, and which setting changes it."""

from collections.abc import Mapping
from typing import Final

_TOLD: Final = (
    ("console", "Console", "  (CONSOLE=off removes it)"),
    ("api", "API", "  (set HOST and PORT for another address)"),
    ("docs", "Docs", ""),
    ("database", "Database", ""),
    ("queue", "Queue", ""),
    ("channel", "Channel", ""),
)
"""What is told, in this order, and how to change it, where the place itself does not say so."""


def banner(version: str, roles: str, places: Mapping[str, str]) -> str:
    """Return the text; ``places`` has the address of each thing by its name in the log."""
    lines = [f"  {name:<9} {places[key]}{hint}" for key, name, hint in _TOLD if key in places]
    head = f"Birthday Scheduler {version} runs as {roles.replace(',', ', ')}."
    return "\n".join(["", head, "", *lines, "", "Ctrl-C stops it. 'birthday check' lists all settings.", "", ""])

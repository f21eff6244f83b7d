"""Values of a label that operators choose, such as names of templates: their number is bounded."""

from typing import Final

OTHER: Final = "other"


class LabelValues:
    """The first ``most`` values keep their names; the others count together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def label(self, value: str) -> str:
        """Return the value, or ``other``."""
        if len(self._known) < self._most:
            self._known.add(value)
        return value if value in self._known else OTHER

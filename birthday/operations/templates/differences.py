"""What differs between two versions of a template, line by line."""

from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import islice
from typing import Final, NamedTuple

from birthday.core.template import PARTS, Source

MAX_LINES: Final = 400
"""Of a part that is compared. A longer one is taken for new as a whole, because comparing could take long."""
_AROUND: Final = 3
"""How many lines that are the same are shown around a difference."""


class Difference(NamedTuple):
    """A line that is ``added``, ``removed`` or the ``same``, or a ``gap`` of lines that are the same."""

    kind: str
    text: str


def differences(old: Source | None, new: Source) -> dict[str, list[Difference]]:
    """Return the lines of each part that differs; ``old`` is None if there was nothing."""
    found = {}
    for part in PARTS:
        before = None if old is None else getattr(old, part)
        after = getattr(new, part)
        if before != after:
            found[part] = list(_compare(_lines(before), _lines(after)))
    return found


def _lines(text: str | None) -> list[str]:
    return [] if text is None else text.split("\n")


def _compare(old: list[str], new: list[str]) -> Iterator[Difference]:
    if max(len(old), len(new)) > MAX_LINES:
        yield from (Difference("removed", line) for line in islice(old, MAX_LINES))
        yield from (Difference("added", line) for line in islice(new, MAX_LINES))
        return
    # Lines that are found often match nothing by themselves: each would be compared with each.
    matcher = SequenceMatcher(lambda line: not line.strip(), old, new)
    for number, group in enumerate(matcher.get_grouped_opcodes(_AROUND)):
        if number:
            yield Difference("gap", "")
        for kind, old_from, old_to, new_from, new_to in group:
            if kind == "equal":
                yield from (Difference("same", line) for line in old[old_from:old_to])
                continue
            yield from (Difference("removed", line) for line in old[old_from:old_to])
            yield from (Difference("added", line) for line in new[new_from:new_to])

"""Bar charts: where each bar stands, for the macro ``bars``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 720
WIDE: Final = 1120
NARROW: Final = 600
"""Widths of half a page, all of it, and a column, so that a unit is about a pixel of a large screen."""
HEIGHT: Final = 120
_GROUND: Final = HEIGHT - 18
_TOP: Final = 20
"""Below this there is room for the number of the bar that is pointed at."""
_GAP: Final = 0.2


@dataclass(frozen=True, slots=True)
class Bar:
    """One number: ``text`` tells it, ``label`` stands below it, ``kind`` is its class: good, bad, soft or none."""

    value: float
    text: str
    label: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class PlacedBar:
    """A bar and its place. ``left`` and ``space`` are what it has with its gaps, for the pointer."""

    text: str
    label: str
    kind: str
    left: float
    space: float
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Where its label stands."""
        return round(self.left + self.space / 2, 1)


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars side by side, and in words what they show."""

    summary: str
    bars: Sequence[PlacedBar]
    width: int = WIDTH
    height: int = HEIGHT
    ground: int = _GROUND


def bar_chart(summary: str, bars: Sequence[Bar], width: int = WIDTH) -> Chart:
    """Lay out bars of one scale. A bar with a value is at least one unit high, so that it is seen."""
    most = max((bar.value for bar in bars), default=0)
    space = width / max(1, len(bars))
    placed = []
    for number, bar in enumerate(bars):
        height = max(1, round((_GROUND - _TOP) * bar.value / most, 1)) if bar.value else 0
        left, gap = round(number * space, 2), space * _GAP / 2
        x, thick = round(left + gap, 2), round(space - 2 * gap, 2)
        of = (bar.text, bar.label, bar.kind)
        placed.append(PlacedBar(*of, left, round(space, 2), x, round(_GROUND - height, 1), thick, height))
    return Chart(summary, placed, width)

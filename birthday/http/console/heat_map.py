"""Lays out the coming days as months: a cell for each day, and a level for how many messages fall on it."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from statistics import median, quantiles
from typing import Final

CELL_WIDTH: Final = 36
CELL_HEIGHT: Final = 30
_HEAD: Final = 18
"""The height of the line with the names of the weekdays."""
_PEAK: Final = 2
"""A day with more than so many times the usual number is a peak."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One day. ``level`` is 0 without messages, 1 to 4 by quarter of the days, and 5 for a peak."""

    day: date
    messages: int
    level: int
    x: int
    y: int

    @property
    def short(self) -> str:
        """The number in at most four characters."""
        if self.messages < 1000:
            return str(self.messages)
        value, unit = (self.messages / 1000, "k") if self.messages < 999_500 else (self.messages / 1_000_000, "M")
        return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"


@dataclass(frozen=True, slots=True)
class Month:
    """The cells of one month, in rows of a week that begins on Monday."""

    first: date
    cells: tuple[Cell, ...]

    @property
    def height(self) -> int:
        """How high the picture is."""
        return self.cells[-1].y + CELL_HEIGHT

    @property
    def messages(self) -> int:
        """How many messages fall in this month."""
        return sum(cell.messages for cell in self.cells)


def lay_out(days: Iterable[date], messages: Mapping[date, int]) -> list[Month]:
    """Return the months of ``days``, which follow each other."""
    days = list(days)
    busy = [count for day in days if (count := messages.get(day, 0))]
    quarters = quantiles(busy, n=4) if len(busy) > 1 else busy
    usual = median(busy) if busy else 0
    months = []
    for _, of_month in groupby(days, lambda day: (day.year, day.month)):
        cells: list[Cell] = []
        for day in of_month:
            count = messages.get(day, 0)
            level = 5 if count > _PEAK * usual else min(4, 1 + bisect_left(quarters, count)) if count else 0
            week = (day.day - 1 + day.replace(day=1).weekday()) // 7
            cells.append(Cell(day, count, level, day.weekday() * CELL_WIDTH, _HEAD + week * CELL_HEIGHT))
        # The first month begins with its first week that is shown.
        above = cells[0].y - _HEAD
        months.append(
            Month(
                cells[0].day,
                tuple(Cell(one.day, one.messages, one.level, one.x, one.y - above) for one in cells),
            )
        )
    return months

"""The months of the calendar: where each day stands, and how strong its colour is."""

from datetime import date, timedelta

from birthday.http.console.heat_map import CELL_HEIGHT, CELL_WIDTH, Cell, lay_out

FIRST = date(2026, 12, 3)
DAYS = [FIRST + timedelta(days=number) for number in range(366)]


def test_weeks_begin_on_monday_and_months_with_their_first_shown_week() -> None:
    """3 December 2026 is a Thursday, 1 January 2027 a Friday."""
    december, january, *_, last = lay_out(DAYS, {})
    assert (december.first, january.first, last.first) == (FIRST, date(2027, 1, 1), date(2027, 12, 1))
    assert [cell.x // CELL_WIDTH for cell in december.cells[:5]] == [3, 4, 5, 6, 0]
    assert december.cells[4].y - december.cells[0].y == CELL_HEIGHT
    assert december.cells[0].y == january.cells[0].y
    assert january.height == january.cells[-1].y + CELL_HEIGHT
    assert sum(len(month.cells) for month in lay_out(DAYS, {})) == 366


def test_colours_tell_quarters_and_peaks_apart() -> None:
    """A single peak does not make all other days look alike."""
    messages = {day: 100 + number % 40 for number, day in enumerate(DAYS)} | {DAYS[10]: 5000, DAYS[11]: 0}
    levels = {cell.day: cell.level for month in lay_out(DAYS, messages) for cell in month.cells}
    assert levels[DAYS[10]] == 5
    assert levels[DAYS[11]] == 0
    assert {levels[day] for day in DAYS[12:]} == {1, 2, 3, 4}
    assert lay_out(DAYS, messages)[0].messages == sum(
        messages[day] for day in DAYS if day.month == 12 and day.year == 2026
    )


def test_a_number_fits_into_its_cell() -> None:
    """Thousands and millions are rounded to four characters."""
    numbers = (0, 999, 1000, 9949, 9950, 13_391, 999_499, 999_500, 5_000_000)
    shown = [Cell(FIRST, number, 1, 0, 0).short for number in numbers]
    assert shown == ["0", "999", "1.0k", "9.9k", "10k", "13k", "999k", "1.0M", "5.0M"]

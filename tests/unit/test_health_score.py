"""The health score: its formula, and that it forgets."""

import pytest

from birthday.telemetry.score import EVERY_SECONDS, WINDOW_SECONDS, HealthScore


@pytest.mark.parametrize(
    ("answers", "database", "queue", "expected"),
    [
        ([], True, True, 100),
        ([(200, 0.01)] * 10, True, True, 100),
        ([(404, 0.01)] * 10, True, True, 100),
        ([(500, 0.01)] + [(200, 0.01)] * 19, True, True, 75),
        ([(500, 0.01)] + [(200, 0.01)] * 9, True, True, 50),
        ([(503, 0.01)] * 10, True, True, 50),
        ([(200, 2.0)] + [(200, 0.01)] * 3, True, True, 95),
        ([], False, True, 80),
        ([], True, False, 90),
        ([(500, 5.0)], False, False, 0),
    ],
)
def test_the_formula(answers: list[tuple[int, float]], database: bool, queue: bool, expected: float) -> None:  # noqa: FBT001 - a row of a table
    """50 points for no errors, down to none at 10 %; 20 for speed, 20 for the database, 10 for the queue."""
    score = HealthScore()
    for status, seconds in answers:
        score.count(status, seconds)
    assert score.value(database=database, queue=queue) == pytest.approx(expected)


def test_what_is_older_than_a_minute_is_forgotten() -> None:
    """An outage that is over does not count for ever."""
    score = HealthScore()
    score.count(500, 0.01)
    parts = round(WINDOW_SECONDS / EVERY_SECONDS)
    for _ in range(parts - 1):
        score.advance()
    assert score.value(database=True, queue=True) == 50
    score.advance()
    assert score.value(database=True, queue=True) == 100

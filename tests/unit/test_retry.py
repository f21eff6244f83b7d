"""The waits between attempts."""

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birthday.core.retry import RetryPolicy

POLICY = RetryPolicy(max_attempts=5, base_delay=timedelta(seconds=2), max_delay=timedelta(minutes=10))
DURATIONS = st.timedeltas(timedelta(milliseconds=1), timedelta(days=30))


class Extreme(Random):
    """Chance that always picks the same end of a range: 0 the lower, 1 the upper."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def random(self) -> float:
        """Return the share."""
        return self._share


@pytest.mark.parametrize(
    ("attempt", "longest"),
    [(1, 2), (2, 4), (3, 8), (4, 16), (9, 512), (10, 600), (11, 600), (63, 600), (10_000, 600)],
)
def test_growth(attempt: int, longest: int) -> None:
    """The longest wait doubles with each attempt up to the maximum; the shortest is always nothing."""
    assert POLICY.delay(attempt, None, Extreme(1)) == timedelta(seconds=longest)
    assert POLICY.delay(attempt, None, Extreme(0)) == timedelta()


@pytest.mark.parametrize(("attempt", "exhausted"), [(1, False), (4, False), (5, True), (6, True)])
def test_exhausted(attempt: int, *, exhausted: bool) -> None:
    """The last attempt that is allowed is the maximum itself."""
    assert POLICY.exhausted(attempt) is exhausted


def test_one_attempt() -> None:
    """With a maximum of one, the first attempt is the last."""
    assert RetryPolicy(1, timedelta(seconds=2), timedelta(minutes=10)).exhausted(1)


@pytest.mark.parametrize(
    ("retry_after", "least"),
    [
        (None, timedelta()),
        (timedelta(), timedelta()),
        (timedelta(seconds=5), timedelta(seconds=5)),
        (timedelta(hours=1), timedelta(hours=1)),
    ],
)
def test_retry_after(retry_after: timedelta | None, least: timedelta) -> None:
    """What the receiver asked for is the least to wait, even beyond the maximum."""
    assert POLICY.delay(1, retry_after, Extreme(0)) == least


def test_retry_after_shorter_than_backoff() -> None:
    """A receiver that asks for less than the backoff does not shorten it."""
    assert POLICY.delay(9, timedelta(seconds=1), Extreme(1)) == timedelta(seconds=512)


def test_spread() -> None:
    """Waits are spread evenly: messages that failed together do not come back together."""
    random = Random(1)  # noqa: S311 - A fixed seed, so that the test is the same every time.
    waits = sorted(POLICY.delay(3, None, random).total_seconds() for _ in range(4000))

    assert [round(waits[share * 400]) for share in range(1, 10)] == pytest.approx(
        [0.8 * n for n in range(1, 10)], abs=0.5
    )


@settings(deadline=None, derandomize=True)
@given(
    attempt=st.integers(1, 10**9),
    base=DURATIONS,
    most=DURATIONS,
    retry_after=st.none() | DURATIONS,
    random=st.randoms(use_true_random=False),
)
def test_bounds(attempt: int, base: timedelta, most: timedelta, retry_after: timedelta | None, random: Random) -> None:
    """A wait is never negative, never below what was asked for, and otherwise never above the maximum."""
    delay = RetryPolicy(5, base, most).delay(attempt, retry_after, random)

    least = retry_after or timedelta()
    assert least <= delay <= max(most, least)

"""How requests are counted in windows of time."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from birthday.http.middleware.rates import RateLimit, Windows

STEPS = st.lists(st.tuples(st.sampled_from("abcde"), st.floats(0, 1.5)), max_size=60)


@given(STEPS, st.integers(1, 4))
def test_no_client_gets_more_than_its_rate_and_each_gets_it(steps: list[tuple[str, float]], rate: int) -> None:
    """In a second from its first request a client gets as many as the limit, others notwithstanding, and then again."""
    limit = RateLimit(rate)
    now = 0.0
    opened: dict[str, tuple[float, int]] = {}
    for client, pause in steps:
        now += pause
        ends_at, count = opened.get(client, (0.0, 0))
        if ends_at <= now:
            ends_at, count = now + 1, 0
        opened[client] = ends_at, count + 1
        allowed, field = limit.count(client, now)
        assert allowed is (count < rate)
        assert field == f'"default";r={max(0, rate - count - 1)};t=1'


@given(STEPS)
def test_only_so_many_clients_are_remembered(steps: list[tuple[str, float]]) -> None:
    """However many clients come, few are kept; the one that has just come is among them."""
    windows = Windows(60, most=3)
    counts: dict[str, int] = defaultdict(int)
    now = 0.0
    for client, pause in steps:
        now += pause
        counts[client] += 1
        assert 1 <= windows.count(client, now).count <= counts[client]
        assert len(windows) <= 3


def test_windows_that_are_over_take_no_memory() -> None:
    """A count is forgotten with its window, also if its client never comes again."""
    windows = Windows(60)
    for number in range(1000):
        windows.count(str(number), 0)
    assert windows.count("late", 59).seconds_left(59.5) == 60
    assert len(windows) == 1001
    windows.count("later", 60)
    assert len(windows) == 2

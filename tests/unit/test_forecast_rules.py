"""What a forecast says, from the instants it was given."""

from datetime import UTC, date, datetime, timedelta

import pytest

from birthday.core.forecast import DeliveryRate, Forecast, Peak, drain_seconds

START = datetime(2027, 3, 1, 10, 15, tzinfo=UTC)


def forecast_of(due: dict[str, int]) -> Forecast:
    """Return a forecast of two days with so many messages at each instant."""
    return Forecast(START, START + timedelta(days=2), {datetime.fromisoformat(at): count for at, count in due.items()})


def test_each_instant_counts_in_its_hour() -> None:
    """A quarter of an hour belongs to the hour it is in, and an hour without messages is left out."""
    forecast = forecast_of({"2027-03-01T11:00:00Z": 3, "2027-03-01T11:45:00Z": 4, "2027-03-01T13:00:00Z": 5})
    assert forecast.messages == 12
    assert forecast.by_hour() == {
        datetime(2027, 3, 1, 11, tzinfo=UTC): 7,
        datetime(2027, 3, 1, 13, tzinfo=UTC): 5,
    }


def test_instants_count_by_utc_whatever_zone_they_are_written_in() -> None:
    """The database returns instants in the zone of its session."""
    forecast = forecast_of({"2027-03-01T23:30:00-02:00": 2})
    assert forecast.by_hour() == {datetime(2027, 3, 2, 1, tzinfo=UTC): 2}
    assert forecast.largest_minute(date(2027, 3, 2)) == Peak(datetime(2027, 3, 2, 1, 30, tzinfo=UTC), 2)


def test_the_hour_of_the_day_sums_the_two_halves_of_the_present_hour() -> None:
    """The next 24 hours have the present hour twice: the rest of it today, its beginning tomorrow."""
    forecast = forecast_of({"2027-03-01T10:30:00Z": 1, "2027-03-02T10:00:00Z": 2, "2027-03-02T00:00:00Z": 4})
    assert forecast.by_hour_of_day() == {hour: {0: 4, 10: 3}.get(hour, 0) for hour in range(24)}


def test_the_largest_minute_sums_the_instants_within_it() -> None:
    """Where local time is some seconds off, two instants share a minute, and the workers have both at once."""
    forecast = forecast_of({"2027-03-01T11:00:00Z": 3, "2027-03-01T11:00:28Z": 3, "2027-03-01T12:00:00Z": 5})
    assert forecast.largest_minute() == Peak(datetime(2027, 3, 1, 11, tzinfo=UTC), 6)


def test_the_largest_minute_of_a_day_is_that_of_its_date_in_utc() -> None:
    """A day without messages has none."""
    forecast = forecast_of({"2027-03-01T11:00:00Z": 3, "2027-03-02T00:00:00Z": 9})
    assert forecast.largest_minute(date(2027, 3, 1)) == Peak(datetime(2027, 3, 1, 11, tzinfo=UTC), 3)
    assert forecast.largest_minute(date(2027, 3, 3)) is None


@pytest.mark.parametrize(
    ("peak", "rate", "seconds"),
    [
        pytest.param(Peak(START, 300), DeliveryRate(200, None), 1.5, id="known"),
        pytest.param(None, DeliveryRate(200, None), 0, id="nothing to do"),
        pytest.param(None, None, 0, id="nothing to do at an unknown rate"),
        pytest.param(Peak(START, 300), None, None, id="unknown rate"),
    ],
)
def test_what_a_peak_takes(peak: Peak | None, rate: DeliveryRate | None, seconds: float | None) -> None:
    """Its messages by the rate. An unknown rate is no reason to say that nothing takes any time."""
    assert drain_seconds(peak, rate) == seconds

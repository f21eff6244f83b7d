"""What a forecast says: how many messages fall due at which instants, and how long the largest peak takes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Peak:
    """How many messages fall due within the minute that begins at ``at``, UTC."""

    at: datetime
    messages: int


@dataclass(frozen=True, slots=True)
class DeliveryRate:
    """Messages per second. ``measured_of`` is the burst that it was measured on; None if the rate is an assumption.

    ``is_sustained`` says that the rate held for a whole minute. The rate of a shorter burst is only an upper limit,
    because a message service that keeps up for five seconds may not keep up for a minute.
    """

    per_second: float
    measured_of: Peak | None
    is_sustained: bool = True


@dataclass(frozen=True, slots=True)
class Forecast:
    """How many messages fall due in ``(from_at, to_at]``, by instant, UTC.

    ``unknown_zones`` are zones that do not exist, so the birthdays of their users cannot be computed.
    """

    from_at: datetime
    to_at: datetime
    due: Mapping[datetime, int]
    unknown_zones: tuple[str, ...] = ()
    zones: Mapping[str, Mapping[datetime, int]] = field(default_factory=dict)
    """The same for the users of each time zone, by its name."""

    @property
    def messages(self) -> int:
        """How many messages fall due in all."""
        return sum(self.due.values())

    def by_hour(self) -> dict[datetime, int]:
        """Return how many fall due in each hour, by the start of the hour. Hours without messages are left out."""
        return _sums(self.due, timedelta(hours=1))

    def by_hour_of_day(self) -> dict[int, int]:
        """Return how many fall due in each hour of the day, UTC, from 0 to 23, summed over all days."""
        hours = dict.fromkeys(range(24), 0)
        for at, messages in self.by_hour().items():
            hours[at.hour] += messages
        return hours

    def largest_minute(self, day: date | None = None) -> Peak | None:
        """Return the minute in which most fall due, on ``day`` (UTC) or on all days; None if nothing falls due."""
        return _largest({at: messages for at, messages in self.due.items() if day in {None, at.astimezone(UTC).date()}})

    def by_zone(self) -> dict[str, Peak]:
        """Return how many fall due in each zone, and the minute in which most of them do; the largest zone first."""
        sums = {zone: sum(due.values()) for zone, due in self.zones.items()}
        peaks = {zone: _largest(self.zones[zone]) for zone in sorted(sums, key=lambda zone: (-sums[zone], zone))}
        return {zone: Peak(peak.at, sums[zone]) for zone, peak in peaks.items() if peak is not None}


def _largest(due: Mapping[datetime, int]) -> Peak | None:
    """Return the minute in which most fall due."""
    minutes = [Peak(at, messages) for at, messages in _sums(due, timedelta(minutes=1)).items()]
    return max(minutes, key=lambda peak: peak.messages, default=None)


def drain_seconds(peak: Peak | None, rate: DeliveryRate | None) -> float | None:
    """Return how many seconds a peak takes to deliver: 0 if there is no peak, else None if the rate is unknown."""
    if peak is None:
        return 0.0
    return None if rate is None else peak.messages / rate.per_second


def _sums(due: Mapping[datetime, int], length: timedelta) -> dict[datetime, int]:
    sums: Counter[datetime] = Counter()
    for instant, messages in sorted(due.items()):
        at = instant.astimezone(UTC)
        sums[at - (at - datetime.min.replace(tzinfo=UTC)) % length] += messages
    return dict(sums)

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
    """Messages per second, and those that fell due together of which it was measured; None if it is a supposition.

    ``is_sustained`` says that it held for a minute on end. That of a shorter burst is only an upper limit: what a
    message service takes for five seconds, it may not take for a minute.
    """

    per_second: float
    measured_of: Peak | None
    is_sustained: bool = True


@dataclass(frozen=True, slots=True)
class Forecast:
    """What falls due in ``(from_at, to_at]``: the number of messages of each instant, UTC.

    ``unknown_zones`` are zones that do not exist: nobody can say when the birthdays of their users are due.
    """

    from_at: datetime
    to_at: datetime
    due: Mapping[datetime, int]
    unknown_zones: tuple[str, ...] = ()
    zones: Mapping[str, Mapping[datetime, int]] = field(default_factory=dict)
    """The same of the users of each time zone, by its name."""

    @property
    def messages(self) -> int:
        """How many there are in all."""
        return sum(self.due.values())

    def by_hour(self) -> dict[datetime, int]:
        """Return how many fall due in each hour in which any do, by the instant at which the hour begins."""
        return _sums(self.due, timedelta(hours=1))

    def by_hour_of_day(self) -> dict[int, int]:
        """Return how many fall due in each hour of the day, UTC, from 0 to 23, whichever day it is of."""
        hours = dict.fromkeys(range(24), 0)
        for at, messages in self.by_hour().items():
            hours[at.hour] += messages
        return hours

    def largest_minute(self, day: date | None = None) -> Peak | None:
        """Return the minute in which most fall due, of one day, UTC, or of all; None if nothing does."""
        return _largest({at: messages for at, messages in self.due.items() if day in {None, at.astimezone(UTC).date()}})

    def by_zone(self) -> dict[str, Peak]:
        """Return how many fall due in each zone, and when the most of them do; the largest zone first."""
        sums = {zone: sum(due.values()) for zone, due in self.zones.items()}
        peaks = {zone: _largest(self.zones[zone]) for zone in sorted(sums, key=lambda zone: (-sums[zone], zone))}
        return {zone: Peak(peak.at, sums[zone]) for zone, peak in peaks.items() if peak is not None}


def _largest(due: Mapping[datetime, int]) -> Peak | None:
    """Return the minute in which most fall due."""
    minutes = [Peak(at, messages) for at, messages in _sums(due, timedelta(minutes=1)).items()]
    return max(minutes, key=lambda peak: peak.messages, default=None)


def drain_seconds(peak: Peak | None, rate: DeliveryRate | None) -> float | None:
    """Return how long a peak takes to deliver; None while the rate is unknown and there is anything to do."""
    if peak is None:
        return 0.0
    return None if rate is None else peak.messages / rate.per_second


def _sums(due: Mapping[datetime, int], length: timedelta) -> dict[datetime, int]:
    sums: Counter[datetime] = Counter()
    for instant, messages in sorted(due.items()):
        at = instant.astimezone(UTC)
        sums[at - (at - datetime.min.replace(tzinfo=UTC)) % length] += messages
    return dict(sums)

"""Figures that somebody else keeps: the database, the queue, the kernel. They are read in the background and shown."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Figure(Collector):
    """One number. While it is not known there is no sample: a gap says so, and an old value would not."""

    def __init__(self, name: str, text: str, *, counts: bool = False) -> None:
        """Begin unknown. ``counts`` says that it only ever grows, which makes it a counter."""
        self.value: float | None = None
        self._name = name
        self._text = text
        self._family = CounterMetricFamily if counts else GaugeMetricFamily

    def set(self, value: float | None) -> None:
        """Show ``value`` from now on; None is not known."""
        self.value = value

    def describe(self) -> Iterable[Metric]:
        """Return the family alone, from which a registry learns the name."""
        return [self._family(self._name, self._text)]

    def collect(self) -> Iterable[Metric]:
        """Return the family, with the value if there is one."""
        family = self._family(self._name, self._text)
        if self.value is not None:
            family.add_metric((), self.value)
        return [family]

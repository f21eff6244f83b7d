"""Figures whose source is the database, the queue or the kernel. They are read in the background."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector


class Figure(Collector):
    """One number. While it is unknown there is no sample, because a gap shows that and an old value would hide it."""

    def __init__(self, name: str, text: str, registry: CollectorRegistry, *, counts: bool = False) -> None:
        """Begin unknown. With ``counts`` it is a counter, otherwise a gauge."""
        self.value: float | None = None
        self._name = name
        self._text = text
        self._family = CounterMetricFamily if counts else GaugeMetricFamily
        registry.register(self)

    def set(self, value: float | None) -> None:
        """Export ``value`` from now on; None is unknown."""
        self.value = value

    def collect(self) -> Iterable[Metric]:
        """Return the family, with the value if it is known."""
        return [self._family(self._name, self._text, self.value)]

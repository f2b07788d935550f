"""The text that Prometheus reads. The one module that knows its library.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from docfleet.metrics.catalogue import METRICS, Kind, Metric

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


@dataclass(frozen=True)
class Sample:
    """One number of a counter or a gauge."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Distribution:
    """One histogram."""

    name: str
    bounds: Sequence[float]
    #: Between each two bounds, and beyond the last.
    counts: Sequence[int]
    total: float
    labels: Mapping[str, str] = field(default_factory=dict)


def render(told: Iterable[Sample | Distribution]) -> bytes:
    """Return the text of all families of the catalogue, those without a number included.

    Raises:
        KeyError: a name or a label that the catalogue does not have.
    """
    families = {name: _family(metric) for name, metric in METRICS.items()}
    for one in told:
        labels = METRICS[one.name].labels
        if set(one.labels) != set(labels):
            raise KeyError(f"{one.name} has the labels {labels}, not {sorted(one.labels)}")
        values = [one.labels[label] for label in labels]
        family = families[one.name]
        if isinstance(one, Distribution):
            assert isinstance(family, HistogramMetricFamily), one.name
            family.add_metric(values, _buckets(one), one.total)
        else:
            assert not isinstance(family, HistogramMetricFamily), one.name
            family.add_metric(values, one.value)
    registry = CollectorRegistry()
    registry.register(_Ready(families.values()))
    return generate_latest(registry)


class _Ready(Collector):
    """Hands out what was collected already."""

    def __init__(self, families: Iterable[_Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[_Family]:
        return self._families


def _family(metric: Metric) -> _Family:
    if metric.kind is Kind.HISTOGRAM:
        return HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    if metric.kind is Kind.COUNTER:
        return CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    return GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)


def _buckets(one: Distribution) -> list[tuple[str, float]]:
    bounds = [*(f"{bound:g}" for bound in one.bounds), "+Inf"]
    return [(bound, float(count)) for bound, count in zip(bounds, accumulate(one.counts), strict=True)]

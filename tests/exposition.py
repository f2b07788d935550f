"""Read what `GET /metrics` tells, with Prometheus' own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

#: By name and labels.
Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


def numbers_in(text: str) -> Numbers:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def one(told: Numbers, name: str, **labels: str) -> float:
    """A number; 0 where it is not told."""
    return told.get((name, frozenset(labels.items())), 0.0)

"""`/metrics`: the farm's and the door's figures in Prometheus' text format."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from blacktree import __version__
from blacktree.api.catalogue import CATALOGUE, Kind, Metric
from blacktree.histogram import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Figures = Mapping[str, Any]

Family = GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily

_NAME = re.compile(r"(?P<name>[^{]*)(?:\{(?P<labels>\w+(?:,\w+)*)\})?")
_WORDS = re.compile(r"[^a-zA-Z0-9_]+")


class Tally:
    """What the door counts of itself."""

    def __init__(self) -> None:
        self.connections = 0
        self.websockets = 0
        self.watches = 0
        self.refused = 0
        self.requests: dict[str, int] = {}

    def answered(self, status: int) -> None:
        """One more HTTP answer."""
        self.requests[str(status)] = self.requests.get(str(status), 0) + 1

    def figures(self) -> dict[str, Any]:
        """In the form of `Control.figures`."""
        return {
            "door_connections": self.connections,
            "door_websockets": self.websockets,
            "door_watches": self.watches,
            "door_connections_refused_total": self.refused,
            "door_requests_total{status}": self.requests,
        }


class _Once(Collector):
    """Every family of the catalogue, also one that has no value yet: what is asked for by name is there."""

    def __init__(self, figures: Figures) -> None:
        self._values: dict[str, tuple[Metric, Any]] = {name: (metric, {}) for name, metric in CATALOGUE.items()}
        for key, value in {"build_info": {__version__: 1}, **figures}.items():
            name, metric = _named(key, value)
            self._values[name] = (metric, value)

    def collect(self) -> Iterable[Family]:
        for name, (metric, value) in self._values.items():
            yield _family(f"blacktree_{name}", metric, value)


def _named(key: str, value: Any) -> tuple[str, Metric]:
    """The name, and what the catalogue says of it; else what can be told from the key."""
    found = _NAME.match(key)
    name = _WORDS.sub("_", found["name"] if found else key)
    if name in CATALOGUE:
        return name, CATALOGUE[name]
    kind: Kind = "counter" if name.endswith("_total") else "gauge"
    labels = tuple(((found["labels"] if found else None) or "state").split(",")) if isinstance(value, Mapping) else ()
    return name, Metric(kind, name.replace("_", " "), labels)


def _family(name: str, metric: Metric, value: Any) -> Family:
    parts = value if isinstance(value, Mapping) else {(): value}
    if metric.kind == "histogram":
        spread = HistogramMetricFamily(name, metric.help, labels=metric.labels)
        for labels, each in parts.items():
            assert isinstance(each, Histogram)
            spread.add_metric(_labels(labels), each.cumulative(), each.sum)
        return spread
    plain = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
        name, metric.help, labels=metric.labels
    )
    for labels, number in parts.items():
        plain.add_metric(_labels(labels), float(number))
    return plain


def _labels(labels: Any) -> list[str]:
    return [str(label) for label in (labels if isinstance(labels, tuple) else (labels,))]


def exposition(figures: Figures) -> bytes:
    """The figures as text, and those of this process. What the catalogue does not hold is a gauge, or with `_total` at
    its end a counter.

    What has several values is labelled as the catalogue or its key says (`door_requests_total{status}`), else `state`;
    the values of several labels are tuples.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(figures))
    ProcessCollector(registry=registry)
    return generate_latest(registry)

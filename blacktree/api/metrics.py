"""`/metrics`: the farm's and the door's figures in Prometheus' text format."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Figures = Mapping[str, Any]

_NAME = re.compile(r"(?P<name>[^{]*)(?:\{(?P<label>\w+)\})?")
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
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        for key, value in self._figures.items():
            found = _NAME.match(key)
            name = "blacktree_" + _WORDS.sub("_", found["name"] if found else key)
            label = (found["label"] if found else None) or "state"
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            text = name.removeprefix("blacktree_").replace("_", " ")
            if isinstance(value, Mapping):
                family = kind(name, text, labels=[label])
                for part, number in value.items():
                    family.add_metric([str(part)], float(number))
            else:
                family = kind(name, text, value=float(value))
            yield family


def exposition(figures: Figures) -> bytes:
    """The figures as text. Names ending in `_total` are counters.

    What has several values is labelled `state`, or as its name says: `door_requests_total{status}`.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(figures))
    return generate_latest(registry)

"""Counters of servers for Prometheus."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class RequestMetrics:
    """Requests of one server by route."""

    def __init__(self, prefix: str) -> None:
        """Make the counters, at 0.

        Args:
            prefix: of their names, such as `citeflow_serving`.
        """
        self._registry = CollectorRegistry()
        self.requests = Counter(
            f"{prefix}_requests",
            "Requests that were answered.",
            ["route", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            f"{prefix}_request_seconds",
            "Time of a request, from its first line to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )

    def page(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self._registry)


class ServerMetrics(RequestMetrics):
    """Counters and gauges of a server of predictions."""

    def __init__(self) -> None:
        """Make them, at 0."""
        super().__init__("citeflow_serving")
        registry = self._registry
        self.pending = Gauge(
            "citeflow_serving_pending",
            "Requests that wait for a thread or have one.",
            registry=registry,
        )
        self.answers = Counter(
            "citeflow_serving_answers",
            "Queries that were answered, or not.",
            ["method"],
            registry=registry,
        )
        self.loads = Counter(
            "citeflow_serving_index_loads",
            "Indices that were opened, or not.",
            ["result"],
            registry=registry,
        )
        self.index = Gauge(
            "citeflow_serving_index_info", "The index that answers.", ["version"], registry=registry
        )
        self.size = Gauge(
            "citeflow_serving_size",
            "Numbers of what the index holds, such as papers.",
            ["of"],
            registry=registry,
        )

    def loaded(self, version: str, size: Mapping[str, int]) -> None:
        """Note that an index answers from now on, and what it holds."""
        self.loads.labels("loaded").inc()
        self.index.clear()
        self.index.labels(version).set(1)
        self.size.clear()
        for name, number in size.items():
            self.size.labels(name).set(number)

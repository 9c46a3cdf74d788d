"""Counters of servers for Prometheus."""

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
    """Counters and gauges of a server of citations."""

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
            "Papers that citations were listed for.",
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
        self.papers = Gauge("citeflow_serving_papers", "Papers of the index.", registry=registry)

    def loaded(self, version: str, num_papers: int) -> None:
        """Note that an index answers from now on."""
        self.loads.labels("loaded").inc()
        self.index.clear()
        self.index.labels(version).set(1)
        self.papers.set(num_papers)

"""What Prometheus reads of a worker, over HTTP, at the moment it asks."""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from citeflow.utils.logging import log
from citeflow.utils.usage import Usage

PORT_VARIABLE = "CITEFLOW_METRICS_PORT"

OF_USAGE = {
    "citeflow_process_cpu_seconds_total": ("cpu_s", "CPU time of the process."),
    "citeflow_process_resident_memory_bytes": ("rss_bytes", "Resident memory of the process."),
    "citeflow_process_disk_read_bytes_total": (
        "read_bytes",
        "Bytes that the process read from disks.",
    ),
    "citeflow_process_disk_written_bytes_total": (
        "written_bytes",
        "Bytes that the process wrote to disks.",
    ),
    "citeflow_container_cpu_seconds_total": ("container_cpu_s", "CPU time of the container."),
    "citeflow_container_memory_bytes": (
        "container_bytes",
        "Memory of the container, without inactive file pages.",
    ),
    "citeflow_network_receive_bytes_total": ("received_bytes", "Bytes that the pod received."),
    "citeflow_network_transmit_bytes_total": ("sent_bytes", "Bytes that the pod sent."),
}
OF_TRAINING = {
    "citeflow_train_step": "Steps taken.",
    "citeflow_train_loss": "Mean loss of all ranks at the last recorded step; rank 0 alone has it.",
    "citeflow_train_valid_mrr": "MRR of the last validation.",
    "citeflow_train_citations_total": "Citations trained on, by all ranks.",
}
Facts = Callable[[], Mapping[str, float]]


@contextlib.contextmanager
def served(
    port: str | None, usage: Callable[[], Usage | None], facts: Facts, labels: dict[str, str]
) -> Iterator[None]:
    """Answer /metrics during a block; whatever fails in doing so is told once and ends nothing.

    Args:
        port: where, in digits; nowhere if there is none.
        usage: takes a sample.
        facts: values of OF_TRAINING, as far as there are any.
        labels: of every value.
    """
    if not port:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            _start(stack, int(port), _Collector(usage, facts, labels))
        except Exception as error:
            log("train", "serves no metrics", port=port, why=error)
        yield


def _start(stack: contextlib.ExitStack, port: int, collector: "_Collector") -> None:
    import prometheus_client

    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    registry.register(collector)
    server, thread = prometheus_client.start_http_server(port, registry=registry)
    stack.callback(_stop, server, thread)
    log("train", "serves metrics", port=port)


def _stop(server: Any, thread: threading.Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()


class _Collector:
    """Makes the families anew each time that somebody asks."""

    def __init__(
        self, usage: Callable[[], Usage | None], facts: Facts, labels: dict[str, str]
    ) -> None:
        self._usage, self._facts, self._labels = usage, facts, labels

    def describe(self) -> list[Any]:
        """Nothing: whoever registers this takes no sample."""
        return []

    def collect(self) -> Iterator[Any]:
        """Families for prometheus_client."""
        usage = self._usage()
        for name, (key, told) in OF_USAGE.items():
            yield from self._family(name, told, getattr(usage, key) if usage else math.nan)
        facts = self._facts()
        for name, told in OF_TRAINING.items():
            yield from self._family(name, told, facts.get(name, math.nan))

    def _family(self, name: str, told: str, value: float) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        if math.isfinite(value):
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(name, told, labels=tuple(self._labels))
            family.add_metric(list(self._labels.values()), value)
            yield family

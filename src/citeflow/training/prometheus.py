"""Metrics of a training for Prometheus, served by the first rank of each machine."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from citeflow.tasks.names import Names
from citeflow.utils.logging import log

USAGE_METRICS = {
    "citeflow_process_cpu_seconds_total": ("cpu_s", "CPU time of the process."),
    "citeflow_process_resident_memory_bytes": ("rss_bytes", "Resident memory of the process."),
    "citeflow_process_disk_read_bytes_total": ("read_bytes", "Bytes read from disks."),
    "citeflow_process_disk_written_bytes_total": ("written_bytes", "Bytes written to disks."),
    "citeflow_container_cpu_seconds_total": ("container_cpu_s", "CPU time of the container."),
    "citeflow_container_memory_bytes": (
        "container_bytes",
        "Memory of the container, without inactive file pages.",
    ),
    "citeflow_network_receive_bytes_total": ("received_bytes", "Bytes that the pod received."),
    "citeflow_network_transmit_bytes_total": ("sent_bytes", "Bytes that the pod sent."),
}
"""Metrics of the process and its container, by the field of Usage."""


Value = float | Mapping[str, float]
"""Value of a metric; where it has one for each cause, by their names."""

CAUSE = "cause"
"""Label of a metric with a value for each."""

VOLUME_METRICS = {
    "citeflow_volume_size_bytes": "Size of the volume that the run is on.",
    "citeflow_volume_free_bytes": "Free bytes of this volume.",
}


def metric_texts(names: Names) -> dict[str, str]:
    """Return what each metric of a task means; a name that ends in `_total` is a counter."""
    samples = names.samples
    return {
        **{name: text for name, (_, text) in USAGE_METRICS.items()},
        **VOLUME_METRICS,
        "citeflow_train_step": "Optimizer steps taken.",
        "citeflow_train_loss": "Mean loss of all ranks at the last recorded step; on rank 0 only.",
        f"citeflow_train_{names.score}": "Score of the last validation.",
        f"citeflow_train_{samples}_total": f"{samples.title()} trained on, by all ranks.",
        "citeflow_train_goodput_ratio": "Share of the wall time in steps that count; on rank 0.",
        "citeflow_train_lost_seconds": "Wall time in no such step, by cause; on rank 0.",
    }


@contextlib.contextmanager
def serve_metrics(
    port: str,
    values: Callable[[], Mapping[str, Value]],
    *,
    texts: Mapping[str, str],
    labels: Mapping[str, str],
) -> Iterator[None]:
    """Serve /metrics to Prometheus during a block; a failure is logged, and ends nothing.

    Args:
        port: TCP port, in digits.
        values: returns the value of each metric at the moment of a scrape.
        texts: what each metric means.
        labels: of every metric.
    """
    with contextlib.ExitStack() as stack:
        try:
            registry = prometheus_client.CollectorRegistry(auto_describe=False)
            registry.register(_MetricsCollector(values, texts, labels))
            server, thread = prometheus_client.start_http_server(int(port), registry=registry)
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            log("train", "serves metrics", port=port)
        except Exception as error:
            log("train", "serves no metrics", port=port, why=error)
        yield


class _MetricsCollector(Collector):
    """Builds the metrics at each scrape.

    Neither prometheus_client's ProcessCollector (which has no labels) nor its Counter (which counts
    itself, and takes no function) can show counters that the kernel keeps.
    """

    def __init__(
        self,
        values: Callable[[], Mapping[str, Value]],
        texts: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> None:
        self._values = values
        self._texts = texts
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics whose value is known."""
        for name, value in self._values().items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            has_causes = isinstance(value, Mapping)
            labels = (*self._labels, CAUSE) if has_causes else tuple(self._labels)
            family = kind(name, self._texts[name], labels=labels)
            for cause, each in value.items() if isinstance(value, Mapping) else [("", value)]:
                if math.isfinite(each):
                    family.add_metric([*self._labels.values(), cause][: len(labels)], each)
            if family.samples:
                yield family

"""Resources of the ranks: curves in TensorBoard, metrics for Prometheus, a summary at the end.

Nothing here may end a training: what fails is logged once and left out.

Legend: T moments, R ranks, Q quantities.
"""

import contextlib
import dataclasses
import math
import os
import re
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import JsonValue

from citeflow import files
from citeflow.paths import RunPaths
from citeflow.report import StageCost
from citeflow.reporting.tensorboard import ResourceLog
from citeflow.training.checkpoint import Progress
from citeflow.training.distributed import Group
from citeflow.utils.logging import log
from citeflow.utils.system import METRICS_PORT_VARIABLE
from citeflow.utils.usage import COUNTERS, StageMeter, Usage, UsageReader, rates

INTERVAL_S = 1.0
"""Seconds between two samples, at first."""

JOIN_S = 5.0
"""Longest wait for a sample that hangs, as on a disk that does not answer."""

MAX_SAMPLES = 400
"""Beyond it, every two samples become one and the interval doubles: a day has no more than seven
minutes have."""

MAX_MOMENTS = 200
"""Points on the time axis of resources.json."""

GAUGES = {
    "memory_bytes": "rss_bytes",
    "shared_bytes": "shared_bytes",
    "container_bytes": "container_bytes",
}
"""Amounts in resources.json, and the fields of Usage that hold them."""

QUANTITIES = (*COUNTERS, *GAUGES)

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

PROGRESS_METRICS = {
    "citeflow_train_step": "Optimizer steps taken.",
    "citeflow_train_loss": "Mean loss of all ranks at the last recorded step; on rank 0 only.",
    "citeflow_train_valid_mrr": "MRR of the last validation.",
    "citeflow_train_citations_total": "Citations trained on, by all ranks.",
}

VOLUME_METRICS = {
    "citeflow_volume_size_bytes": "Size of the volume that the run is on.",
    "citeflow_volume_free_bytes": "Free bytes of this volume.",
}

METRICS = {
    **PROGRESS_METRICS,
    **VOLUME_METRICS,
    **{name: text for name, (_, text) in USAGE_METRICS.items()},
}
"""Help text by the name of each metric; manifests/components/monitoring is made from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceSummary:
    """Resources that all ranks used together, since the last start of the workers."""

    train: dict[str, float]
    """`cpu_cores`: mean cores in use while they trained. `peak_memory_bytes`: highest memory, pages
    that ranks of one machine share counted once. Unknown figures are left out."""

    cost: StageCost
    """Cost of the training, of all ranks."""

    series: dict[str, JsonValue]
    """Content of resources.json: `seconds`, and for each of the `ranks` what it used until then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankUsage:
    """Resources of one rank, as it sends them to the others."""

    samples: list[Usage]
    cpu_cores: float
    """Mean cores in use while it trained."""
    cpu_s: float
    """CPU time of its whole work."""
    peak_rss_bytes: float


class Sampler:
    """A thread that samples usage during a block; a failure ends the sampling and nothing else."""

    def __init__(
        self,
        read: Callable[[], Usage],
        *,
        interval_s: float = INTERVAL_S,
        on_sample: Callable[[Usage, Usage], None] | None = None,
    ) -> None:
        """Prepare the thread.

        Args:
            read: takes a sample.
            interval_s: seconds between two samples, at first.
            on_sample: called on the thread with the previous sample and the new one.
        """
        self._read = read
        self._interval_s = interval_s
        self._on_sample = on_sample
        self._stopped = threading.Event()
        # Adding a sample and thinning are two steps: a reader must not see the state in between.
        self._lock = threading.Lock()
        self._samples: list[Usage] = []
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)

    def __enter__(self) -> "Sampler":
        """Take the first sample, and start the thread."""
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the thread; take a last sample if the block ended well."""
        is_well = kind is None and not self._stopped.is_set()
        self._stopped.set()
        self._thread.join(JOIN_S)
        if is_well and not self._thread.is_alive():
            self._sample()

    @property
    def samples(self) -> list[Usage]:
        """All samples in the order of time, at most MAX_SAMPLES."""
        with self._lock:
            return list(self._samples)

    @property
    def is_running(self) -> bool:
        """False once a failure, or the end of the block, has ended the thread."""
        return self._thread.is_alive()

    def samples_until_now(self) -> list[Usage]:
        """Return all samples, and one that is taken now, if it can be."""
        latest = self.now()
        return [*self.samples, latest] if latest else self.samples

    def now(self) -> Usage | None:
        """Take a sample without keeping it; None where that fails."""
        with contextlib.suppress(Exception):
            return self._read()
        return None

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        try:
            before, after = self._add(self._read())
            if before and self._on_sample:
                self._on_sample(before, after)
        except Exception as error:
            self._stopped.set()
            log("train", "samples resources no more", why=error)

    def _add(self, sample: Usage) -> tuple[Usage | None, Usage]:
        with self._lock:
            before = self._samples[-1] if self._samples else None
            self._samples.append(sample)
            if len(self._samples) > MAX_SAMPLES:
                self._samples = thin(self._samples)
                self._interval_s *= 2
        return before, sample


def thin(samples: list[Usage]) -> list[Usage]:
    """Keep the first sample, and of every two others the later, with the higher memory of both."""
    first, *rest = samples
    merged = [_merge(*pair) for pair in zip(rest[::2], rest[1::2], strict=False)]
    odd = rest[len(rest) // 2 * 2 :]
    return [first, *merged, *odd]


def _merge(before: Usage, after: Usage) -> Usage:
    return dataclasses.replace(
        after,
        rss_bytes=max(before.rss_bytes, after.rss_bytes),
        shared_bytes=max(before.shared_bytes, after.shared_bytes),
        container_bytes=max(before.container_bytes, after.container_bytes),
    )


class ResourceMonitor(contextlib.ExitStack):
    """Samples this rank during a block, and shows the samples to TensorBoard and Prometheus."""

    def __init__(
        self,
        group: Group,
        run: RunPaths,
        *,
        step: int,
        read: Callable[[], Usage] | None = None,
    ) -> None:
        """Prepare the monitor.

        Args:
            group: the process group.
            run: paths of the run.
            step: step that the training resumes from.
            read: takes a sample; by default of this process.
        """
        super().__init__()
        self._group = group
        self._run = run
        self._step = step
        self._progress: Progress | None = None
        self._log: ResourceLog | None = None
        self._cpu_cores = 0.0
        self._meter = StageMeter()
        self._sampler = Sampler(read or UsageReader().read, on_sample=self._show)

    def __enter__(self) -> "ResourceMonitor":
        """Start to sample and to serve."""
        super().__enter__()
        try:
            if self._group.is_main and not self._step:
                _delete_old_ranks(self._run, self._group.world_size)
            purge_step = self._step or None
            self._log = ResourceLog(self._run.logs, self._group.rank, purge_step=purge_step)
            self.callback(self._log.close)
        except OSError as error:
            log("train", "shows no resources in TensorBoard", why=error)
        self.enter_context(self._sampler)
        port = os.environ.get(METRICS_PORT_VARIABLE, "")
        if port and self._group.is_local_main:
            labels = {"run": self._run.name, "rank": str(self._group.rank)}
            self.enter_context(serve_metrics(port, self.metrics, labels))
        return self

    @contextlib.contextmanager
    def fitting(self, progress: Progress) -> Iterator[None]:
        """Measure the cores in use within the block, and show the progress."""
        self._progress = progress
        start = time.monotonic()
        cpu_s = time.process_time()
        yield
        self._cpu_cores = (time.process_time() - cpu_s) / max(time.monotonic() - start, 1e-9)

    def gather(self) -> ResourceSummary:
        """Summarize what all ranks used; every rank calls it."""
        mine = RankUsage(
            samples=self._sampler.samples_until_now(),
            cpu_cores=self._cpu_cores,
            cpu_s=time.process_time(),
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
        )
        ranks = self._group.all_gather_object(mine)
        samples = [rank.samples for rank in ranks]
        series, peak_bytes = summarize(samples, self._group.local_world_size)
        latest = [each[-1] if each else None for each in samples]
        cost = {
            **self._meter.cost(),
            "peak_rss_bytes": max(rank.peak_rss_bytes for rank in ranks),
            "cpu_seconds": sum(rank.cpu_s for rank in ranks),
            "read_bytes": sum(usage.read_bytes if usage else math.nan for usage in latest),
            "written_bytes": sum(usage.written_bytes if usage else math.nan for usage in latest),
        }
        train = {
            "cpu_cores": sum(rank.cpu_cores for rank in ranks),
            "peak_memory_bytes": peak_bytes,
        }
        return ResourceSummary(train=_finite(train), cost=StageCost(**_finite(cost)), series=series)

    def metrics(self) -> dict[str, float]:
        """Return the current value of each metric; NaN where it is unknown yet."""
        usage = self._sampler.now()
        values = {
            name: getattr(usage, field) if usage else math.nan
            for name, (field, _) in USAGE_METRICS.items()
        }
        return values | self._progress_metrics() | self._volume_metrics()

    def _progress_metrics(self) -> dict[str, float]:
        values = dict.fromkeys(PROGRESS_METRICS, math.nan)
        progress = self._progress
        if progress is None:
            return values
        values["citeflow_train_step"] = progress.step
        values["citeflow_train_citations_total"] = progress.samples
        if progress.evaluations:
            values["citeflow_train_valid_mrr"] = progress.evaluations[-1]["valid_mrr"]
        if progress.history and self._group.is_main:
            values["citeflow_train_loss"] = progress.history[-1]["loss"]
        return values

    def _volume_metrics(self) -> dict[str, float]:
        try:
            usage = shutil.disk_usage(self._run.data_root)
        except OSError:
            return dict.fromkeys(VOLUME_METRICS, math.nan)
        return {
            "citeflow_volume_size_bytes": usage.total,
            "citeflow_volume_free_bytes": usage.free,
        }

    def _show(self, before: Usage, after: Usage) -> None:
        if not self._log:
            return
        step = self._progress.step if self._progress else self._step
        held = {"memory_bytes": after.rss_bytes, "container_memory_bytes": after.container_bytes}
        try:
            self._log.add(rates(before, after), held, step=step, wall_time=after.wall_time)
        except OSError as error:
            self._log = None
            log("train", "shows no more resources in TensorBoard", step=step, why=error.strerror)


@contextlib.contextmanager
def serve_metrics(
    port: str, values: Callable[[], dict[str, float]], labels: dict[str, str]
) -> Iterator[None]:
    """Serve /metrics to Prometheus during a block; a failure is logged, and ends nothing.

    Args:
        port: TCP port, in digits.
        values: returns the value of each metric at the moment of a scrape.
        labels: of every metric.
    """
    with contextlib.ExitStack() as stack:
        try:
            registry = prometheus_client.CollectorRegistry(auto_describe=False)
            registry.register(_MetricsCollector(values, labels))
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

    def __init__(self, values: Callable[[], dict[str, float]], labels: dict[str, str]) -> None:
        self._values = values
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics whose value is known."""
        for name, value in self._values().items():
            if math.isfinite(value):
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                family = kind(name, METRICS[name], labels=tuple(self._labels))
                family.add_metric(list(self._labels.values()), value)
                yield family


def summarize(
    of_ranks: Sequence[Sequence[Usage]], local_world_size: int
) -> tuple[dict[str, JsonValue], float]:
    """Put the samples of all ranks on one time axis, that of rank 0.

    Args:
        of_ranks: samples by rank.
        local_world_size: ranks of each machine, which share pages of memory.

    Returns:
        The series, and the highest memory of all ranks together in bytes, NaN where it is unknown.
    """
    first = of_ranks[0]
    seconds = first[-1].at - first[0].at if len(first) > 1 else 0.0
    edge_T = np.linspace(0.0, seconds, min(MAX_MOMENTS, max(2, len(first))))
    value_RTQ = np.stack([_resample(edge_T, samples) for samples in of_ranks])
    memory_T = _memory_of_all(value_RTQ, local_world_size)
    peak_bytes = float(max(memory_T[np.isfinite(memory_T)], default=math.nan))
    series: dict[str, JsonValue] = {
        "seconds": [round(float(edge), 3) for edge in edge_T[1:]],
        "ranks": [_to_series(rank, value_TQ) for rank, value_TQ in enumerate(value_RTQ)],
    }
    return series, peak_bytes


def _resample(edge_T: np.ndarray, samples: Sequence[Usage]) -> np.ndarray:
    """Return rates between the edges and peaks of memory there, [T - 1, Q]; NaN where unknown."""
    width = np.diff(edge_T)
    if len(samples) < 2 or not width.all():
        return np.full((len(width), len(QUANTITIES)), math.nan)
    fields = {
        name: np.array([getattr(sample, name) for sample in samples]) for name in Usage.__slots__
    }
    at = fields["at"] - samples[0].at
    # A rank that was sampled for a shorter time is unknown from there on, and not constant.
    known = edge_T[1:] <= at[-1] + 2 * width
    growth = [np.diff(np.interp(edge_T, at, fields[key])) / width for key in COUNTERS.values()]
    peaks = [_peak_between(edge_T, at, fields[key]) for key in GAUGES.values()]
    value_TQ: np.ndarray = np.where(known[:, None], np.stack([*growth, *peaks], axis=1), math.nan)
    return value_TQ


def _peak_between(edge_T: np.ndarray, at: np.ndarray, value: np.ndarray) -> np.ndarray:
    at_edge_T = np.interp(edge_T, at, value)
    peak: np.ndarray = np.maximum(at_edge_T[:-1], at_edge_T[1:])
    interval = np.clip(np.searchsorted(edge_T, at) - 1, 0, len(peak) - 1)
    np.maximum.at(peak, interval, value)
    return peak


def _memory_of_all(value_RTQ: np.ndarray, local_world_size: int) -> np.ndarray:
    """Sum the memory of all ranks; what those of a machine share counts once per machine."""
    rss_RT = value_RTQ[:, :, QUANTITIES.index("memory_bytes")]
    shared_RT = value_RTQ[:, :, QUANTITIES.index("shared_bytes")]
    machines = np.arange(0, len(value_RTQ), local_world_size)
    shared_T = np.maximum.reduceat(shared_RT, machines, axis=0).sum(axis=0)
    memory_T: np.ndarray = (rss_RT - shared_RT).sum(axis=0) + shared_T
    return memory_T


def _to_series(rank: int, value_TQ: np.ndarray) -> dict[str, JsonValue]:
    series: dict[str, JsonValue] = {"rank": rank}
    for index, name in enumerate(QUANTITIES):
        series[name] = [_to_json(value) for value in value_TQ[:, index]]
    return series


def _to_json(value: float) -> float | None:
    """Drop NaN, which JSON does not have, and digits that say nothing."""
    if not math.isfinite(value):
        return None
    return round(float(value), 3) if value < 1000 else round(value)


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _delete_old_ranks(run: RunPaths, world_size: int) -> None:
    """Delete the curves of ranks that an earlier run of this name had, and this one has not."""
    for folder in run.logs.glob("rank-*"):
        match = re.fullmatch(r"rank-(\d+)", folder.name)
        if match and int(match[1]) >= world_size:
            files.delete_directory(folder)

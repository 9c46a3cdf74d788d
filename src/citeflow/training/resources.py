"""Resources of the ranks: curves in TensorBoard, metrics for Prometheus, a summary at the end.

Nothing here may end a training: what fails is logged once and left out.
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

from citeflow import files
from citeflow.paths import RunPaths
from citeflow.report import Resources, StageCost
from citeflow.reporting.tensorboard import ResourceLog
from citeflow.tasks.names import Names
from citeflow.training import goodput
from citeflow.training.checkpoint import Progress
from citeflow.training.distributed import Group
from citeflow.training.prometheus import USAGE_METRICS, Value, metric_texts, serve_metrics
from citeflow.training.resource_series import summarize
from citeflow.utils.logging import log
from citeflow.utils.system import METRICS_PORT_VARIABLE, cores_of_machine
from citeflow.utils.usage import StageMeter, Usage, UsageReader, machine_cpu_s, rates

INTERVAL_S = 1.0
"""Seconds between two samples, at first."""

JOIN_S = 5.0
"""Longest wait for a sample that hangs, as on a disk that does not answer."""

MAX_SAMPLES = 400
"""Beyond it, every two samples become one and the interval doubles: a day has no more than seven
minutes have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceSummary:
    """Resources that all ranks used together, since the last start of the workers."""

    train: dict[str, float]
    """`cpu_cores`: mean cores in use while they trained. `others_share`: share of the machines'
    cores that others used meanwhile. `peak_memory_bytes`: highest memory, pages that ranks of one
    machine share counted once. Unknown figures are left out."""

    cost: StageCost
    """Cost of the training, of all ranks."""

    series: Resources
    """What each rank used over time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankUsage:
    """Resources of one rank, as it sends them to the others."""

    samples: list[Usage]
    cpu_cores: float
    """Mean cores in use while it trained."""
    machine_cores: float
    """Mean cores in use by all of its machine meanwhile."""
    num_machine_cores: float
    """Cores of its machine; NaN where it may not use all of them."""
    cpu_s: float
    """CPU time of its whole work."""
    peak_rss_bytes: float


def others_share(ranks: Sequence[RankUsage], local_world_size: int) -> float:
    """Return the mean share of the machines' cores that others used while the ranks trained.

    Args:
        ranks: usage of all ranks.
        local_world_size: ranks of each machine.

    Returns:
        The share; NaN where it is unknown.
    """
    shares = []
    for first in range(0, len(ranks), local_world_size):
        own = sum(rank.cpu_cores for rank in ranks[first : first + local_world_size])
        machine = ranks[first]
        share = (machine.machine_cores - own) / machine.num_machine_cores
        # Below zero by the ticks of the machine's clock; `min` and `max` would lose a NaN.
        shares.append(share if math.isnan(share) else min(max(share, 0.0), 1.0))
    return sum(shares) / len(shares)


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
        names: Names,
        *,
        step: int,
        read: Callable[[], Usage] | None = None,
    ) -> None:
        """Prepare the monitor.

        Args:
            group: the process group.
            run: paths of the run.
            names: words of the task.
            step: step that the training resumes from.
            read: takes a sample; by default of this process.
        """
        super().__init__()
        self._group = group
        self._run = run
        self._names = names
        self._step = step
        self._progress: Progress | None = None
        self._log: ResourceLog | None = None
        self._cpu_cores = 0.0
        self._machine_cores = math.nan
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
            texts = metric_texts(self._names)
            self.enter_context(serve_metrics(port, self.metrics, texts=texts, labels=labels))
        return self

    @contextlib.contextmanager
    def fitting(self, progress: Progress) -> Iterator[None]:
        """Measure the cores in use within the block, and show the progress."""
        self._progress = progress
        start = time.monotonic()
        cpu_s = time.process_time()
        machine_s = machine_cpu_s()
        yield
        seconds = max(time.monotonic() - start, 1e-9)
        self._cpu_cores = (time.process_time() - cpu_s) / seconds
        self._machine_cores = (machine_cpu_s() - machine_s) / seconds

    def gather(self) -> ResourceSummary:
        """Summarize what all ranks used; every rank calls it."""
        mine = RankUsage(
            samples=self._sampler.samples_until_now(),
            cpu_cores=self._cpu_cores,
            machine_cores=self._machine_cores,
            num_machine_cores=cores_of_machine(),
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
            "others_share": others_share(ranks, self._group.local_world_size),
            "peak_memory_bytes": peak_bytes,
        }
        return ResourceSummary(train=_finite(train), cost=StageCost(**_finite(cost)), series=series)

    def metrics(self) -> dict[str, Value]:
        """Return the current value of each metric that is known by now."""
        usage = self._sampler.now()
        values: dict[str, Value] = {**self._volume_metrics()}
        if usage:
            values |= {name: getattr(usage, field) for name, (field, _) in USAGE_METRICS.items()}
        progress = self._progress
        if progress is None:
            return values
        values["citeflow_train_step"] = progress.step
        values[f"citeflow_train_{self._names.samples}_total"] = progress.samples
        if progress.evaluations:
            score = self._names.score
            values[f"citeflow_train_{score}"] = progress.evaluations[-1][score]
        if progress.history and self._group.is_main:
            values["citeflow_train_loss"] = progress.history[-1]["loss"]
        if progress.spent and self._group.is_main:
            spent = dict(progress.spent)  # the thread of the steps goes on
            values["citeflow_train_goodput_ratio"] = goodput.ratio(spent)
            values["citeflow_train_lost_seconds"] = goodput.losses(spent)
        return values

    def _volume_metrics(self) -> dict[str, float]:
        try:
            usage = shutil.disk_usage(self._run.data_root)
        except OSError:
            return {}
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


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _delete_old_ranks(run: RunPaths, world_size: int) -> None:
    """Delete the curves of ranks that an earlier run of this name had, and this one has not."""
    for folder in run.logs.glob("rank-*"):
        match = re.fullmatch(r"rank-(\d+)", folder.name)
        if match and int(match[1]) >= world_size:
            files.delete_directory(folder)

"""What a rank uses from beginning to end of its work: in TensorBoard, for Prometheus, and gathered for the model.

Nothing here may end a training: what fails is told once and left out.
"""

import contextlib
import math
import os
import re
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from citeflow import files
from citeflow.reporting.tensorboard import ResourceLog
from citeflow.training import prometheus
from citeflow.training import resource_series as series
from citeflow.training.checkpoint import Progress
from citeflow.training.distributed import Group
from citeflow.training.resource_sampler import Sampler
from citeflow.utils.logging import log
from citeflow.utils.usage import Source, Usage, rates


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What all ranks have used."""

    train: files.Json
    """`cpu_cores`: mean cores in use by all ranks while they trained. `peak_memory_bytes`: highest memory of all ranks
    together, pages that those of a machine share counted once; left out where it is unknown. Of the last start."""

    cost: files.Json
    """As a stage's cost, of all ranks together."""

    series: files.Json
    """Content of resources.json."""


class Watch(contextlib.ExitStack):
    """The sampler of this rank with all that hangs on it, for the length of a block."""

    def __init__(self, group: Group, run: str, log_dir: Path, *, step: int) -> None:
        """Prepare it.

        Args:
            group: this rank among all.
            run: name of the run.
            log_dir: the run's directory in TensorBoard's logs.
            step: that the training begins with.
        """
        super().__init__()
        self._group, self._run, self._log_dir, self._step = group, run, log_dir, step
        self._progress: Progress | None = None
        self._log: ResourceLog | None = None
        self._cores = 0.0
        self._sampler = Sampler(Source(), tell=self._tell)

    def __enter__(self) -> "Watch":
        """Begin."""
        super().__enter__()
        try:
            if self._group.is_first and not self._step:
                _delete_old_ranks(self._log_dir, self._group.world_size)
            self._log = ResourceLog(self._log_dir, self._group.rank, purge_step=self._step or None)
            self.callback(self._log.close)
        except OSError as error:
            log("train", "shows no resources in TensorBoard", why=error)
        self.enter_context(self._sampler)
        is_first_here = self._group.rank % self._group.local_world_size == 0
        port = os.environ.get(prometheus.PORT_VARIABLE) if is_first_here else None
        labels = {"run": self._run, "rank": str(self._group.rank)}
        self.enter_context(prometheus.served(port, self._sampler.now, self._facts, labels))
        return self

    @contextlib.contextmanager
    def fitting(self, progress: Progress) -> Iterator[None]:
        """Count the cores in use during the block, and tell how far the training has come."""
        self._progress = progress
        began, cpu_s = time.monotonic(), time.process_time()
        yield
        self._cores = (time.process_time() - cpu_s) / max(time.monotonic() - began, 1e-9)

    def gathered(self) -> Seen:
        """Bring together what all ranks have used; every rank calls it."""
        group, samples = self._group, self._sampler.until_now()
        content, peak = series.gather(
            samples,
            rank=group.rank,
            world_size=group.world_size,
            local_world_size=group.local_world_size,
            add_up=group.sum,
        )
        last = samples[-1] if samples else None
        counted = (last.read_bytes, last.written_bytes) if last else (math.nan, math.nan)
        cores, cpu_s, *disk = group.sum(self._cores, time.process_time(), *counted)
        cost = {
            "cpu_seconds": cpu_s,
            **dict(zip(("read_bytes", "written_bytes"), disk, strict=True)),
        }
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Seen(
            train=_known({"cpu_cores": cores, "peak_memory_bytes": peak}),
            cost={"peak_rss_bytes": rss, **_known(cost)},
            series=content,
        )

    def _tell(self, before: Usage, after: Usage) -> None:
        if not self._log:
            return
        step = self._progress.step if self._progress else self._step
        held = {"memory_bytes": after.rss_bytes, "container_memory_bytes": after.container_bytes}
        try:
            self._log.add(rates(before, after), held, step=step, wall_time=after.wall_time)
        except OSError as error:
            self._log = None
            log("train", "shows no more resources in TensorBoard", step=step, why=error.strerror)

    def _facts(self) -> dict[str, float]:
        progress = self._progress
        if not progress:
            return {}
        facts: dict[str, float] = {
            "citeflow_train_step": progress.step,
            "citeflow_train_citations_total": progress.positives,
        }
        if progress.evaluations:
            facts["citeflow_train_valid_mrr"] = progress.evaluations[-1]["valid_mrr"]
        if progress.history and self._group.is_first:
            facts["citeflow_train_loss"] = progress.history[-1]["loss"]
        return facts


def _known(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _delete_old_ranks(log_dir: Path, world_size: int) -> None:
    """A training that begins afresh may have fewer ranks than one of the same name before it."""
    for folder in log_dir.glob("rank-*"):
        match = re.fullmatch(r"rank-(\d+)", folder.name)
        if match and int(match[1]) >= world_size:
            files.delete_directory(folder)

"""How much of the machine has been used so far, by this process and by its container. Unknown amounts are NaN.

Figures of a container are those of its control group, version 1 or 2; where there is none, those of the machine.
"""

import contextlib
import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
NOTHING = (math.nan, math.nan)


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """A sample: times and bytes since the start of the process, the container or the network, memory as it is now."""

    at: float
    """Seconds of the monotonic clock."""

    wall_time: float
    cpu_s: float
    rss_bytes: float
    """Resident memory of the process."""

    shared_bytes: float
    """As much of it is mapped files and shared memory, which other processes may have mapped too."""

    read_bytes: float
    """From disks, by the process."""

    written_bytes: float
    container_cpu_s: float
    container_bytes: float
    """Memory without what the kernel would drop first: pages of files that were not read lately."""

    received_bytes: float
    """Over the network, by all of the pod or the machine; what stays within it does not count."""

    sent_bytes: float


class Source:
    """Where samples come from; what a system does not tell when it begins is unknown in all of them."""

    def __init__(self, cgroup: Path = CGROUP) -> None:
        """Find out what this system tells.

        Args:
            cgroup: where control groups are mounted.
        """
        self._process = psutil.Process()
        self._disk = _first_that_reads(lambda: _disk(self._process))
        self._network = _first_that_reads(_network)
        self._cpu = _first_that_reads(
            lambda: (_cpu_v2(cgroup),), lambda: (_cpu_v1(cgroup),), lambda: (_cpu(),)
        )
        self._memory = _first_that_reads(
            lambda: (_memory_v2(cgroup),), lambda: (_memory_v1(cgroup),), lambda: (_memory(),)
        )

    def read(self) -> Usage:
        """Take a sample.

        Raises:
            Exception: what was there at first is gone; psutil raises many kinds.
        """
        memory = self._process.memory_info()
        (read, written), (received, sent) = self._disk(), self._network()
        return Usage(
            at=time.monotonic(),
            wall_time=time.time(),
            cpu_s=time.process_time(),
            rss_bytes=memory.rss,
            shared_bytes=memory.shared,
            read_bytes=read,
            written_bytes=written,
            container_cpu_s=self._cpu()[0],
            container_bytes=self._memory()[0],
            received_bytes=received,
            sent_bytes=sent,
        )


COUNTED = {
    "cpu_cores": "cpu_s",
    "container_cpu_cores": "container_cpu_s",
    "read_bytes_per_s": "read_bytes",
    "written_bytes_per_s": "written_bytes",
    "received_bytes_per_s": "received_bytes",
    "sent_bytes_per_s": "sent_bytes",
}
"""Rates, and the counters that they are the growth of."""


def rates(before: Usage, after: Usage) -> dict[str, float]:
    """Cores in use, and bytes a second, between two samples."""
    seconds = max(after.at - before.at, 1e-9)
    grown = {name: getattr(after, key) - getattr(before, key) for name, key in COUNTED.items()}
    return {
        name: max(0.0, growth / seconds) if math.isfinite(growth) else growth
        for name, growth in grown.items()
    }


def spent() -> dict[str, float]:
    """Seconds, and what this process and those that it waited for have used so far; what is unknown is left out."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    process = psutil.Process()
    read, written = _first_that_reads(lambda: _disk(process))()
    received, sent = _first_that_reads(_network)()
    counted = {
        "seconds": time.monotonic(),
        "cpu_seconds": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        "read_bytes": read,
        "written_bytes": written,
        "received_bytes": received,
        "sent_bytes": sent,
    }
    return {name: value for name, value in counted.items() if math.isfinite(value)}


def _first_that_reads(*reads: Callable[[], tuple[float, ...]]) -> Callable[[], tuple[float, ...]]:
    for read in reads:
        with contextlib.suppress(Exception):  # psutil raises RuntimeError and AttributeError, too
            read()
            return read
    return lambda: NOTHING


def _disk(process: psutil.Process) -> tuple[float, float]:
    counted = process.io_counters()
    return counted.read_bytes, counted.write_bytes


def _network() -> tuple[float, float]:
    counted = [
        each
        for name, each in psutil.net_io_counters(pernic=True, nowrap=False).items()
        if name != "lo"
    ]
    return sum(each.bytes_recv for each in counted), sum(each.bytes_sent for each in counted)


def _cpu_v2(cgroup: Path) -> float:
    return _entry(cgroup / "cpu.stat", "usage_usec") / 1e6


def _cpu_v1(cgroup: Path) -> float:
    return int((cgroup / "cpuacct" / "cpuacct.usage").read_text()) / 1e9


def _cpu() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def _memory_v2(cgroup: Path) -> float:
    return int((cgroup / "memory.current").read_text()) - _entry(
        cgroup / "memory.stat", "inactive_file"
    )


def _memory_v1(cgroup: Path) -> float:
    folder = cgroup / "memory"
    used = int((folder / "memory.usage_in_bytes").read_text())
    return used - _entry(folder / "memory.stat", "total_inactive_file")


def _memory() -> float:
    memory = psutil.virtual_memory()
    return float(memory.total - memory.available)


def _entry(path: Path, name: str) -> int:
    """A figure of a file that has a name and a figure in each line."""
    return int(dict(line.split() for line in path.read_text().splitlines())[name])


class StageMeter:
    """Measures what a stage takes, from the moment that it is made."""

    def __init__(self) -> None:
        self._start = spent()

    def cost(self) -> dict[str, float]:
        """Return what was spent so far, by the names of `report.StageCost`."""
        now = spent()
        counted = {name: now[name] - value for name, value in self._start.items() if name in now}
        peaks = [
            resource.getrusage(who).ru_maxrss
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        return {**counted, "peak_rss_bytes": float(max(peaks) * 1024)}

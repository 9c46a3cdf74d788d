"""Measures what this process and its container use. Figures that the system does not give are NaN.

Figures of a container are those of its control group, version 1 or 2; without one, the machine's.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """A sample: counters since the start of process, container or network, and current memory."""

    at: float
    """Seconds of the monotonic clock."""

    wall_time: float
    """Seconds since 1970."""

    cpu_s: float
    """CPU time of the process."""

    rss_bytes: float
    """Resident memory of the process."""

    shared_bytes: float
    """Mapped files and shared memory in it, which other processes may map too."""

    read_bytes: float
    """From disks, by the process."""

    written_bytes: float
    """To disks, by the process."""

    container_cpu_s: float
    """CPU time of the container."""

    container_bytes: float
    """Memory of the container, without file pages that the kernel would drop first."""

    received_bytes: float
    """Over the network, by all of the pod or machine; the loopback does not count."""

    sent_bytes: float
    """As `received_bytes`."""


class UsageReader:
    """Reads samples; a figure that cannot be read at the start stays unknown in all of them."""

    def __init__(self, cgroup: Path = CGROUP) -> None:
        self._process = psutil.Process()
        self._disk = _first_readable(lambda: _disk(self._process))
        self._network = _first_readable(_network)
        self._cpu = _first_readable(
            lambda: (_cpu_v2(cgroup),), lambda: (_cpu_v1(cgroup),), lambda: (_cpu_of_machine(),)
        )
        self._memory = _first_readable(
            lambda: (_memory_v2(cgroup),),
            lambda: (_memory_v1(cgroup),),
            lambda: (_memory_of_machine(),),
        )

    def read(self) -> Usage:
        """Take a sample.

        Raises:
            Exception: a figure that was there at the start is gone; psutil raises many kinds.
        """
        memory = self._process.memory_info()
        read_bytes, written_bytes = self._disk()
        received_bytes, sent_bytes = self._network()
        return Usage(
            at=time.monotonic(),
            wall_time=time.time(),
            cpu_s=time.process_time(),
            rss_bytes=memory.rss,
            shared_bytes=memory.shared,
            read_bytes=read_bytes,
            written_bytes=written_bytes,
            container_cpu_s=self._cpu()[0],
            container_bytes=self._memory()[0],
            received_bytes=received_bytes,
            sent_bytes=sent_bytes,
        )


COUNTERS = {
    "cpu_cores": "cpu_s",
    "container_cpu_cores": "container_cpu_s",
    "read_bytes_per_s": "read_bytes",
    "written_bytes_per_s": "written_bytes",
    "received_bytes_per_s": "received_bytes",
    "sent_bytes_per_s": "sent_bytes",
}
"""Rates, and the fields of Usage whose growth they are."""


def rates(before: Usage, after: Usage) -> dict[str, float]:
    """Return cores in use, and bytes a second, between two samples."""
    seconds = max(after.at - before.at, 1e-9)
    growth = {name: getattr(after, key) - getattr(before, key) for name, key in COUNTERS.items()}
    return {
        name: max(0.0, value / seconds) if math.isfinite(value) else value
        for name, value in growth.items()
    }


class StageMeter:
    """Measures what a stage costs, from the moment that it is made."""

    def __init__(self) -> None:
        self._start = _spent()

    def cost(self) -> dict[str, float]:
        """Return what was spent so far, by the names of `report.StageCost`."""
        now = _spent()
        counted = {name: now[name] - value for name, value in self._start.items() if name in now}
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak_kib = max(own.ru_maxrss, children.ru_maxrss)
        return {**counted, "peak_rss_bytes": float(peak_kib * 1024)}


def _spent() -> dict[str, float]:
    """Return what this process and those that it waited for used; unknown figures are left out."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = psutil.Process()
    read_bytes, written_bytes = _first_readable(lambda: _disk(process))()
    received_bytes, sent_bytes = _first_readable(_network)()
    counted = {
        "seconds": time.monotonic(),
        "cpu_seconds": own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime,
        "read_bytes": read_bytes,
        "written_bytes": written_bytes,
        "received_bytes": received_bytes,
        "sent_bytes": sent_bytes,
    }
    return {name: value for name, value in counted.items() if math.isfinite(value)}


def machine_cpu_s() -> float:
    """Return the CPU time of all that ran on the machine, other guests of its host included."""
    return _first_readable(lambda: (_cpu_of_machine(),))()[0]


def _first_readable(*reads: Callable[[], tuple[float, ...]]) -> Callable[[], tuple[float, ...]]:
    for read in reads:
        with contextlib.suppress(Exception):  # psutil raises RuntimeError and AttributeError, too
            read()
            return read
    return lambda: (math.nan, math.nan)


def _disk(process: psutil.Process) -> tuple[float, float]:
    counters = process.io_counters()
    return counters.read_bytes, counters.write_bytes


def _network() -> tuple[float, float]:
    interfaces = psutil.net_io_counters(pernic=True, nowrap=False)
    counters = [each for name, each in interfaces.items() if name != "lo"]
    return sum(each.bytes_recv for each in counters), sum(each.bytes_sent for each in counters)


def _cpu_v2(cgroup: Path) -> float:
    return _entry(cgroup / "cpu.stat", "usage_usec") / 1e6


def _cpu_v1(cgroup: Path) -> float:
    return int((cgroup / "cpuacct" / "cpuacct.usage").read_text()) / 1e9


def _cpu_of_machine() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def _memory_v2(cgroup: Path) -> float:
    used = int((cgroup / "memory.current").read_text())
    return used - _entry(cgroup / "memory.stat", "inactive_file")


def _memory_v1(cgroup: Path) -> float:
    used = int((cgroup / "memory" / "memory.usage_in_bytes").read_text())
    return used - _entry(cgroup / "memory" / "memory.stat", "total_inactive_file")


def _memory_of_machine() -> float:
    memory = psutil.virtual_memory()
    return float(memory.total - memory.available)


def _entry(path: Path, name: str) -> int:
    """Return one figure of a file that has a name and a figure in each line."""
    return int(dict(line.split() for line in path.read_text().splitlines())[name])

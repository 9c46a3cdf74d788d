"""What the workers of this machine run on: their cores, their threads, and how their memory is kept.

A training step allocates the same large arrays again and again. glibc gives those above 32 MB back to the kernel each
time, and every new page of the next step is a fault. Told to keep them, in large pages, a step of 60,000 papers takes
three quarters of the time; one of 20,000 has no such arrays and takes the same (`benchmarks/step.py`).
"""

import contextlib
import ctypes
import math
import os
from collections.abc import Mapping
from pathlib import Path

import psutil

KEEP_MEMORY = {
    "glibc.malloc.arena_max": 1,
    "glibc.malloc.mmap_max": 0,
    "glibc.malloc.trim_threshold": 2**60,
    "glibc.malloc.top_pad": 64 * 2**20,
    "glibc.malloc.hugetlb": 1,
}
"""Tunables of glibc: one heap, nothing mapped by itself, nothing given back, large pages where the kernel has them."""


def environment(inherited: Mapping[str, str], workers: int) -> dict[str, str]:
    """Variables for the workers: threads by cores (with more, every rank waits for every other), memory kept.

    Tunables that the user has set stay as they are.
    """
    tunables = ":".join(f"{name}={value}" for name, value in KEEP_MEMORY.items())
    return {
        "GLIBC_TUNABLES": tunables,
        **inherited,
        "OMP_NUM_THREADS": str(max(1, num_cores() // workers)),
    }


def malloc_trim() -> None:
    """Let the kernel have what the heap keeps, once, before something else needs the room."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def bind(local_rank: int, local_world_size: int) -> None:
    """Keep this worker on cores of its own, as many for each; where there are not enough, on all of them."""
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // local_world_size
    if share and num_cores() == len(cores):
        os.sched_setaffinity(0, cores[local_rank * share : (local_rank + 1) * share])


def num_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: those it is bound to, or fewer where its container has a limit."""
    bound = len(os.sched_getaffinity(0))
    for read in (_limit_v2, _limit_v1):
        with contextlib.suppress(OSError, ValueError):
            quota, period = read(cgroup)
            return max(1, min(bound, math.ceil(quota / period))) if quota > 0 else bound
    return bound


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may use: the machine's, or less where its container has a limit."""
    limits = [int(psutil.virtual_memory().total)]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int((cgroup / name).read_text()))
    return min(limits)


def oom_kills(cgroup: Path = Path("/sys/fs/cgroup"), machine: Path = Path("/proc/vmstat")) -> int:
    """How many processes of this container, or else of this machine, the kernel has killed for want of memory."""
    for path in (cgroup / "memory.events", cgroup / "memory/memory.oom_control", machine):
        with contextlib.suppress(OSError, ValueError):
            counted = dict(line.split() for line in path.read_text().splitlines())
            return int(counted.get("oom_kill", 0))
    return 0


def _limit_v2(cgroup: Path) -> tuple[int, int]:
    quota, period = (cgroup / "cpu.max").read_text().split()
    return (0 if quota == "max" else int(quota)), int(period)


def _limit_v1(cgroup: Path) -> tuple[int, int]:
    quota, period = (
        (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
    )
    return int(quota), int(period)

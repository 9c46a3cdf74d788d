"""The machine below a worker: its cores, its memory, and the environment that it is started with.

A training step allocates the same large arrays again and again. glibc returns those above 32 MB to
the kernel each time, and every page of the next step is a page fault. With the tunables below a
step of 60,000 papers takes three quarters of the time; one of 20,000 has no such arrays, and takes
the same (`benchmarks/step.py`).
"""

import contextlib
import ctypes
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
VMSTAT = Path("/proc/vmstat")

METRICS_PORT_VARIABLE = "CITEFLOW_METRICS_PORT"
"""Environment variable with the port on which a worker serves metrics to Prometheus."""

MALLOC_TUNABLES = {
    "glibc.malloc.arena_max": 1,
    "glibc.malloc.mmap_max": 0,
    "glibc.malloc.trim_threshold": 2**60,
    "glibc.malloc.top_pad": 64 * 2**20,
    "glibc.malloc.hugetlb": 1,
}
"""One heap, no separate mappings, nothing returned to the kernel, huge pages if possible."""

MALLOC_TUNABLES_VARIABLE = "GLIBC_TUNABLES"
"""Environment variable that glibc reads them from."""

INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""Environment variables that name the network interface of the ranks."""

TORCHRUN_VARIABLES = {
    # Its agents share a store by default. One that joins later then waits for an address that the
    # others, who know it, never write again, or finds that of a worker that has died. Without
    # sharing, every round of the rendezvous makes a store of its own.
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    # Else each connection that a lost worker leaves is a page of C++ frames in the log.
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # By default oneDNN and torch each keep what was compiled for 1,024 shapes, a MB or so apiece.
    # Those of citations are new in every step; those of a convolutional network are some fifty.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
}
"""Environment variables of torchrun and all below it."""

_IGNORED = re.compile(
    r"PET_.*|TORCHELASTIC_.*|MASTER_(ADDR|PORT)|((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE))"
    r"|(GLOO|NCCL|TP)_SOCKET_IFNAME|PYTHONWARNINGS|TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
)
"""Variables by which operators and images describe a training across machines; the one that makes
errors of the warnings of torch_geometric, which each start of the workers would meet; and the one
without which no worker is replaced."""

SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Keeps the working folder out of `sys.path`: a file named torch.py in it is data, never code."""


def malloc_tunables() -> str:
    """Return MALLOC_TUNABLES as glibc reads them."""
    return ":".join(f"{name}={value}" for name, value in MALLOC_TUNABLES.items())


def worker_environment(inherited: Mapping[str, str], workers: int) -> dict[str, str]:
    """Return the environment variables of the workers that share this machine.

    Tunables that the user has set stay as they are. What an image or a shell says of a training
    across machines is left out: ranks of one machine meet on its loopback interface.
    """
    # With more threads than cores, every rank waits in every step for the one that was preempted.
    threads = max(1, num_cores() // workers)
    loopback = loopback_interface()
    return {
        MALLOC_TUNABLES_VARIABLE: malloc_tunables(),
        **TORCHRUN_VARIABLES,
        **{name: value for name, value in inherited.items() if not _IGNORED.fullmatch(name)},
        **SAFE_PATH,
        **dict.fromkeys(INTERFACE_VARIABLES if loopback else (), loopback),
        "OMP_NUM_THREADS": str(threads),
    }


def ignored_variables(inherited: Mapping[str, str]) -> list[str]:
    """List the variables that workers on one machine do not get, or get with another value."""
    return sorted(name for name in inherited if _IGNORED.fullmatch(name))


def loopback_interface() -> str:
    """Return the name of the interface with the address 127.0.0.1; "" if there is none."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == "127.0.0.1" for each in addresses):
            return name
    return ""


def malloc_trim() -> None:
    """Return free memory of the heap to the kernel, once, before something else needs it."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def bind_to_cores(local_rank: int, local_world_size: int) -> None:
    """Pin this worker to cores of its own, as many for each; too few cores are left unpinned."""
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // local_world_size
    # A container with a CPU quota may use any core for a part of the time, and so may others:
    # pinned there, two workers of different containers could end up on the same cores.
    if share and num_cores() == len(cores):
        os.sched_setaffinity(0, cores[local_rank * share : (local_rank + 1) * share])


def num_cores(cgroup: Path = CGROUP) -> int:
    """Count the cores that this process may use, within the CPU quota of its container."""
    available = len(os.sched_getaffinity(0))
    quota = _cpu_quota(cgroup)
    return max(1, math.ceil(quota)) if quota < available else available


def cores_of_machine(cgroup: Path = CGROUP) -> float:
    """Count the cores of the machine; NaN where a container may not use all of them."""
    cores = os.cpu_count() or math.nan
    return cores if _cpu_quota(cgroup) >= cores else math.nan


def memory_limit(cgroup: Path = CGROUP) -> int:
    """Return the bytes that this process may use: the machine's, or its container's limit."""
    limits = [int(psutil.virtual_memory().total)]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int((cgroup / name).read_text()))
    return min(limits)


def oom_kills(cgroup: Path = CGROUP, vmstat: Path = VMSTAT) -> int:
    """Count the processes of this container, or else machine, that the OOM killer has ended."""
    for path in (cgroup / "memory.events", cgroup / "memory/memory.oom_control", vmstat):
        with contextlib.suppress(OSError, ValueError):
            counters = dict(line.split() for line in path.read_text().splitlines())
            return int(counters.get("oom_kill", 0))
    return 0


def _cpu_quota(cgroup: Path) -> float:
    """Return the cores that the container may keep busy; infinite without a limit."""
    for read_quota in (_quota_v2, _quota_v1):
        with contextlib.suppress(OSError, ValueError):
            quota, period = read_quota(cgroup)
            return quota / period if quota > 0 else math.inf
    return math.inf


def _quota_v2(cgroup: Path) -> tuple[int, int]:
    quota, period = (cgroup / "cpu.max").read_text().split()
    return (0 if quota == "max" else int(quota)), int(period)


def _quota_v1(cgroup: Path) -> tuple[int, int]:
    quota = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
    period = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
    return quota, period

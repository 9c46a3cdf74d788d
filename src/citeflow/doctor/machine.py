"""Check the machine that this process runs on."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from citeflow.doctor import Finding, Status, expect
from citeflow.errors import INSTALL
from citeflow.training import sandbox
from citeflow.utils.system import memory_limit, num_cores

PYTHON = (3, 11)

EXTRAS = {
    "train": (
        "matplotlib",
        "pillow",
        "prometheus-client",
        "safetensors",
        "scikit-learn",
        "tensorboard",
        "torch",
        "torch-geometric",
    ),
    "kfp": ("kfp", "kfp-kubernetes", "kubeflow-training", "kubernetes"),
}
"""Packages of citeflow's extras."""

GIB = 2**30
MEMORY_GIB = 4
DISK_GIB = 10
SHARED_MEMORY_GIB = 1
"""Needs of a small graph, with room to spare."""


def check(data_root: Path, *, trains_here: bool) -> Iterator[Finding]:
    """Check Python, packages, cores, memory and disk.

    Args:
        data_root: folder of data and runs.
        trains_here: whether what only training needs is `missing`, or a warning.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    yield expect(sys.version_info >= PYTHON, "Python", version, "3.11 or newer")
    for extra in EXTRAS:
        yield check_packages(extra, is_must=trains_here or extra == "kfp")
    yield Finding(status="ok", what="cores", value=str(num_cores()))
    memory = memory_limit() / GIB
    hint = "docs/performance.md says what a graph needs; a smaller train.nodes_per_batch needs less"
    yield expect(memory >= MEMORY_GIB, "memory", f"{memory:.1f} GiB", hint, otherwise="warning")
    yield from check_disk(data_root, is_must=trains_here)
    yield from check_shared_memory(Path("/dev/shm"))
    problem = sandbox.find_problem()
    value = problem or "bubblewrap makes one"
    hint = f"only a model.code that is trained here needs it: {sandbox.INSTALL}"
    yield expect(not problem, "sandbox", value, hint, otherwise="note")


def check_packages(extra: str, *, is_must: bool) -> Finding:
    """Check that the packages of an extra are installed."""
    missing = []
    present = []
    for name in EXTRAS[extra]:
        try:
            present.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    value = f"not installed: {', '.join(missing)}" if missing else ", ".join(present)
    otherwise: Status = "missing" if is_must else "warning"
    return expect(not missing, f"packages [{extra}]", value, INSTALL, otherwise=otherwise)


def check_disk(data_root: Path, *, is_must: bool) -> Iterator[Finding]:
    """Check that the data root, or the folder to make it in, is writable and has room."""
    folder = next(path for path in (data_root, *data_root.parents) if path.exists())
    is_writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    hint = f"{folder} is not writable for user {os.getuid()}; set --data-root"
    otherwise: Status = "missing" if is_must else "warning"
    yield expect(is_writable, "data root", data_root, hint, otherwise=otherwise)
    free = shutil.disk_usage(folder).free / GIB
    hint = "another --data-root"
    yield expect(free >= DISK_GIB, "free disk", f"{free:.1f} GiB", hint, otherwise="warning")


def check_shared_memory(folder: Path) -> Iterator[Finding]:
    """Check the shared memory in which the workers of a machine share arrays."""
    if folder.is_dir():
        size = shutil.disk_usage(folder).total / GIB
        hint = "mount a larger one, as `docker run --shm-size=1g`"
        is_large = size >= SHARED_MEMORY_GIB
        yield expect(is_large, str(folder), f"{size:.1f} GiB", hint, otherwise="warning")

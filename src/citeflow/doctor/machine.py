"""Checks of the machine that this process runs on."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from citeflow.doctor import Finding, expect
from citeflow.errors import INSTALL
from citeflow.utils.system import memory_limit, num_cores

PYTHON = (3, 11)

EXTRAS = {
    "train": (
        "matplotlib",
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
MEMORY_GIB, DISK_GIB, SHARED_GIB = 4, 10, 1
"""What a small graph needs, with room to spare."""


def check(data_root: Path, *, trains_here: bool) -> Iterator[Finding]:
    """Python, packages, cores, memory and disk; where training is done elsewhere, what it needs is no must."""
    here = ".".join(map(str, sys.version_info[:3]))
    yield expect(sys.version_info >= PYTHON, "Python", here, "3.11 or newer")
    yield from (_packages(extra, is_must=trains_here or extra == "kfp") for extra in EXTRAS)
    yield Finding(status="ok", what="cores", value=str(num_cores()))
    memory = memory_limit() / GIB
    low = "docs/performance.md says what a graph needs; a smaller train.nodes_per_batch needs less"
    yield expect(memory >= MEMORY_GIB, "memory", f"{memory:.1f} GiB", low, otherwise="warning")
    yield from _folder(data_root, is_must=trains_here)
    yield from _shared_memory(Path("/dev/shm"))


def _packages(extra: str, *, is_must: bool) -> Finding:
    missing, present = [], []
    for name in EXTRAS[extra]:
        try:
            present.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    value = f"not installed: {', '.join(missing)}" if missing else ", ".join(present)
    return expect(
        not missing,
        f"packages [{extra}]",
        value,
        INSTALL,
        otherwise="missing" if is_must else "warning",
    )


def _folder(data_root: Path, *, is_must: bool) -> Iterator[Finding]:
    """Whether the data root can be written to, and the room in it; the nearest folder above, while there is none."""
    place = next(path for path in (data_root, *data_root.parents) if path.exists())
    writable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    hint = f"{place} is not writable for user {os.getuid()}; set --data-root"
    yield expect(
        writable, "data root", data_root, hint, otherwise="missing" if is_must else "warning"
    )
    free = shutil.disk_usage(place).free / GIB
    yield expect(
        free >= DISK_GIB, "free disk", f"{free:.1f} GiB", "another --data-root", otherwise="warning"
    )


def _shared_memory(folder: Path) -> Iterator[Finding]:
    if folder.is_dir():
        size = shutil.disk_usage(folder).total / GIB
        hint = "workers of one machine share arrays there: mount a larger one, as `docker run --shm-size=1g`"
        yield expect(size >= SHARED_GIB, str(folder), f"{size:.1f} GiB", hint, otherwise="warning")

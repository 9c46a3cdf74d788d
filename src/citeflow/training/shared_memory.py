"""Arrays that the processes of one machine share."""

import contextlib
import math
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np

from citeflow.errors import CiteflowError

SHARED_MEMORY = Path("/dev/shm")


def shared_array(name: str, shape: tuple[int, ...], *, create: bool) -> np.ndarray:
    """Create or open a float32 array in shared memory or, where that is full, in a temporary file.

    Raises:
        CiteflowError: neither has room for it.
    """
    size = math.prod(shape) * np.dtype(np.float32).itemsize
    candidates = _paths(name) if create else [path for path in _paths(name) if path.exists()]
    for path in candidates:
        try:
            return _map(path, size, create).view(np.float32).reshape(shape)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
    raise CiteflowError(
        "no room for an array that the workers share", f"{size:,} bytes", hint="set TMPDIR"
    )


def unshare(name: str) -> None:
    """Remove the name of a shared array; its memory lives until the last process unmaps it."""
    for path in _paths(name):
        path.unlink(missing_ok=True)


def _paths(name: str) -> list[Path]:
    return [SHARED_MEMORY / name, Path(tempfile.gettempdir()) / name]


def _map(path: Path, size: int, create: bool) -> np.ndarray:
    with path.open("x+b" if create else "r+b") as file:
        if create:
            # Without it, a lack of room is a SIGBUS at the first write to a page and no error here.
            os.posix_fallocate(file.fileno(), 0, max(1, size))
        return np.frombuffer(mmap.mmap(file.fileno(), max(1, size)), dtype=np.uint8, count=size)

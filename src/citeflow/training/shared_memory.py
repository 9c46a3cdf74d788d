"""Arrays that the processes of one machine have in common."""

import contextlib
import math
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np

from citeflow.errors import UnavailableError


def shared_array(name: str, shape: tuple[int, ...], *, create: bool) -> np.ndarray:
    """An array of float32 that the processes of this machine share, in shared memory or, without room there, on disk.

    Every page is reserved when it is created, so that a lack of room is an error here and no crash later.

    Raises:
        UnavailableError: there is no room for it.
    """
    size = math.prod(shape) * np.dtype(np.float32).itemsize
    for path in _shared_places(name) if create else filter(Path.exists, _shared_places(name)):
        try:
            return _map_shared(path, size, create).view(np.float32).reshape(shape)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
    raise UnavailableError(
        "no room for an array that the workers share", f"{size:,} bytes", hint="set TMPDIR"
    )


def unshare(name: str) -> None:
    """Take the name of a shared array away; it lives until the last process that has it ends."""
    for path in _shared_places(name):
        path.unlink(missing_ok=True)


def _shared_places(name: str) -> list[Path]:
    return [Path("/dev/shm") / name, Path(tempfile.gettempdir()) / name]


def _map_shared(path: Path, size: int, create: bool) -> np.ndarray:
    with path.open("x+b" if create else "r+b") as file:
        if create:
            os.posix_fallocate(file.fileno(), 0, max(1, size))
        return np.frombuffer(mmap.mmap(file.fileno(), max(1, size)), dtype=np.uint8, count=size)

"""Arrays with a row for each paper: in memory, or on the disk where they would fill it.

Those on the disk are maps of temporary files without a name. What the kernel writes of them, and
reads again, it decides by the memory that is free; so they take the memory of nothing else.
"""

import contextlib
import ctypes
import math
import mmap
import os
import secrets
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from citeflow.errors import CiteflowError
from citeflow.utils.system import memory_limit

SHARED_MEMORY = Path("/dev/shm")

LARGEST_SHARE = 0.25
"""Share of the memory that this process may use, above which an array lies on the disk. While all
papers are embedded there are two such arrays, and half of the memory is for all else."""

BLOCK = 1 << 20
"""Bytes of an array that are not worth a look at how much memory there is."""

COUNTED = 1 << 22
"""Values that are counted at once, at least."""


def fits_in_memory(size: int, allowed: int) -> bool:
    """Return True if an array of so many bytes is kept in memory, of the bytes that are allowed."""
    return size <= LARGEST_SHARE * allowed


def large_array(
    shape: tuple[int, ...], dtype: DTypeLike = np.float32, *, share: float = LARGEST_SHARE
) -> np.ndarray:
    """Create an array of this process.

    Args:
        shape: of the array.
        dtype: of its values.
        share: of the memory that this process may use, which the array fills at most in memory.

    Raises:
        CiteflowError: it belongs on the disk, and there is no room for it.
    """
    if _size(shape, dtype) <= share * memory_limit():
        return np.empty(shape, dtype)
    name = f"citeflow-{secrets.token_hex(6)}"
    array = _open(_paths(name)[1:], shape, dtype, create=True)
    unshare(name)
    return array


def read_ahead(array_NF: np.ndarray, rows: np.ndarray) -> None:
    """Have the kernel read some rows of an array that lies on the disk, all of them at a time.

    Else whoever takes rows from everywhere waits for one after the other, and the kernel reads what
    is around each, too. An array that memory has room for stays as it is.
    """
    if array_NF.nbytes <= BLOCK or fits_in_memory(array_NF.nbytes, memory_limit()):
        return
    begin_S = array_NF.ctypes.data + np.unique(rows).astype(np.int64) * array_NF.strides[0]
    end_S = begin_S + array_NF.strides[0]
    begin_S -= begin_S % mmap.PAGESIZE
    is_first_S = np.append(True, begin_S[1:] > end_S[:-1])[: len(begin_S)]
    is_last_S = np.append(is_first_S[1:], True)[: len(begin_S)]
    madvise = ctypes.CDLL(None).madvise
    for begin, end in zip(begin_S[is_first_S].tolist(), end_S[is_last_S].tolist(), strict=True):
        madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_WILLNEED)


def count_values(value_E: np.ndarray, num_values: int) -> np.ndarray:
    """Count how often each number below `num_values` occurs, int64.

    It is numpy's bincount, but of parts: of all at once it makes a copy in int64, which for the
    citations of a large graph is twice as large as they are.
    """
    count_N = np.zeros(num_values, dtype=np.int64)
    size = max(COUNTED, num_values)
    for first in range(0, len(value_E), size):
        count_N += np.bincount(value_E[first : first + size], minlength=num_values)
    return count_N


def shared_array(
    name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float32, *, create: bool
) -> np.ndarray:
    """Create or open an array of the processes of this machine.

    It lies in shared memory or, where that is full or the array would fill it, in a temporary file.

    Raises:
        CiteflowError: neither has room for it.
    """
    paths = _paths(name)
    if not create:
        paths = [path for path in paths if path.exists()]
    elif not fits_in_memory(_size(shape, dtype), memory_limit()):
        paths = paths[1:]
    return _open(paths, shape, dtype, create=create)


def unshare(name: str) -> None:
    """Remove the name of a shared array; it lives until the last process unmaps it."""
    for path in _paths(name):
        path.unlink(missing_ok=True)


def _open(
    paths: list[Path], shape: tuple[int, ...], dtype: DTypeLike, *, create: bool
) -> np.ndarray:
    """Map the first of these files that has room.

    Raises:
        CiteflowError: none has.
    """
    size = _size(shape, dtype)
    for path in paths:
        try:
            return _map(path, size, create).view(dtype).reshape(shape)
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
    raise CiteflowError(
        "no room for an array of all papers", f"{size:,} bytes", hint="set TMPDIR to a larger disk"
    )


def _size(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _paths(name: str) -> list[Path]:
    return [SHARED_MEMORY / name, Path(tempfile.gettempdir()) / name]


def _map(path: Path, size: int, create: bool) -> np.ndarray:
    with path.open("x+b" if create else "r+b") as file:
        if create:
            # Without it, a lack of room is a SIGBUS at the first write to a page and no error here.
            os.posix_fallocate(file.fileno(), 0, max(1, size))
        return np.frombuffer(mmap.mmap(file.fileno(), max(1, size)), dtype=np.uint8, count=size)
